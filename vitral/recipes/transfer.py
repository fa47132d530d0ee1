"""Recipes for pretrained weights: the paper's, BiT's, VTAB's, and our own."""

import math
from typing import Any

from vitral.config.cost import images_at_once
from vitral.recipes import Facts

# Steps of Table 4, by Vitral's names of the data sets.
TABLE_4_STEPS = {
    "imagenet": 20_000,
    "cifar100": 10_000,
    "cifar10": 10_000,
    "pets": 500,
    "flowers102": 500,
}
SMALL_BELOW, MEDIUM_BELOW = 20_000, 500_000
TRANSFER_BATCH = 512
SMALL_IMAGES_AREA = 96 * 96
"""Images of less area than this, in pixels, are enlarged less by BiT's HyperRule."""
USUAL_DEPTH = 12
"""Blocks of the models that layer-wise decay was found on (arXiv 2106.08254)."""
_AS_TENSORFLOW = {
    "preprocessing.resize": "squash",
    "preprocessing.crop_share": 1.0,
    "preprocessing.interpolation": "bilinear",
    "preprocessing.antialias": False,
    "preprocessing.rounding": "none",
    "preprocessing.geometry": "tensorflow",
}
"""Both sides to the model's size, values not rounded, as vit_jax and big_transfer score."""


def steps_by_size(facts: Facts) -> int:
    """Return Table 4's steps; for other data those of BiT by size: 500, 10,000 or 20,000."""
    if facts.data in TABLE_4_STEPS:
        return TABLE_4_STEPS[facts.data]
    if facts.num_images < SMALL_BELOW:
        return 500
    return 10_000 if facts.num_images < MEDIUM_BELOW else 20_000


def paper_finetune(facts: Facts) -> dict[str, Any]:
    """Return the paper's fine-tuning (Table 4 and B.1.1), with vit_jax's settings for the rest.

    Those are warm-up (500 steps; 100 if there are 500 in all), crop, and scoring without a crop
    (`vit_jax/configs/common.py`, `input_pipeline.py`). The rate is the middle of Table 4's.
    """
    steps = steps_by_size(facts)
    return {
        **_sgd(facts, steps=steps, learning_rate=0.01),
        **_AS_TENSORFLOW,
        "schedule.decay": "cosine",
        "schedule.warmup_share": 100 / 500 if steps == 500 else 500 / steps,
        "optimizer.clip_norm": 1.0,
        "augment.crop": "inception",
        "augment.min_area": 0.05,
    }


def paper_table2(facts: Facts) -> dict[str, Any]:
    """Return the paper's fine-tuning on ImageNet for Table 2: weights averaged with 0.9999."""
    return paper_finetune(facts) | {"train.ema_decay": 0.9999}


def vtab(facts: Facts) -> dict[str, Any]:
    """Return the paper's setting for all of VTAB's tasks (B.1.1): BiT's crops, Table 4's rest."""
    return {
        **_sgd(facts, steps=2500, learning_rate=0.01),
        **_AS_TENSORFLOW,
        "schedule.decay": "cosine",
        "schedule.warmup_share": 500 / 2500,
        "optimizer.clip_norm": 1.0,
        "augment.crop": "random",
        "augment.crop_share": 384 / 448,
    }


def bit_hyperrule(facts: Facts) -> dict[str, Any]:
    """Return BiT's one setting, by the data's size (arXiv 1912.11370, 3.3; `bit_hyperrule.py`)."""
    steps, milestones, warmup = 500, (200, 300, 400), 100
    if facts.num_images >= SMALL_BELOW:
        steps, milestones, warmup = 10_000, (3000, 6000, 9000), 500
    if facts.num_images >= MEDIUM_BELOW:
        steps, milestones, warmup = 20_000, (6000, 12_000, 18_000), 500
    crop, enlarged = hyperrule_sizes(facts)
    return {
        **_sgd(facts, steps=steps, learning_rate=0.003),
        **_AS_TENSORFLOW,
        "schedule.decay": "multistep",
        "schedule.milestones": tuple(step / steps for step in milestones),
        "schedule.warmup_share": warmup / steps,
        "optimizer.clip_norm": 0.0,
        "augment.crop": "random",
        "augment.crop_share": crop / enlarged,
        "augment.mixup": 0.1 if facts.num_images >= SMALL_BELOW else 0.0,
    }


def hyperrule_sizes(facts: Facts) -> tuple[int, int]:
    """Return the side of BiT's crop, and the side that images are squashed to before."""
    if facts.image_area < SMALL_IMAGES_AREA:
        return (128, 160)
    return (480, 512) if facts.model == "R152x4" else (384, 448)


def finetune(facts: Facts) -> dict[str, Any]:
    """Return our own fine-tuning of a pretrained model, found on three small sets (docs/log.md)."""
    batch_size = 64
    per_epoch = math.ceil(facts.num_images / batch_size)
    steps = max(500.0, 1000 * math.sqrt(facts.num_images / 2000))
    epochs = min(100.0, max(5.0, steps / per_epoch))
    depth = getattr(facts.config, "depth", USUAL_DEPTH)
    return {
        "train.epochs": epochs,
        "train.batch_size": batch_size,
        "train.micro_batch_size": _micro_batch(facts, batch_size),
        "optimizer.name": "adamw",
        "optimizer.learning_rate": 1e-3,
        "optimizer.layer_decay": round(0.75 ** min(1.0, depth / USUAL_DEPTH), 4),
        "optimizer.weight_decay": 0.05,
        "schedule.decay": "cosine",
        "schedule.warmup_share": 0.1,
        "augment.crop": "inception",
        "augment.min_area": 0.35,
        "augment.mixup": 0.2,
        "objective.label_smoothing": 0.1,
        "train.ema": 0.05,
        "evaluation.keep_best": True,
        "evaluation.best_within": 1.0,
        "evaluation.every_epochs": max(1.0, epochs / 25),
        "evaluation.patience": 8,
    }


def _sgd(facts: Facts, *, steps: int, learning_rate: float) -> dict[str, Any]:
    return {
        "train.steps": steps,
        "train.batch_size": TRANSFER_BATCH,
        "train.micro_batch_size": _micro_batch(facts, TRANSFER_BATCH),
        "optimizer.name": "sgd",
        "optimizer.learning_rate": learning_rate,
        "optimizer.weight_decay": 0.0,
        "evaluation.every_epochs": 0.0,
    }


def _micro_batch(facts: Facts, batch_size: int) -> int:
    """Return the number of images per forward pass; 0: the whole batch.

    It is a power of two, and independent of the free memory: equal commands do the same everywhere.
    """
    if facts.config is None:
        return 0
    most = images_at_once(facts.config)
    return 0 if most >= batch_size else 2 ** max(1, int(math.log2(max(most, 1))))
