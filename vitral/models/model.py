"""The base class of all models: calling, tracing and checking them."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vitral.config.checks import check_choice, show_size
from vitral.config.model import ModelConfig
from vitral.config.preprocessing import Preprocessing, default_preprocessing
from vitral.errors import ModelFileError, RequestError, nearest
from vitral.models.drop_path import DropPathUniforms
from vitral.models.layout import AttentionLayer, Layout, tables_of
from vitral.models.position import Heads

if TYPE_CHECKING:
    from vitral.models.weights.source import LoadReport

OUTPUTS = ("softmax", "sigmoid")
"""How logits become probabilities: over all classes, or for each class independently."""
VERIFY_TOLERANCE = 1e-4
Run = Callable[..., Tensor]
"""Type of a function that calls a module with its inputs."""
_log = logging.getLogger("vitral")
_UNTILED: set[str] = set()
"""Warnings already given of pixels that no patch covers."""


@dataclass(frozen=True)
class Verification:
    """Comparison of a model's logits on its reference images with those stored with its weights."""

    max_difference: float
    """The largest absolute difference of a logit."""
    tolerance: float
    """The largest difference that still counts as another machine's rounding."""

    @property
    def agrees(self) -> bool:
        """Whether the difference is within the tolerance."""
        return self.max_difference <= self.tolerance

    def __str__(self) -> str:
        """Return a summary in one line."""
        verdict = "agree" if self.agrees else "do NOT agree"
        return (
            f"logits on the reference images {verdict} with the stored ones: largest difference "
            f"{self.max_difference:.2g}, tolerated {self.tolerance:g}"
        )


