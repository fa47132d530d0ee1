"""Where weights come from, as far as they tell."""

from collections.abc import Mapping

from vitral.models.model import Model
from vitral.spec.catalogue import find_entry


def training_data_of(model: Model, path: str) -> str:
    """Return what weights were trained on, as their folder or the catalogue says it, in order.

    Of a fine-tuned model both are told: `imagenet21k, then birds`.

    Args:
        model: loaded.
        path: what it was loaded from.

    Returns:
        Names of data sets; empty: not known.
    """
    provenance = model.provenance
    before, own = provenance.get("pretrained"), provenance.get("data")
    stages = [
        before.get("data") if isinstance(before, Mapping) else None,
        own.get("name") if isinstance(own, Mapping) else None,
    ]
    if any(stages):
        return ", then ".join(str(stage) for stage in stages if stage)
    entry = find_entry(path)
    return entry.training_data if entry else ""
