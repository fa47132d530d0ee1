"""Fine-tuning: the implementation of `vitral finetune`."""

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitral.config.checks import check_choice
from vitral.config.settings import Settings, parse_settings
from vitral.data.dataset import ImageDataset
from vitral.data.datasets.names import data_name, is_published
from vitral.data.splits import check_overlap, find_overlap, hold_out
from vitral.errors import RequestError
from vitral.files import atomic
from vitral.files.layout import RunFile
from vitral.files.results import ResultRow, results_path
from vitral.models.model import Model
from vitral.statistics import mean_interval
from vitral.training.context import TrainContext, open_training_data, source_text, train_context
from vitral.training.resolve import facts_of
from vitral.training.results import Result
from vitral.training.train import RunRequest, train_on
from vitral.transfer.pretrained import (
    PretrainedModel,
    append_new,
    mean_row,
    open_source,
    run_row,
    starting_model,
)
from vitral.transfer.probe_first import probe_first
from vitral.transfer.protocols import choose_protocol
from vitral.transfer.series import Series

HEADS = ("zero", "probe")
LOAD_FIELDS = ("dropout", "drop_path", "position_resize")
"""Fields of the model's config that can be set as `model.*`."""


@dataclass(frozen=True)
class FineTuned:
    """Result of fine-tuning."""

    path: Path
    """The folder of a run or of a series of runs; both can be loaded as a model."""
    summary: dict[str, Any]
    """As in `summary.json`."""
    rows: list[ResultRow]
    """Rows of results: one per test score, and their mean if there are several."""


def finetune(
    model: str | Path | Model,
    data: Any,
    *,
    protocol: str | None = None,
    rates: Sequence[float] = (),
    seeds: int | None = None,
    image_size: int | tuple[int, int] | None = None,
    head: str = "zero",
    recipe: str | None = None,
    settings: Mapping[str, Any] | None = None,
    format: str | None = None,
    output: str | Path | None = None,
    resume: str = "auto",
    results: str | Path | None = None,
    command: str | None = None,
    quiet: bool = False,
) -> FineTuned:
    """Fine-tune a pretrained model on a new task, and score its test images once.

    Without a protocol, a linear probe is first fitted to the frozen features. Then all layers are
    trained, lower ones with smaller learning rates, until eight validation scores in a row are not
    good enough to be kept. The result is the latest model whose validation accuracy is within one
    standard error of the best; the probe if there is no such trained model.

    Args:
        model: a run folder, a model folder or file, a name, or a loaded model.
        data: as for training.
        protocol: "paper", "paper-table2" or "bit-hyperrule" (arXiv 2010.11929, B.1.1; 1912.11370).
        rates: learning rates that the protocol compares, instead of its own.
        seeds: number of the protocol's runs over which the result is averaged.
        image_size: None: that of the protocol, else the model's own.
        head: "zero" or "probe": the initial head, without a protocol.
        recipe: name of a recipe, instead of the protocol's.
        settings: additional ones by path, such as {"train.epochs": 20}; for every run.
        format: format of the model's file, if it can't be detected from the content.
        output: the folder; None: a descriptive name below `runs`.
        resume: as for training.
        results: the file that rows are appended to; None: `$VITRAL_RESULTS`, else
            `runs/results.jsonl`.
        command: the command line of this call, which is recorded.
        quiet: print nothing on standard error.

    Raises:
        VitralError: as described in `vitral.errors`; a DataError if test images are also training
            images.
    """
    given = parse_settings(settings or {})
    given |= Settings.of({"data.source": source_text(data)}, "option")
    fields = {name: given[f"model.{name}"] for name in LOAD_FIELDS if f"model.{name}" in given}
    check_choice(HEADS, head=head)
    if protocol is not None and head != "zero":
        raise RequestError(f"head={head!r} does not go with a protocol, whose heads start at zero")
    results_file = Path(results or results_path())
    source = open_source(model, format=format, in_channels=given.get("model.in_channels"))
    image_size = given.get("model.image_size", image_size)
    given = given.without(
        "model.in_channels", "model.image_size", *(f"model.{name}" for name in fields)
    )
    with train_context(given.get("train.device", "auto"), quiet=quiet) as context:
        images = _open(data, context, given, source)
        request = RunRequest(
            None,
            title=data_name(data),
            command=command or f"vitral.transfer.finetune.finetune({source.path!r}, ...)",
            recipe=recipe,
            settings=given,
            output=output,
            resume=resume,
        )
        if protocol is None:
            if rates or seeds is not None:
                raise RequestError("rates and seeds are of a protocol: give --protocol paper")
            return _by_validation(
                source,
                images,
                request,
                context,
                image_size=image_size,
                fields=fields,
                head=head,
                results=results_file,
            )
        if resume not in ("auto", "never"):
            raise RequestError(
                f"resume={resume!r}: a protocol of several runs goes on by itself, with the same "
                "--output"
            )
        chosen = choose_protocol(
            protocol,
            facts_of(images, source.model.config),
            rates=rates,
            image_size=image_size,
            seeds=seeds,
        )
        series = Series(chosen, source, images, request, context, fields=fields)
        return _in_series(series, results=results_file)


