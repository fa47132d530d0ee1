"""Settings of a training run: a tree of frozen dataclasses that validate themselves."""

import itertools
from dataclasses import dataclass

from vitral.config.checks import check_choice, check_not_negative, check_positive, check_share
from vitral.config.model import ModelConfig
from vitral.config.preprocessing import Preprocessing
from vitral.errors import RequestError

DEVICES = ("auto", "cpu", "cuda", "mps")
PRECISIONS = ("auto", "float32", "bfloat16", "float16")


@dataclass(frozen=True)
class DataSettings:
    """Where the examples are and which of them are used."""

    source: str
    """A folder, a .csv, an .npz, or the name of a data set."""
    unlabelled: str = ""
    """Where additional unlabelled examples are, for an objective that learns from them too."""
    directory: str = ""
    """Where the files of a named data set are; empty: `$VITRAL_DATA_DIR`, else `data`."""
    max_unreadable: float = 0.01
    """Share of unreadable training images above which training stops (and more than one)."""
    validation_share: float = 0.05
    """Share of the training images held out, by content hash, when there is no validation split."""
    group_pattern: str = ""
    """A regular expression that finds the group (a patient, a place, a film) in an image's name:
    the match of its first parentheses, or of all of it; empty: the source's own groups, if any.
    No group is divided between splits."""
    folds: int = 0
    """Number of stratified folds, one of which is the test split; 0: the usual splits."""
    fold: int = 0
    """Which of these folds is the test split, from 0."""
    scaled_decoding: bool = False
    """Whether training JPEGs are decoded at 1/2, 1/4 or 1/8 of their size where their crop still
    fills the model: several times as fast on large photos, with slightly other grey levels.
    Evaluation and prediction always decode them whole."""
    workers: int = -1
    """Threads that decode; 0: only the main one; -1: by the number of cores. Changes no result."""
    keep_decoded: str = "auto"
    """"on" or "off": whether decoded images are kept in memory; "auto": if all of them take at most
    a quarter of the free memory and at most 8 GiB. Changes no result."""

    def __post_init__(self) -> None:
        check_choice(("auto", "on", "off"), keep_decoded=self.keep_decoded)
        if self.scaled_decoding and self.keep_decoded == "on":
            raise RequestError(
                "scaled_decoding has no effect with keep_decoded='on': kept images are whole"
            )
        if self.folds < 0 or self.folds == 1:
            raise RequestError(f"folds={self.folds}: give 2 or more, or 0 for the usual splits")
        if not 0 <= self.fold < max(self.folds, 1):
            wanted = f"0 to {self.folds - 1}" if self.folds else "folds too, such as folds=5"
            raise RequestError(f"fold={self.fold}: give {wanted}")
        check_share(max_unreadable=self.max_unreadable, validation_share=self.validation_share)


@dataclass(frozen=True)
class AugmentSettings:
    """Random changes of the training images, each a function of (seed, epoch, index)."""

    crop: str = "inception"
    """"inception": a random box (Szegedy et al., arXiv 1409.4842); "random": the model's size, cut
    at a random place out of the image squashed to a larger one (BiT, arXiv 1912.11370); "shift"; or
    "none"."""
    min_area: float = 0.35
    """Inception crop: the smallest box, as a share of the image's area."""
    max_aspect: float = 4 / 3
    """Inception crop: the largest aspect ratio of the box, relative to the image's."""
    crop_share: float = 0.875
    """Random crop: its sides as a share of the sides squashed to, such as 224 of 256."""
    shift: float = 0.05
    """Shift: the largest move along each axis, as a share of the side; edges are repeated."""
    flip: bool = True
    """Whether images are mirrored left to right, each with probability 0.5."""
    randaugment: int = 0
    """RandAugment operations per image, drawn from sixteen (arXiv 1909.13719); 0: none."""
    randaugment_magnitude: float = 10.0
    """Strength of these operations, 5 to 20; arXiv 2106.10270 uses 10, 15 and 20."""
    mixup: float = 0.0
    """Alpha of Beta(alpha, alpha), an image's share in its pair (arXiv 1710.09412); 0: off."""
    cutmix: float = 0.0
    """Alpha of Beta(alpha, alpha), the share of an image that is not replaced by a box of its
    pair's other one (arXiv 1905.04899); 0: off. With mixup too, each pair gets one of the two with
    equal probability."""

    def __post_init__(self) -> None:
        check_choice(("inception", "random", "shift", "none"), crop=self.crop)
        if not 0 < self.crop_share <= 1:
            raise RequestError(f"crop_share={self.crop_share}: give a share above 0, at most 1")
        if not 0 < self.min_area <= 1:
            raise RequestError(f"min_area={self.min_area}: give a share above 0, at most 1")
        if self.max_aspect < 1:
            raise RequestError(f"max_aspect={self.max_aspect}: give 1 or more")
        check_share(shift=self.shift)
        check_not_negative(randaugment=self.randaugment, mixup=self.mixup, cutmix=self.cutmix)
        if not 5 <= self.randaugment_magnitude <= 20:
            raise RequestError(
                f"randaugment_magnitude={self.randaugment_magnitude}: give 5 to 20 (outside, "
                "posterizing or moving may leave almost nothing of an image)"
            )
        if not self.randaugment and self.randaugment_magnitude != 10:
            raise RequestError(
                f"randaugment_magnitude={self.randaugment_magnitude} has no effect with "
                "randaugment=0: give the number of changes, such as 2"
            )

    @property
    def mixes(self) -> bool:
        """Whether pairs of images are mixed."""
        return bool(self.mixup or self.cutmix)


