"""A linear probe before fine-tuning: a score within a minute, and a head to start from.

Source: fine-tuning that starts from a probe's head changes the features less and does better on
small sets (Kumar et al., arXiv 2202.10054).
"""

import numpy as np
import torch

from vitral.data.images import ImageData
from vitral.evaluate.features import extract_features
from vitral.evaluate.probe import linear_probe
from vitral.files.places import cache_dir
from vitral.models.model import Model
from vitral.train.site import Site
from vitral.transfer.start import set_head


def probe_first(model: Model, images: ImageData, site: Site) -> float | None:
    """Fit a head to the model's frozen features, and put it in place.

    Returns:
        Its accuracy on the validation images; None where there are none, where images have several
        labels, or where a class has no training image that can be read: the head then stays zero.
    """
    if "validation" not in images.splits or images.is_multi_label:
        return None
    model.to(site.device)
    parts = []
    for split in ("train", "validation"):
        site.view.start(f"features of the {split} images", total=len(images.splits[split]))
        try:
            features = extract_features(
                model,
                images.splits[split],
                preprocessing=model.preprocessing,
                device=site.device,
                report_progress=lambda done, total: site.view.update(done, total, title="features"),
                cache=cache_dir() / "features",
            )
        finally:
            site.view.finish()
        parts.append((features.values, features.labels))
    train, validation = parts
    if len(np.unique(train[1])) < len(images.classes):
        return None
    probe = linear_probe(
        *train, *validation, num_classes=len(images.classes), validation=validation, join=False
    )
    set_head(model, torch.from_numpy(probe.weights), torch.from_numpy(probe.bias))
    count = len(validation[1])
    site.view.say(
        f"probe: {100 * probe.accuracy:.1f} % of {count:,} validation images, with frozen features "
        f"(l2 {probe.l2:g}): fine-tuning starts from there"
    )
    return probe.accuracy