class Model(nn.Module, ABC):
    """An image classifier, or its backbone without a head.

    A subclass implements `features`, `trace_names`, `_walk`, descriptions of itself (`layout`,
    `attention_layers`, `layer_depth`, `no_weight_decay`, `block_modules`, `first_filters`) and
    `head`, which is the identity where `config.num_classes` is 0.

    Attributes:
        config: its architecture.
        preprocessing: how its images must be prepared.
        classes: the names of its outputs in order, or None if unknown.
        output: "softmax" or "sigmoid": how logits become probabilities.
        gradient_checkpointing: whether training recomputes each block in the backward pass
            instead of keeping its activations.
        reference: `images` and `logits` that came with the weights, or None.
        load_report: what loading did, or None for fresh weights.
        provenance: of loaded weights, as far as known: their `licence`, and the `data` and
            `command` that they come from; written with the model.
    """

    config: ModelConfig
    head: nn.Module

    def __init__(
        self,
        config: ModelConfig,
        *,
        preprocessing: Preprocessing | None,
        classes: tuple[str, ...] | None,
        output: str,
    ) -> None:
        super().__init__()
        check_choice(OUTPUTS, output=output)
        self.config = config
        self.preprocessing = preprocessing or default_preprocessing(
            config.image_hw, channels=config.in_channels
        )
        self.classes = classes
        self.output = output
        self.gradient_checkpointing = False
        self._drop_path: DropPathUniforms | None = None
        self.reference: Mapping[str, Tensor] | None = None
        self.load_report: LoadReport | None = None
        self.provenance: dict[str, Any] = {}

    @property
    @abstractmethod
    def trace_names(self) -> tuple[str, ...]:
        """The names that `trace` knows, from input to output."""

    @abstractmethod
    def features(self, images: Tensor, *, any_size: bool = False) -> Tensor:
        """Return what the head reads; arguments as for `forward`."""

    @abstractmethod
    def layout(self) -> Layout:
        """Return the grid, stride and prefix tokens for images of the model's own size."""

    def attention_layers(self) -> tuple[AttentionLayer, ...]:
        """Return the attention layers that can be traced, in the order of `trace_names`."""
        return ()

    @abstractmethod
    def layer_depth(self, name: str) -> int:
        """Return the depth of a parameter in the network, counted in blocks and units.

        Depth 0 is a ResNet's root, or a ViT's patch embedding with its tokens and positions, which
        in a hybrid come after the ResNet. Each unit of a ResNet and each block of a ViT is one
        deeper; final norm, pooling and head are the deepest (as in arXiv 2106.08254).
        """

    def no_weight_decay(self) -> set[str]:
        """Return the names of the parameters that are tables or tokens.

        They are added or looked up, not multiplied, so they are not decayed, as in the official
        code.
        """
        return {
            f"{prefix}.{name}"
            for prefix, child in self.named_children()
            for name in tables_of(child)
        }

    @abstractmethod
    def block_modules(self) -> tuple[nn.Module, ...]:
        """Return the modules to compile, checkpoint or shard one by one, from input to output."""

    @abstractmethod
    def first_filters(self) -> Tensor:
        """Return the filters (D, C, height, width) that read the image, as applied."""

    @abstractmethod
    def _walk(
        self, images: Tensor, wanted: Collection[str], heads: Heads
    ) -> Iterator[tuple[str, Tensor]]:
        """Yield named values in the order of `trace_names`, costly ones only if wanted."""

    def forward(
        self, images: Float[Tensor, "N C H W"], *, any_size: bool = False
    ) -> Float[Tensor, "N K"]:
        """Classify images.

        Args:
            images: in the range and size that `preprocessing` states.
            any_size: whether to accept images of another size. Positions are then interpolated to
                their grid at each call, as `image_size` does on load.

        Returns:
            The logits; without a head, the features (N, D).

        Raises:
            RequestError: the images do not have the size or channels that the model is made for,
                or have another size, which the model can't take.
        """
        return self.classify(self.features(images, any_size=any_size))

    def classify(self, features: Float[Tensor, "N F"]) -> Float[Tensor, "N K"]:
        """Apply the head, the identity if there is none."""
        logits: Tensor = self.head(features)
        return logits

    def probabilities(self, logits: Float[Tensor, "N K"]) -> Float[Tensor, "N K"]:
        """Return probabilities: the softmax of the logits, or the sigmoid of each (`output`)."""
        return logits.sigmoid() if self.output == "sigmoid" else logits.softmax(dim=1)

    def trace(self, images: Float[Tensor, "N C H W"], names: Iterable[str]) -> dict[str, Tensor]:
        """Return intermediate values by name; computes no further than the last one.

        Args:
            images: as for `forward`.
            names: from `trace_names`. ViT: `embedding` (N, P, D), `blockNN` (N, L, D),
                `blockNN/attention` (N, heads, L, L) whose rows sum to 1, `tokens` (N, L, D),
                `pool/attention` (N, heads, 1, L) of attention pooling. AxialViT:
                `blockNN/row_attention` (N, H, heads, W, W) and `blockNN/column_attention`
                (N, W, heads, H, H). ResNets and hybrids: `root`, `stageS/unitUU` (N, C, H, W).
                AxialResNet: also `stageS/unitUU/row_attention` and `.../column_attention`.
                All: `features` (N, F), `logits` (N, K).

        Raises:
            RequestError: a name that this model does not have.
        """
        return dict(self.trace_each(images, names))

    def trace_each(
        self, images: Float[Tensor, "N C H W"], names: Iterable[str], heads: Heads = None
    ) -> Iterator[tuple[str, Tensor]]:
        """Yield each traced value as it is computed; keeps none.

        Args:
            images: as for `forward`.
            names: as for `trace`.
            heads: the heads of each attention that are computed; None: all.

        Yields:
            Name and value, in the order of `trace_names`.

        Raises:
            RequestError: a name that this model does not have.
        """
        wanted = [names] if isinstance(names, str) else list(dict.fromkeys(names))
        known = self.trace_names
        for name in wanted:
            if name not in known:
                raise RequestError(
                    f"there is nothing called {name!r} to trace{nearest(name, known)}"
                )
        if not wanted:
            return
        left = len(wanted)
        for name, value in self._walk(images, wanted, heads):
            if name in wanted:
                yield name, value
                left -= 1
                if not left:
                    return

    @property
    def num_drop_paths(self) -> int:
        """Branches, of all blocks, that stochastic depth may skip; 0: it skips none."""
        return 0

    def set_drop_path_uniforms(self, uniforms: Tensor | None) -> None:
        """Set the random numbers that later forward passes use for stochastic depth.

        A pass of N images in training mode uses the numbers of the next view; a pass of m N images,
        with views consecutive along the batch, those of the next m. After the last view they start
        over, shifted by the golden ratio. Evaluation mode uses none.

        Args:
            uniforms: (N, num_drop_paths) or (N, views, num_drop_paths) in [0, 1), on the model's
                device; None: draw from torch's generator, the default.

        Raises:
            RequestError: another shape, or the model skips nothing. A later pass raises it for
                images whose number is no multiple of N.
        """
        if uniforms is None:
            self._drop_path = None
            return
        if not self.num_drop_paths:
            raise RequestError(
                f"{self.config.name} has no stochastic depth that could use numbers: build or load "
                "it with drop_path, or leave them out"
            )
        shape = tuple(uniforms.shape)
        if len(shape) not in (2, 3) or shape[-1] != self.num_drop_paths or 0 in shape:
            raise RequestError(
                f"numbers of shape {shape} for the stochastic depth of {self.config.name}: give "
                f"(N, {self.num_drop_paths}) or (N, views, {self.num_drop_paths})"
            )
        self._drop_path = DropPathUniforms(uniforms if len(shape) == 3 else uniforms.unsqueeze(1))

    @property
    def is_classifier(self) -> bool:
        """Whether there is a head whose weights are not all zero."""
        return any(bool(weight.any()) for weight in self.head.parameters() if weight.ndim > 1)

    @torch.no_grad()
    def verify(
        self,
        *,
        against: Mapping[str, Tensor] | None = None,
        tolerance: float = VERIFY_TOLERANCE,
    ) -> Verification:
        """Recompute the reference images' logits and compare them with the stored ones.

        Args:
            against: `images` (N, C, H, W) and `logits` (N, K) to use instead of those that came
                with the weights.
            tolerance: the largest difference that still counts as rounding.

        Raises:
            RequestError: the model did not come with reference images, or was changed on load.
        """
        reference = against or self.reference
        if reference is None:
            raise RequestError(
                "this model has no reference images: load it, unchanged, from a model folder that "
                "Vitral wrote with them (that of a finished run, or of save_model; a checkpoint's "
                "may have none)"
            )
        weight = next(self.parameters())
        images = reference["images"].to(weight.device, weight.dtype)
        wanted = (len(images), self.config.num_classes or self.config.feature_dim)
        if tuple(reference["logits"].shape) != wanted or not len(images):
            raise RequestError(
                f"reference logits of shape {tuple(reference['logits'].shape)} for {len(images)} "
                f"images and a model that gives {wanted}: they are another model's"
            )
        was_training = self.training
        logits = self.eval()(images).float().cpu()
        self.train(was_training)
        # NaN counts as a difference.
        difference = (logits - reference["logits"]).abs().nan_to_num(nan=float("inf")).max().item()
        return Verification(difference, tolerance)

    def check_images(self, images: Tensor, *, any_size: bool = False) -> None:
        """Check that images (N, C, H, W) fit the model.

        Raises:
            RequestError: they do not have its size or channels; with `any_size`, they have a size
                that the model can't take.
        """
        wanted = (self.config.in_channels, *self.config.image_hw)
        shape = tuple(images.shape)
        if shape[1:] == wanted:
            return
        if any_size and len(shape) == 4 and shape[1] == wanted[0]:
            self._check_size((shape[2], shape[3]))
            return
        sides = ", ".join(map(str, wanted))
        message = f"images of shape {shape} do not fit a model for (N, {sides})"
        if len(shape) != 4:
            raise RequestError(f"{message}: give a batch (N, channels, height, width)")
        if shape[3] == wanted[0] != shape[1]:
            raise RequestError(f"{message}: bring the channels first, images.permute(0, 3, 1, 2)")
        if shape[1] != wanted[0]:
            raise RequestError(f"{message}: load the model with in_channels={shape[1]}")
        raise RequestError(f"{message}: resize them, or load the model with image_size={shape[2:]}")

    def _check_size(self, image_hw: tuple[int, int]) -> None:
        """Check that the model can take images of another size than its own."""
        if 0 in image_hw:
            raise RequestError(
                f"images of {show_size(image_hw)} pixels are empty: give larger ones"
            )

    def _run(self, block: Callable[..., Tensor], *inputs: Any, **options: Any) -> Tensor:
        """Call a block, with gradient checkpointing if it is on."""
        if self.gradient_checkpointing and self.training:
            again: Tensor = checkpoint(block, *inputs, use_reentrant=False, **options)
            return again
        return block(*inputs, **options)


