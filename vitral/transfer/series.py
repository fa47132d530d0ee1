"""The runs of one protocol in subfolders of one folder; finished runs are not repeated."""

import dataclasses
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vitral.config.run import LOCATION_SETTINGS
from vitral.config.settings import Settings, settings_digest
from vitral.data.dataset import ImageDataset
from vitral.data.splits import all_for_training, hold_out, without_split
from vitral.errors import RequestError
from vitral.files import atomic
from vitral.files.layout import RunFile
from vitral.training.context import TrainContext
from vitral.training.train import RunRequest, train_on
from vitral.transfer.pretrained import PretrainedModel, starting_model
from vitral.transfer.protocols import Candidate, Protocol

_PLAN_NAME = "protocol.json"


@dataclass(frozen=True)
class Outcome:
    """A finished run of a series."""

    path: Path
    summary: dict[str, Any]


@dataclass(frozen=True)
class Series:
    """Runs a protocol on opened data."""

    protocol: Protocol
    source: PretrainedModel
    images: ImageDataset
    """With all splits."""
    request: RunRequest
    """Common to every run: title, command, additional settings."""
    context: TrainContext
    fields: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the model's config to override, such as `drop_path`."""

    def default_folder(self) -> Path:
        """Return the default folder: a descriptive name below `runs`."""
        plain = self.source.model.config.name.lower().replace("/", "")
        digits = settings_digest(self._plan(), given=self.images.fingerprint())
        return Path("runs") / f"{self.request.title}-{plain}-{self.protocol.name}-{digits}"

    def go(self, folder: Path) -> tuple[list[Outcome], dict[str, float]]:
        """Compare the candidates, then train the best on all images, once for each seed.

        Returns:
            The final runs, and the accuracy of each candidate on the dev split (empty if there is
            only one candidate).

        Raises:
            RequestError: the folder has other contents, or there is nothing to score.
        """
        if self.images.splits.keys() <= {"train"}:
            raise RequestError(
                f"{self.images.source} has no test images, which {self.protocol.name} ends with: "
                "give it a test split"
            )
        self._check_compared()
        self.context.ranks.run_on_main(lambda: claim_folder(folder, self._plan()))
        chosen, accuracies = self.protocol.candidates[0], dict[str, float]()
        if len(self.protocol.candidates) > 1:
            chosen, accuracies = self._choose(folder / "sweep")
        seed = int(self.request.settings.get("train.seed", 0))
        outcomes = [
            self.run(chosen, self._final_images(), folder / f"seed-{number}", seed=number)
            for number in range(seed, seed + self.protocol.num_seeds)
        ]
        self.context.ranks.run_on_main(lambda: self._publish(folder, outcomes[0].path))
        return outcomes, accuracies

    def _check_compared(self) -> None:
        """Raise if a setting of all runs is one of those in which the candidates differ."""
        if len(self.protocol.candidates) == 1:
            return
        compared = {path for candidate in self.protocol.candidates for path in candidate.settings}
        for path in sorted(compared & set(self.request.settings)):
            raise RequestError(
                f"{path}={self.request.settings[path]} has no place in {self.protocol.name}, "
                "which compares several: give those to compare (--rates), or leave it out"
            )

    def _choose(self, folder: Path) -> tuple[Candidate, dict[str, float]]:
        """Run every candidate without the test images; return the best and all scores."""
        images = without_split(self.images, "test")
        if not self._has_dev_split():
            images = hold_out(without_split(images, "validation"), share=self.protocol.dev_share)
        seed = int(self.request.settings.get("train.seed", 0))
        scores: dict[str, tuple[float, float]] = {}
        for candidate in self.protocol.candidates:
            outcome = self.run(candidate, images, folder / candidate.name, seed=seed)
            accuracy, loss = outcome.summary["accuracy"], outcome.summary["loss"]
            scores[candidate.name] = (accuracy, -loss)
            self.context.view.log(f"{candidate.name}: {100 * accuracy:.1f} % on the dev split")
        best = max(self.protocol.candidates, key=lambda candidate: scores[candidate.name])
        self.context.view.log(f"chosen: {best.name}")
        return best, {name: accuracy for name, (accuracy, _) in scores.items()}

    def _final_images(self) -> ImageDataset:
        """Return the data of the final runs: all images to train on, and those to score."""
        if self._has_dev_split():
            return all_for_training(self.images)
        if "test" in self.images.splits:
            return without_split(self.images, "validation")
        return self.images

    def _has_dev_split(self) -> bool:
        """Return whether the data's validation split is the dev split, later trained on too."""
        has_both = {"validation", "test"} <= self.images.splits.keys()
        return has_both and not self.protocol.keeps_validation

    def run(
        self, candidate: Candidate, images: ImageDataset, folder: Path, *, seed: int
    ) -> Outcome:
        """Train and score one candidate, or load the finished run.

        Args:
            candidate: its settings.
            images: with the available splits: it is scored on test, else on validation.
            folder: of the run.
            seed: of the run.
        """
        fields = {"dropout": self.protocol.dropout} if self.protocol.dropout else {}
        start = starting_model(
            self.source,
            images.classes,
            image_size=candidate.image_size,
            **(fields | {**self.fields}),
        )
        settings = {**candidate.settings, **self.request.settings, "train.seed": seed}
        request = dataclasses.replace(
            self.request,
            model=start,
            recipe=self.request.recipe or candidate.recipe,
            settings=Settings.of(settings, "option"),
            output=folder,
            start=f"{self.source.weights} ",
        )
        result = train_on(images, request, self.context)
        return Outcome(result.path, result.summary)

    def _plan(self) -> dict[str, Any]:
        """Return everything that identifies the series, as plain data."""
        settings = {
            path: value
            for path, value in self.request.settings.items()
            if path not in LOCATION_SETTINGS
        }
        plan: Mapping[str, Any] = {
            "protocol": dataclasses.asdict(self.protocol),
            "weights": self.source.weights,
            "recipe": self.request.recipe,
            "fields": dict(self.fields),
            "asked": settings,
        }
        plain: dict[str, Any] = json.loads(json.dumps(plan, default=str))
        return plain

    def _publish(self, folder: Path, run: Path) -> None:
        """Copy the model and the splits of one run to the folder of the series."""
        if not (folder / RunFile.MODEL).exists():
            with atomic.new_folder(folder / RunFile.MODEL) as aside:
                shutil.copytree(run / RunFile.MODEL, aside, dirs_exist_ok=True)
        atomic.write_bytes(folder / RunFile.SPLITS, (run / RunFile.SPLITS).read_bytes())


def claim_folder(folder: Path, plan: Mapping[str, Any]) -> None:
    """Mark a folder as that of a series of runs.

    Args:
        folder: new, empty, or of the same series.
        plan: everything that identifies the series, as plain data.

    Raises:
        RequestError: the folder has other contents.
    """
    path = folder / _PLAN_NAME
    if path.exists():
        before = json.loads(path.read_text(encoding="utf-8"))
        changed = sorted(name for name in {*plan, *before} if plan.get(name) != before.get(name))
        if changed:
            raise RequestError(
                f"{folder} holds a series with another {', '.join(changed)}: use the same, or "
                "choose another --output"
            )
        return
    if folder.exists() and any(folder.iterdir()):
        first = min(file.name for file in folder.iterdir())
        raise RequestError(
            f"{folder} has files that are not of this series, such as {first}: choose another "
            "--output"
        )
    folder.mkdir(parents=True, exist_ok=True)
    atomic.write_json(path, plan)
