"""`vitral train`."""

import json
import os
import shlex
import sys
from collections.abc import Sequence
from typing import Any

from vitral.cli.options import DATA_DIR_OPTION, Option, parse_options

DESCRIPTION = (
    "Train a Vision Transformer on images and write a run folder with model, score and report."
)
OPTIONS = (
    Option(
        "data",
        "folder of class folders (with or without train/, val/, test/), .csv, .npz; "
        "left out: the built-in images",
        metavar="DATA",
    ),
    DATA_DIR_OPTION,
    Option("--model", "such as ViT-S/16; left out: one that fits the images", metavar="NAME"),
    Option("--image-size", "pixels of the model's input, N or HxW", metavar="N"),
    Option("--recipe", "left out: one that fits the task, said with its reason", metavar="NAME"),
    Option("--epochs", "length of the run", metavar="N", type=float),
    Option("--steps", "length of the run, in optimizer steps", metavar="N", type=int),
    Option("--batch-size", "images a step, over all processes", metavar="N", type=int),
    Option("--learning-rate", "the peak", metavar="X", type=float),
    Option("--seed", "all random numbers follow from it", metavar="N", type=int),
    Option("--device", "auto, cpu, cuda or mps", metavar="NAME"),
    Option("--precision", "auto, float32 or bfloat16", metavar="NAME"),
    Option("--compile", "auto, on or off", metavar="WHEN"),
    Option("--output", "the run folder; left out: runs/DATA-MODEL-xxxxxx", metavar="DIR"),
    Option(
        "--resume", "auto, never, or the path of a run to go on with", metavar="HOW", default="auto"
    ),
    Option(
        "--config", "a YAML file of settings, such as another run's config.yaml", metavar="FILE"
    ),
    Option(
        "--set",
        "any setting, as in augment.mixup=0.2; may be repeated",
        metavar="PATH=VALUE",
        repeat=True,
    ),
    Option("--json", "print the summary as one JSON object"),
)


def run(tokens: Sequence[str]) -> int:
    """Run the verb and return its exit status."""
    asked = parse_options("train", OPTIONS, tokens, description=DESCRIPTION)
    from vitral.spec.settings import parse_assignments, parse_settings
    from vitral.train.run import train

    settings = parse_assignments(asked.set or [])
    if asked.data_dir:
        settings["data.directory"] = asked.data_dir
    image_size = None
    if asked.image_size is not None:
        image_size = parse_settings({"model.image_size": asked.image_size})["model.image_size"]
    result = train(
        asked.model,
        asked.data,
        image_size=image_size,
        recipe=asked.recipe,
        epochs=asked.epochs,
        steps=asked.steps,
        batch_size=asked.batch_size,
        learning_rate=asked.learning_rate,
        seed=asked.seed,
        device=asked.device,
        precision=asked.precision,
        compile=asked.compile,
        output=asked.output,
        resume=asked.resume,
        config=asked.config,
        settings=settings,
        command=shlex.join(["vitral", "train", *tokens]),
    )
    if os.environ.get("RANK", "0") == "0":
        if asked.json:
            print(json.dumps(result.summary | {"path": str(result.path)}, ensure_ascii=False))
        else:
            print("\n".join(summary_lines(result.summary)))
            print(f"model     {result.path / 'model'}")
            print(f"report    {result.path / 'report.html'}")
        sys.stdout.flush()
    return 0


def summary_lines(summary: dict[str, Any]) -> list[str]:
    """Return a summary as lines for a person."""
    if summary["accuracy"] is None:
        unknown = "accuracy  not known: the data has no test and no validation images"
        return [unknown, *_fewshot_lines(summary)]
    low, high = summary["accuracy_interval"]
    majority = f"always {summary['majority_class'] or 'no class'!r}"
    controls = [f"{majority} {_percent(summary['majority_accuracy'])}"]
    if summary.get("pixel_accuracy") is not None:
        controls.append(f"logistic regression on the pixels {_percent(summary['pixel_accuracy'])}")
    skipped = f", {summary['num_skipped']:,} could not be read" if summary["num_skipped"] else ""
    several = []
    if "f1_micro" in summary:
        names = ("mean_average_precision", "f1_micro", "f1_macro")
        precision, micro, macro = (_percent(summary[name] or 0.0) for name in names)
        several = [f"classes   mean average precision {precision}, F1 {micro} micro, {macro} macro"]
    return [
        f"accuracy  {_percent(summary['accuracy'])} (95 % interval {_percent(low)} to "
        f"{_percent(high)}) "
        f"on {summary['num_examples']:,} {summary['split']} images{skipped}",
        *several,
        f"controls  {', '.join(controls)}",
        *_fewshot_lines(summary),
    ]


def _fewshot_lines(summary: dict[str, Any]) -> list[str]:
    return [
        f"few-shot  {_percent(accuracy)} on {name}"
        for name, accuracy in summary.get("fewshot", {}).items()
    ]


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
