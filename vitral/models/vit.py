"""The Vision Transformer: the left half of the paper's Figure 1."""

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vitral.errors import RequestError, nearest
from vitral.models.layers import EncoderBlock, PatchEmbedding, init_lecun_normal
from vitral.models.position import PositionEmbedding
from vitral.spec.preprocessing import Preprocessing, default_preprocessing
from vitral.spec.vit import ViTConfig


class ViT(nn.Module):
    """A Vision Transformer. Source: ViT paper (arXiv 2010.11929v2), section 3.1.

    Attributes:
        config: what it is.
        preprocessing: what its images must become first.
        classes: the names of its outputs in order, or None when they are not known.
        objective: what it was trained for, "softmax" or "sigmoid": how logits become probabilities.
    """

    def __init__(
        self,
        config: ViTConfig,
        *,
        preprocessing: Preprocessing | None = None,
        classes: tuple[str, ...] | None = None,
        objective: str = "softmax",
    ) -> None:
        super().__init__()
        self.config = config
        self.preprocessing = preprocessing or default_preprocessing(
            config.image_hw, channels=config.in_channels
        )
        self.classes = classes
        self.objective = objective
        self.embedding = PatchEmbedding(
            config.in_channels, config.embed_dim, patch_size=config.patch_hw
        )
        if config.pool == "token":
            self.cls_token = nn.Parameter(torch.empty(1, 1, config.embed_dim))
        self.position = PositionEmbedding(
            config.num_patches + config.num_prefix_tokens, config.embed_dim
        )
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(_build_block(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.embed_dim, eps=config.norm_eps)
        if config.representation_size:
            self.pre_logits = nn.Linear(config.embed_dim, config.representation_size)
        if config.num_classes:
            self.head = nn.Linear(config.feature_dim, config.num_classes)
        self.init_weights()

    @torch.no_grad()
    def init_weights(self) -> None:
        """Draw fresh weights as the official code does; class token and head start at zero."""
        self.embedding.init_weights()
        if self.config.pool == "token":
            nn.init.zeros_(self.cls_token)
        self.position.init_weights()
        for block in self._blocks():
            block.init_weights()
        self.norm.reset_parameters()
        if self.config.representation_size:
            init_lecun_normal(self.pre_logits.weight)
            nn.init.zeros_(self.pre_logits.bias)
        if self.config.num_classes:
            nn.init.zeros_(self.head.weight)
            nn.init.zeros_(self.head.bias)

    @property
    def num_prefix_tokens(self) -> int:
        """Tokens before the patches."""
        return self.config.num_prefix_tokens

    @property
    def trace_names(self) -> tuple[str, ...]:
        """The names that `trace` knows, from input to output."""
        blocks = [
            name
            for index in range(self.config.depth)
            for name in (f"block{index:02}/attention", f"block{index:02}")
        ]
        return ("embedding", *blocks, "tokens", "features", "logits")

    def forward(self, images: Float[Tensor, "N C H W"]) -> Float[Tensor, "N K"]:
        """Classify images.

        Args:
            images: in the range and size that `preprocessing` states.

        Returns:
            The logits; without a head, the features (N, D).
        """
        features = self.features(images)
        return self.head(features) if self.config.num_classes else features

    def features(self, images: Float[Tensor, "N C H W"]) -> Float[Tensor, "N D"]:
        """Return what the head reads: `pool(tokens(images))`."""
        if self.config.pool != "token":
            return self.pool(self.tokens(images))
        # The class token is all that is read of the last block: the others are not computed there.
        tokens = self._add_positions(self.embed(images))
        *blocks, last = self._blocks()
        for block in blocks:
            tokens = block(tokens)
        return self.pool(self.norm(last.first_token(tokens)))

    def tokens(self, images: Float[Tensor, "N C H W"]) -> Float[Tensor, "N L D"]:
        """Return the tokens after the last norm: prefix tokens first, then patches row by row."""
        return self.encode(self.embed(images))

    def embed(self, images: Float[Tensor, "N C H W"]) -> Float[Tensor, "N P D"]:
        """Project the patches (equation 1, before positions).

        Raises:
            RequestError: the images do not have the size or channels that the model is made for.
        """
        wanted = (self.config.in_channels, *self.config.image_hw)
        if tuple(images.shape[1:]) != wanted:
            raise RequestError(
                f"images of {tuple(images.shape[1:])} (channels, height, width) do not fit a model "
                f"for {wanted}: resize them, or load the model with image_size="
                f"{tuple(images.shape[2:])}"
            )
        return self.embedding(images)

    def encode(self, patches: Float[Tensor, "N P D"]) -> Float[Tensor, "N L D"]:
        """Add the class token and positions, run the blocks, normalise (equations 1 to 4)."""
        tokens = self._add_positions(patches)
        for block in self._blocks():
            tokens = block(tokens)
        return self.norm(tokens)

    def pool(self, tokens: Float[Tensor, "N L D"]) -> Float[Tensor, "N F"]:
        """Take the class token or the mean over patches, through `pre_logits` if there is one."""
        pooled = tokens[:, 0] if self.config.pool == "token" else tokens.mean(dim=1)
        if self.config.representation_size:
            return torch.tanh(self.pre_logits(pooled))
        return pooled

    def trace(self, images: Float[Tensor, "N C H W"], names: Iterable[str]) -> dict[str, Tensor]:
        """Return intermediate results by name; work ends at the last one asked for.

        Args:
            images: as for `forward`.
            names: from `trace_names`: `embedding` (N, P, D), `blockNN` (N, L, D),
                `blockNN/attention` (N, heads, L, L) whose rows sum to 1, `tokens` (N, L, D),
                `features` (N, D), `logits`.

        Raises:
            RequestError: a name that this model does not have.
        """
        missing = list(dict.fromkeys(names))
        for name in missing:
            if name not in self.trace_names:
                raise RequestError(
                    f"there is nothing called {name!r} to trace{nearest(name, self.trace_names)}"
                )
        found: dict[str, Tensor] = {}

        def keep(name: str, value: Tensor) -> bool:
            if name in missing:
                found[name] = value
            return len(found) == len(missing)

        patches = self.embed(images)
        if keep("embedding", patches):
            return found
        tokens = self._add_positions(patches)
        for index, block in enumerate(self._blocks()):
            name = f"block{index:02}/attention"
            if name in missing and keep(name, block.attention_weights(tokens)):
                return found
            tokens = block(tokens)
            if keep(f"block{index:02}", tokens):
                return found
        tokens = self.norm(tokens)
        features = self.pool(tokens)
        keep("tokens", tokens)
        keep("features", features)
        keep("logits", self.head(features) if self.config.num_classes else features)
        return found

    def _add_positions(self, patches: Tensor) -> Tensor:
        if self.config.pool == "token":
            cls_token = self.cls_token.to(patches.dtype).expand(patches.shape[0], -1, -1)
            patches = torch.cat([cls_token, patches], dim=1)
        return self.dropout(self.position(patches))

    def _blocks(self) -> Iterable[EncoderBlock]:
        return self.blocks  # type: ignore[return-value]


def _build_block(config: ViTConfig) -> EncoderBlock:
    return EncoderBlock(
        config.embed_dim,
        config.num_heads,
        mlp_dim=config.mlp_dim,
        activation=config.activation,
        dropout=config.dropout,
        norm_eps=config.norm_eps,
    )
