"""Six objectives that use all features of objectives, each with its own data."""

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from support.runs import TINY_MODEL, pattern_images
from vitral.config.run import AugmentSettings, ObjectiveSettings
from vitral.data.dataset import ImageDataset
from vitral.data.needs import UNCOUNTED, Draw, Needs, View
from vitral.data.workers import Batch
from vitral.evaluate.evaluator import Evaluator, MeanEvaluator, Metric
from vitral.models.vit import ViT
from vitral.training.objectives.base import Loss, Objective, StepInfo
from vitral.training.optimizer import clip_each, set_weight_decay

SIDE, PATCH = 8, 4


def vit_of(objective: Objective) -> ViT:
    assert isinstance(objective.model, ViT)
    return objective.model


@dataclass(frozen=True)
class MaskedSettings(ObjectiveSettings):
    """Of `Masked`."""

    hidden: float = 0.5
    """Share of the patches."""


class Masked(Objective):
    """A head and a mask token of its own, and a part that is published; hides drawn patches."""

    settings_type: ClassVar[type[ObjectiveSettings]] = MaskedSettings
    label = False

    def __init__(self, model: nn.Module, settings: ObjectiveSettings | None = None) -> None:
        super().__init__(model, settings)
        width = vit_of(self).config.embed_dim
        self.mask_token = nn.Parameter(torch.full((1, 1, width), 0.1))
        self.decoder = nn.Linear(width, PATCH * PATCH)

    @property
    def needs(self) -> Needs:
        assert isinstance(self.settings, MaskedSettings)
        count = vit_of(self).config.num_patches
        hidden = round(self.settings.hidden * count)

        def choose(uniforms: np.ndarray) -> np.ndarray:
            return uniforms.argsort(axis=1).argsort(axis=1) < hidden

        return replace(super().needs, draws={"mask": Draw(count, choose)})

    def forward(self, batch: Batch) -> Loss:
        model, mask = vit_of(self), batch["mask"]
        patches = model.embed(batch["image"])
        patches = torch.where(mask.unsqueeze(2), self.mask_token, patches)
        tokens = model.encode(patches)[:, model.num_prefix_tokens :]
        pixels = F.unfold(batch["image"], PATCH, stride=PATCH).transpose(1, 2)
        errors = (self.decoder(tokens) - pixels).square().mean(dim=2)
        values = (errors * mask).sum(dim=1) / mask.sum(dim=1)
        return Loss(values, {"hidden": mask.float().mean(dim=1)})

    def parts(self) -> dict[str, nn.Module]:
        return {"decoder": self.decoder}


class Distilled(Objective):
    """A teacher averaged after each step, two views of different sizes, a loss over the whole step.

    With schedules on temperature, decay and teacher, a last layer that is not trained at first,
    clipping per tensor, and BatchNorm in the head.
    """

    coupling = "batch"
    label = False
    frozen_steps = 2

    def __init__(self, model: nn.Module, settings: ObjectiveSettings | None = None) -> None:
        super().__init__(model, settings)
        width = vit_of(self).config.embed_dim
        # A bias before BatchNorm, and what a constant adds to all features without the GELU, have a
        # true gradient of zero, whose rounding noise Adam would make large.
        self.hidden = nn.Linear(width, 12, bias=False)
        self.norm = nn.BatchNorm1d(12)
        self.last = nn.Linear(12, 6, bias=False)
        self.teacher, self.teacher_hidden, self.teacher_last = (
            copy.deepcopy(module).requires_grad_(False)
            for module in (self.model, self.hidden, self.last)
        )
        self.register_buffer("centre", torch.zeros(6))
        self.centre: Tensor
        self.temperature = 0.1
        self._mean = torch.zeros(6)

    @property
    def needs(self) -> Needs:
        large = View(augment=AugmentSettings(min_area=0.5))
        small = View((PATCH, PATCH), AugmentSettings(min_area=0.2, flip=False))
        return replace(super().needs, views=(large, small))

    def encode(self, batch: Batch) -> dict[str, Tensor]:
        with torch.no_grad():
            taught = self.teacher(batch["image/0"])
        return {
            "teacher": taught,
            "large": self.model(batch["image/0"]),
            "small": vit_of(self)(batch["image/1"], any_size=True),
        }

    def couple(self, tensors: Mapping[str, Tensor]) -> Loss:
        with torch.no_grad():
            taught = self.teacher_last(self.teacher_hidden(F.gelu(tensors["teacher"])))
            self._mean = taught.mean(dim=0)
            goal = ((taught - self.centre) / self.temperature).softmax(dim=1)
        both = F.gelu(torch.cat([tensors["large"], tensors["small"]]))
        students = self.last(F.gelu(self.norm(self.hidden(both)))).log_softmax(dim=1).chunk(2)
        values = -sum((goal * student).sum(dim=1) for student in students)
        assert isinstance(values, Tensor)
        entropy = -(goal * goal.clamp_min(1e-9).log()).sum(dim=1)
        return Loss(values, {"teacher_entropy": entropy})

    def before_step(self, at: StepInfo) -> None:
        self.temperature = 0.1 + 0.1 * at.progress
        set_weight_decay(at.optimizer, 0.04 + 0.36 * at.progress)

    def on_gradients(self, at: StepInfo) -> None:
        if at.step < self.frozen_steps:
            self.last.weight.grad = None
        clip_each((p for p in self.parameters() if p.grad is not None), max_norm=0.5)

    def after_step(self, at: StepInfo) -> None:
        share = 0.1 * (1 + math.cos(math.pi * at.progress)) / 2 + 0.01
        pairs = [
            (self.teacher, self.model),
            (self.teacher_hidden, self.hidden),
            (self.teacher_last, self.last),
        ]
        for teacher, student in pairs:
            at.move(teacher.parameters(), student.parameters(), share=share)
        at.move([self.centre], [self._mean], share=0.1)

    def outputs(self, batch: Batch, *, final: bool) -> dict[str, Tensor]:
        features = self.teacher(batch["image"])
        return {"spread": features.std(dim=1), "loss": features.square().mean(dim=1)}

    def evaluator(self, data: ImageDataset, *, final: bool) -> Evaluator:
        return MeanEvaluator(Metric("spread"))

    def result(self) -> nn.Module:
        return self.teacher


