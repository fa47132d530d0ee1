"""The most confident mistakes, with what the model looked at."""

import numpy as np
import torch
from torch import Tensor, nn

from vitral.data.batches import to_model
from vitral.data.images import Examples
from vitral.data.labels import is_multi_label, label_text
from vitral.data.loader import evaluation_batches
from vitral.evaluate.score import Predictions, answer_text
from vitral.figures.measures import right_answers
from vitral.models.model import Model
from vitral.spec.preprocessing import Preprocessing


@torch.no_grad()
def confident_mistakes(
    model: nn.Module,
    examples: Examples,
    predictions: Predictions,
    *,
    preprocessing: Preprocessing,
    device: torch.device,
    classes: tuple[str, ...],
    count: int = 24,
) -> dict[str, np.ndarray]:
    """Return the wrong predictions of highest probability, the most confident first.

    Returns:
        `images` (M, h, w, C) uint8 as the model gets them, `attention` (M, gh, gw) of the last
        block (zeros where the model has none over the whole grid), `names`, `labels` and
        `predictions` as text, `probabilities` (M,).
    """
    confidence = _confidence(predictions)
    wrong = np.flatnonzero(~right_answers(predictions.probabilities, predictions.labels))
    rows = wrong[np.argsort(-confidence[wrong], kind="stable")][:count]
    indices = predictions.indices[rows]
    images, attention = [], []
    for loaded in evaluation_batches(
        examples, preprocessing=preprocessing, batch_size=max(1, count), errors={}, indices=indices
    ):
        images.append(
            loaded["image"].permute(0, 2, 3, 1).numpy().round().clip(0, 255).astype(np.uint8)
        )
        batch = to_model(loaded, device=device, preprocessing=preprocessing)
        attention.append(attention_to_patches(model, batch["image"]).cpu().numpy())
    height, width = preprocessing.size
    empty = np.zeros((0, height, width, preprocessing.channels), np.uint8)
    return {
        "images": np.concatenate([empty, *images]),
        "attention": np.concatenate(attention) if attention else np.zeros((0, 1, 1), np.float32),
        "names": np.array([examples.name(index) for index in indices.tolist()], np.str_),
        "labels": np.array(
            [label_text(label, classes) for label in predictions.labels[rows]], np.str_
        ),
        "predictions": np.array(
            [
                answer_text(shares, predictions.labels, classes)
                for shares in predictions.probabilities[rows]
            ],
            np.str_,
        ),
        "probabilities": confidence[rows],
    }


def _confidence(predictions: Predictions) -> np.ndarray:
    """Return how sure each answer (N,) is; of several classes, how far off the worst of them is."""
    if is_multi_label(predictions.labels):
        off: np.ndarray = np.abs(predictions.probabilities - predictions.labels).max(axis=1)
        return off
    most: np.ndarray = predictions.probabilities.max(axis=1)
    return most


def attention_to_patches(model: nn.Module, images: Tensor) -> Tensor:
    """Return the last block's attention to each patch (N, gh, gw), averaged over heads.

    From the class token, or averaged over all patches where there is none; zeros for other models.
    """
    nothing = torch.zeros(len(images), 1, 1)
    if not isinstance(model, Model):
        return nothing
    full = [layer for layer in model.attention_layers() if layer.kind == "full"]
    if not full:
        return nothing
    name, layout = full[-1].name, model.layout()
    attention = model.trace(images, [name])[name].mean(dim=1)
    queries = attention[:, 0] if layout.has_class_token else attention.mean(dim=1)
    return queries[:, layout.num_prefix_tokens :].unflatten(1, layout.grid)
