import json
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from vitral.figures.finished_run import FinishedRun, read_run_folder
from vitral.figures.report import write_report


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")


def _write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def _predictions(classes: list[str], per_class: int) -> dict[str, np.ndarray]:
    """Scores of which most, but not all, are right; each class is now and then its successor."""
    random = np.random.default_rng(7)
    labels = np.repeat(np.arange(len(classes)), per_class)
    logits = random.normal(0, 1, (len(labels), len(classes)))
    logits[np.arange(len(labels)), labels] += 2.5
    logits[np.arange(len(labels)), (labels + 1) % len(classes)] += 1.0
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    names = np.array([f"test/{index:04d}.png" for index in range(len(labels))])
    return {"labels": labels, "probabilities": shares.astype(np.float32), "names": names}


def _mistakes(
    found: dict[str, np.ndarray], classes: list[str], channels: int
) -> dict[str, np.ndarray]:
    random = np.random.default_rng(8)
    predictions = found["probabilities"].argmax(axis=1)
    wrong = np.flatnonzero(predictions != found["labels"])[:5]
    return {
        "images": random.integers(0, 256, (len(wrong), 12, 10, channels), dtype=np.uint8),
        "attention": random.random((len(wrong), 3, 2)).astype(np.float32),
        "names": found["names"][wrong],
        "labels": np.array(classes)[found["labels"][wrong]],
        "predictions": np.array(classes)[predictions[wrong]],
        "probabilities": found["probabilities"].max(axis=1)[wrong],
    }


def build_run(
    path: Path,
    *,
    classes: list[str] | None = None,
    per_class: int = 20,
    channels: int = 3,
    summary: dict[str, Any] | None = None,
    data_report: dict[str, Any] | None = None,
) -> Path:
    """Write the folder of a finished run; `summary` and `data_report` replace single keys."""
    classes = classes or ["cat", "dog", "owl"]
    path.mkdir(parents=True)
    found = _predictions(classes, per_class)
    num_examples = len(found["labels"])
    accuracy = float((found["probabilities"].argmax(axis=1) == found["labels"]).mean())
    np.savez(path / "test_predictions.npz", **found)
    np.savez(path / "mistakes.npz", **_mistakes(found, classes, channels))
    score = {
        "accuracy": accuracy,
        "accuracy_interval": [accuracy - 0.05, accuracy + 0.04],
        "loss": 0.7,
        "split": "test",
        "num_examples": num_examples,
        "num_skipped": 2,
        "majority_accuracy": 1 / len(classes),
        "majority_class": classes[0],
        "pixel_accuracy": 0.55,
        "model": "ViT-Ti/8",
        "data": "pets",
        "precision": "float32",
        "parameters": 5_526_346,
        "recipe": "small",
        "recipe_reason": "few images",
        "steps": 300,
        "epochs": 10.0,
    }
    _write_json(path / "summary.json", score | (summary or {}))
    config = {
        "vitral_version": "0.1.0",
        "command": "vitral train pets --set 'train.ema=0.9'",
        "settings": {"optimizer": {"learning_rate": 0.001}, "train": {"ema": None, "seed": 3}},
        "origin": {"optimizer.learning_rate": "recipe", "train.ema": "option"},
    }
    (path / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    _write_json(path / "environment.json", {"python": "3.11.7", "device": "cpu", "threads": 2})
    status = {"state": "done", "step": 300, "reason": "", "started": "2026-03-01T10:12:00+01:00"}
    _write_json(path / "status.json", status)
    _write_rows(path / "timings.jsonl", [{"step": 300, "seconds": 192.0}])
    measured = [
        {"step": step, "epoch": step / 30, "split": split, "loss": 60 / step, "accuracy": 0.8}
        for step in range(30, 301, 30)
        for split in ("train", "validation", "validation_raw")
    ]
    _write_rows(path / "metrics.jsonl", measured)
    splits = {
        split: {"num_images": images * len(classes), "per_class": [images] * len(classes)}
        for split, images in (("train", 70), ("test", per_class))
    }
    report = {
        "name": "pets",
        "path": "photos/pets",
        "classes": classes,
        "splits": splits,
        "sizes": {"smallest": [90, 80], "median": [120, 100], "largest": [900, 800]},
        "formats": {"JPEG": 200, "PNG": 10},
        "modes": {"RGB": 210},
        "skipped": {"count": 2, "reasons": {"cut short": 2}, "examples": [["a.jpg", "cut short"]]},
        "duplicates": {"within": 1, "across": 0, "examples": [["a", "train", "b", "train"]]},
        "notes": ["A note about the data."],
    }
    _write_json(path / "data_report.json", report | (data_report or {}))
    return path


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    return lambda name="run", **changes: build_run(tmp_path / name, **changes)


@pytest.fixture
def run_dir(make_run: Callable[..., Path]) -> Path:
    return make_run()


class Page(HTMLParser):
    """The text of a page, its elements with their attributes, and its tables."""

    def __init__(self, written: str):
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.rows: list[list[str]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(written)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, {key: value or "" for key, value in attributes}))
        if tag not in {"img", "meta"}:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in {"th", "td"}:
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.words.append(data)
        if {"th", "td"} & set(self.open):
            self.rows[-1][-1] += data

    @property
    def text(self) -> str:
        return " ".join("".join(self.words).replace("\N{NO-BREAK SPACE}", " ").split())

    def row(self, name: str) -> list[str]:
        rows = [row for row in self.rows if row[0] == name]
        return [cell.replace("\N{NO-BREAK SPACE}", " ") for cell in rows[0]]


@pytest.fixture
def report_of() -> Callable[[Path], Page]:
    return lambda run_dir: Page(write_report(run_dir).read_text(encoding="utf-8"))


@pytest.fixture
def part_of() -> Callable[[Path, Callable[[FinishedRun], str]], Page]:
    return lambda run_dir, section: Page(section(read_run_folder(run_dir)))