@dataclass(frozen=True)
class ObjectiveSettings:
    """What is minimised; each objective has its own subclass with further settings."""

    name: str = "softmax"
    """Of an objective, or of the caller's own function or class."""


# The optimizer without which a setting has no effect.
OPTIMIZER_OF_SETTING = {
    "momentum": "sgd",
    "beta1": "adamw",
    "beta2": "adamw",
    "epsilon": "adamw",
}


@dataclass(frozen=True)
class OptimizerSettings:
    """AdamW (arXiv 1711.05101) or SGD with momentum."""

    name: str = "adamw"
    """"adamw", or "sgd" with momentum, as the paper fine-tunes (B.1.1)."""
    learning_rate: float = 1e-3
    """The peak rate."""
    layer_decay: float = 1.0
    """Each layer's rate as a share of that of the layer above it; the head has the full rate
    (arXiv 2106.08254, section 3.1). 1: the same rate everywhere."""
    weight_decay: float = 0.1
    """AdamW: decoupled, each step multiplies matrices by (1 - learning rate x this). SGD: of the
    gradient, to which it adds this times the matrices."""
    decayed: str = "kernels"
    """What decays: "kernels": matrices and convolutions (big_vision); or "all" that is trained."""
    momentum: float = 0.9
    """SGD: the share of the last step's direction that each step keeps."""
    beta1: float = 0.9
    """AdamW: decay of the first moment (B.1)."""
    beta2: float = 0.999
    """AdamW: decay of the second moment (B.1)."""
    epsilon: float = 1e-8
    """AdamW: added to the root of the second moment."""
    clip_norm: float = 1.0
    """Gradients with a larger global norm are scaled to it; 0: off."""

    def __post_init__(self) -> None:
        check_choice(("adamw", "sgd"), name=self.name)
        check_choice(("kernels", "all"), decayed=self.decayed)
        check_positive(learning_rate=self.learning_rate, epsilon=self.epsilon)
        check_not_negative(weight_decay=self.weight_decay, clip_norm=self.clip_norm)
        check_share(beta1=self.beta1, beta2=self.beta2, momentum=self.momentum)
        if not 0 < self.layer_decay <= 1:
            raise RequestError(f"layer_decay={self.layer_decay}: give a share above 0, at most 1")
        for setting, optimizer in OPTIMIZER_OF_SETTING.items():
            value = getattr(self, setting)
            if self.name != optimizer and value != getattr(OptimizerSettings, setting):
                raise RequestError(
                    f"{setting}={value} has no effect with optimizer {self.name!r}: leave it out, "
                    f"or use optimizer.name={optimizer}"
                )


@dataclass(frozen=True)
class ScheduleSettings:
    """The learning rate as a function of the step."""

    decay: str = "cosine"
    """"cosine", "linear", "constant", or "multistep": down to a tenth at each milestone; after the
    warm-up."""
    milestones: tuple[float, ...] = ()
    """Multistep: where the rate drops to a tenth, as shares of the run, ascending."""
    warmup_steps: int = 0
    """Steps of linear growth from 0; step k has the rate of k, so step 0 has 0."""
    end: float = 0.0
    """Learning rate at the last step, as a share of the peak."""

    def __post_init__(self) -> None:
        check_choice(("cosine", "linear", "constant", "multistep"), decay=self.decay)
        check_not_negative(warmup_steps=self.warmup_steps)
        is_rising = all(a < b for a, b in itertools.pairwise((0.0, *self.milestones, 1.0)))
        if not is_rising or bool(self.milestones) != (self.decay == "multistep"):
            raise RequestError(
                f"milestones={self.milestones} with decay={self.decay!r}: give rising shares of "
                "the run, such as 0.3,0.6,0.9, with multistep, and none with another decay"
            )
        if self.end and self.decay in ("constant", "multistep"):
            raise RequestError(
                f"end={self.end} has no effect with decay={self.decay!r}: leave it out"
            )
        if not 0 <= self.end <= 1:
            raise RequestError(f"end={self.end}: give a share of the peak, 0 to 1")


