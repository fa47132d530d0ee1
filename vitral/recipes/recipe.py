"""Recipes: each is a function from facts about a task to settings by path."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from vitral.errors import RequestError, nearest
from vitral.recipes import Facts, transfer

SMALL_BELOW_IMAGES = 50_000
MEDIUM_BELOW_IMAGES = 500_000


@dataclass(frozen=True)
class Recipe:
    """Settings with their reason."""

    name: str
    reason: str
    settings: dict[str, Any]
    """By path; `train.epochs` stands for `train.steps`, `schedule.warmup_share` for the steps."""


def choose_recipe(facts: Facts, *, name: str | None = None) -> Recipe:
    """Return the recipe of a name, or by default the one that suits the task.

    Raises:
        RequestError: an unknown name.
    """
    if name is None:
        name = _fitting(facts)
        reason = _reason(name, facts)
    elif name not in RECIPES:
        raise RequestError(f"there is no recipe {name!r}{nearest(name, RECIPES)}")
    else:
        reason = "as asked"
    return Recipe(name, reason, RECIPES[name](facts))


def _fitting(facts: Facts) -> str:
    if facts.config:
        return "finetune"
    if facts.num_images < SMALL_BELOW_IMAGES:
        return "scratch-small"
    return "scratch-medium" if facts.num_images < MEDIUM_BELOW_IMAGES else "scratch-large"


def _reason(name: str, facts: Facts) -> str:
    weights = "pretrained" if facts.config else "fresh"
    task = (
        f"{facts.num_images:,} training images of {facts.num_classes} classes and {weights} weights"
    )
    why = {
        "finetune": "small steps, smaller still in lower layers, until validation suffers",
        "scratch-small": "many epochs of mildly changed images in small batches; a ViT needs "
        "far more images than this for its best, so expect less than from a pretrained model",
        "scratch-medium": "strong changes and smoothing against overfitting, a larger batch",
        "scratch-large": "AugReg's settings for ImageNet's size",
    }
    return f"{task}: {why[name]}"


def _scratch_small(facts: Facts) -> dict[str, Any]:
    """Return settings for fresh weights on 100s to 10,000s of images; tuned on built-in data."""
    # Steps grow with the square root of the number of images; at least 1,000.
    steps = max(1000.0, 3500 * math.sqrt(facts.num_images / 10_000))
    batch_size = 64
    return {
        "train.epochs": min(1000.0, max(20.0, steps * batch_size / facts.num_images)),
        "train.batch_size": batch_size,
        "augment.crop": "shift" if max(facts.image_size) <= 64 else "inception",
        "augment.mixup": 0.2,
        "optimizer.learning_rate": _scaled_rate(1e-3, facts),
        "optimizer.weight_decay": 0.3,
        "schedule.warmup_share": 0.1,
        "schedule.decay": "cosine",
    }


def _scratch_medium(facts: Facts) -> dict[str, Any]:
    """Return settings for fresh weights on some hundred thousand images."""
    return {
        "train.epochs": 60.0,
        "train.batch_size": 256,
        "augment.crop": "inception",
        "augment.min_area": 0.3,
        "augment.mixup": 0.2,
        "objective.label_smoothing": 0.1,
        "optimizer.learning_rate": _scaled_rate(1e-3, facts),
        "optimizer.weight_decay": 0.1,
        "schedule.warmup_share": 0.1,
        "schedule.decay": "cosine",
    }


def _scratch_large(facts: Facts) -> dict[str, Any]:
    """Return settings for fresh weights on data of ImageNet's size.

    Source: Steiner et al. (arXiv 2106.10270), section 3, and big_vision `vit_s16_i1k.py`: 300
    epochs, batch 4096 there; here 90 epochs at batch 1024, as Beyer et al. (arXiv 2205.01580) found
    good.
    """
    return {
        "train.epochs": 90.0,
        "train.batch_size": 1024,
        "augment.crop": "inception",
        "augment.min_area": 0.05,
        "augment.randaugment": 2,
        "augment.randaugment_magnitude": 10.0,
        "augment.mixup": 0.2,
        "optimizer.learning_rate": 1e-3,
        "optimizer.weight_decay": 0.1,
        "schedule.warmup_share": 0.08,
        "schedule.decay": "cosine",
    }


def _paper_imagenet(facts: Facts) -> dict[str, Any]:
    """Return the paper's for ImageNet from fresh weights: Table 3, last row, and section B.1."""
    return {
        "train.epochs": 300.0,
        "train.batch_size": 4096,
        "augment.crop": "inception",
        "augment.min_area": 0.05,
        "optimizer.learning_rate": 3e-3,
        "optimizer.weight_decay": 0.3,
        "optimizer.clip_norm": 1.0,
        "schedule.warmup_steps": 10_000,
        "schedule.decay": "cosine",
        "model.dropout": 0.1,
    }


def _scaled_rate(rate: float, facts: Facts) -> float:
    """Scale the rate by 1 / width above 384: wide models are unstable with small batches."""
    return rate * min(1.0, 384 / facts.embed_dim) if facts.embed_dim else rate


RECIPES: dict[str, Callable[[Facts], dict[str, Any]]] = {
    "scratch-small": _scratch_small,
    "scratch-medium": _scratch_medium,
    "scratch-large": _scratch_large,
    "paper-imagenet": _paper_imagenet,
    "finetune": transfer.finetune,
    "paper-finetune": transfer.paper_finetune,
    "paper-table2": transfer.paper_table2,
    "bit-hyperrule": transfer.bit_hyperrule,
    "vtab": transfer.vtab,
}


def default_model(image_side: int) -> tuple[str, int]:
    """Return the model and image size for data whose images are about `image_side` pixels.

    The width and number of patches let a laptop train it in minutes: 4 x 4 patches up to the 28
    pixels of MNIST-like data, 8 x 8 or a few more above.
    """
    if image_side <= 28:
        return (f"ViT-Mi/{max(2, image_side // 4)}", image_side)
    if image_side <= 40:
        return ("ViT-Mi/4", image_side)
    if image_side <= 96:
        return ("ViT-Mi/8", 64)
    return ("ViT-Mi/16", 128)