class Pixels(Objective):
    """Its weights are known from the targets alone: the pixels that count."""

    coupling = "weighted"
    label = False
    targets = ("mask",)

    def __init__(self, model: nn.Module, settings: ObjectiveSettings | None = None) -> None:
        super().__init__(model, settings)
        self.head = nn.Linear(vit_of(self).config.embed_dim, 2 * PATCH * PATCH)

    def weights(self, batch: Batch) -> Tensor:
        return (batch["target/mask"] != UNCOUNTED).sum(dim=(1, 2)).float()

    def forward(self, batch: Batch) -> Loss:
        model, mask = vit_of(self), batch["target/mask"].long()
        tokens = model.tokens(batch["image"])[:, model.num_prefix_tokens :]
        by_patch = self.head(tokens).unflatten(2, (2, PATCH * PATCH))
        logits = F.fold(by_patch.flatten(2).transpose(1, 2), (SIDE, SIDE), PATCH, stride=PATCH)
        losses = F.cross_entropy(logits, mask, ignore_index=UNCOUNTED, reduction="none")
        right = (logits.argmax(dim=1) == mask).sum(dim=(1, 2)).float()
        return Loss(losses.sum(dim=(1, 2)), {"pixel_accuracy": right})

    def evaluator(self, data: ImageDataset, *, final: bool) -> Evaluator:
        return MeanEvaluator(Metric("pixel_accuracy"))


class Aligned(Objective):
    """A mask as target: says whether it was flipped and cropped with its image."""

    label = False
    targets = ("mask",)

    def __init__(self, model: nn.Module, settings: ObjectiveSettings | None = None) -> None:
        super().__init__(model, settings)
        self.head = nn.Linear(vit_of(self).config.embed_dim, 1)

    def forward(self, batch: Batch) -> Loss:
        mask = batch["target/mask"].float()
        share = self.head(self.model(batch["image"]))[:, 0]
        is_bright = (batch["image"][:, 0] > 0).float()
        agree = (is_bright == mask).float().mean(dim=(1, 2))
        values = (share - mask.mean(dim=(1, 2))).square()
        return Loss(values, {"agreement": agree})

    def evaluator(self, data: ImageDataset, *, final: bool) -> Evaluator:
        return MeanEvaluator(Metric("agreement"))


class TwoSources(Objective):
    """Classes of labelled images, and brightness of all; half of each batch has no labels."""

    coupling = "weighted"

    def __init__(self, model: nn.Module, settings: ObjectiveSettings | None = None) -> None:
        super().__init__(model, settings)
        self.brightness = nn.Linear(vit_of(self).config.embed_dim, 1)

    @classmethod
    def num_outputs(cls, data: ImageDataset, settings: ObjectiveSettings) -> int:
        return len(data.classes)

    @classmethod
    def extra_sources(cls, settings: ObjectiveSettings) -> Mapping[str, float]:
        return {"unlabelled": 0.5}

    def weights(self, batch: Batch) -> Tensor:
        labelled = (batch["label"] >= 0).float()
        return torch.stack([labelled, torch.ones_like(labelled)], dim=1)

    def forward(self, batch: Batch) -> Loss:
        features = vit_of(self).features(batch["image"])
        logits = vit_of(self).classify(features)
        known = F.cross_entropy(logits, batch["label"], ignore_index=-1, reduction="none")
        wanted = batch["image"].mean(dim=(1, 2, 3))
        free = (self.brightness(features)[:, 0] - wanted).square()
        return Loss(torch.stack([known, free], dim=1), {"labelled_loss": known})

    def outputs(self, batch: Batch, *, final: bool) -> dict[str, Tensor]:
        logits = self.model(batch["image"])
        right = (logits.argmax(dim=1) == batch["label"]).float()
        loss = F.cross_entropy(logits, batch["label"], reduction="none")
        return {"loss": loss, "accuracy": right}

    def evaluator(self, data: ImageDataset, *, final: bool) -> Evaluator:
        return MeanEvaluator(Metric("accuracy"))


