"""Measurements of a model on some images, as arrays that the figures are drawn from."""

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vitral.config.preprocessing import Preprocessing
from vitral.data.device_transforms import prepare_on_device
from vitral.data.examples import Examples
from vitral.data.loader import evaluation_batches
from vitral.errors import DataError, ModelFileError, RequestError, nearest
from vitral.inspection.attention import has_attention, num_heads, step_names
from vitral.inspection.attention_distance import Reach, ReachMeter
from vitral.inspection.embedding import (
    feature_colors,
    has_positions,
    patch_similarity,
    position_similarity,
    principal_filters,
)
from vitral.inspection.occlusion import cells, occlusion_sensitivity
from vitral.inspection.per_image import (
    ImageInspection,
    KeptSteps,
    gallery_size,
    inspect_image,
    kept_steps,
)
from vitral.models.model import Model

REACH_IMAGES = 128
"""Maximum number of images over which attention distance is averaged (Figure 11)."""
Arrays = dict[str, np.ndarray]
_log = logging.getLogger("vitral")


@dataclass(frozen=True)
class InspectSettings:
    """Settings of `inspect_model`."""

    gallery: int = 8
    """Number of images, the first ones, that are measured one by one."""
    layers: Sequence[int] | None = None
    """Layers whose heads are kept; None: all, or as many as `ATTENTION_BUDGET` allows."""
    class_name: str | None = None
    """Target class of occlusion; None: the most probable class of each image."""
    occlusion: bool = True
    """Whether to measure occlusion: one forward pass per blanked part."""
    top: int = 5
    """Number of classes named with each image."""
    batch_size: int = 64
    """Number of blanked images per forward pass."""
    source: str = ""
    """Where the model is from, which distinguishes it from others of the same name."""
    credit: str = ""
    """Credit for the images, shown with them."""


