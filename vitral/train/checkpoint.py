"""The run's state on disk: `checkpoints/step-00001000`, whole or not at all."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from vitral.errors import ModelFileError, RequestError
from vitral.files import atomic
from vitral.files.manifest import check_manifest, write_manifest
from vitral.models.weights.folder import WEIGHTS_NAME, own_copies, write_model_files
from vitral.spec.preprocessing import Preprocessing

# A checkpoint is written beside the old ones before any of them is removed.
_SPACE_MARGIN = 1.1


@dataclass(frozen=True)
class SavedState:
    """What a checkpoint gives back."""

    path: Path
    weights: dict[str, Tensor]
    """The weights that training goes on with."""
    average: dict[str, Tensor] | None
    best: dict[str, Tensor] | None
    """The weights that are kept as the best so far, where they are."""
    optimizer: dict[str, Tensor]
    progress: dict[str, Any]
    """Plain data: step, running sums, seconds, machine facts."""


def save_checkpoint(
    folder: Path,
    *,
    model: nn.Module,
    average: dict[str, Tensor] | None,
    best: dict[str, Tensor] | None,
    optimizer: dict[str, Tensor],
    progress: dict[str, Any],
    preprocessing: Preprocessing,
    classes: tuple[str, ...] | None,
    provenance: dict[str, Any],
    keep: int,
) -> Path:
    """Write a checkpoint aside, sync and verify it, give it its name, and drop the oldest ones.

    Args:
        folder: the run's `checkpoints`.
        model: `model/` gets its average if there is one, else its weights.
        average: the averaged weights.
        best: those that are kept as the best so far.
        optimizer: its state as named tensors.
        progress: plain data; `step` names the checkpoint.
        preprocessing: for `model/`.
        classes: for `model/`.
        provenance: for `model/`.
        keep: how many of the newest are kept.

    Raises:
        RequestError: the disk is too full.
        ModelFileError: what was written does not read back.
    """
    folder.mkdir(parents=True, exist_ok=True)
    weights, own_optimizer = own_copies(model.state_dict()), own_copies(optimizer)
    check_space(folder, tensors=[weights, own_optimizer, average or {}, best or {}])
    path = folder / f"step-{progress['step']:08}"
    with atomic.new_folder(path, verify=check_manifest) as aside:
        (aside / "model").mkdir()
        (aside / "state").mkdir()
        write_model_files(
            model,
            aside / "model",
            preprocessing=preprocessing,
            classes=classes,
            state=average,
            provenance=provenance,
        )
        if average is not None:
            save_file(weights, aside / "state" / "weights.safetensors")
        if best is not None:
            save_file(own_copies(best), aside / "state" / "best.safetensors")
        save_file(own_optimizer, aside / "state" / "optimizer.safetensors")
        (aside / "state" / "progress.json").write_text(json.dumps(progress))
        write_manifest(aside)
    for old in checkpoint_paths(folder)[keep:]:
        shutil.rmtree(old)
    return path


def checkpoint_paths(folder: Path) -> list[Path]:
    """Return the checkpoints of a run, newest first."""
    return sorted(folder.glob("step-*"), reverse=True)


def load_newest(folder: Path) -> tuple[SavedState | None, list[str]]:
    """Load the newest checkpoint that is whole.

    Returns:
        The state, or None if there is no checkpoint, and a sentence for each damaged one passed
        over.

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


def check_space(folder: Path, *, tensors: list[dict[str, Tensor]]) -> None:
    """Make sure that a checkpoint fits on the disk.

    Raises:
        RequestError: it does not.
    """
    needed = _SPACE_MARGIN * sum(t.nbytes for named in tensors for t in named.values())
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise RequestError(
            f"a checkpoint needs {needed / 1e6:,.0f} MB and {folder} has {free / 1e6:,.0f} MB "
            "free: "
            "make room or choose another --output"
        )


def _load(path: Path) -> SavedState:
    result = load_file(path / "model" / WEIGHTS_NAME)
    raw, best = (path / "state" / f"{name}.safetensors" for name in ("weights", "best"))
    return SavedState(
        path=path,
        weights=load_file(raw) if raw.exists() else result,
        average=result if raw.exists() else None,
        best=load_file(best) if best.exists() else None,
        optimizer=load_file(path / "state" / "optimizer.safetensors"),
        progress=json.loads((path / "state" / "progress.json").read_text()),
    )
