"""Options in several spellings: `--batch-size 64`, `--batch_size=64`, `batch_size=64`, `-b 64`.

Each is rewritten into the verb's own spelling before `argparse` sees it.
"""

import argparse
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from vitral.errors import RequestError, nearest


@dataclass(frozen=True)
class Option:
    """One option or positional of a verb."""

    name: str
    """`--batch-size`, or without dashes for a positional."""
    help: str
    metavar: str | None = None
    """Placeholder of the value in the help; None: a flag without a value."""
    type: type = str
    choices: tuple[str, ...] | None = None
    default: object = None
    repeat: bool = False
    """Whether it may be given several times, or takes several values if positional."""
    required: bool = False


# Spellings of other tools: timm, Hugging Face, Lightning, Ultralytics, lightly-train.
ALIASES = {
    "data-dir": "data", "train-dir": "data",
    "model-name-or-path": "model", "arch": "model",
    "num-train-epochs": "epochs", "trainer.max-epochs": "epochs", "max-epochs": "epochs",
    "max-steps": "steps",
    "b": "batch-size", "batch": "batch-size", "per-device-train-batch-size": "batch-size",
    "lr": "learning-rate", "lr0": "learning-rate", "lr-base": "learning-rate",
    "img-size": "image-size", "imgsz": "image-size",
    "resume-from-checkpoint": "resume", "ckpt-path": "resume", "resume-interrupted": "resume",
    "output-dir": "output", "out": "output", "default-root-dir": "output", "project": "output",
    "seed-everything": "seed",
    "accelerator": "device", "trainer.accelerator": "device",
    "trainer.precision": "precision", "amp-dtype": "precision",
    "c": "config", "cfg": "config",
    "j": "data.workers", "workers": "data.workers", "num-workers": "data.workers",
    "dataloader-num-workers": "data.workers",
    "weight-decay": "optimizer.weight_decay", "warmup-steps": "schedule.warmup_steps",
}  # fmt: skip
FLAGS = {
    "use-cpu": ["--device", "cpu"],
    "bf16": ["--precision", "bfloat16"],
    "fp16": ["--precision", "float16"],
}
VALUES = {
    "precision": {
        "fp32": "float32", "32": "float32", "32-true": "float32",
        "bf16": "bfloat16", "bf16-mixed": "bfloat16", "bf16-true": "bfloat16",
        "fp16": "float16", "16": "float16", "16-mixed": "float16", "half": "float16",
    },
    "resume": {"true": "auto", "false": "never", "last": "auto"},
    "compile": {"true": "on", "false": "off"},
    "device": {"gpu": "cuda", "0": "cuda:0"},
}  # fmt: skip
MODEL_OPTION = Option(
    "model",
    "a run folder, a model folder, anyone's weights, or hf://owner/name",
    metavar="MODEL",
    required=True,
)
HEADLESS_MODEL_OPTION = Option(
    "model",
    "a run folder, a model folder, anyone's weights, or hf://owner/name; a head is not needed",
    metavar="MODEL",
    required=True,
)
FROM_FORMAT_OPTION = Option(
    "--from-format", "read MODEL as this format, where content does not tell", metavar="NAME"
)
DATA_DIR = "data-dir"
DATA_DIR_OPTION = Option(
    f"--{DATA_DIR}",
    "where the files of a named data set are; data, or $VITRAL_DATA_DIR",
    metavar="DIR",
)
PREPROCESSING_OPTION = Option(
    "--set",
    "a field of the preprocessing that shall differ from the model's own, such as "
    "preprocessing.crop_share=1; may be repeated",
    metavar="PATH=VALUE",
    repeat=True,
)
RESULTS_OPTION = Option(
    "--results",
    "the file of results; left out: $VITRAL_RESULTS, else runs/results.jsonl",
    metavar="FILE",
)


class _Parser(argparse.ArgumentParser):
    """Raises a `RequestError` of one line for invalid arguments."""

    def error(self, message: str) -> NoReturn:
        raise RequestError(f"{message}: see `{self.prog} --help`")


def parse_options(
    verb: str, options: Sequence[Option], tokens: Sequence[str], *, description: str
) -> argparse.Namespace:
    """Parse a verb's tokens.

    Raises:
        RequestError: an unknown option, with the nearest known one, or a bad value.
    """
    parser = _Parser(prog=f"vitral {verb}", description=description, allow_abbrev=False)
    for option in options:
        _add(parser, option)
    return parser.parse_args(normalise_tokens(tokens, options))


