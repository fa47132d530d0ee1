"""Settings by path, such as `optimizer.learning_rate`: parses text into a RunConfig."""

import dataclasses
import hashlib
import json
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from vitral.config.model import FAMILIES, config_from
from vitral.config.resnet import ResNetConfig
from vitral.config.run import (
    EARLIER_SETTINGS,
    LATER_SETTINGS,
    LOCATION_SETTINGS,
    OLDER_VALUES,
    ObjectiveSettings,
    RunConfig,
)
from vitral.errors import RequestError, nearest

OBJECTIVE = "objective."

# Stand-ins for other settings, which are derived once the number of images is known.
STAND_INS = {"train.epochs": float, "schedule.warmup_share": float}
_SAME_THING = (("train.epochs", "train.steps"), ("schedule.warmup_share", "schedule.warmup_steps"))


@dataclass(frozen=True, eq=False)
class Settings(Mapping[str, Any]):
    """Settings by path, of their types, each with its origin; as they travel until a run's config.

    Equal to a dict of the same values.
    """

    values_by_path: Mapping[str, Any] = field(default_factory=dict)
    origins: Mapping[str, str] = field(default_factory=dict)
    """By path: "option", "file", "recipe" or "automatic"."""

    @classmethod
    def of(cls, values: Mapping[str, Any], origin: str) -> "Settings":
        """Return values that are of their types already, all of one origin."""
        return cls(dict(values), dict.fromkeys(values, origin))

    def __getitem__(self, path: str) -> Any:
        return self.values_by_path[path]

    def __iter__(self) -> Iterator[str]:
        return iter(self.values_by_path)

    def __len__(self) -> int:
        return len(self.values_by_path)

    def __or__(self, other: "Settings") -> "Settings":
        """Return both; where both say something of the same, such as its length, the other one.

        Raises:
            RequestError: one of them says itself how long in two ways.
        """
        self.check_length()
        other.check_length()
        replaced = {
            path for pair in _SAME_THING if not other.keys().isdisjoint(pair) for path in pair
        }
        kept = self.without(*(path for path in replaced if path not in other))
        return Settings(
            {**kept.values_by_path, **other.values_by_path}, {**kept.origins, **other.origins}
        )

    def check_length(self) -> None:
        """Make sure that the length of a run is said once.

        Raises:
            RequestError: in epochs and in steps.
        """
        epochs, steps = (self.get(path) for path in _SAME_THING[0])
        if epochs is not None and steps is not None:
            raise RequestError(
                f"train.epochs={epochs:g} and train.steps={steps} both say how long: give one of "
                "them"
            )

    def without(self, *paths: str, origin: str | None = None) -> "Settings":
        """Return all but some settings.

        Args:
            paths: of single settings, or of sections, such as `model.`.
            origin: only those of this origin are left out; None: whatever theirs is.
        """
        sections = tuple(path for path in paths if path.endswith("."))
        kept = [
            path
            for path in self
            if not (path in paths or path.startswith(sections))
            or origin not in (None, self.origins[path])
        ]
        return Settings(
            {path: self.values_by_path[path] for path in kept},
            {path: self.origins[path] for path in kept},
        )


_SIZE = tuple[int, int]
# How messages name the value that each type expects.
_KINDS: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    _SIZE: "2 numbers, such as 224,320",
    int | _SIZE: "a number, or two such as 224,320",
    tuple[float, ...]: "numbers, such as 0.5,0.5,0.5",
    tuple[int, ...]: "whole numbers, such as 3,4,6,3",
    bool | None: "true, false or null",
    float | None: "a number or null",
    tuple[float, float] | None: "2 numbers, such as 0,4095, or null",
    ResNetConfig | None: "the fields of a ResNet, or null",
}


def setting_types() -> dict[str, Any]:
    """Return the type of every setting by its path."""
    found: dict[str, Any] = dict(STAND_INS)
    for section, section_type in typing.get_type_hints(RunConfig).items():
        # A field that two families of models share has one type in both.
        for record in FAMILIES.values() if section == "model" else (section_type,):
            for name, value_type in typing.get_type_hints(record).items():
                found[f"{section}.{name}"] = value_type
    return found


def parse_settings(texts: Mapping[str, Any], *, origin: str = "option") -> Settings:
    """Parse values given as text (`"1e-3"`) or as plain data into the types of the settings.

    An objective's own settings, `objective.*`, stay as they are until the objective is known:
    `parse_objective_settings`.

    Args:
        texts: by path; settings that are parsed already stay as they are.
        origin: of all of them.

    Raises:
        RequestError: an unknown path, with the nearest one; a value of the wrong kind.
    """
    if isinstance(texts, Settings):
        return texts  # parsed already
    known = setting_types()
    parsed = {}
    for path, text in texts.items():
        if path not in known and path.startswith(OBJECTIVE):
            parsed[path] = text
            continue
        if path not in known:
            raise RequestError(f"there is no setting {path!r}{_suggest(path, known)}")
        parsed[path] = _parse_value(path, text, known[path])
    return Settings.of(parsed, origin)


