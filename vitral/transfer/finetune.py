"""Fine-tuning from beginning to end: what `vitral finetune` calls."""

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitral.config.checks import check_choice
from vitral.config.settings import parse_settings
from vitral.data.dataset import ImageDataset
from vitral.data.datasets.names import data_name, is_published
from vitral.data.splits import check_overlap, find_overlap, hold_out
from vitral.errors import RequestError
from vitral.files import atomic
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
"""Of the model's config, that may be set as `model.*`."""


@dataclass(frozen=True)
class FineTuned:
    """What fine-tuning gives."""

    path: Path
    """A run folder, or one of a series of runs; either is a MODEL."""
    summary: dict[str, Any]
    """As in `summary.json`."""
    rows: list[ResultRow]
    """Of results: one a test score, and the mean of several."""


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
    """Fine-tune a pretrained model on a new task, and open its test images once.

    Without a protocol: a linear probe of the frozen features first; then everything is trained,
    lower layers more slowly, until eight scores in a row on the validation images are not good
    enough to be kept. The result is the latest model whose accuracy on them is within one standard
    error of the best; the probe, where no trained model is.

    Args:
        model: a run folder, a model folder or file, a name, or a loaded model.
        data: as for training.
        protocol: "paper", "paper-table2" or "bit-hyperrule" (arXiv 2010.11929, B.1.1; 1912.11370).
        rates: learning rates that the protocol compares instead of its own.
        seeds: runs of the protocol that the result is the mean of.
        image_size: None: the protocol's, else the model's own.
        head: "zero", or "probe": what the new head starts from, without a protocol.
        recipe: settings by name instead of the protocol's.
        settings: further ones by path, such as {"train.epochs": 20}; of every run.
        format: read the model's file as this format, where its content does not tell.
        output: the folder; None: below `runs`, by what it is.
        resume: as for training.
        results: the file that rows are appended to; None: `$VITRAL_RESULTS`, else
            `runs/results.jsonl`.
        command: how a person would say this call.
        quiet: say nothing on standard error.

    Raises:
        VitralError: of the kinds that `vitral.errors` draws; a DataError where test images are
            training images too.
    """
    overrides = parse_settings(settings or {}) | {"data.source": source_text(data)}
    fields = {
        name: overrides.pop(f"model.{name}") for name in LOAD_FIELDS if f"model.{name}" in overrides
    }
    check_choice(HEADS, head=head)
    if protocol is not None and head != "zero":
        raise RequestError(f"head={head!r} does not go with a protocol, whose heads start at zero")
    kept = Path(results or results_path())
    source = open_source(model, format=format, in_channels=overrides.pop("model.in_channels", None))
    image_size = overrides.pop("model.image_size", image_size)
    with train_context(overrides.get("train.device", "auto"), quiet=quiet) as site:
        images = _open(data, site, overrides, source)
        request = RunRequest(
            None,
            title=data_name(data),
            command=command or f"vitral.transfer.finetune.finetune({source.path!r}, ...)",
            recipe=recipe,
            overrides=overrides,
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
                site,
                image_size=image_size,
                fields=fields,
                head=head,
                results=kept,
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
        series = Series(chosen, source, images, request, site, fields=fields)
        return _in_series(series, results=kept)


def _open(
    data: Any, site: TrainContext, overrides: Mapping[str, Any], source: PretrainedModel
) -> ImageDataset:
    """Open the data whole, and make sure that no test image is among the training ones."""
    whole = {**overrides, "data.validation_share": 0.0}
    images = open_training_data(
        data, site, settings=whole, channels=source.model.config.in_channels
    )
    if not is_published(data):
        check_overlap(images)
    elif found := find_overlap(images):
        site.view.log(
            f"note: {len(found):,} test images of {images.source} are training images too, as its "
            "publisher split them"
        )
    return images


def _validation_share(images: ImageDataset) -> float:
    """Return which share of the training images chooses the best step: about 200 of them."""
    return min(0.2, max(0.02, 200 / len(images.splits["train"])))


def _by_validation(
    source: PretrainedModel,
    images: ImageDataset,
    request: RunRequest,
    site: TrainContext,
    *,
    image_size: int | tuple[int, int] | None,
    fields: Mapping[str, Any],
    head: str,
    results: Path,
) -> FineTuned:
    """Fine-tune once, after a probe, and keep what is as good as the best on validation images."""
    overrides = dict(request.overrides)
    if "validation" not in images.splits:
        share = overrides.setdefault("data.validation_share", _validation_share(images))
        if share:
            images = hold_out(images, share=share)
    start = starting_model(source, images.classes, image_size=image_size, **fields)
    probe = probe_first(start, images, site)
    if head == "probe" and probe is None:
        raise RequestError(
            "head='probe': there is no probe without validation images, with several labels an "
            "image, or with a class of which no training image can be read: leave it out"
        )
    # A run from the probe's head is another than one from zeros, though both have these weights.
    told = f"{source.weights} {'probe ' if head == 'probe' else ''}"
    request = dataclasses.replace(
        request, model=start, overrides=overrides, start=told, zero_head=head == "zero"
    )
    result: Result = train_on(images, request, site)
    summary = result.summary | ({} if probe is None else {"probe_accuracy": probe})
    if summary.get("best_step") == 0:
        untrained = "a head of zeros" if probe is None else "the probe"
        site.view.log(
            "note: no trained model was good enough on the validation images to be kept: the "
            f"result is {untrained}"
        )
    further = {"head": head, "probe_accuracy": probe, "best_step": summary.get("best_step")}
    row = run_row(source, result.path, summary, protocol="finetune", further=further)
    rows = [row] if row else []
    site.ranks.run_on_main(lambda: append_new(results, rows))
    return FineTuned(result.path, summary, rows)


def _in_series(series: Series, *, results: Path) -> FineTuned:
    """Fine-tune by a protocol of several runs."""
    folder = Path(series.request.output or series.default_folder())
    outcomes, accuracies = series.go(folder)
    name = f"finetune/{series.protocol.name}"
    further = {"dev_share": series.protocol.dev_share, "dev_accuracies": accuracies}
    found = [
        run_row(series.source, own.path, own.summary, protocol=name, further=further)
        for own in outcomes
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
        atomic.write_json(folder / "summary.json", summary)
        append_new(results, rows)

    series.site.ranks.run_on_main(write)
    return FineTuned(folder, summary, rows)