@contextmanager
def drop_path_from(module: nn.Module, uniforms: Tensor | None) -> Iterator[None]:
    """Let the models in a module that are in training use `uniforms` for stochastic depth.

    Args:
        module: a model, or a module that contains models, such as an objective, also wrapped.
        uniforms: as for `Model.set_drop_path_uniforms`; None changes nothing.
    """
    models = [
        submodule
        for submodule in (module.modules() if uniforms is not None else ())
        if isinstance(submodule, Model) and submodule.training and submodule.num_drop_paths
    ]
    for model in models:
        if uniforms is not None:  # as many as the deepest model has
            model.set_drop_path_uniforms(uniforms[..., : model.num_drop_paths])
    try:
        yield
    finally:
        for model in models:
            model.set_drop_path_uniforms(None)


def note_uncovered_pixels(model: Model) -> None:
    """Warn of pixels that no patch covers, once for each kind of model."""
    note = model.config.uncovered_pixels_note()
    if note and note not in _UNTILED:
        _UNTILED.add(note)
        _log.warning("%s: %s", model.config.name, note)


def call(module: Run, *inputs: Any) -> Tensor:
    """Call a module directly."""
    return module(*inputs)


def check_classifier(model: Model, name: object) -> None:
    """Check that a model has a head; warn if it is zero, and of assumptions made on loading.

    Raises:
        ModelFileError: it has no head.
    """
    if not model.config.num_classes:
        raise ModelFileError(
            f"{name} has no head, so it names no classes: train or fine-tune it first"
        )
    for assumed in model.load_report.assumed if model.load_report else ():
        _log.warning("%s: assumed: %s", name, assumed)
    if not model.is_classifier:
        _log.warning(
            "%s is no classifier: its head of %d classes is all zeros, a place to begin "
            "fine-tuning from; every class gets the same probability",
            name,
            model.config.num_classes,
        )


def build_head(config: ModelConfig) -> nn.Module:
    """Return the layer from features to logits; the identity for no classes."""
    if not config.num_classes:
        return nn.Identity()
    return nn.Linear(config.feature_dim, config.num_classes)


def zero_head(head: nn.Module) -> None:
    """Set a head to zero, as the official code does for fine-tuning (ViT paper, 3.1)."""
    if isinstance(head, nn.Linear):
        nn.init.zeros_(head.weight)
        nn.init.zeros_(head.bias)
