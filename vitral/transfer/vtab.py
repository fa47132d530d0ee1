"""VTAB-1k: one setting for 19 tasks of 1,000 training images each, and the means over them.

Source: arXiv 1910.04867; ViT paper, section 4.1, B.1.1 and Table 9.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitral.data.datasets.names import THOUSAND, VTAB_PREFIX, list_data
from vitral.data.datasets.table import TASKS
from vitral.data.dev_split import find_overlap, without_split
from vitral.data.images import ImageData
from vitral.errors import RequestError, nearest
from vitral.evaluate.features import extract_features
from vitral.evaluate.probe import linear_probe
from vitral.evaluate.score import wilson_interval
from vitral.files import atomic
from vitral.files.places import cache_dir
from vitral.files.results import RESULTS_PATH, ResultRow
from vitral.models.model import Model
from vitral.spec.paper_results import vtab_means
from vitral.spec.settings import identity, parse_settings
from vitral.train.run import RunRequest
from vitral.train.site import Site, open_training_data, training_site
from vitral.transfer.protocols import PAPER_SIZE, Candidate, Protocol
from vitral.transfer.rows import append_new, run_row
from vitral.transfer.series import Series
from vitral.transfer.start import Source, open_source, starting_model

RATES, SCHEDULES = (0.01, 0.003), (2500, 500)
"""Compared by `sweep`: the paper sweeps two of each and does not name them; the first of both are
what it settled on."""


@dataclass(frozen=True)
class VtabResult:
    """Scores of a model on the tasks that are there."""

    path: Path
    summary: dict[str, Any]
    """`tasks`: accuracy by task; `means`: of the groups whose tasks are all there, and overall;
    `missing`: why a task is not there; `dev_accuracies`: of the candidates of a sweep."""
    rows: list[ResultRow]
    """One a task, then the means."""


def vtab(
    model: str | Path | Model,
    *,
    directory: str | Path | None = None,
    tasks: Sequence[str] = (),
    sweep: bool = False,
    linear: bool = False,
    image_size: int | tuple[int, int] | None = None,
    settings: Mapping[str, Any] | None = None,
    format: str | None = None,
    output: str | Path | None = None,
    results: str | Path = RESULTS_PATH,
    command: str | None = None,
    quiet: bool = False,
) -> VtabResult:
    """Score a model on VTAB-1k: the test images of each task once.

    Every task is trained on its 1,000 images with the same setting: SGD at 0.01, 2,500 steps of
    512 images, 384 pixels, BiT's crops and flips but where they would change the class.

    Args:
        model: a run folder, a model folder or file, a name, or a loaded model.
        directory: where the tasks' files are; None: `$VITRAL_DATA_DIR`, else `data`.
        tasks: by name; empty: all that are there.
        sweep: compare two rates and two schedules on the tasks' 200 validation images, trained on
            the other 800, and take the one that is best on average.
        linear: logistic regression on frozen features instead, at the model's own size; its
            strength is chosen on the 200 validation images.
        image_size: instead of 384.
        settings: further ones by path, of every run.
        format: read the model's file as this format, where its content does not tell.
        output: the folder; None: below `runs`, by what it is.
        results: the file that rows are appended to.
        command: how a person would say this call.
        quiet: say nothing on standard error.

    Raises:
        RequestError: an unknown task, or no task is there.
    """
    if sweep and linear:
        raise RequestError("--sweep has no effect with --linear, which trains nothing by steps")
    asked = parse_settings(settings or {}) | (
        {"data.directory": str(directory)} if directory else {}
    )
    if linear and set(asked) - {"data.directory", "train.device"}:
        changed = min(set(asked) - {"data.directory", "train.device"})
        raise RequestError(f"{changed} has no effect with --linear, which trains nothing by steps")
    source = open_source(model, format=format)
    present, missing = find_tasks(tasks, directory)
    with training_site(asked.get("train.device", "auto"), quiet=quiet) as site:
        for name, reason in missing.items():
            site.view.say(f"missing: {name}: {reason}")
        work = _Work(
            source,
            site,
            asked,
            present,
            image_size=image_size,
            command=command or f"vitral.transfer.vtab.vtab({source.path!r})",
        )
        folder = Path(output or work.default_folder(sweep=sweep, linear=linear))
        folder.mkdir(parents=True, exist_ok=True)
        accuracies: dict[str, float] = {}
        if linear:
            rows = list(work.probe_all())
        else:
            chosen = Candidate("paper", "vtab", image_size=image_size or PAPER_SIZE)
            if sweep:
                chosen, accuracies = work.choose(folder / "sweep")
            rows = list(work.tune_all(chosen, folder))
        scores = {row.data: row.value for row in rows}
        means = vtab_means(scores)
        rows += [_mean_row(rows, name, value, folder) for name, value in means.items()]
        summary = {
            "model": source.model.config.name,
            "tasks": {name.removeprefix(VTAB_PREFIX): value for name, value in scores.items()},
            "means": means,
            "missing": missing,
            "dev_accuracies": accuracies,
        }

        def write() -> None:
            atomic.write_json(folder / "summary.json", summary)
            append_new(Path(results), rows)

        site.ranks.on_first(write)
    return VtabResult(folder, summary, rows)


def find_tasks(
    tasks: Sequence[str], directory: str | Path | None
) -> tuple[list[str], dict[str, str]]:
    """Return the tasks whose files are there, and why others are not.

    Raises:
        RequestError: an unknown task, or none is there.
    """
    names = [name.removeprefix(VTAB_PREFIX) for name in tasks] or list(TASKS)
    for name in names:
        if name not in TASKS:
            raise RequestError(f"VTAB has no task {name!r}{nearest(name, TASKS)}")
    missing: dict[str, str] = {}
    for name in names:
        try:
            list_data(f"{VTAB_PREFIX}{name}{THOUSAND}", directory=directory)
        except RequestError as error:
            missing[name] = str(error)
    present = [name for name in names if name not in missing]
    if not present:
        first = next(iter(missing.values()))
        raise RequestError(f"none of VTAB's tasks is there; {next(iter(missing))}: {first}")
    return present, missing


@dataclass(frozen=True)
class _Work:
    """What all tasks have in common."""

    source: Source
    site: Site
    asked: Mapping[str, Any]
    tasks: Sequence[str]
    image_size: int | tuple[int, int] | None
    command: str

    def default_folder(self, **kind: bool) -> Path:
        plain = self.source.model.config.name.lower().replace("/", "")
        facts = {**self.asked, **kind, "tasks": list(self.tasks), "image_size": self.image_size}
        return Path("runs") / f"vtab-{plain}-{identity(facts, given=self.source.weights)}"

    def choose(self, folder: Path) -> tuple[Candidate, dict[str, float]]:
        """Return the candidate that is best on average on the 200 validation images."""
        accuracies: dict[str, float] = {}
        candidates = [
            Candidate(
                f"rate-{rate:g}-steps-{steps}",
                "vtab",
                {"optimizer.learning_rate": rate, "train.steps": steps},
                self.image_size or PAPER_SIZE,
            )
            for rate in RATES
            for steps in SCHEDULES
        ]
        for candidate in candidates:
            scores = []
            for name in self.tasks:
                images = without_split(self._open(name, thousand=False), "test")
                series = self._series(name, candidate, images)
                own = folder / candidate.name / name
                scores.append(series.run(candidate, images, own, seed=self._seed()).summary)
            accuracies[candidate.name] = sum(own["accuracy"] for own in scores) / len(scores)
            share = 100 * accuracies[candidate.name]
            self.site.view.say(f"{candidate.name}: {share:.1f} % on average on validation images")
        best = max(candidates, key=lambda own: accuracies[own.name])
        self.site.view.say(f"chosen for all tasks: {best.name}")
        return best, accuracies

    def tune_all(self, candidate: Candidate, folder: Path) -> Iterator[ResultRow]:
        """Train each task on its 1,000 images, and score its test images."""
        for name in self.tasks:
            images = self._open(name, thousand=True)
            series = self._series(name, candidate, images)
            done = series.run(candidate, images, folder / "tasks" / name, seed=self._seed())
            row = run_row(self.source, done.path, done.summary, protocol="vtab")
            if row:
                yield row

    def probe_all(self) -> Iterator[ResultRow]:
        """Fit a probe to each task's frozen features, and score its test images."""
        for name in self.tasks:
            yield self._probe(name, self._open(name, thousand=False))

    def _probe(self, name: str, images: ImageData) -> ResultRow:
        model = starting_model(self.source, images.classes, image_size=self.image_size)
        model.to(self.site.device)
        found = {
            split: extract_features(
                model,
                images.splits[split],
                preprocessing=model.preprocessing,
                device=self.site.device,
                cache=cache_dir() / "features",
            )
            for split in ("train", "validation", "test")
        }
        train, validation, test = ((own.values, own.labels) for own in found.values())
        probe = linear_probe(*train, *test, num_classes=len(images.classes), validation=validation)
        count = len(test[1])
        right = round(probe.accuracy * count)
        self.site.view.say(f"{name}: {100 * probe.accuracy:.1f} %")
        return ResultRow(
            model=self.source.model.config.name,
            weights=self.source.weights,
            data=f"{VTAB_PREFIX}{name}",
            split="test",
            protocol="vtab/linear",
            settings={
                "l2": probe.l2,
                "preprocessing": dataclasses.asdict(model.preprocessing),
            },
            metric="accuracy",
            value=probe.accuracy,
            num_examples=count,
            interval=wilson_interval(right, count),
            interval_over="images",
            seed=0,
            precision="float32",
            path=self.source.path,
            pretraining=self.source.pretraining,
        )

    def _open(self, name: str, *, thousand: bool) -> ImageData:
        data = f"{VTAB_PREFIX}{name}{THOUSAND if thousand else ''}"
        settings = {**self.asked, "data.validation_share": 0.0}
        channels = self.source.model.config.in_channels
        images = open_training_data(data, self.site, settings=settings, channels=channels)
        if found := find_overlap(images):
            self.site.view.say(
                f"note: {name}: {len(found):,} test images are training images too, as published"
            )
        return images

    def _series(self, name: str, candidate: Candidate, images: ImageData) -> Series:
        protocol = Protocol("vtab", (candidate,), dev_share=0.0, keeps_validation=True)
        data = f"{VTAB_PREFIX}{name}"
        asked = {**self.asked, "data.source": data}
        request = RunRequest(None, title=data, command=self.command, asked=asked)
        return Series(protocol, self.source, images, request, self.site)

    def _seed(self) -> int:
        return int(self.asked.get("train.seed", 0))


def _mean_row(rows: Sequence[ResultRow], group: str, value: float, folder: Path) -> ResultRow:
    """Return the row of a mean over tasks."""
    own = [row for row in rows if row.data.startswith(VTAB_PREFIX)]
    data = "vtab" if group == "overall" else f"{VTAB_PREFIX}{group}"
    return dataclasses.replace(
        own[0],
        data=data,
        settings={},
        value=value,
        num_examples=sum(row.num_examples for row in own),
        interval=None,
        interval_over=None,
        controls={},
        path=str(folder),
    )
