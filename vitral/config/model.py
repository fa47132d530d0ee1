"""Configs of all model families, each a frozen dataclass."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from vitral.config.resnet import AxialResNetConfig, ResNetConfig
from vitral.config.vit import ViTConfig
from vitral.errors import RequestError, nearest

ModelConfig = ViTConfig | ResNetConfig | AxialResNetConfig

# Each family, with a field that only it has.
FAMILIES: dict[str, type[ModelConfig]] = {
    "patch_size": ViTConfig,
    "num_groups": AxialResNetConfig,
    "stages": ResNetConfig,
}


def family_of(fields: Iterable[str]) -> type[ModelConfig]:
    """Return the config class that has these fields.

    Raises:
        RequestError: they belong to no family.
    """
    names = set(fields)
    for name, family in FAMILIES.items():
        if name in names:
            return family
    raise RequestError(
        f"a model needs one of the fields {', '.join(FAMILIES)}, given were "
        f"{', '.join(sorted(names)) or 'none'}"
    )


def config_from(fields: Mapping[str, Any]) -> ModelConfig:
    """Build a config from plain data such as JSON, where tuples are lists.

    Raises:
        RequestError: a field that the family does not have, one that it lacks, or a bad value.
    """
    family = family_of(fields)
    known = family.__dataclass_fields__
    unknown = sorted(set(fields) - set(known))
    if unknown:
        raise RequestError(
            f"{family.__name__} has no field {unknown[0]!r}{nearest(unknown[0], known)}"
        )
    needed = [n for n, f in known.items() if f.default is dataclasses.MISSING and n not in fields]
    if needed:
        raise RequestError(f"{family.__name__} needs the field {needed[0]!r}")
    plain = {name: _plain(value) for name, value in fields.items()}
    return family(**plain)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return config_from(value)
    return tuple(value) if isinstance(value, list) else value