def normalise_tokens(  # noqa: PLR0912
    tokens: Sequence[str], options: Sequence[Option]
) -> list[str]:
    """Rewrite every spelling of an option into the verb's own.

    Args:
        tokens: as typed after the verb.
        options: of the verb.

    Raises:
        RequestError: an option that the verb does not have.
    """
    known = {option.name.removeprefix("--"): option for option in options}
    normal: list[str] = []
    plain: list[str] = []
    positionals: dict[str, str] = {}
    directory: str | None = None
    rest = list(tokens)
    while rest:
        token = rest.pop(0)
        if token == "--":
            plain += rest
            break
        spelling, value = _split(token, known)
        if spelling is None:
            plain.append(token)
            continue
        if spelling in ("h", "help"):
            return ["--help"]
        if spelling in FLAGS and "device" in known:
            normal += FLAGS[spelling]
            continue
        name = _canonical_name(spelling, known)
        if name is None:
            names = [n for n, option in known.items() if option.name.startswith("--")]
            raise RequestError(f"there is no option --{spelling}{nearest(spelling, names)}")
        is_setting = name not in known
        if value is None and (is_setting or known[name].metavar is not None):
            if not rest:
                raise RequestError(f"--{spelling} needs a value")
            value = rest.pop(0)
        if value is not None:
            value = VALUES.get(name, {}).get(value.lower(), value)
        if is_setting:
            normal += ["--set", f"{name}={value}"]
        elif name == DATA_DIR:
            directory = value
        elif not known[name].name.startswith("--"):
            positionals[name] = value or ""
        else:
            normal.append(f"--{name}" if value is None else f"--{name}={value}")
    if directory is not None:
        normal += _place_directory(directory, positionals, plain, options)
    placed = _place(positionals, plain, known)
    # A verb without positionals would take `--` itself as one.
    has_positionals = any(not option.name.startswith("--") for option in options)
    return [*normal, *(["--"] if has_positionals else []), *placed]


def _place_directory(
    directory: str, positionals: dict[str, str], plain: list[str], options: Sequence[Option]
) -> list[str]:
    """Return `--data-dir` as an option; if DATA is missing, use it as DATA, like other tools."""
    num_positionals = sum(not option.name.startswith("--") for option in options)
    if "data" in positionals or len(positionals) + len(plain) >= num_positionals:
        return [f"--{DATA_DIR}={directory}"]
    positionals["data"] = directory
    return []


def _split(token: str, known: dict[str, Option]) -> tuple[str | None, str | None]:
    """Return an option's spelling, with - for _, and the value after =; or None twice."""
    match = re.fullmatch(r"--?([A-Za-z][\w.\-]*)(?:=(.*))?", token, re.DOTALL)
    if match:
        return _dashed(match[1]), match[2]
    match = re.fullmatch(r"([A-Za-z][\w.\-]*)=(.*)", token, re.DOTALL)
    if match and not Path(token).exists() and _canonical_name(_dashed(match[1]), known):
        return _dashed(match[1]), match[2]
    return None, None


def _dashed(spelling: str) -> str:
    return spelling.replace("_", "-")


def _canonical_name(spelling: str, known: dict[str, Option]) -> str | None:
    """Return the verb's name for a spelling, or the path of a setting if the verb has `--set`."""
    name = spelling if spelling in known else ALIASES.get(spelling, spelling)
    if name in known:
        return name
    if "set" in known and "." in name:
        from vitral.config.settings import setting_types

        path = name.replace("-", "_")
        return path if path in setting_types() or path.startswith("objective.") else None
    return None


def _place(positionals: dict[str, str], plain: list[str], known: dict[str, Option]) -> list[str]:
    """Merge positionals given by name with the others, in the verb's order."""
    rest = list(plain)
    placed: list[str] = []
    for name, option in known.items():
        if name in positionals:
            placed.append(positionals[name])
        elif not option.name.startswith("--") and rest and not option.repeat:
            placed.append(rest.pop(0))
    return placed + rest


def _add(parser: argparse.ArgumentParser, option: Option) -> None:
    if not option.name.startswith("--"):
        nargs = (
            ("+" if option.required else "*")
            if option.repeat
            else (None if option.required else "?")
        )
        parser.add_argument(
            option.name,
            help=option.help,
            metavar=option.metavar,
            nargs=nargs,
            default=option.default,
        )
    elif option.metavar is None:
        parser.add_argument(option.name, help=option.help, action="store_true")
    else:
        parser.add_argument(
            option.name,
            help=option.help,
            metavar=option.metavar,
            type=option.type,
            choices=option.choices,
            default=option.default,
            required=option.required,
            action="append" if option.repeat else "store",
        )
