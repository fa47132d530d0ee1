"""The stem of a hybrid: patches of a ResNet's last map. Source: ViT paper, 3.1, 4.1."""

from collections.abc import Iterator

from jaxtyping import Float
from torch import Tensor, nn

from vitral.config.resnet import ResNetConfig
from vitral.models.layers import PatchEmbedding
from vitral.models.model import Run, call
from vitral.models.resnet import ResNetTrunk


class HybridEmbedding(nn.Module):
    """A ResNet, and a projection of the patches of its last map."""

    def __init__(
        self, config: ResNetConfig, embed_dim: int, *, patch_size: tuple[int, int]
    ) -> None:
        super().__init__()
        self.resnet = ResNetTrunk(config)
        self.projection = PatchEmbedding(config.feature_dim, embed_dim, patch_size=patch_size)

    def init_weights(self) -> None:
        """Draw fresh weights."""
        self.resnet.init_weights()
        self.projection.init_weights()

    def filters(self) -> Float[Tensor, "D C H W"]:
        """Return the root's filters, standardised."""
        return self.resnet.root.kernel().detach()

    @property
    def trace_names(self) -> tuple[str, ...]:
        """The names that `walk` yields."""
        return (*self.resnet.trace_names, "embedding")

    def forward(self, images: Float[Tensor, "N C H W"], run: Run = call) -> Float[Tensor, "N P D"]:
        """Project the patches of the last map, row by row; `run` calls each unit of the ResNet."""
        return self.projection(self.resnet(images, run))

    def walk(self, images: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Yield the ResNet's maps and the projected patches by name."""
        maps = images
        for name, maps in self.resnet.walk(images):
            yield name, maps
        yield "embedding", self.projection(self.resnet.finish(maps))