def inspect_model(
    model: Model,
    examples: Examples,
    *,
    preprocessing: Preprocessing,
    device: torch.device,
    settings: InspectSettings | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Arrays:
    """Measure everything that `vitral inspect` draws.

    Args:
        model: in evaluation mode, on its device, in float32.
        examples: images; attention distance is averaged over the first `REACH_IMAGES` of them, or
            over the gallery. Images that can't be read are skipped with a warning.
        preprocessing: of the images.
        device: of the model.
        settings: what is measured; None: the defaults.
        progress: called with the number of forward passes done and the total.

    Returns:
        Arrays by name, as listed in docs/inspect.md; those that the model does not have are
        absent.

    Raises:
        RequestError: a layer or class that the model does not have.
        DataError: no image can be read.
        ModelFileError: the model's outputs are not finite.
    """
    settings = settings or InspectSettings()
    target = class_number(model, settings.class_name)
    total = min(len(examples), max(settings.gallery, REACH_IMAGES))
    total = total if has_attention(model) else min(total, settings.gallery)
    count = gallery_size(model, min(total, settings.gallery))
    keep = kept_steps(model, num_images=count, layers=settings.layers)
    meter = ReachMeter(model) if has_attention(model) else None
    blanks = settings.occlusion and model.is_classifier
    rows, columns = cells(model)[1]
    passes = total + (count * rows * columns if blanks else 0)
    log = progress or _say_nothing
    looks: list[ImageInspection] = []
    seen: list[_Seen] = []
    unread: list[str] = []
    for done, image in enumerate(_images(examples, total, preprocessing, device), start=1):
        if isinstance(image, str):
            unread.append(image)
            _log.warning("%s: left out", image)
        elif len(looks) < count:
            looks.append(
                _checked(inspect_image(model, image.tensor, keep=keep, meter=meter), model)
            )
            seen.append(image)
        elif meter:
            meter.add_images(image.tensor)
        log(done, passes)
    if not looks:
        raise DataError(f"there is no image to look at: {unread[0]}")
    found = {
        "about": np.array(json.dumps(_about(model, keep, settings), ensure_ascii=False)),
        "images/names": np.array([image.name for image in seen], np.str_),
        "images/pictures": np.stack([image.picture for image in seen]),
        **model_arrays(model),
        **_answers(model, looks, settings.top),
        **_feature_arrays(looks),
        **_attention_arrays(looks, keep),
    }
    if blanks:
        targets = [int(look.logits.argmax()) if target is None else target for look in looks]
        passes = total + len(looks) * rows * columns
        fall = occlusion_sensitivity(
            model,
            torch.cat([image.tensor for image in seen]),
            targets,
            batch_size=settings.batch_size,
            progress=lambda done, _: log(total + done, passes),
        )
        found |= {
            "occlusion/fall": fall.numpy(),
            "occlusion/classes": np.array([class_names(model)[t] for t in targets], np.str_),
            "occlusion/cell": np.array(cells(model)[0]),
        }
    return found | (_reach_arrays(meter.result()) if meter else {})


def _say_nothing(done: int, total: int) -> None:
    pass


def model_arrays(model: Model) -> Arrays:
    """Measure filters and positions, which need no image."""
    filters = principal_filters(model.first_filters())
    found: Arrays = {"filters/components": filters.components, "filters/shares": filters.shares}
    if has_positions(model):
        found["positions/similarity"] = position_similarity(model)
    return found


def class_number(model: Model, name: str | None) -> int | None:
    """Return the index of a class given by name or index.

    Raises:
        RequestError: the model has no such class.
    """
    if name is None:
        return None
    names = class_names(model)
    if name in names:
        return names.index(name)
    if not names:
        raise RequestError(f"{model.config.name} has no head, so no class {name!r}")
    if name.isdecimal() and int(name) < len(names):
        return int(name)
    raise RequestError(f"there is no class {name!r}{nearest(name, names)}")


def class_names(model: Model) -> list[str]:
    """Return the names of a model's classes, or their indices if names are not known."""
    return list(model.classes or map(str, range(model.config.num_classes)))


@dataclass(frozen=True, eq=False)
class _Seen:
    name: str
    picture: np.ndarray
    """(h, w, C) uint8, as the model sees it."""
    tensor: Tensor
    """(1, C, H, W), for the model."""


def _images(
    examples: Examples, total: int, preprocessing: Preprocessing, device: torch.device
) -> Iterator[_Seen | str]:
    """Yield images one by one; for one that can't be read, its name and the reason."""
    errors: dict[int, str] = {}
    batches = evaluation_batches(
        examples,
        preprocessing=preprocessing,
        batch_size=1,
        errors=errors,
        indices=np.arange(total),
    )
    for loaded in batches:
        index = int(loaded["index"][0])
        name = examples.name(index)
        if index in errors:
            yield f"{name}: {errors[index]}"
            continue
        pixels = loaded["image"][0].permute(1, 2, 0).numpy()
        picture = pixels.round().clip(0, 255).astype(np.uint8)
        ready = prepare_on_device(loaded, device=device, preprocessing=preprocessing)
        yield _Seen(name, picture, ready["image"])


def _checked(look: ImageInspection, model: Model) -> ImageInspection:
    for what, values in (("logits", look.logits), ("features", look.features)):
        if not np.isfinite(values).all():
            raise ModelFileError(f"{model.config.name} gives {what} that are not finite")
    return look


def _about(model: Model, keep: KeptSteps, settings: InspectSettings) -> dict[str, Any]:
    """Return facts about the model and the settings as plain data."""
    config = model.config
    about: dict[str, Any] = {
        "model": config.name,
        "source": settings.source,
        "credit": settings.credit,
        "image_size": list(config.image_hw),
        "steps": step_names(model),
        "kept_steps": list(keep.means),
        "kept_heads": list(keep.heads),
    }
    if has_attention(model):
        about["num_heads"] = num_heads(model)
    layout = model.layout()
    if layout.has_tokens:
        about |= {
            "grid": list(layout.grid),
            "patch_pixels": list(layout.stride),
            "num_prefix_tokens": layout.num_prefix_tokens,
            "has_class_token": layout.has_class_token,
            "pool": layout.pool,
            "position": model.config.position if has_positions(model) else "none",
        }
    return about


def _answers(model: Model, looks: Sequence[ImageInspection], top: int) -> Arrays:
    """Return the most probable classes of each image; empty if the model is no classifier."""
    if not model.is_classifier:
        return {}
    shares = model.probabilities(torch.from_numpy(np.stack([look.logits for look in looks])))
    best = shares.topk(min(top, shares.shape[1]), dim=1)
    names = np.array(class_names(model), np.str_)
    return {
        "images/top_classes": names[best.indices.numpy()],
        "images/top_probabilities": best.values.numpy(),
    }


def _reach_arrays(reach: Reach) -> Arrays:
    return {
        "reach/layers": np.array(reach.layers, np.str_),
        "reach/distances": reach.distances,
        "reach/entropies": reach.entropies,
        "reach/num_images": np.array(reach.num_images),
    }


def _feature_arrays(looks: Sequence[ImageInspection]) -> Arrays:
    grid = looks[0].grid
    features = np.stack([look.features for look in looks])
    alike = [
        patch_similarity(patches[None], grid=grid)[0].astype(np.float16) for patches in features
    ]
    return {
        "features/colors": feature_colors(features, grid=grid).astype(np.float32),
        "features/similarity": np.stack(alike),
    }


def _attention_arrays(looks: Sequence[ImageInspection], keep: KeptSteps) -> Arrays:
    """Stack the attention of all images."""
    attentions = [look.attention for look in looks if look.attention is not None]
    if not attentions:
        return {}
    found: Arrays = {
        "attention/means": np.stack(
            [np.stack([one.means[n] for n in keep.means]) for one in attentions]
        ),
        "attention/rollouts": np.stack([one.rollouts for one in attentions]),
        "attention/rollout": np.stack([one.rollout for one in attentions]),
        "attention/of_pool": np.stack([one.of_pool for one in attentions]),
    }
    if keep.heads:
        heads = [np.stack([one.heads[name] for name in keep.heads]) for one in attentions]
        found["attention/heads"] = np.stack(heads)
    return found
