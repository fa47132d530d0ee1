"""A ViT's weights in the official format, by a name table independent of the library."""

import numpy as np

from vitral.models.model import Model

Arrays = dict[str, np.ndarray]
# What the parts of a block are called: in the released files, in later code.
RELEASED = ("LayerNorm_0", "MultiHeadDotProductAttention_1", "LayerNorm_2", "MlpBlock_3")
LINEN = ("LayerNorm_0", "MultiHeadDotProductAttention_0", "LayerNorm_1", "MlpBlock_0")


def official_arrays(model: Model, *, names: tuple[str, ...] = RELEASED) -> Arrays:
    """Return the arrays of a plain ViT; with `MAPHead_0` if it pools by attention."""
    config = model.config
    state = {name: tensor.detach().numpy() for name, tensor in model.state_dict().items()}
    arrays = {
        "embedding/kernel": state["embedding.weight"].transpose(2, 3, 1, 0),
        "embedding/bias": state["embedding.bias"],
        "Transformer/posembed_input/pos_embedding": state["positions.0.table"],
        **_norm(state, "norm", "Transformer/encoder_norm"),
    }
    for index in range(config.depth):
        ours, theirs = f"blocks.{index}", f"Transformer/encoderblock_{index}"
        norm1, attention, norm2, mlp = (f"{theirs}/{name}" for name in names)
        arrays |= _norm(state, f"{ours}.norm1", norm1) | _norm(state, f"{ours}.norm2", norm2)
        arrays |= _attention(state, f"{ours}.attention", attention, heads=config.num_heads)
        arrays |= _dense(state, f"{ours}.mlp.hidden", f"{mlp}/Dense_0")
        arrays |= _dense(state, f"{ours}.mlp.out", f"{mlp}/Dense_1")
    if config.class_token:
        arrays["cls"] = state["cls_token"]
    if config.pool == "map":
        ours = "attention_pool"
        arrays["MAPHead_0/probe"] = state[f"{ours}.probe"]
        arrays |= _norm(state, f"{ours}.norm", "MAPHead_0/LayerNorm_0")
        arrays |= _attention(
            state, f"{ours}.attention", "MAPHead_0/MultiHeadDotProductAttention_0",
            heads=config.num_heads,
        )  # fmt: skip
        arrays |= _dense(state, f"{ours}.mlp.hidden", "MAPHead_0/MlpBlock_0/Dense_0")
        arrays |= _dense(state, f"{ours}.mlp.out", "MAPHead_0/MlpBlock_0/Dense_1")
    for name in ("pre_logits", "head"):
        if f"{name}.weight" in state:
            arrays |= _dense(state, name, name)
    return {name: np.ascontiguousarray(array) for name, array in arrays.items()}


def stacked(arrays: Arrays) -> Arrays:
    """Stack the blocks along a first axis, as big_vision's scan does."""
    start = "Transformer/encoderblock_"
    together: dict[str, list[np.ndarray]] = {}
    found = {name: array for name, array in arrays.items() if not name.startswith(start)}
    for index in range(len({name.split("/")[1] for name in arrays if name.startswith(start)})):
        prefix = f"{start}{index}/"
        for name in (name for name in arrays if name.startswith(prefix)):
            together.setdefault(name.removeprefix(prefix), []).append(arrays[name])
    return found | {f"Transformer/encoderblock/{n}": np.stack(a) for n, a in together.items()}


def _norm(state: Arrays, ours: str, theirs: str) -> Arrays:
    return {f"{theirs}/scale": state[f"{ours}.weight"], f"{theirs}/bias": state[f"{ours}.bias"]}


def _dense(state: Arrays, ours: str, theirs: str) -> Arrays:
    return {
        f"{theirs}/kernel": state[f"{ours}.weight"].transpose(),
        f"{theirs}/bias": state[f"{ours}.bias"],
    }


def _attention(state: Arrays, ours: str, theirs: str, *, heads: int) -> Arrays:
    weight, bias = state[f"{ours}.qkv.weight"], state[f"{ours}.qkv.bias"]
    width = weight.shape[1]
    found = {
        f"{theirs}/out/kernel": state[f"{ours}.out.weight"].transpose().reshape(heads, -1, width),
        f"{theirs}/out/bias": state[f"{ours}.out.bias"],
    }
    for number, part in enumerate(("query", "key", "value")):
        rows = slice(number * width, (number + 1) * width)
        found[f"{theirs}/{part}/kernel"] = weight[rows].transpose().reshape(width, heads, -1)
        found[f"{theirs}/{part}/bias"] = bias[rows].reshape(heads, -1)
    return found