@dataclass(frozen=True)
class TrainSettings:
    """The training loop."""

    steps: int
    """Optimizer steps of the whole run."""
    batch_size: int = 128
    """Largest number of images per step, over all processes; an epoch is divided evenly."""
    micro_batch_size: int = 0
    """Images that a process handles at once; gradients are accumulated. 0: its whole share."""
    seed: int = 0
    """Seed of all random numbers."""
    ema: float = 0.0
    """Half-life of the averaged weights as a share of the run; 0: no averaging."""
    ema_decay: float = 0.0
    """Decay of the weight average per step, instead of a half-life; 0: no averaging. The paper's
    Table 2 is of weights averaged with 0.9999."""
    device: str = "auto"
    """"auto", "cpu", "cuda" or "mps"."""
    precision: str = "auto"
    """"float32", "bfloat16" (float32 weights, softmax and norms); "auto" by a rule."""
    compile: str = "auto"
    """"on", "off"; "auto": on a GPU, for runs long enough to pay for it."""
    gradient_checkpointing: bool = False
    """Whether each block is recomputed in the backward pass instead of keeping its activations:
    less memory, about a third more time (arXiv 1604.06174)."""
    log_every_steps: int = 0
    """Steps between two training rows of the metrics; 0: ten rows per epoch."""
    timeout_seconds: float = 600.0
    """With several processes: how long one may give no sign of life, or make no progress between
    two steps, before the others end the run. Work that one does for all, such as looking at the
    images or drawing the report, has no limit."""

    def __post_init__(self) -> None:
        check_positive(steps=self.steps, batch_size=self.batch_size)
        check_positive(timeout_seconds=self.timeout_seconds)
        check_not_negative(micro_batch_size=self.micro_batch_size, seed=self.seed)
        check_not_negative(log_every_steps=self.log_every_steps)
        check_choice(PRECISIONS, precision=self.precision)
        check_choice(("auto", "on", "off"), compile=self.compile)
        if self.device.split(":")[0] not in DEVICES:
            raise RequestError(
                f"device={self.device!r} is not known: use one of {', '.join(DEVICES)}"
            )
        if not 0 <= self.ema_decay < 1:
            raise RequestError(f"ema_decay={self.ema_decay}: give a share below 1, such as 0.9999")
        if self.ema and self.ema_decay:
            raise RequestError(
                f"ema={self.ema} and ema_decay={self.ema_decay} both say how weights are averaged: "
                "give one of them"
            )
        if not 0 <= self.ema <= 0.2:
            raise RequestError(
                f"ema={self.ema} is a half-life as a share of the run: an average that spans more "
                "than 0.2 still holds the starting weights at the end"
            )


@dataclass(frozen=True)
class EvaluationSettings:
    """How the model is scored during and after training."""

    every_epochs: float = 1.0
    """Epochs between two scores on the validation images; 0: only at the end."""
    batch_size: int = 256
    """Images per forward pass; changes no score."""
    keep_best: bool = False
    """Whether the result is the model that scored best on the validation images, the untrained one
    included, rather than the last one."""
    best_by: str = "primary"
    """"primary": the objective's primary metric, accuracy for a classifier; or "loss". For a
    classifier, "accuracy" is the same as "primary"."""
    best_within: float = 0.0
    """Standard errors of the best accuracy within which the latest model is kept rather than the
    best: with few validation images the best is the luckiest. 0: the best itself."""
    patience: int = 0
    """Scores in a row that are not good enough to be kept, after which training stops early, once a
    trained model has been kept; 0: never."""
    fewshot: str = ""
    """Data sources, joined by commas, on which features are scored after few images of each class,
    whenever the model is scored (ViT paper, 4.1); empty: none."""
    fewshot_shots: tuple[int, ...] = (5,)
    """Images of each class for these scores; each is the mean over three draws of them."""

    def __post_init__(self) -> None:
        check_not_negative(every_epochs=self.every_epochs, patience=self.patience)
        check_not_negative(best_within=self.best_within)
        check_choice(("primary", "accuracy", "loss"), best_by=self.best_by)
        if self.best_by == "loss" and not self.keep_best:
            raise RequestError(
                f"best_by={self.best_by!r} has no effect with keep_best=false: set "
                "evaluation.keep_best=true"
            )
        for name in ("patience", "best_within"):
            if getattr(self, name) and not self.keep_best:
                raise RequestError(
                    f"{name}={getattr(self, name)} has no effect with keep_best=false: set "
                    "evaluation.keep_best=true"
                )
        if self.best_within and self.best_by == "loss":
            raise RequestError(
                f"best_within={self.best_within} has no effect with best_by='loss': set "
                "evaluation.best_within=0"
            )
        if self.keep_best and not self.every_epochs:
            raise RequestError(
                "keep_best=true has no effect with every_epochs=0: give the epochs between scores"
            )
        check_positive(batch_size=self.batch_size)
        if not self.fewshot_shots:
            raise RequestError("fewshot_shots is empty: give images a class, such as 5 or 1,5")
        for shots in self.fewshot_shots:
            check_positive(fewshot_shots=shots)
        if not self.fewshot and self.fewshot_shots != EvaluationSettings.fewshot_shots:
            raise RequestError(
                f"fewshot_shots={self.fewshot_shots} has no effect without fewshot: name the data "
                "in evaluation.fewshot"
            )


