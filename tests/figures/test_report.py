import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from vitral.errors import RequestError
from vitral.figures.report import write_report

OPTIONAL = ("timings.jsonl", "test_predictions.npz", "mistakes.npz")
SPARE = ("config.yaml", "environment.json", "status.json", "metrics.jsonl", "data_report.json")


def test_the_page_loads_and_runs_nothing(report_of, run_dir):
    page = report_of(run_dir)
    for tag, attributes in page.elements:
        assert tag not in {"script", "link", "iframe", "object", "embed", "base", "a"}
        assert not {key for key in attributes if key.startswith("on") or "href" in key}
        assert attributes.get("src", "data:image/png;base64,").startswith("data:image/png;base64,")
    written = (run_dir / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"https?:|//\w+\.|url\(|@import", re.sub(r"base64,[\w+/=]+", "", written))


def test_everything_of_the_users_is_escaped(report_of, make_run):
    bad = "<script>alert('\"&$x$')</script>"
    classes = [bad, "$\\frac{", "猫", "שלום"]
    report = {
        "name": bad,
        "path": bad,
        "formats": {bad: 1},
        "notes": [bad],
        "skipped": {"count": 1, "reasons": {bad: 1}, "examples": [[bad, bad]]},
        "duplicates": {"within": 1, "across": 1, "examples": [[bad, bad, bad, bad]]},
    }
    summary = dict.fromkeys(("model", "data", "split", "recipe", "recipe_reason", "precision"), bad)
    run_dir = make_run(classes=classes, data_report=report, summary=summary)
    settings = {"settings": {bad: {bad: bad}}, "origin": {f"{bad}.{bad}": bad}, "command": bad}
    (run_dir / "config.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    for name in ("environment.json", "status.json"):
        changed = {bad: bad, "state": bad, "reason": bad, "started": bad, "device": bad}
        (run_dir / name).write_text(json.dumps(changed), encoding="utf-8")
    with np.load(run_dir / "mistakes.npz") as found:
        mistakes = dict(found)
    mistakes["names"] = np.array([bad] * len(mistakes["labels"]))
    np.savez(run_dir / "mistakes.npz", **mistakes)
    page = report_of(run_dir)
    assert "script" not in {tag for tag, _ in page.elements}
    assert page.text.count(bad) > 25
    assert {"$\\frac{", "猫", "שלום"} <= {row[0] for row in page.rows}


def test_file_names_that_are_not_valid_text_do_not_stop_the_report(report_of, make_run):
    skipped = {"count": 1, "reasons": {}, "examples": [["caf\udce9.jpg", "cut short"]]}
    page = report_of(make_run(data_report={"skipped": skipped}))
    assert ["caf\\udce9.jpg", "cut short"] in page.rows


def test_two_classes_fit(report_of, make_run):
    page = report_of(make_run(classes=["no", "yes"], per_class=5))
    assert [row[0] for row in page.rows].count("yes") == 2
    assert page.row("yes")[1] == "5"


def test_two_hundred_classes_are_numbered_and_summed_up(report_of, make_run):
    names = [f"species {index}" for index in range(200)]
    page = report_of(make_run(classes=names, per_class=5))
    listed = [row for row in page.rows if row[0].startswith("species")]
    assert [row[:3] for row in listed] == [[name, f"#{i}", "5"] for i, name in enumerate(names)]
    assert page.row("test") == ["test", "1,000", "5", "5", "5", "0"]


@pytest.mark.parametrize("name", OPTIONAL + SPARE)
def test_a_report_is_written_without_any_one_file(report_of, run_dir, name):
    (run_dir / name).unlink()
    text = report_of(run_dir).text
    for section in ("Result", "Training", "Classes", "Calibration", "Data", "Use the model"):
        assert section in text


def test_a_report_is_written_from_the_summary_alone(report_of, run_dir):
    for name in OPTIONAL + SPARE:
        (run_dir / name).unlink()
    text = report_of(run_dir).text
    for name in ("metrics.jsonl", "test_predictions.npz", "mistakes.npz", "data_report.json"):
        assert name in text
    assert {path.name for path in run_dir.iterdir()} == {"summary.json", "report.html"}


def test_the_plots_lie_beside_the_page(run_dir):
    write_report(run_dir)
    for name in ("curves.png", "confusion.png", "calibration.png"):
        with Image.open(run_dir / name) as plot:
            assert min(plot.size) > 400


def test_the_folder_alone_gives_the_same_report_elsewhere(run_dir, tmp_path, monkeypatch):
    elsewhere = tmp_path / "elsewhere" / "run"
    shutil.copytree(run_dir, elsewhere)
    monkeypatch.chdir(tmp_path)
    first = write_report(Path("run")).read_bytes()
    run_dir.rename(tmp_path / "gone")
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert write_report(Path("run")).read_bytes() == first


def test_a_folder_without_a_summary_is_refused(run_dir):
    (run_dir / "summary.json").unlink()
    with pytest.raises(RequestError, match=r"run has no summary\.json.*: name a run folder"):
        write_report(run_dir)


def test_a_summary_without_the_result_is_refused(make_run):
    with pytest.raises(RequestError, match=r"summary\.json has no accuracy_interval"):
        write_report(make_run(summary={"accuracy_interval": None}))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("summary.json", b'{"accuracy": '),
        ("summary.json", b"[]"),
        ("config.yaml", b"a: [1"),
        ("metrics.jsonl", b'{"step": 1}\n{"st'),
        ("test_predictions.npz", b"PK\x03\x04 cut"),
        ("mistakes.npz", b"nothing"),
    ],
)
def test_a_broken_file_is_named(run_dir, name, content):
    (run_dir / name).write_bytes(content)
    with pytest.raises(RequestError, match=rf"{re.escape(name)} can't be read"):
        write_report(run_dir)


def test_arrays_that_need_pickle_are_refused(run_dir):
    np.savez(run_dir / "mistakes.npz", names=np.array([{"run": "code"}], dtype=object))
    with pytest.raises(RequestError, match=r"mistakes\.npz can't be read"):
        write_report(run_dir)


def test_classes_that_do_not_fit_the_predictions_are_refused(make_run):
    with pytest.raises(RequestError, match="2 classes"):
        write_report(make_run(data_report={"classes": ["cat", "dog"]}))
