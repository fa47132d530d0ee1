"""Checkpoints of a run on disk, such as `checkpoints/step-00001000`, written atomically."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from vitral.config.preprocessing import Preprocessing
from vitral.errors import ModelFileError, RequestError
from vitral.files import atomic
from vitral.files.atomic import check_manifest, write_manifest
from vitral.files.layout import RunFile
from vitral.models.weights.folder import WEIGHTS_NAME, independent_copies, write_model_files
from vitral.training.objectives.base import Objective, result_names
from vitral.training.state import part_of

# A checkpoint is written beside the old ones before any of them is removed.
_SPACE_MARGIN = 1.1
# Prefix of averaged tensors in `state/objective.safetensors`.
_AVERAGE = "average/"
FORMAT = 2
"""Format of `state/`; 1 had only the tensors of the model, without the prefix `model.`."""


@dataclass(frozen=True)
class SavedState:
    """The contents of a checkpoint."""

    path: Path
    tensors: dict[str, Tensor]
    """As `TrainState.tensors` names them."""
    progress: dict[str, Any]
    """Plain data: step, running sums, seconds, machine facts."""


def save_checkpoint(
    folder: Path,
    *,
    objective: Objective,
    tensors: Mapping[str, Tensor],
    progress: Mapping[str, Any],
    preprocessing: Preprocessing,
    classes: tuple[str, ...] | None,
    provenance: dict[str, Any],
    keep: int,
) -> Path:
    """Write, sync and verify a checkpoint in a temporary folder, rename it, drop the oldest ones.

    `model/` gets the weights of `objective.result()`, averaged if there is an average, and loads
    like any model. `state/` gets everything that is not in `model/`.

    Args:
        folder: the run's `checkpoints`.
        objective: owner of the tensors.
        tensors: of the run, unsharded, named as by `TrainState.tensors`.
        progress: plain data; the checkpoint is named after `step`.
        preprocessing: for `model/`.
        classes: for `model/`.
        provenance: for `model/`.
        keep: number of newest checkpoints that are kept.

    Raises:
        RequestError: the disk is too full.
        ModelFileError: verification of the written files failed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    check_space(folder, num_bytes=sum(tensor.nbytes for tensor in tensors.values()))
    path = folder / f"step-{progress['step']:08}"
    average = part_of(tensors, "average")
    with atomic.new_folder(path, verify=check_manifest) as aside:
        (aside / RunFile.MODEL).mkdir()
        (aside / "state").mkdir()
        write_model_files(
            objective.result(),
            aside / RunFile.MODEL,
            preprocessing=preprocessing,
            classes=classes,
            state=result_tensors(objective, tensors),
            provenance=provenance,
            with_reference=False,
        )
        for name, part in _state_files(objective, tensors).items():
            save_file(independent_copies(part), aside / "state" / f"{name}.safetensors")
        content = {**progress, "format": FORMAT, "averaged": bool(average)}
        (aside / "state" / "progress.json").write_text(json.dumps(content))
        write_manifest(aside)
    for old in checkpoint_paths(folder)[keep:]:
        shutil.rmtree(old)
    return path


def result_tensors(objective: Objective, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights of the result, averaged if there is an average, by the result's names."""
    current = part_of(tensors, "objective") | part_of(tensors, "average")
    return {name: current[owned] for name, owned in result_names(objective).items()}


def _state_files(
    objective: Objective, tensors: Mapping[str, Tensor]
) -> dict[str, dict[str, Tensor]]:
    """Return the tensors of each file of `state/`, without files that would be empty."""
    current, average = part_of(tensors, "objective"), part_of(tensors, "average")
    is_model = objective.result() is objective.model
    files = {
        "weights": _under_model(current) if average or not is_model else {},
        "average": _under_model(average) if not is_model else {},
        "objective": _outside_model(current)
        | {f"{_AVERAGE}{name}": tensor for name, tensor in _outside_model(average).items()},
        "best": part_of(tensors, "best"),
        "optimizer": part_of(tensors, "optimizer"),
    }
    return {name: part for name, part in files.items() if part or name == "optimizer"}


def _under_model(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    start = "model."
    return {name[len(start) :]: t for name, t in tensors.items() if name.startswith(start)}


def _outside_model(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: t for name, t in tensors.items() if not name.startswith("model.")}


def checkpoint_paths(folder: Path) -> list[Path]:
    """Return the checkpoints of a run, newest first."""
    return sorted(folder.glob("step-*"), reverse=True)


def load_newest(folder: Path) -> tuple[SavedState | None, list[str]]:
    """Load the newest undamaged checkpoint.

    Returns:
        The state, or None if there is no checkpoint, and a sentence for each damaged checkpoint
        that was skipped.

    Raises:
        ModelFileError: there are checkpoints and all are damaged.
    """
    complaints: list[str] = []
    for path in checkpoint_paths(folder):
        try:
            check_manifest(path)
            return _load(path), complaints
        except (ModelFileError, OSError, ValueError, SafetensorError) as error:
            complaints.append(f"checkpoint {path.name} is damaged and was passed over: {error}")
    if complaints:
        raise ModelFileError(
            f"no checkpoint in {folder} can be used ({complaints[0]}): start anew in another "
            "--output"
        )
    return None, complaints


def check_space(folder: Path, *, num_bytes: int) -> None:
    """Check that a checkpoint fits on the disk.

    Raises:
        RequestError: there is too little free space.
    """
    needed = _SPACE_MARGIN * num_bytes
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise RequestError(
            f"a checkpoint needs {needed / 1e6:,.0f} MB and {folder} has {free / 1e6:,.0f} MB "
            "free: "
            "make room or choose another --output"
        )


def _load(path: Path) -> SavedState:
    progress = json.loads((path / "state" / "progress.json").read_text())
    result = load_file(path / RunFile.MODEL / WEIGHTS_NAME)
    files = {
        name: load_file(file) if (file := path / "state" / f"{name}.safetensors").exists() else None
        for name in ("weights", "average", "objective", "best", "optimizer")
    }
    weights, others = files["weights"] or result, files["objective"] or {}
    if "format" not in progress:
        progress["averaged"] = files["weights"] is not None
        files["best"] = _with_prefix("model.", files["best"] or {})
        files["optimizer"] = {
            f"{key}/model.{name}": tensor
            for (key, _, name), tensor in (
                (name.partition("/"), tensor) for name, tensor in (files["optimizer"] or {}).items()
            )
        }
    parts = {
        "objective": _with_prefix("model.", weights)
        | {name: t for name, t in others.items() if not name.startswith(_AVERAGE)},
        "average": {},
        "best": files["best"] or {},
        "optimizer": files["optimizer"] or {},
    }
    if progress["averaged"]:
        parts["average"] = _with_prefix("model.", files["average"] or result) | {
            name.removeprefix(_AVERAGE): t
            for name, t in others.items()
            if name.startswith(_AVERAGE)
        }
    tensors = {
        f"{part}/{name}": tensor for part, named in parts.items() for name, tensor in named.items()
    }
    return SavedState(path, tensors, progress)


def _with_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}{name}": tensor for name, tensor in tensors.items()}
