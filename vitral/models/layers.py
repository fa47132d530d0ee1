"""Attention, MLP and encoder block (the paper's Figure 1, right), patch embedding, pooling."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from vitral.models.position import Heads, Relative

MLP_BIAS_STD = 1e-6


class Attention(nn.Module):
    """Multi-head self-attention. Source: ViT paper, appendix A; no dropout on its weights (B.1)."""

    def __init__(
        self, embed_dim: int, num_heads: int, *, norm_heads: bool = False, norm_eps: float = 1e-6
    ) -> None:
        """Build it.

        Args:
            embed_dim: width of the tokens, D.
            num_heads: number of heads; divides D.
            norm_heads: whether each head's queries and keys are LayerNorm-ed (arXiv 2302.05442).
            norm_eps: epsilon of those norms.
        """
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(embed_dim, 3 * embed_dim)
        self.out = nn.Linear(embed_dim, embed_dim)
        self.query_norm: nn.Module = nn.Identity()
        self.key_norm: nn.Module = nn.Identity()
        if norm_heads:
            self.query_norm = nn.LayerNorm(embed_dim // num_heads, eps=norm_eps)
            self.key_norm = nn.LayerNorm(embed_dim // num_heads, eps=norm_eps)

    def init_weights(self) -> None:
        """Draw q, k, v and out each as a Xavier-uniform D x D matrix, as the official code does."""
        for matrix in (*self.qkv.weight.chunk(3), self.out.weight):
            nn.init.xavier_uniform_(matrix)
        nn.init.zeros_(self.qkv.bias)
        nn.init.zeros_(self.out.bias)
        for norm in (self.query_norm, self.key_norm):
            if isinstance(norm, nn.LayerNorm):
                norm.reset_parameters()

    def forward(
        self, tokens: Float[Tensor, "N L D"], relative: Relative | None = None
    ) -> Float[Tensor, "N L D"]:
        """Apply self-attention; `relative` adds a bias by offset."""
        query, key, value = self._split_heads(tokens)
        bias = relative(query) if relative is not None else None
        return self._mix(query, key, value, bias)

    def attend(
        self, queries: Float[Tensor, "N M D"], tokens: Float[Tensor, "N L D"]
    ) -> Float[Tensor, "N M D"]:
        """Apply cross-attention from the queries to the tokens."""
        query, key, value = self._project(queries, tokens)
        return self._mix(query, key, value)

    def attend_weights(
        self,
        queries: Float[Tensor, "N M D"],
        tokens: Float[Tensor, "N L D"],
        heads: Heads = None,
    ) -> Float[Tensor, "N heads M L"]:
        """Return the attention that `attend` applies, of some heads (None: all); rows sum to 1."""
        query, key, _ = self._project(queries, tokens)
        return _softmax_scores(_choose(query, heads), _choose(key, heads))

    def weights(
        self,
        tokens: Float[Tensor, "N L D"],
        relative: Relative | None = None,
        heads: Heads = None,
    ) -> Float[Tensor, "N heads L L"]:
        """Return the attention that `forward` applies, whatever kernel it runs; rows sum to 1.

        Only the given heads are computed; None: all.
        """
        query, key, _ = self._split_heads(tokens)
        query, key = _choose(query, heads), _choose(key, heads)
        bias = relative(query, heads) if relative is not None else None
        return _softmax_scores(query, key, bias)

    def _project(self, queries: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        width = tokens.shape[-1]
        query = F.linear(queries, self.qkv.weight[:width], self.qkv.bias[:width])
        key_value = F.linear(tokens, self.qkv.weight[width:], self.qkv.bias[width:])
        key, value = self._heads(key_value, parts=2)
        return self.query_norm(self._heads(query, parts=1)[0]), self.key_norm(key), value

    def _mix(self, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None = None) -> Tensor:
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        return self.out(mixed.transpose(1, 2).flatten(2))

    def _split_heads(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        query, key, value = self._heads(self.qkv(tokens), parts=3)
        return self.query_norm(query), self.key_norm(key), value

    def _heads(self, projected: Tensor, *, parts: int) -> tuple[Tensor, ...]:
        """Split (N, L, parts D) into `parts` of (N, heads, L, d)."""
        split = projected.unflatten(-1, (parts, self.num_heads, -1))
        return split.permute(2, 0, 3, 1, 4).unbind(0)


def _choose(split: Tensor, heads: Heads) -> Tensor:
    """Return some heads of (N, heads, L, d)."""
    return split if heads is None else split[:, list(heads)]


def _softmax_scores(query: Tensor, key: Tensor, bias: Tensor | None = None) -> Tensor:
    with torch.autocast(query.device.type, enabled=False):
        scores = query.float() @ key.float().transpose(-2, -1) * query.shape[-1] ** -0.5
        return (scores if bias is None else scores + bias.float()).softmax(dim=-1)


class MLP(nn.Module):
    """Two dense layers with a GELU or a gate between them. Source: ViT paper, section 3.1.

    With "swiglu" the first layer is twice as wide, and its first half, through SiLU, multiplies
    its second (arXiv 2002.05202).
    """

    def __init__(self, embed_dim: int, mlp_dim: int, *, activation: str, dropout: float) -> None:
        super().__init__()
        self.is_gated = activation == "swiglu"
        self.hidden = nn.Linear(embed_dim, mlp_dim * (2 if self.is_gated else 1))
        self.out = nn.Linear(mlp_dim, embed_dim)
        self.gelu = nn.GELU(approximate="tanh" if activation == "gelu_tanh" else "none")
        self.dropout = nn.Dropout(dropout)

    def init_weights(self) -> None:
        """Draw Xavier-uniform kernels and tiny biases, as the official code does."""
        for layer in (self.hidden, self.out):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.normal_(layer.bias, std=MLP_BIAS_STD)

    def forward(self, tokens: Float[Tensor, "N L D"]) -> Float[Tensor, "N L D"]:
        """Transform each token independently."""
        hidden = self._activate(self.hidden(tokens))
        return self.dropout(self.out(self.dropout(hidden)))

    def _activate(self, hidden: Tensor) -> Tensor:
        if not self.is_gated:
            return self.gelu(hidden)
        gate, value = hidden.chunk(2, dim=-1)
        return F.silu(gate) * value


class LayerScale(nn.Module):
    """A learned factor on each channel (LayerScale, arXiv 2103.17239)."""

    def __init__(self, embed_dim: int, *, start: float) -> None:
        super().__init__()
        self.start = start
        self.scale = nn.Parameter(torch.empty(embed_dim))

    def init_weights(self) -> None:
        """Set all factors to the start value."""
        nn.init.constant_(self.scale, self.start)

    def forward(self, tokens: Float[Tensor, "N L D"]) -> Float[Tensor, "N L D"]:
        """Multiply by the factors."""
        return tokens * self.scale


class EncoderBlock(nn.Module):
    """z' = MSA(LN(z)) + z; z = MLP(LN(z')) + z'. Source: ViT paper, equations 2 and 3."""

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        *,
        mlp_dim: int,
        activation: str,
        dropout: float,
        norm_eps: float,
        qk_norm: bool = False,
        layer_scale: float | None = None,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(embed_dim, eps=norm_eps)
        self.attention = Attention(embed_dim, num_heads, norm_heads=qk_norm, norm_eps=norm_eps)
        self.dropout = nn.Dropout(dropout)
        self.norm2 = nn.LayerNorm(embed_dim, eps=norm_eps)
        self.mlp = MLP(embed_dim, mlp_dim, activation=activation, dropout=dropout)
        self.scale1: nn.Module = nn.Identity()
        self.scale2: nn.Module = nn.Identity()
        if layer_scale is not None:
            self.scale1 = LayerScale(embed_dim, start=layer_scale)
            self.scale2 = LayerScale(embed_dim, start=layer_scale)

    def init_weights(self) -> None:
        """Draw fresh weights; norms start as the identity."""
        for norm in (self.norm1, self.norm2):
            norm.reset_parameters()
        for scale in (self.scale1, self.scale2):
            if isinstance(scale, LayerScale):
                scale.init_weights()
        self.attention.init_weights()
        self.mlp.init_weights()

    def forward(
        self,
        tokens: Float[Tensor, "N L D"],
        drop_path_scale: Float[Tensor, "N 2"] | None = None,
        relative: Relative | None = None,
        *,
        cls_only: bool = False,
    ) -> Float[Tensor, "N M D"]:
        """Pass the tokens through attention and MLP, each added to its input.

        Args:
            tokens: of N examples.
            drop_path_scale: factors on each example's two branches (`stochastic_depth`).
            relative: attention bias by offset.
            cls_only: whether to compute only the first token, a class token. `relative` does not
                apply to it, as it has no offset.

        Returns:
            All L tokens, or only the first.
        """
        normed = self.norm1(tokens)
        if cls_only:
            tokens = tokens[:, :1]
            attended = self.attention.attend(normed[:, :1], normed)
        else:
            attended = self.attention(normed, relative)
        tokens = tokens + scale_branch(
            self.dropout(self.scale1(attended)), drop_path_scale, branch=0
        )
        transformed = self.scale2(self.mlp(self.norm2(tokens)))
        return tokens + scale_branch(transformed, drop_path_scale, branch=1)

    def attention_weights(
        self,
        tokens: Float[Tensor, "N L D"],
        relative: Relative | None = None,
        heads: Heads = None,
    ) -> Float[Tensor, "N heads L L"]:
        """Return the attention that the block applies to its input, of some heads (None: all)."""
        return self.attention.weights(self.norm1(tokens), relative, heads)


