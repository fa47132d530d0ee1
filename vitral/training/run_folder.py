"""The run folder: its files, and when a run may be resumed in it."""

import datetime
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import yaml

from vitral.config.settings import differences, nested, read_tree
from vitral.data.dataset import ImageDataset
from vitral.data.sources.listing import Skipped, label_text
from vitral.errors import RequestError
from vitral.files import atomic
from vitral.files.layout import RunFile
from vitral.files.rows import append_row, csv_text, keep_rows, read_rows
from vitral.version import __version__

METRIC_COLUMNS = ("step", "epoch", "split", "loss", "accuracy", "learning_rate", "grad_norm")
"""The first columns of the table, if rows have them."""
MAX_LISTED = 8
"""Number of differences between two runs that a message lists."""


@dataclass(frozen=True)
class RunFolder:
    """The files of a run; only the first process writes."""

    path: Path

    @property
    def checkpoints(self) -> Path:
        """The folder of checkpoints."""
        return self.path / RunFile.CHECKPOINTS

    @property
    def model(self) -> Path:
        """The folder of the final model."""
        return self.path / RunFile.MODEL

    def holds_run(self) -> bool:
        """Return whether the folder contains a run."""
        return (self.path / RunFile.CONFIG).exists()

    def status(self) -> dict[str, Any]:
        """Return the contents of `status.json`; empty before the run has begun."""
        try:
            status: dict[str, Any] = json.loads((self.path / RunFile.STATUS).read_text())
        except (OSError, ValueError):
            return {}
        return status

    def lock(self) -> IO[str]:
        """Lock the folder for this process until the returned file is closed.

        Raises:
            RequestError: another process trains here.
        """
        file = (self.path / ".lock").open("w")
        try:
            atomic.lock(file, wait=False)
        except OSError:
            file.close()
            raise RequestError(
                f"another process is training in {self.path}: wait for it, or choose another "
                "--output"
            ) from None
        return file

    def begin(
        self,
        *,
        settings: Mapping[str, Any],
        origin: Mapping[str, str],
        command: str,
        fingerprint: str,
        parts: str,
        recipe: Mapping[str, str],
    ) -> None:
        """Write `config.yaml` of a new run.

        Raises:
            RequestError: the folder contains other files.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        names = [path.name for path in self.path.iterdir()]
        others = [n for n in names if n != ".lock" and not n.startswith(atomic.ASIDE_PREFIX)]
        if others and not self.holds_run():
            raise RequestError(
                f"{self.path} has files that are no run's, such as {min(others)}: choose another "
                "--output"
            )
        content = {
            "vitral_version": __version__,
            "command": command,
            "recipe": dict(recipe),
            "data_fingerprint": fingerprint,
            "parts_fingerprint": parts,
            "settings": nested(settings),
            "origin": dict(origin),
        }
        text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=1000)
        atomic.write_text(self.path / RunFile.CONFIG, text)

    def check_same(self, *, settings: Mapping[str, Any], fingerprint: str, parts: str) -> None:
        """Check that the run in this folder has the same settings, data and given parts.

        Raises:
            RequestError: it does not; the differences are listed.
        """
        path = self.path / RunFile.CONFIG
        text = path.read_text(encoding="utf-8")
        changed = differences(read_tree(text), settings)
        if changed:
            shown = list(changed.items())[:MAX_LISTED]
            listed = "; ".join(f"{name} was {old}, now {new}" for name, (old, new) in shown)
            if len(changed) > MAX_LISTED:
                listed += f"; and {len(changed) - MAX_LISTED} more"
            raise RequestError(
                f"{self.path} holds a run with other settings ({listed}): "
                "use the same ones, or choose another --output"
            )
        config = yaml.safe_load(text)
        if config.get("parts_fingerprint") != parts:
            raise RequestError(
                f"{self.path} holds a run with another model, objective or metric of your own: "
                "give the same code and starting weights (seed them), or choose another --output; "
                "what an earlier version began with a part of your own does not go on"
            )
        if config.get("data_fingerprint") != fingerprint:
            raise RequestError(
                f"{self.path} holds a run on other contents of {settings['data.source']}: the "
                "images have "
                "changed since; choose another --output"
            )

    def write_status(self, state: str, *, step: int, steps: int, reason: str = "") -> None:
        """Write `status.json`: running, done, interrupted or failed."""
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        started = self.status().get("started", now)
        content = {
            "state": state,
            "step": step,
            "steps": steps,
            "reason": reason,
            "pid": os.getpid(),
            "started": started,
            "updated": now,
        }
        atomic.write_json(self.path / RunFile.STATUS, content)

    def add_metrics(self, row: Mapping[str, Any]) -> None:
        """Append a row of values that depend only on settings, seed and step."""
        append_row(self.path / RunFile.METRICS, dict(row))

    def write_results_csv(self) -> None:
        """Write the metrics as a CSV table too."""
        rows = read_rows(self.path / RunFile.METRICS)
        found = dict.fromkeys(key for row in rows for key in row)
        first = [column for column in METRIC_COLUMNS if column in found]
        columns = [*first, *(key for key in found if key not in first)]
        atomic.write_text(self.path / RunFile.TABLE, csv_text(rows, columns=columns))

    def add_timing(self, row: Mapping[str, Any]) -> None:
        """Append a row of timings."""
        append_row(self.path / RunFile.TIMINGS, dict(row))

    def sync_rows(self) -> None:
        """Sync the rows written so far to disk."""
        for name in (RunFile.METRICS, RunFile.TIMINGS):
            if (self.path / name).exists():
                atomic.sync(self.path / name)

    def truncate(self, step: int) -> None:
        """Drop the rows after the step that a run resumes from."""
        for name in (RunFile.METRICS, RunFile.TIMINGS):
            keep_rows(self.path / name, lambda row: row["step"] <= step)

    def write_skipped(
        self,
        data: ImageDataset,
        errors: Mapping[str, str],
        *,
        extra: Mapping[str, ImageDataset] | None = None,
    ) -> None:
        """Write every unused file with its reason, prefixed by the name of an additional source."""
        rows = [{"path": item.name, "reason": item.reason} for item in _unused(data)]
        for source, dataset in (extra or {}).items():
            rows += [
                {"path": f"{source}: {item.name}", "reason": item.reason}
                for item in _unused(dataset)
            ]
        rows += [{"path": name, "reason": reason} for name, reason in errors.items()]
        atomic.write_text(self.path / RunFile.SKIPPED, csv_text(rows, columns=("path", "reason")))

    def write_splits(self, data: ImageDataset) -> None:
        """Write the split of each example, so that later scores use the same ones."""
        rows: Iterable[dict[str, Any]] = (
            {
                "path": examples.name(index),
                "split": split,
                "label": label_text(examples.labels[index], data.classes),
            }
            for split, examples in data.splits.items()
            for index in range(len(examples))
        )
        atomic.write_text(
            self.path / RunFile.SPLITS, csv_text(rows, columns=("path", "split", "label"))
        )


def _unused(data: ImageDataset) -> list[Skipped]:
    return [*data.skipped, *(item for _, item in data.unreadable)]
