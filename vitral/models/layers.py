"""The boxes of the paper's Figure 1, right: attention, MLP and the block that joins them."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

MLP_BIAS_STD = 1e-6


class Attention(nn.Module):
    """Multi-head self-attention. Source: ViT paper, appendix A; no dropout on its weights (B.1)."""

    def __init__(self, embed_dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(embed_dim, 3 * embed_dim)
        self.out = nn.Linear(embed_dim, embed_dim)

    def init_weights(self) -> None:
        """Draw q, k, v and out each as a Xavier-uniform D x D matrix, as the official code does."""
        for matrix in (*self.qkv.weight.chunk(3), self.out.weight):
            nn.init.xavier_uniform_(matrix)
        nn.init.zeros_(self.qkv.bias)
        nn.init.zeros_(self.out.bias)

    def forward(self, tokens: Float[Tensor, "N L D"]) -> Float[Tensor, "N L D"]:
        """Mix the tokens by their attention."""
        query, key, value = self._split_heads(tokens)
        return self._mix(query, key, value)

    def first_token(self, tokens: Float[Tensor, "N L D"]) -> Float[Tensor, "N 1 D"]:
        """Return what `forward` gives for the first token, without the work for the others."""
        width = tokens.shape[-1]
        query = F.linear(tokens[:, :1], self.qkv.weight[:width], self.qkv.bias[:width])
        key_value = F.linear(tokens, self.qkv.weight[width:], self.qkv.bias[width:])
        key, value = self._heads(key_value, parts=2)
        return self._mix(self._heads(query, parts=1)[0], key, value)

    def weights(self, tokens: Float[Tensor, "N L D"]) -> Float[Tensor, "N heads L L"]:
        """Return the attention that `forward` applies, whatever kernel it runs; rows sum to 1."""
        query, key, _ = self._split_heads(tokens)
        with torch.autocast(tokens.device.type, enabled=False):
            scores = query.float() @ key.float().transpose(-2, -1) * query.shape[-1] ** -0.5
            return scores.softmax(dim=-1)

    def _mix(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        mixed = F.scaled_dot_product_attention(query, key, value)
        return self.out(mixed.transpose(1, 2).flatten(2))

    def _split_heads(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        query, key, value = self._heads(self.qkv(tokens), parts=3)
        return query, key, value

    def _heads(self, projected: Tensor, *, parts: int) -> tuple[Tensor, ...]:
        """Cut (N, L, parts D) into `parts` of (N, heads, L, d)."""
        split = projected.unflatten(-1, (parts, self.num_heads, -1))
        return split.permute(2, 0, 3, 1, 4).unbind(0)


class MLP(nn.Module):
    """Two dense layers with GELU between them. Source: ViT paper, section 3.1."""

    def __init__(self, embed_dim: int, mlp_dim: int, *, activation: str, dropout: float) -> None:
        super().__init__()
        self.hidden = nn.Linear(embed_dim, mlp_dim)
        self.out = nn.Linear(mlp_dim, embed_dim)
        self.gelu = nn.GELU(approximate="tanh" if activation == "gelu_tanh" else "none")
        self.dropout = nn.Dropout(dropout)

    def init_weights(self) -> None:
        """Draw Xavier-uniform kernels and tiny biases, as the official code does."""
        for layer in (self.hidden, self.out):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.normal_(layer.bias, std=MLP_BIAS_STD)

    def forward(self, tokens: Float[Tensor, "N L D"]) -> Float[Tensor, "N L D"]:
        """Transform each token by itself."""
        hidden = self.dropout(self.gelu(self.hidden(tokens)))
        return self.dropout(self.out(hidden))


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
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(embed_dim, eps=norm_eps)
        self.attention = Attention(embed_dim, num_heads)
        self.dropout = nn.Dropout(dropout)
        self.norm2 = nn.LayerNorm(embed_dim, eps=norm_eps)
        self.mlp = MLP(embed_dim, mlp_dim, activation=activation, dropout=dropout)

    def init_weights(self) -> None:
        """Draw fresh weights; norms start as the identity."""
        for norm in (self.norm1, self.norm2):
            norm.reset_parameters()
        self.attention.init_weights()
        self.mlp.init_weights()

    def forward(self, tokens: Float[Tensor, "N L D"]) -> Float[Tensor, "N L D"]:
        """Pass the tokens through attention and MLP, each added to its input."""
        tokens = tokens + self.dropout(self.attention(self.norm1(tokens)))
        return tokens + self.mlp(self.norm2(tokens))

    def first_token(self, tokens: Float[Tensor, "N L D"]) -> Float[Tensor, "N 1 D"]:
        """Return what `forward` gives for the first token, without the work for the others."""
        first = tokens[:, :1] + self.dropout(self.attention.first_token(self.norm1(tokens)))
        return first + self.mlp(self.norm2(first))

    def attention_weights(self, tokens: Float[Tensor, "N L D"]) -> Float[Tensor, "N heads L L"]:
        """Return the attention that the block applies to these inputs."""
        return self.attention.weights(self.norm1(tokens))


class PatchEmbedding(nn.Module):
    """Cut an image into patches and project each. Source: ViT paper, equation 1."""

    def __init__(self, in_channels: int, embed_dim: int, *, patch_size: tuple[int, int]) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.weight = nn.Parameter(torch.empty(embed_dim, in_channels, *patch_size))
        self.bias = nn.Parameter(torch.empty(embed_dim))

    def init_weights(self) -> None:
        """Draw the kernel LeCun-normal: truncated at two sigma, variance 1 / fan-in (jax's)."""
        init_lecun_normal(self.weight.flatten(1))
        nn.init.zeros_(self.bias)

    def forward(self, images: Float[Tensor, "N C H W"]) -> Float[Tensor, "N P D"]:
        """Project the patches, row by row; pixels right and bottom that fill none are left out."""
        height, width = self.patch_size
        rows, columns = images.shape[2] // height, images.shape[3] // width
        tiled = images[:, :, : rows * height, : columns * width]
        patches = tiled.unflatten(3, (columns, width)).unflatten(2, (rows, height))
        patches = patches.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)  # N P (C h w)
        return F.linear(patches, self.weight.flatten(1), self.bias)


def init_lecun_normal(weight: Tensor) -> None:
    """Draw a matrix (out, in) as jax's lecun_normal does: cut at two sigma, variance 1 / in."""
    # The standard deviation of a unit normal truncated at two sigma, as in jax.nn.initializers.
    truncated_std = 0.87962566103423978
    std = weight.shape[1] ** -0.5 / truncated_std
    with torch.no_grad():
        nn.init.trunc_normal_(weight, std=std, a=-2 * std, b=2 * std)