def scale_branch(branch_output: Tensor, scale: Tensor | None, *, branch: int) -> Tensor:
    """Multiply each example's branch (N, L, D) by its factor in `scale` (N, branches)."""
    if scale is None:
        return branch_output
    return branch_output * scale[:, branch].to(branch_output.dtype).view(-1, 1, 1)


class AttentionPool(nn.Module):
    """Pool tokens by the attention of a learned probe (MAP). Source: arXiv 2106.04560, 3.2."""

    def __init__(
        self, embed_dim: int, num_heads: int, *, mlp_dim: int, activation: str, norm_eps: float
    ) -> None:
        super().__init__()
        self.probe = nn.Parameter(torch.empty(1, 1, embed_dim))
        self.attention = Attention(embed_dim, num_heads)
        self.norm = nn.LayerNorm(embed_dim, eps=norm_eps)
        self.mlp = MLP(embed_dim, mlp_dim, activation=activation, dropout=0.0)

    def init_weights(self) -> None:
        """Draw fresh weights, the probe as a Xavier-uniform row, as the official code does."""
        nn.init.xavier_uniform_(self.probe[0])
        self.attention.init_weights()
        self.norm.reset_parameters()
        self.mlp.init_weights()

    def no_weight_decay(self) -> set[str]:
        """Return the name of the probe, a token."""
        return {"probe"}

    def forward(self, tokens: Float[Tensor, "N L D"]) -> Float[Tensor, "N D"]:
        """Pool the tokens."""
        pooled = self.attention.attend(self.probe.expand(tokens.shape[0], -1, -1), tokens)
        return (pooled + self.mlp(self.norm(pooled)))[:, 0]

    def attention_weights(
        self, tokens: Float[Tensor, "N L D"], heads: Heads = None
    ) -> Float[Tensor, "N heads 1 L"]:
        """Return the probe's attention to each token, of some heads (None: all); rows sum to 1."""
        probe = self.probe.expand(tokens.shape[0], -1, -1)
        return self.attention.attend_weights(probe, tokens, heads)


