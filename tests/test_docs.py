"""Every command and every Python block of README and docs is run, on small data."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from support.result_rows import result_row
from support.runs import pattern_images
from support.vtab_tree import write_vtab_tree

import vitral
from vitral.cli.main import main
from vitral.config.catalogue import read_catalogue
from vitral.data.datasets.published import class_names
from vitral.files.results import RESULTS_PATH, append_result

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TAKES_LONG = re.compile(r"vitral (train(?! packed)|finetune|vtab|bench|inspect)\b|torchrun")
# Run by CI itself, by the slow tests (`make demo`), or by whoever installs.
ELSEWHERE = ("make ", "pip install", "git clone", "cd ", "python benchmarks/")


def blocks(language: str) -> list[tuple[str, str]]:
    """Return (page, block) of all pages."""
    pattern = re.compile(rf"```{language}\n(.*?)```", re.DOTALL)
    return [(page.name, block) for page in PAGES for block in pattern.findall(page.read_text())]


def commands() -> list[Any]:
    """Return (page, command) of all pages, without commands that are run elsewhere.

    Those that take long are slow; none of these and the others needs what the other makes.
    """
    lines = [(page, line) for page, block in blocks("bash") for line in block.splitlines()]
    return [
        pytest.param(page, line, marks=[pytest.mark.slow] if TAKES_LONG.match(line) else [])
        for page, line in lines
        if line and not line.startswith(ELSEWHERE)
    ]


def pretraining_command() -> str:
    """Return the command that trains the model of docs/transfer.md."""
    lines = [line for _, block in blocks("bash") for line in block.splitlines()]
    (command,) = (line for line in lines if line.startswith("vitral train pretraining/"))
    return command


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that the pages name: photos, lists, a trained run."""
    root = tmp_path_factory.mktemp("docs")
    images, labels = pattern_images(60, side=32)
    rows = ["path,label"]
    for number, (image, label) in enumerate(zip(images, labels % 2, strict=True)):
        name = ("robin", "wren")[label]
        for folder in ("photos", "other_photos"):
            (root / folder / name).mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).convert("RGB").save(root / folder / name / f"{number}.png")
        rows.append(f"photos/{name}/{number}.png,{name}")
    (root / "list.csv").write_text("\n".join(rows))
    shutil.copytree(root / "photos" / "wren", root / "new_photos")
    # Another task, whose images all differ.
    for number, image in enumerate(pattern_images(90, seed=5, side=32)[0]):
        folder = root / "new_task" / ("crow", "rook", "jay")[number % 3]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).convert("RGB").save(folder / f"{number}.png")
    shutil.make_archive(str(root / "photos"), "zip", root / "photos")
    Image.fromarray(images[0]).convert("RGB").save(root / "photo.jpg")
    Image.fromarray(images[0]).convert("RGB").save(root / "new_photos" / "1.jpg")
    for name in ("pretraining", "scenes", "whole/scenes"):
        shutil.copytree(root / "new_task", root / name)
    # CIFAR-10 in its publisher's form, of a few images.
    cifar = root / "downloads" / "cifar-10-batches-bin"
    cifar.mkdir(parents=True)
    for name in ("test_batch", *(f"data_batch_{number}" for number in range(1, 6))):
        records = (bytes([label]) + bytes([25 * label]) * 3072 for label in range(10))
        (cifar / f"{name}.bin").write_bytes(b"".join(records))
    (cifar / "batches.meta.txt").write_text("\n".join(class_names("cifar10")))
    write_vtab_tree(root / "downloads", ["camelyon", "kitti-dist"])
    # As a file from elsewhere: it does not say what its classes are called.
    torch.manual_seed(0)
    weights = vitral.create_model("ViT-Mi/8", image_size=64, num_classes=10)
    torch.nn.init.normal_(weights.head.weight)
    vitral.save_model(weights, root / "weights.npz", format="official")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.delenv("VITRAL_RESULTS")
        assert main(["train", "photos/", "--steps", "2", "--output", "runs/birds"]) == 0
        assert main(["data", "check", "photos/", "--fix", "clean.csv"]) in (0, 3)
        assert main(shortened(shlex.split(pretraining_command()))[1:]) == 0
        look = ["inspect", "runs/birds", "photo.jpg", "--occlusion", "off", "--output", "looks"]
        assert main(look) == 0
        for row in (result_row(), result_row(model="ViT-L/16", value=0.905)):
            append_result(RESULTS_PATH, row)
    return root


def shortened(tokens: list[str]) -> list[str]:
    """Shorten a training command to two steps on small images."""
    if "vtab" in tokens and "--linear" in tokens:
        return tokens
    if "vtab" in tokens:
        text = re.sub(r"--steps \S+", "", shlex.join(tokens))
        return [*shlex.split(text), "--steps", "2", "--image-size", "64"]
    if tokens[:2] == ["vitral", "finetune"]:
        text = re.sub(r"--epochs \S+", "", shlex.join(tokens))
        size = [] if "--image-size" in tokens else ["--image-size", "64"]
        return [*shlex.split(text), "--steps", "2", *size]
    if "train" not in tokens:
        return tokens
    if "--config" in tokens:
        return tokens
    text = re.sub(r"--epochs \S+", "", shlex.join(tokens))
    return [*shlex.split(text), "--steps", "2"]


@pytest.mark.parametrize(("page", "command"), commands())
def test_commands_of_the_pages_run(
    page: str, command: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    monkeypatch.delenv("VITRAL_RESULTS")
    tokens = shortened(shlex.split(command, comments=True))
    if tokens[0] == "vitral":
        if "runs/birds" in tokens and tokens[1] == "train":
            tokens[tokens.index("runs/birds")] = f"runs/{page}"
        # A check of data ends with 3 where it finds what would make a score wrong.
        assert main(tokens[1:]) in ((0, 3) if tokens[1:3] == ["data", "check"] else (0,))
        return
    assert tokens[0] == "torchrun", f"{page} shows a command that nothing runs: {command}"
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", *tokens[1:]]
    finished = subprocess.run(launcher, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr


@pytest.mark.parametrize(("page", "code"), blocks("python"))
def test_python_of_the_pages_runs(
    page: str, code: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    monkeypatch.delenv("VITRAL_RESULTS")
    short = re.sub(r"epochs=\d+", "steps=2", code)
    exec(compile(short, page, "exec"), {"__name__": "__main__"})


def test_the_pages_count_the_catalogue_as_it_is() -> None:
    pages = [*PAGES, ROOT / "CHANGELOG.md"]
    text = " ".join(" ".join(page.read_text().split()) for page in pages)
    stated = re.findall(r"(\d+) (?:public )?sets", text)
    assert len(stated) == 3
    assert set(stated) == {str(len(read_catalogue()))}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_of_the_pages_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+)", page.read_text())
    local = [target for target in targets if not target.startswith("http")]
    assert all((page.parent / target).exists() for target in local), local


@pytest.mark.slow(always=True)
@pytest.mark.timeout(1200)
def test_the_demo_is_clearly_better_than_its_controls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What `make demo` runs."""
    import json

    monkeypatch.chdir(tmp_path)
    assert "vitral train --output runs/demo" in (ROOT / "Makefile").read_text()
    assert main(["train", "--output", "runs/demo"]) == 0
    summary = json.loads(Path("runs/demo/summary.json").read_text())
    assert summary["num_examples"] == 2000
    assert summary["accuracy"] >= 0.86
    assert summary["accuracy"] > summary["pixel_accuracy"] + 0.015
