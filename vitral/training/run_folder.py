"""The run folder: what a run writes, and when another run may go on in it."""

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
from vitral.files.rows import append_row, csv_text, keep_rows, read_rows
from vitral.version import __version__

METRIC_COLUMNS = ("step", "epoch", "split", "loss", "accuracy", "learning_rate", "grad_norm")
"""First in the table, where rows have them."""
MAX_LISTED = 8
"""Differences between two runs that a message names."""


@dataclass(frozen=True)
class RunWriter:
    """A run's files; only the first process writes."""

    path: Path

    @property
    def checkpoints(self) -> Path:
        """Where the checkpoints are."""
        return self.path / "checkpoints"

    @property
    def model(self) -> Path:
        """Where the result is."""
        return self.path / "model"

    def holds_run(self) -> bool:
        """Say whether a run began here."""
        return (self.path / "config.yaml").exists()

    def status(self) -> dict[str, Any]:
        """Return what is known of the run's state; empty before it began."""
        try:
            status: dict[str, Any] = json.loads((self.path / "status.json").read_text())
        except (OSError, ValueError):
            return {}
        return status

    def lock(self) -> IO[str] | None:
        """Take the folder for this process until the returned file is closed.

        Raises:
            RequestError: another process trains here.
        """
        try:
            import fcntl
        except ImportError:  # Windows has none; there nothing is locked
            return None
        file = (self.path / ".lock").open("w")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
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
            RequestError: the folder has other files.
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
        atomic.write_text(self.path / "config.yaml", text)

    def check_same(self, *, settings: Mapping[str, Any], fingerprint: str, parts: str) -> None:
        """Make sure that the run that began here has the same settings, data and given parts.

        Raises:
            RequestError: it has not; the differences are listed.
        """
        path = self.path / "config.yaml"
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
        atomic.write_json(self.path / "status.json", content)

    def add_metrics(self, row: Mapping[str, Any]) -> None:
        """Append a row of what only settings, seed and step determine."""
        append_row(self.path / "metrics.jsonl", dict(row))

    def write_results_csv(self) -> None:
        """Write the metrics once more as a table."""
        rows = read_rows(self.path / "metrics.jsonl")
        found = dict.fromkeys(key for row in rows for key in row)
        first = [column for column in METRIC_COLUMNS if column in found]
        columns = [*first, *(key for key in found if key not in first)]
        atomic.write_text(self.path / "results.csv", csv_text(rows, columns=columns))

    def add_timing(self, row: Mapping[str, Any]) -> None:
        """Append a row of clock readings."""
        append_row(self.path / "timings.jsonl", dict(row))

    def sync_rows(self) -> None:
        """Make the rows written so far survive a loss of power."""
        for name in ("metrics.jsonl", "timings.jsonl"):
            if (self.path / name).exists():
                atomic.sync(self.path / name)

    def cut_back(self, step: int) -> None:
        """Drop the rows after a step, when a run goes on from there."""
        for name in ("metrics.jsonl", "timings.jsonl"):
            keep_rows(self.path / name, lambda row: row["step"] <= step)

    def write_skipped(
        self,
        data: ImageDataset,
        errors: Mapping[str, str],
        *,
        further: Mapping[str, ImageDataset] | None = None,
    ) -> None:
        """Write every file that is not used, with its reason and its source if a further one."""
        rows = [{"path": item.name, "reason": item.reason} for item in _unused(data)]
        for source, more in (further or {}).items():
            rows += [
                {"path": f"{source}: {item.name}", "reason": item.reason} for item in _unused(more)
            ]
        rows += [{"path": name, "reason": reason} for name, reason in errors.items()]
        atomic.write_text(self.path / "skipped.csv", csv_text(rows, columns=("path", "reason")))

    def write_splits(self, data: ImageDataset) -> None:
        """Write which example is in which split, so that a later score is on the same ones."""
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
            self.path / "splits.csv", csv_text(rows, columns=("path", "split", "label"))
        )


def _unused(data: ImageDataset) -> list[Skipped]:
    return [*data.skipped, *(item for _, item in data.unreadable)]
