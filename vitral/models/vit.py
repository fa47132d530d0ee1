"""The Vision Transformer (the paper's Figure 1, left)."""

from collections.abc import Collection, Iterator
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from vitral.config.checks import show_size
from vitral.config.preprocessing import Preprocessing
from vitral.config.vit import ViTConfig
from vitral.errors import RequestError
from vitral.models.axial import AxialBlock
from vitral.models.drop_path import stochastic_depth
from vitral.models.hybrid import HybridEmbedding
from vitral.models.layers import (
    AttentionPool,
    EncoderBlock,
    PatchEmbedding,
    init_lecun_normal,
)
from vitral.models.layout import AttentionLayer, Kind, Layout, stage_depth
from vitral.models.model import Model, build_head, zero_head
from vitral.models.position import ADDED_POSITIONS, Grid, Heads, Relative, RelativePosition


class ViT(Model):
    """A Vision Transformer. Source: ViT paper (arXiv 2010.11929v2), section 3.1.

    With `config.resnet` its patches are cut from a ResNet's map (a hybrid). With
    `config.attention="axial"` its blocks attend along rows, then along columns (AxialViT).
    """

    config: ViTConfig

    def __init__(
        self,
        config: ViTConfig,
        *,
        preprocessing: Preprocessing | None = None,
        classes: tuple[str, ...] | None = None,
        output: str = "softmax",
    ) -> None:
        super().__init__(config, preprocessing=preprocessing, classes=classes, output=output)
        self.embedding = _build_embedding(config)
        if config.class_token:
            self.cls_token = nn.Parameter(torch.empty(1, 1, config.embed_dim))
        if config.num_registers:
            self.registers = nn.Parameter(torch.empty(1, config.num_registers, config.embed_dim))
        self.positions = nn.ModuleList(_build_positions(config))
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(_build_block(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.embed_dim, eps=config.norm_eps)
        if config.pool == "map":
            self.attention_pool = AttentionPool(
                config.embed_dim,
                config.num_heads,
                mlp_dim=config.mlp_dim,
                activation=config.activation,
                norm_eps=config.norm_eps,
            )
        if config.representation_size:
            self.pre_logits = nn.Linear(config.pooled_dim, config.representation_size)
        self.head = build_head(config)
        self.init_weights()

    @torch.no_grad()
    def init_weights(self) -> None:
        """Draw fresh weights as the official code does; class token and head start at zero."""
        self.embedding.init_weights()
        if self.config.class_token:
            nn.init.zeros_(self.cls_token)
        if self.config.num_registers:
            # As in DINOv2; zeros would leave several registers equal forever.
            nn.init.normal_(self.registers, std=1e-6)
        for module in (*self.positions, *self.blocks):
            module.init_weights()
        self.norm.reset_parameters()
        if self.config.pool == "map":
            self.attention_pool.init_weights()
        if self.config.representation_size:
            init_lecun_normal(self.pre_logits.weight)
            nn.init.zeros_(self.pre_logits.bias)
        zero_head(self.head)

    @property
    def num_prefix_tokens(self) -> int:
        """Tokens before the patches."""
        return self.config.num_prefix_tokens

    def layout(self) -> Layout:
        """Return the layout of the patches and prefix tokens."""
        config = self.config
        return Layout(
            grid=config.grid,
            stride=config.stride,
            num_prefix_tokens=config.num_prefix_tokens,
            has_class_token=bool(config.class_token),
            has_tokens=True,
            pool=config.pool,
        )

    def attention_layers(self) -> tuple[AttentionLayer, ...]:
        """Return the blocks' attention layers (axial: rows before columns), and the pool's."""
        config = self.config
        kinds: dict[str, Kind] = {"attention": "full"}
        if config.attention == "axial":
            kinds = {"row_attention": "row", "column_attention": "column"}
        found: list[tuple[str, str, Kind]] = [
            (f"block{index:02}", part, kind)
            for index in range(config.depth)
            for part, kind in kinds.items()
        ]
        if config.pool == "map":
            found.append(("pool", "attention", "pool"))
        return tuple(
            AttentionLayer(
                name=f"{layer}/{part}",
                layer=layer,
                kind=kind,
                num_heads=config.num_heads,
                grid=config.grid,
                stride=config.stride,
                num_prefix_tokens=config.num_prefix_tokens,
            )
            for layer, part, kind in found
        )

    def layer_depth(self, name: str) -> int:
        """Return the depth of a parameter in the network, counted in units and blocks."""
        stages = self.config.resnet.stages if self.config.resnet else ()
        embedding = stage_depth("", stages)
        part, _, rest = name.partition(".")
        if part == "embedding":
            return stage_depth(rest.removeprefix("resnet."), stages)
        if part in ("cls_token", "registers", "positions"):
            return embedding
        block = int(rest.partition(".")[0]) if part == "blocks" else self.config.depth
        return embedding + 1 + block

    def no_weight_decay(self) -> set[str]:
        """Return the names of tokens, of the pool's probe and of position tables."""
        return super().no_weight_decay() | {"cls_token", "registers"} & set(self._parameters)

    def block_modules(self) -> tuple[nn.Module, ...]:
        """Return the units of a hybrid's ResNet and the blocks."""
        units: tuple[nn.Module, ...] = ()
        if isinstance(self.embedding, HybridEmbedding):
            units = tuple(self.embedding.resnet.units())
        return (*units, *self.blocks)

    def first_filters(self) -> Float[Tensor, "D C H W"]:
        """Return the patch embedding's filters; of a hybrid, those of its ResNet's root."""
        return self.embedding.filters()

    @property
    def trace_names(self) -> tuple[str, ...]:
        """The names that `trace` knows, from input to output."""
        by_layer: dict[str, list[str]] = {}
        for attention in self.attention_layers():
            by_layer.setdefault(attention.layer, []).append(attention.name)
        pool = by_layer.pop("pool", [])
        blocks = [name for layer, names in by_layer.items() for name in (*names, layer)]
        return (*self.embedding.trace_names, *blocks, "tokens", *pool, "features", "logits")

    @property
    def num_drop_paths(self) -> int:
        """Branches, of all blocks, that stochastic depth may skip; 0: it skips none."""
        return self.config.depth * self.config.num_branches if self.config.drop_path else 0

    def features(
        self, images: Float[Tensor, "N C H W"], *, any_size: bool = False
    ) -> Float[Tensor, "N F"]:
        """Return what the head reads: `pool(tokens(images))`; arguments as for `forward`."""
        # Only the class token of the last block is read, so other tokens are not computed there.
        # With offsets they are: a class token has none, so the last block's table would have no
        # gradient instead of zeros, and training on several devices would wait for it.
        reads_first = self.config.pool == "token" and self.config.attention == "full"
        cls_only = reads_first and self.config.position != "relative"
        patches, grid = self.embed(images, any_size=any_size), self._grid_of(images)
        return self.pool(self._encode(patches, grid=grid, cls_only=cls_only))

    def tokens(
        self, images: Float[Tensor, "N C H W"], *, any_size: bool = False
    ) -> Float[Tensor, "N L D"]:
        """Return the tokens after the last norm: prefix tokens first, then patches row by row.

        With `norm_pooled` the last norm follows the pooling and is not applied here. Arguments as
        for `forward`.
        """
        patches = self.embed(images, any_size=any_size)
        return self.encode(patches, grid=self._grid_of(images))

    def embed(
        self, images: Float[Tensor, "N C H W"], *, any_size: bool = False
    ) -> Float[Tensor, "N P D"]:
        """Project the patches (equation 1, before positions), row by row.

        With `any_size` images may have another size than the config's; then pass `encode` the grid,
        `config.grid_at((height, width))`.

        Raises:
            RequestError: the images do not have the size or channels that the model is made for.
        """
        self.check_images(images, any_size=any_size)
        if isinstance(self.embedding, HybridEmbedding):
            return self.embedding(images, self._run)
        return self._run(self.embedding, images)

    def encode(
        self,
        patches: Float[Tensor, "N P D"],
        *,
        grid: tuple[int, int] | None = None,
        visible: Int[Tensor, "N V"] | None = None,
    ) -> Float[Tensor, "N L D"]:
        """Add prefix tokens and positions, run the blocks, normalise (equations 1 to 4).

        Args:
            patches: of the whole grid, from `embed`; some may have been replaced.
            grid: patches down and across, to which positions are interpolated; None: the config's.
            visible: int64, for each example the indices, 0 to P - 1, of the patches to encode, in
                this order, each with the position of its index; None: all.

        Returns:
            Prefix tokens, then the (visible) patches.

        Raises:
            RequestError: patches or indices that do not fit, or axial blocks, which need all
                patches of the config's grid.
        """
        return self._encode(patches, grid=grid, visible=visible)

    def add_positions(
        self,
        tokens: Float[Tensor, "N L D"],
        *,
        block: int = 0,
        grid: tuple[int, int] | None = None,
        visible: Int[Tensor, "N V"] | None = None,
    ) -> Float[Tensor, "N L D"]:
        """Add positions to prefix tokens and patches, as `encode` does before a block.

        Positions that enter at the stem are added before block 0 only. Relative positions are not
        added to tokens.

        Args:
            tokens: prefix tokens, then patches.
            block: counted from 0.
            grid: as for `encode`.
            visible: as for `encode`.
        """
        config = self.config
        if config.position not in ADDED_POSITIONS or (config.position_at == "stem" and block):
            return tokens
        other = None if grid == config.grid else grid
        added: Tensor = self._position(block)(tokens, other, visible)
        return added

    def _encode(
        self,
        patches: Tensor,
        *,
        grid: Grid = None,
        visible: Tensor | None = None,
        cls_only: bool = False,
    ) -> Tensor:
        """Encode; with `cls_only` the last block returns only the class token, (N, 1, D)."""
        grid = None if grid == self.config.grid else grid
        self._check_patches(patches, grid, visible)
        if visible is not None:
            patches = patches.gather(1, visible.unsqueeze(2).expand(-1, -1, patches.shape[2]))
        tokens = self._assemble(patches, grid, visible)
        drop_path_scale = self._draw_drop_path_scale(tokens)
        last = self.config.depth - 1
        for index in range(self.config.depth):
            options = {"cls_only": True} if cls_only and index == last else {}
            tokens = self._run(
                self.blocks[index],
                self._add_position(index, tokens, grid, visible),
                None if drop_path_scale is None else drop_path_scale[:, index],
                *self._extra(index, grid, visible),
                **options,
            )
        return tokens if self.config.norm_pooled else self.norm(tokens)

    def pool(self, tokens: Float[Tensor, "N L D"]) -> Float[Tensor, "N F"]:
        """Pool as configured, and apply `pre_logits` if there is one."""
        pooled = self._pool(tokens)
        if self.config.norm_pooled:
            pooled = self.norm(pooled)
        if self.config.representation_size:
            return torch.tanh(self.pre_logits(pooled))
        return pooled

    def _pool(self, tokens: Tensor) -> Tensor:
        prefix = self.config.num_prefix_tokens
        if self.config.pool == "token":
            return tokens[:, 0]
        if self.config.pool == "map":
            return self.attention_pool(tokens)
        if self.config.pool == "gap":
            return tokens[:, prefix:].mean(dim=1)
        if self.config.pool == "token+gap":
            return torch.cat([tokens[:, 0], tokens[:, prefix:].mean(dim=1)], dim=-1)
        return tokens[:, :2].flatten(1)

    def _walk(
        self, images: Tensor, wanted: Collection[str], heads: Heads
    ) -> Iterator[tuple[str, Tensor]]:
        self.check_images(images)
        patches = images
        for name, patches in self.embedding.walk(images):
            yield name, patches
        tokens = self._assemble(patches)
        drop_path_scale = self._draw_drop_path_scale(tokens)
        for index, block in enumerate(self.blocks):
            name = f"block{index:02}"
            tokens = self._add_position(index, tokens)
            scale = None if drop_path_scale is None else drop_path_scale[:, index]
            parts = {f"{name}/row_attention", f"{name}/column_attention"}
            if isinstance(block, AxialBlock) and parts & set(wanted):
                tokens, rows, columns = block.with_attention(tokens, scale, heads)
                yield f"{name}/row_attention", rows
                yield f"{name}/column_attention", columns
            else:
                if isinstance(block, EncoderBlock) and f"{name}/attention" in wanted:
                    weights = block.attention_weights(tokens, self._relative(index), heads)
                    yield f"{name}/attention", weights
                tokens = block(tokens, scale, *self._extra(index))
            yield name, tokens
        tokens = tokens if self.config.norm_pooled else self.norm(tokens)
        yield "tokens", tokens
        if "pool/attention" in wanted:
            yield "pool/attention", self.attention_pool.attention_weights(tokens, heads)
        features = self.pool(tokens)
        yield "features", features
        yield "logits", self.classify(features)

    def _grid_of(self, images: Tensor) -> tuple[int, int]:
        return self.config.grid_at((images.shape[2], images.shape[3]))

    def _check_size(self, image_hw: tuple[int, int]) -> None:
        if self.config.attention == "axial":
            raise RequestError(
                f"{self.config.name} attends along the lines of its own grid: for images of "
                f"{show_size(image_hw)} load it with image_size={image_hw}"
            )
        if 0 in self.config.grid_at(image_hw):
            raise RequestError(
                f"images of {show_size(image_hw)} are smaller than a patch of {self.config.name}: "
                "give larger ones"
            )

    def _check_patches(self, patches: Tensor, grid: Grid, visible: Tensor | None) -> None:
        if self.config.attention == "axial" and not (grid is None and visible is None):
            raise RequestError(
                f"{self.config.name} attends along the lines of its own grid and needs all of its "
                "patches: leave grid and visible out"
            )
        rows, columns = grid or self.config.grid
        if patches.shape[1] != rows * columns:
            raise RequestError(
                f"{patches.shape[1]} patches do not fit a grid of {rows} x {columns}: give all of "
                "the grid's, and as grid how many are down and across"
            )
        if visible is not None and (
            visible.dtype != torch.int64
            or visible.ndim != 2
            or visible.shape[0] != patches.shape[0]
        ):
            raise RequestError(
                f"visible of shape {tuple(visible.shape)} and {visible.dtype} for {len(patches)} "
                "examples: give the numbers of their patches as int64 (N, V)"
            )

    def _assemble(
        self, patches: Tensor, grid: Grid = None, visible: Tensor | None = None
    ) -> Tensor:
        """Prepend the prefix tokens to the patches and add positions."""
        prefix = []
        if self.config.class_token:
            prefix.append(self.cls_token)
        if self.config.num_registers:
            prefix.append(self.registers)
        tokens = patches
        if prefix:
            # Not len(patches), which an export would treat as a constant.
            count = patches.shape[0]
            before = [tensor.to(patches.dtype).expand(count, -1, -1) for tensor in prefix]
            tokens = torch.cat([*before, patches], dim=1)
        if self.config.position_at == "stem":
            tokens = self.add_positions(tokens, grid=grid, visible=visible)
        return self.dropout(tokens)

    def _add_position(
        self, index: int, tokens: Tensor, grid: Grid = None, visible: Tensor | None = None
    ) -> Tensor:
        """Add positions if they enter before each block."""
        if self.config.position_at == "stem":
            return tokens
        return self.add_positions(tokens, block=index, grid=grid, visible=visible)

    def _relative(
        self, index: int, grid: Grid = None, visible: Tensor | None = None
    ) -> Relative | None:
        if self.config.position != "relative":
            return None
        position = self._position(index)
        if grid is None and visible is None:
            return position
        return partial(position, grid=grid, visible=visible)

    def _position(self, index: int) -> nn.Module:
        return self.positions[index if self.config.position_at == "every" else 0]

    def _extra(
        self, index: int, grid: Grid = None, visible: Tensor | None = None
    ) -> tuple[Relative | None, ...]:
        return () if self.config.attention == "axial" else (self._relative(index, grid, visible),)

    def _draw_drop_path_scale(self, tokens: Tensor) -> Tensor | None:
        """Return the factors (N, depth, branches) of stochastic depth; None: it is off."""
        if not (self.training and self.num_drop_paths):
            return None
        num_rows = tokens.shape[0]
        if self._drop_path is None:
            uniforms = torch.rand(num_rows, self.num_drop_paths, device=tokens.device)
        else:
            uniforms = self._drop_path.next_rows(num_rows)
        shape = (self.config.depth, self.config.num_branches)
        return stochastic_depth(uniforms.unflatten(1, shape), drop_path=self.config.drop_path)


def _build_embedding(config: ViTConfig) -> PatchEmbedding | HybridEmbedding:
    if config.resnet is not None:
        return HybridEmbedding(config.resnet, config.embed_dim, patch_size=config.patch_hw)
    return PatchEmbedding(config.in_channels, config.embed_dim, patch_size=config.patch_hw)


def _build_positions(config: ViTConfig) -> list[nn.Module]:
    """Return a module for each table: one, or one per block."""
    if config.position == "none":
        return []
    kind = RelativePosition if config.position == "relative" else ADDED_POSITIONS[config.position]
    count = config.depth if config.position_at == "every" else 1
    return [kind(config) for _ in range(count)]


def _build_block(config: ViTConfig) -> EncoderBlock | AxialBlock:
    def build() -> EncoderBlock:
        return EncoderBlock(
            config.embed_dim,
            config.num_heads,
            mlp_dim=config.mlp_dim,
            activation=config.activation,
            dropout=config.dropout,
            norm_eps=config.norm_eps,
            qk_norm=config.qk_norm,
            layer_scale=config.layer_scale,
        )

    if config.attention == "full":
        return build()
    return AxialBlock(
        build(), build(), grid=config.grid, num_prefix_tokens=config.num_prefix_tokens
    )