def parse_objective_settings(
    settings: Settings, record: type[ObjectiveSettings], *, name: str
) -> Settings:
    """Return the settings with an objective's own ones parsed into their types.

    Args:
        settings: of any sections.
        record: the dataclass of the objective's settings.
        name: of the objective.

    Raises:
        RequestError: a setting that the objective does not have; a value of the wrong kind.
    """
    known = typing.get_type_hints(record)
    parsed = dict(settings)
    for path in settings:
        if not path.startswith(OBJECTIVE):
            continue
        option = path.removeprefix(OBJECTIVE)
        if option not in known:
            hint = nearest(path, [f"{OBJECTIVE}{other}" for other in known])
            raise RequestError(f"{path} has no effect on the objective {name!r}{hint}")
        parsed[path] = _parse_value(path, settings[path], known[option])
    return Settings(parsed, settings.origins)


def parse_assignments(assignments: typing.Iterable[str]) -> Settings:
    """Parse `PATH=VALUE` texts.

    Raises:
        RequestError: no `=`, an unknown path, or a value of the wrong kind.
    """
    texts = {}
    for assignment in assignments:
        path, sign, text = assignment.partition("=")
        if not sign:
            raise RequestError(
                f"--set {assignment!r}: give a setting and its value, as in train.seed=1"
            )
        texts[path.strip()] = text.strip()
    return parse_settings(texts)


def parse_preprocessing(assignments: typing.Iterable[str]) -> dict[str, Any]:
    """Parse `preprocessing.FIELD=VALUE` texts, for a command that takes no other settings.

    Raises:
        RequestError: as `parse_assignments` does, or another setting.
    """
    settings = parse_assignments(assignments)
    for path in settings:
        if not path.startswith("preprocessing."):
            raise RequestError(f"{path} has no effect here: only preprocessing.* can be set")
    return {path.removeprefix("preprocessing."): value for path, value in settings.items()}


def build_run_config(
    settings: Mapping[str, Any], *, objective: type[ObjectiveSettings] = ObjectiveSettings
) -> RunConfig:
    """Build the tree from settings by path; others have their defaults.

    Args:
        settings: `model.*` may be absent as a whole: then the model is the caller's own.
        objective: the dataclass of the objective's own settings.
    """
    sections: dict[str, dict[str, Any]] = {}
    for path, value in settings.items():
        section, _, name = path.partition(".")
        sections.setdefault(section, {})[name] = value
    types_by_section = typing.get_type_hints(RunConfig) | {"objective": objective}
    built: dict[str, Any] = {"model": None}
    for section, fields in sections.items():
        build = config_from if section == "model" else _from_fields(types_by_section[section])
        try:
            built[section] = build(fields)
        except RequestError as error:
            raise RequestError(f"{section}: {error}") from None
    return RunConfig(**built)


def build_section(
    record: type[ObjectiveSettings], section: str, settings: Mapping[str, Any]
) -> ObjectiveSettings:
    """Build the dataclass of one section from settings by path.

    Raises:
        RequestError: a value that it rejects; the message begins with the section.
    """
    start = f"{section}."
    fields = {p.removeprefix(start): v for p, v in settings.items() if p.startswith(start)}
    try:
        return record(**fields)
    except RequestError as error:
        raise RequestError(f"{section}: {error}") from None


def flatten(config: RunConfig) -> dict[str, Any]:
    """Return every setting by its path; the inverse of `build_run_config`."""
    return {
        f"{section}.{name}": value
        for section, record in vars(config).items()
        if record is not None
        for name, value in vars(record).items()
    }


