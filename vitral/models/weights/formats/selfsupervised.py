"""Checkpoints of DINO, DINOv2 (with registers too) and MAE, which have timm's names for their ViT.

They are only read. A bare encoder, without a training head or a decoder, looks like any ViT of
timm; it is read as one of these only if the caller states the format.

Sources: facebookresearch/dino, `vision_transformer.py`; facebookresearch/dinov2,
`dinov2/models/vision_transformer.py`, `layers/swiglu_ffn.py` and `hub/classifiers.py`;
facebookresearch/mae, `models_mae.py` and `models_vit.py`.
"""

import dataclasses
import re
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from vitral.config.model import ModelConfig
from vitral.config.preprocessing import Preprocessing, imagenet_preprocessing
from vitral.models.model import Model
from vitral.models.weights.formats.timm import vit as timm
from vitral.models.weights.mapping import Entry
from vitral.models.weights.source import WeightFile

GIANT_DIM, GIANT_HEADS = 1536, 24
"""Of DINOv2's giant (`vit_giant2`)."""
_SPARE = re.compile(
    r"(mask_token$|decoder_|head\.(mlp|last_layer)|dino_head\.|ibot_head\.|linear_head\.)"
)
_RENAMED = (
    # Blocks in chunks are numbered consecutively over all chunks.
    (r"^blocks\.\d+\.(\d+)\.", r"blocks.\1."),
    (r"\.mlp\.w12\.", ".mlp.fc1."),
    (r"\.mlp\.w3\.", ".mlp.fc2."),
    (r"^register_tokens$", "reg_token"),
)


@dataclass
class SelfSupervised:
    """How one kind of checkpoint is recognised and read; a format (`formats.Format`)."""

    NAME: str
    """The name that users give."""
    marks: str
    """Pattern of names that only such checkpoints have; "": read only if the format is stated."""
    SUFFIX: str = ""
    """None, as no file is written."""

    def recognises(self, source: WeightFile) -> bool:
        """Return whether weights have the ViT's names, and one that identifies the kind."""
        renamed = dataclasses.replace(source, tensors=_renamed(source.tensors))
        is_marked = any(re.search(self.marks, name) for name in source.tensors)
        return is_marked and timm.recognises(renamed)

    def canonical(self, source: WeightFile) -> dict[str, Tensor]:
        """Return the tensors under timm's names; a linear classifier on one layer is the head."""
        named = _renamed(source.tensors)
        head = named.get("linear_head.weight")
        if head is not None and _reads_token_and_patches(head, named):
            for part in ("weight", "bias"):
                named[f"head.{part}"] = named.pop(f"linear_head.{part}")
        return named

    def infer(self, source: WeightFile) -> ModelConfig:
        """Infer the architecture from the shapes.

        Raises:
            ModelFileError: it is no such ViT, or the number of heads is unknown.
        """
        width = source.tensors["patch_embed.proj.weight"].shape[0]
        if width == GIANT_DIM and source.stated.get("num_heads") is None:
            stated = {**source.stated, "num_heads": GIANT_HEADS}
            source = dataclasses.replace(source, stated=stated)
        config = timm.infer(source)
        resize = "bicubic"
        if self.NAME == "dino":
            resize = "bicubic_antialias" if config.num_registers else "bicubic_offset"
        head = source.tensors.get("head.weight")
        both = head is not None and _reads_token_and_patches(head, source.tensors)
        return dataclasses.replace(
            config, position_resize=resize, pool="token+gap" if both else config.pool
        )

    def entries(self, config: ModelConfig) -> list[Entry]:
        """Return the entries of our tensors."""
        return timm.entries(config)

    def preprocessing(self, source: WeightFile, config: ModelConfig) -> Preprocessing:
        """Return the authors' evaluation: 256 on the shorter side for a crop of 224, bicubic."""
        return imagenet_preprocessing(config, interpolation="bicubic", crop_share=224 / 256)

    def classes(self, source: WeightFile) -> None:
        """Return None: the checkpoints do not name classes."""

    def is_spare(self, name: str) -> bool:
        """Return whether a tensor is only for training, or of a classifier on several layers."""
        return _SPARE.match(name) is not None

    def refusal(self, config: ModelConfig) -> str | None:
        """Return the reason: this format is not written."""
        return "is only read"

    def cautions(self, config: ModelConfig) -> list[str]:
        """Nothing is written."""
        return []

    def side_files(self, model: Model) -> dict[str, Any]:
        """Nothing is written."""
        return {}


MAE = SelfSupervised("mae", r"^decoder_(embed|pos_embed|blocks)")
DINO = SelfSupervised(
    "dino",
    r"^(mask_token$|register_tokens$|head\.(mlp|last_layer)|dino_head\.|ibot_head\.|linear_head\.)"
    r"|\.mlp\.w12\.|^blocks\.\d+\.\d+\.",
)
BARE_MAE = SelfSupervised("mae", "")
BARE_DINO = SelfSupervised("dino", "")


def _renamed(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {_rename(name): tensor for name, tensor in tensors.items()}


def _rename(name: str) -> str:
    for pattern, new in _RENAMED:
        name = re.sub(pattern, new, name)
    return name


def _reads_token_and_patches(head: Tensor, tensors: dict[str, Tensor]) -> bool:
    """Return whether a head reads class token and mean of the patches, side by side."""
    return head.ndim == 2 and head.shape[1] == 2 * tensors["patch_embed.proj.weight"].shape[0]
