"""The supported formats: a module each, with the same functions."""

from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from vitral.config.model import ModelConfig
from vitral.config.preprocessing import Preprocessing
from vitral.models.model import Model
from vitral.models.weights.formats import official, official_bit, torchvision
from vitral.models.weights.formats.huggingface import folder as huggingface
from vitral.models.weights.formats.selfsupervised import BARE_DINO, BARE_MAE, DINO, MAE
from vitral.models.weights.formats.timm import resnet as timm_resnet
from vitral.models.weights.formats.timm import vit as timm
from vitral.models.weights.mapping import Entry
from vitral.models.weights.source import WeightFile


@runtime_checkable
class Format(Protocol):
    """Interface of the module of a format."""

    NAME: str
    """The name that users give."""
    SUFFIX: str
    """Suffix of the written file."""

    def recognises(self, source: WeightFile) -> bool:
        """Return whether weights are in this format."""

    def canonical(self, source: WeightFile) -> dict[str, Tensor]:
        """Return the tensors under the canonical names that `infer` and `entries` use."""

    def infer(self, source: WeightFile) -> ModelConfig:
        """Infer the architecture from the shapes (by canonical name) and the files beside them."""

    def entries(self, config: ModelConfig) -> list[Entry]:
        """Return the entries of our tensors."""

    def preprocessing(self, source: WeightFile, config: ModelConfig) -> Preprocessing:
        """Return the preprocessing of the weights' images."""

    def classes(self, source: WeightFile) -> tuple[str, ...] | None:
        """Return the names of the outputs, if the files state them."""

    def is_spare(self, name: str) -> bool:
        """Return whether a tensor may be left over: it is of no trunk but of a decoder, say."""

    def refusal(self, config: ModelConfig) -> str | None:
        """Return why a model can't be written in this format, or None."""

    def cautions(self, config: ModelConfig) -> list[str]:
        """Return what the other library will compute differently with the written files."""

    def side_files(self, model: Model) -> dict[str, Any]:
        """Return the files to write beside the weights: JSON objects by file name."""


# The first that recognises weights reads them, so special formats come first. The last two have the
# same names as timm's and are used if the caller states them.
FORMATS: tuple[Format, ...] = (
    official, official_bit, huggingface, torchvision, MAE, DINO, timm, timm_resnet,
    BARE_MAE, BARE_DINO,
)  # fmt: skip