def nested(settings: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return settings as a tree of plain data for a file."""
    tree: dict[str, dict[str, Any]] = {}
    for path, value in settings.items():
        section, _, name = path.partition(".")
        tree.setdefault(section, {})[name] = _plain(value)
    return tree


def read_settings_file(text: str, *, path: str) -> Settings:
    """Read settings from YAML: a tree, or a run's own `config.yaml`.

    Raises:
        RequestError: not a tree of sections, or an unknown setting.
    """
    try:
        tree = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise RequestError(f"{path} is not YAML ({reason}): give a tree of settings") from None
    if isinstance(tree, dict) and "settings" in tree:
        tree = tree["settings"]
    if not isinstance(tree, dict) or not all(isinstance(fields, dict) for fields in tree.values()):
        raise RequestError(f"{path} must hold sections of settings, as in `train: {{seed: 1}}`")
    return parse_settings(
        {
            f"{section}.{name}": value
            for section, fields in tree.items()
            for name, value in fields.items()
        },
        origin="file",
    )


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return the settings in which two runs differ, as (old, new), except for `LOCATION_SETTINGS`.

    Args:
        old: by path; may be plain data, as `read_tree` gives it.
        new: by path.
    """
    before, now = (
        {path: _as_read(value) for path, value in settings.items()} for settings in (old, new)
    )
    return {
        path: (before.get(path), now.get(path))
        for path in sorted(set(before) | set(now))
        if path not in LOCATION_SETTINGS
        and _as_before(path, before.get(path)) != _as_before(path, now.get(path))
        and not (path in LATER_SETTINGS and path not in old and _is_default(path, new[path]))
        and not (path not in new and EARLIER_SETTINGS.get(path) == old[path])
    }


def settings_digest(settings: Mapping[str, Any], *, given: str) -> str:
    """Return six hex digits that identify a run by its settings and other inputs."""
    counted = {
        path: _as_before(path, value)
        for path, value in settings.items()
        if path not in LOCATION_SETTINGS
        and not (path in LATER_SETTINGS and _is_default(path, value))
    }
    text = json.dumps([counted, given], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:6]


def read_tree(text: str) -> dict[str, Any]:
    """Return the settings of a run's own `config.yaml` by path, as plain data."""
    tree: dict[str, dict[str, Any]] = yaml.safe_load(text)["settings"]
    return {
        f"{section}.{name}": value
        for section, fields in tree.items()
        for name, value in fields.items()
    }


def _as_before(path: str, value: Any) -> Any:
    """Return the name of a value in older versions."""
    is_plain = isinstance(value, str | int | float)
    return OLDER_VALUES.get((path, value), value) if is_plain else value


def _is_default(path: str, value: Any) -> bool:
    return bool(value == LATER_SETTINGS[path])


def _as_read(value: Any) -> Any:
    """Return what a value becomes when it is written as YAML and read back."""
    return yaml.safe_load(yaml.safe_dump(_plain(value)))


def _plain(value: Any) -> Any:
    """Return plain data for YAML: lists for tuples, mappings for dataclasses."""
    if dataclasses.is_dataclass(value):
        return {name: _plain(item) for name, item in vars(value).items()}
    return list(value) if isinstance(value, tuple) else value


def _from_fields(record: typing.Callable[..., Any]) -> typing.Callable[[Mapping[str, Any]], Any]:
    return lambda fields: record(**fields)


def _suggest(path: str, known: Mapping[str, Any]) -> str:
    same_name = [p for p in known if p.rpartition(".")[2] == path.rpartition(".")[2]]
    hint = nearest(path, same_name or known)
    return hint if "did you mean" in hint else f": the sections are {_sections(known)}"


def _sections(known: Mapping[str, Any]) -> str:
    return ", ".join(dict.fromkeys(path.partition(".")[0] for path in known))


def _parse_value(path: str, value: Any, wanted: Any) -> Any:
    if isinstance(value, str) and wanted is not str:
        try:
            value = yaml.safe_load(value.replace("x", ",") if _is_size(wanted) else value)
        except (yaml.YAMLError, ValueError):  # a date such as 2000-13-01 is a ValueError
            raise _wrong_value(path, value, wanted) from None
        if isinstance(value, str):
            value = _numbers(value) or value
    options = typing.get_args(wanted) if isinstance(wanted, types.UnionType) else (wanted,)
    for option in options:
        if dataclasses.is_dataclass(option) and isinstance(value, Mapping):
            return config_from(value)
        if typing.get_origin(option) is tuple and isinstance(value, list | tuple):
            inner, last = typing.get_args(option)
            if last is ... or len(value) == 2:
                return tuple(_parse_value(path, element, inner) for element in value)
        if _is_list(option) and isinstance(value, int | float) and not isinstance(value, bool):
            return _parse_value(path, [value], wanted)
        if option is float and isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
        if option is int and isinstance(value, float) and value.is_integer():
            return int(value)
        if isinstance(option, type) and type(value) is option:
            return value
    if wanted is str and isinstance(value, bool):  # YAML reads a bare on or off as a boolean
        return "on" if value else "off"
    raise _wrong_value(path, value, wanted)


def _is_list(wanted: Any) -> bool:
    return typing.get_origin(wanted) is tuple and typing.get_args(wanted)[-1] is ...


def _is_size(wanted: Any) -> bool:
    return wanted in (_SIZE, int | _SIZE)


def _numbers(text: str) -> list[float] | float | None:
    """Parse `224,300` and `1e-3`, which YAML reads as text."""
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        return None
    whole = [int(n) if n.is_integer() and "e" not in text else n for n in numbers]
    return whole if "," in text else whole[0]


def _wrong_value(path: str, value: Any, wanted: Any) -> RequestError:
    return RequestError(f"{path}={value!r}: give {_KINDS[wanted]}")