def _open(
    data: Any, context: TrainContext, given: Settings, source: PretrainedModel
) -> ImageDataset:
    """Open all of the data, and check that no test image is among the training images."""
    without_holdout = given | Settings.of({"data.validation_share": 0.0}, "option")
    images = open_training_data(
        data, context, settings=without_holdout, channels=source.model.config.in_channels
    )
    if not is_published(data):
        check_overlap(images)
    elif found := find_overlap(images):
        context.view.log(
            f"note: {len(found):,} test images of {images.source} are training images too, as its "
            "publisher split them"
        )
    return images


def _validation_share(images: ImageDataset) -> float:
    """Return the share of the training images to hold out for validation: about 200 images."""
    return min(0.2, max(0.02, 200 / len(images.splits["train"])))


def _by_validation(
    source: PretrainedModel,
    images: ImageDataset,
    request: RunRequest,
    context: TrainContext,
    *,
    image_size: int | tuple[int, int] | None,
    fields: Mapping[str, Any],
    head: str,
    results: Path,
) -> FineTuned:
    """Fine-tune once, after a probe, and keep the latest model about as good as the best."""
    settings = request.settings
    if "validation" not in images.splits:
        share = settings.get("data.validation_share", _validation_share(images))
        settings |= Settings.of({"data.validation_share": share}, "option")
        if share:
            images = hold_out(images, share=share)
    start = starting_model(source, images.classes, image_size=image_size, **fields)
    probe = probe_first(start, images, context)
    if head == "probe" and probe is None:
        raise RequestError(
            "head='probe': there is no probe without validation images, with several labels an "
            "image, or with a class of which no training image can be read: leave it out"
        )
    # Distinguishes runs that start from the probe's head and from zeros with equal weights.
    start_key = f"{source.weights} {'probe ' if head == 'probe' else ''}"
    request = dataclasses.replace(
        request, model=start, settings=settings, start=start_key, zero_head=head == "zero"
    )
    result: Result = train_on(images, request, context)
    summary = result.summary | ({} if probe is None else {"probe_accuracy": probe})
    if summary.get("best_step") == 0:
        untrained = "a head of zeros" if probe is None else "the probe"
        context.view.log(
            "note: no trained model was good enough on the validation images to be kept: the "
            f"result is {untrained}"
        )
    details = {"head": head, "probe_accuracy": probe, "best_step": summary.get("best_step")}
    row = run_row(source, result.path, summary, protocol="finetune", additional=details)
    rows = [row] if row else []
    context.ranks.run_on_main(lambda: append_new(results, rows))
    return FineTuned(result.path, summary, rows)


def _in_series(series: Series, *, results: Path) -> FineTuned:
    """Fine-tune with a protocol of several runs."""
    folder = Path(series.request.output or series.default_folder())
    outcomes, accuracies = series.go(folder)
    name = f"finetune/{series.protocol.name}"
    details = {"dev_share": series.protocol.dev_share, "dev_accuracies": accuracies}
    found = [
        run_row(series.source, outcome.path, outcome.summary, protocol=name, additional=details)
        for outcome in outcomes
    ]
    rows = [row for row in found if row]
    summary = dict(outcomes[0].summary)
    if len(rows) > 1:
        mean, low, high = mean_interval([row.value for row in rows])
        rows.append(mean_row(rows, folder, (mean, low, high)))
        summary |= {
            "accuracy": mean,
            "accuracy_interval": [low, high],
            "accuracy_std": statistics.stdev(row.value for row in rows[:-1]),
            "accuracies": [row.value for row in rows[:-1]],
        }
    summary |= {"protocol": series.protocol.name, "dev_accuracies": accuracies}

    def write() -> None:
        atomic.write_json(folder / RunFile.SUMMARY, summary)
        append_new(results, rows)

    series.context.ranks.run_on_main(write)
    return FineTuned(folder, summary, rows)