class Regression(Objective):
    """Numbers as targets, judged by their mean absolute error."""

    label = False
    targets = ("value",)

    @classmethod
    def num_outputs(cls, data: ImageDataset, settings: ObjectiveSettings) -> int:
        return len(data.splits["train"].target("value", 0))

    def forward(self, batch: Batch) -> Loss:
        off = self.model(batch["image"]) - batch["target/value"]
        return Loss(off.square().mean(dim=1), {"mae": off.abs().mean(dim=1)})

    def evaluator(self, data: ImageDataset, *, final: bool) -> Evaluator:
        return MeanEvaluator(Metric("mae", larger_is_better=False))


class Pairs:
    """A sized object of (image, target)."""

    def __init__(self, images: np.ndarray, targets: Any) -> None:
        self.images, self.targets = images, targets

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, number: int) -> tuple[np.ndarray, Any]:
        return self.images[number], self.targets[number]


def with_classes() -> Pairs:
    images, labels = pattern_images(90)
    return Pairs(images, labels)


def without_labels() -> list[np.ndarray]:
    return list(pattern_images(90, seed=5)[0])


def with_masks() -> Pairs:
    """Images that are bright where their mask is 1; rows of some masks do not count."""
    random = np.random.default_rng(2)
    masks = random.integers(0, 2, (90, 2, 2)).repeat(8, axis=1).repeat(8, axis=2).astype(np.uint8)
    images = masks * 200 + 20
    for number, mask in enumerate(masks):
        mask[: number % 4] = UNCOUNTED
    return Pairs(images.astype(np.uint8), masks)


def with_whole_masks() -> Pairs:
    """Images of their own size, that are bright where their mask is 1."""
    random = np.random.default_rng(3)
    masks = random.integers(0, 2, (90, 16, 16)).astype(np.uint8)
    return Pairs((masks * 255).astype(np.uint8), masks)


def with_values() -> Pairs:
    images, labels = pattern_images(90)
    values = np.stack([labels / 4, images.mean(axis=(1, 2)) / 255], axis=1)
    return Pairs(images, values.astype(np.float32))


@dataclass(frozen=True)
class Example:
    """An objective, its data and the settings of its runs."""

    kind: type[Objective]
    data: Callable[[], Any]
    settings: Mapping[str, Any]
    primary: str
    unlabelled: Callable[[], Any] | None = None


NEAREST = {"preprocessing.interpolation": "nearest", "preprocessing.antialias": False}
EXAMPLES = {
    "masked": Example(Masked, without_labels, {"objective.hidden": 0.75}, "loss"),
    "distilled": Example(Distilled, without_labels, {"optimizer.clip_norm": 0.0}, "spread"),
    "pixels": Example(Pixels, with_masks, {"augment.crop": "inception"}, "pixel_accuracy"),
    "aligned": Example(
        Aligned,
        with_whole_masks,
        {"augment.crop": "random", "augment.crop_share": 0.5, "augment.flip": True},
        "agreement",
    ),
    "two_sources": Example(TwoSources, with_classes, {}, "accuracy", without_labels),
    "regression": Example(Regression, with_values, {"train.ema": 0.1}, "mae"),
}
COMMON: dict[str, Any] = TINY_MODEL | {
    "model.drop_path": 0.2,
    "checkpoint.every_steps": 3,
    "evaluation.every_epochs": 1,
    "evaluation.keep_best": True,
    "train.log_every_steps": 1,
    "data.validation_share": 0.1,
    "schedule.warmup_steps": 0,
}


def train_example(name: str, output: Any, *, steps: int = 6, **settings: Any) -> Any:
    """Train an example; settings by path with two underscores for the point."""
    import vitral

    example = EXAMPLES[name]
    extra = {} if example.unlabelled is None else {"unlabelled": example.unlabelled()}
    changed = {path.replace("__", "."): value for path, value in settings.items()}
    return vitral.train(
        "ViT-Mi/4",
        example.data(),
        objective=example.kind,
        output=output,
        steps=steps,
        batch_size=16,
        learning_rate=2e-3,
        seed=4,
        device="cpu",
        quiet=True,
        settings=COMMON | dict(example.settings) | changed,
        **extra,
    )