@dataclass(frozen=True)
class CheckpointSettings:
    """Checkpoints from which a run can resume."""

    every_steps: int = 0
    """Steps between two checkpoints; 0: one per epoch, at most a hundred per run."""
    keep: int = 2
    """How many of the newest are kept."""

    def __post_init__(self) -> None:
        check_not_negative(every_steps=self.every_steps)
        check_positive(keep=self.keep)


# The crop without which a setting has no effect.
CROP_OF_SETTING = {
    "augment.min_area": "inception",
    "augment.max_aspect": "inception",
    "augment.crop_share": "random",
    "augment.shift": "shift",
}


@dataclass(frozen=True)
class RunConfig:
    """All settings of a training run; saved as `config.yaml` beside its result."""

    data: DataSettings
    train: TrainSettings
    preprocessing: Preprocessing
    model: ModelConfig | None
    """None: the caller's own module."""
    augment: AugmentSettings = AugmentSettings()
    objective: ObjectiveSettings = ObjectiveSettings()
    optimizer: OptimizerSettings = OptimizerSettings()
    schedule: ScheduleSettings = ScheduleSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    checkpoint: CheckpointSettings = CheckpointSettings()

    def __post_init__(self) -> None:
        ready = self.preprocessing
        if self.model and (self.model.image_hw, self.model.in_channels) != (
            ready.size,
            ready.channels,
        ):
            raise RequestError(
                f"preprocessing gives {ready.channels} channels of {ready.size} pixels, the model "
                f"takes {self.model.in_channels} of {self.model.image_hw}: set model.image_size "
                "and model.in_channels, preprocessing follows"
            )
        kind = "mixup" if self.augment.mixup else "cutmix"
        for name in ("batch_size", "micro_batch_size"):
            size = getattr(self.train, name)
            if self.augment.mixes and size % 2:
                raise RequestError(
                    f"train.{name}={size} is odd: {kind} works on pairs, use {size + 1} or "
                    f"augment.{kind}=0"
                )
        if self.train.steps <= self.schedule.warmup_steps:
            raise RequestError(
                f"schedule.warmup_steps={self.schedule.warmup_steps} leaves nothing of "
                f"train.steps={self.train.steps}: use fewer warm-up steps"
            )
        if self.train.gradient_checkpointing and self.model is None:
            raise RequestError(
                "train.gradient_checkpointing has no effect on a model of your own: leave it out"
            )
        if self.evaluation.fewshot and self.model is None:
            raise RequestError(
                f"evaluation.fewshot={self.evaluation.fewshot!r} needs features, which a model of "
                "your own does not have: leave it out"
            )
        for path, crop in CROP_OF_SETTING.items():
            name = path.removeprefix("augment.")
            value = getattr(self.augment, name)
            if self.augment.crop != crop and value != getattr(AugmentSettings, name):
                raise RequestError(
                    f"{path}={value} has no effect with augment.crop={self.augment.crop!r}: "
                    f"use augment.crop={crop}"
                )


# Settings that two runs may differ in and still be the same run. The location of the data is among
# them: data is compared by content.
LOCATION_SETTINGS = (
    "data.source",
    "data.unlabelled",
    "data.directory",
    "data.workers",
    "data.keep_decoded",
    "train.device",
    "train.log_every_steps",
    "train.timeout_seconds",
    "checkpoint.keep",
)

# Settings that runs of older versions do not state; at their defaults they are ignored.
LATER_SETTINGS: dict[str, object] = {"objective.output": "auto"}
EARLIER_SETTINGS: dict[str, object] = {"objective.label_smoothing": 0.0}
"""Settings that older runs have, without effect, where theirs have none."""
# Older names of current values, as (setting, value): the same run.
OLDER_VALUES: dict[tuple[str, object], object] = {("evaluation.best_by", "primary"): "accuracy"}
