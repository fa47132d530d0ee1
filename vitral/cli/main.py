"""`vitral VERB ...`: runs a verb, and turns errors into one line and an exit status."""

import importlib
import io
import os
import sys
import warnings
from collections.abc import Sequence

from vitral.errors import ProcessLostError, RequestError, VitralError, nearest
from vitral.version import __version__

# Each verb is a function (tokens) -> exit status: `run` of a module, or the name after the colon.
VERBS = {
    "train": ("vitral.cli.train", "train a classifier on a folder of images"),
    "finetune": ("vitral.cli.transfer:finetune", "train a pretrained model on your images"),
    "vtab": ("vitral.cli.transfer:vtab", "score a pretrained model on VTAB's 19 tasks"),
    "evaluate": ("vitral.cli.evaluate", "score a model on images"),
    "fewshot": ("vitral.cli.frozen:fewshot", "score features after few images of each class"),
    "probe": ("vitral.cli.frozen:probe", "score features by logistic regression"),
    "knn": ("vitral.cli.frozen:knn", "score features by their nearest neighbours"),
    "predict": ("vitral.cli.predict:predict", "name the classes of images"),
    "embed": ("vitral.cli.predict:embed", "write the features of images"),
    "inspect": ("vitral.cli.inspect", "look inside: attention, filters, positions"),
    "data": ("vitral.cli.data", "check images and labels, say what there is, pack it"),
    "bench": ("vitral.cli.bench", "measure how fast data is loaded"),
    "convert": (
        "vitral.cli.weights:convert",
        "read anyone's weights, and write them in another format",
    ),
    "results": ("vitral.cli.results", "list and compare results, the paper's beside them"),
    "models": ("vitral.cli.weights:models", "list the models and public weights that are known"),
}
VERB_ALIASES = {"eval": "evaluate", "val": "evaluate", "validate": "evaluate"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status."""
    tokens = list(sys.argv[1:] if arguments is None else arguments)
    # Odd EXIF data and huge images are reported by Vitral, with the file's name.
    warnings.filterwarnings("ignore", module="PIL")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # file names may be invalid text
    try:
        return _run(tokens)
    except ProcessLostError as error:
        return error.exit_status  # one process has reported it for all
    except VitralError as error:
        print(f"vitral: {error}", file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        print("vitral: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of our output has closed the pipe.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        print(f"vitral: {error}", file=sys.stderr)
        return 1


def _run(tokens: list[str]) -> int:
    if not tokens or tokens[0] in ("-h", "--help", "help"):
        print(_help())
        return 0
    if tokens[0] in ("-V", "--version", "version"):
        print(__version__)
        return 0
    verb = VERB_ALIASES.get(tokens[0], tokens[0])
    if verb not in VERBS:
        raise RequestError(f"there is no verb {verb!r}{nearest(verb, VERBS)}")
    module, _, function = VERBS[verb][0].partition(":")
    status: int = getattr(importlib.import_module(module), function or "run")(tokens[1:])
    return status


def _help() -> str:
    verbs = "\n".join(f"  vitral {verb:<10} {purpose}" for verb, (_, purpose) in VERBS.items())
    return (
        f"Vitral {__version__}: the Vision Transformer on your own images\n\n{verbs}\n\n"
        "`vitral VERB --help` lists a verb's options. `vitral train` alone trains on built-in "
        "images."
    )
