"""The formats that are read and written: a module each, with the same functions."""

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
    """What the module of a format gives."""

    NAME: str
    """What users call it."""
    SUFFIX: str
    """Of the file that is written."""

    def recognises(self, source: WeightFile) -> bool:
        """Say whether weights are in this format."""

    def canonical(self, source: WeightFile) -> dict[str, Tensor]:
        """Return the tensors under the one spelling that `infer` and `entries` know."""

    def infer(self, source: WeightFile) -> ModelConfig:
        """Read the architecture off the shapes (canonical names) and the files beside them."""

    def entries(self, config: ModelConfig) -> list[Entry]:
        """Return where each of our tensors is."""

    def preprocessing(self, source: WeightFile, config: ModelConfig) -> Preprocessing:
        """Return what the weights' images must become."""

    def classes(self, source: WeightFile) -> tuple[str, ...] | None:
        """Return the names of the outputs, where the files tell them."""

    def is_spare(self, name: str) -> bool:
        """Say whether a tensor may be left over: it belongs to no trunk, as a decoder's."""

    def refusal(self, config: ModelConfig) -> str | None:
        """Say why a model can't be written in this format, or None."""

    def cautions(self, config: ModelConfig) -> list[str]:
        """Say what the other library will compute otherwise with what is written."""

    def side_files(self, model: Model) -> dict[str, Any]:
        """Return what is written beside the weights: JSON objects by file name."""


# The first that recognises weights reads them: the special before the general. The last two are
# the same names as timm's, for those who state the format.
FORMATS: tuple[Format, ...] = (
    official, official_bit, huggingface, torchvision, MAE, DINO, timm, timm_resnet,
    BARE_MAE, BARE_DINO,
)  # fmt: skip