class PatchEmbedding(nn.Module):
    """Split an image into patches and project each. Source: ViT paper, equation 1."""

    def __init__(self, in_channels: int, embed_dim: int, *, patch_size: tuple[int, int]) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.weight = nn.Parameter(torch.empty(embed_dim, in_channels, *patch_size))
        self.bias = nn.Parameter(torch.empty(embed_dim))

    def init_weights(self) -> None:
        """Draw the kernel LeCun-normal, as jax: truncated at two sigma, variance 1 / fan-in."""
        init_lecun_normal(self.weight.flatten(1))
        nn.init.zeros_(self.bias)

    def forward(self, images: Float[Tensor, "N C H W"]) -> Float[Tensor, "N P D"]:
        """Project the patches, row by row, without pixels at right and bottom that fill none."""
        height, width = self.patch_size
        rows, columns = images.shape[2] // height, images.shape[3] // width
        tiled = images[:, :, : rows * height, : columns * width]
        patches = tiled.unflatten(3, (columns, width)).unflatten(2, (rows, height))
        patches = patches.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)  # N P (C h w)
        return F.linear(patches, self.weight.flatten(1), self.bias)

    def filters(self) -> Float[Tensor, "D C H W"]:
        """Return the filters that read the image."""
        return self.weight.detach()

    @property
    def trace_names(self) -> tuple[str, ...]:
        """The names that `walk` yields."""
        return ("embedding",)

    def walk(self, images: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Yield the projected patches by name."""
        yield "embedding", self(images)


def init_lecun_normal(weight: Tensor) -> None:
    """Draw a matrix (out, in) as jax's lecun_normal: truncated at two sigma, variance 1 / in."""
    # The standard deviation of a unit normal truncated at two sigma, as in jax.nn.initializers.
    truncated_std = 0.87962566103423978
    std = weight.shape[1] ** -0.5 / truncated_std
    with torch.no_grad():
        nn.init.trunc_normal_(weight, std=std, a=-2 * std, b=2 * std)
