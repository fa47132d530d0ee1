"""Two processes with sharded weights of small models, compared with one process."""

import copy
import json
import traceback
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from support.small_models import build_small, small_batch
from vitral.config.run import OptimizerSettings
from vitral.models.model import Model, drop_path_from
from vitral.training.best import BestModel
from vitral.training.objectives.classification import Classification
from vitral.training.optimizer import build_optimizer as build_own_optimizer
from vitral.training.state import PARTS, TrainState, WeightAverage, gathered

NUM_PROCESSES, PER_PROCESS = 2, 2
TIMEOUT = timedelta(seconds=60)
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "token": ("ViT", {}),
    "gap": ("ViT", {"pool": "gap"}),
    "map": ("ViT", {"pool": "map"}),
    "token+gap": ("ViT", {"pool": "token+gap"}),
    "token+register": ("ViT", {"pool": "token+register", "num_registers": 1}),
    "relative positions": ("ViT", {"position": "relative", "position_at": "shared"}),
    "stochastic depth": ("ViT", {"drop_path": 0.5}),
    "checkpointed": ("ViT", {}),
    "no head": ("ViT", {"num_classes": 0}),
    "axial": ("AxialViT token", {}),
    "hybrid": ("hybrid", {}),
    "BiT": ("BiT", {}),
}


def run_process(rank: int, folder: str) -> None:
    """Run in one of the processes: measure all cases and write the results to a file."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/meet",
        rank=rank,
        world_size=NUM_PROCESSES,
        timeout=TIMEOUT,
    )
    mesh = init_device_mesh("cpu", (NUM_PROCESSES,))
    found: dict[str, dict[str, Any]] = {}
    for case in CASES:
        try:
            found[case] = measure(case, mesh)
        except Exception:
            found[case] = {"error": traceback.format_exc()}
    try:
        found["state"] = {"unequal": unequal_after_loading(mesh)}
    except Exception:
        found["state"] = {"error": traceback.format_exc()}
    Path(folder, f"{rank}.json").write_text(json.dumps(found))
    dist.barrier()
    dist.destroy_process_group()


def measure(case: str, mesh: DeviceMesh) -> dict[str, float]:
    """Return the largest differences between a sharded model and the same in one process."""
    family, fields = CASES[case]
    whole = build_small(family, **fields)
    whole.gradient_checkpointing = case == "checkpointed"
    sharded = copy.deepcopy(whole)
    for block in sharded.block_modules():
        fully_shard(block, mesh=mesh)
    fully_shard(sharded, mesh=mesh)
    # Made before any forward pass, after which the outermost parameters are whole for a while.
    optimizers = build_optimizer(whole), build_optimizer(sharded)
    images = small_batch(whole, count=NUM_PROCESSES * PER_PROCESS)
    local = slice(dist.get_rank() * PER_PROCESS, (dist.get_rank() + 1) * PER_PROCESS)
    generator = torch.Generator().manual_seed(0)
    uniforms = torch.rand((len(images), whole.num_drop_paths), generator=generator)
    with torch.no_grad():
        found = {"evaluation": difference(sharded(images[local]), whole(images)[local])}
    wanted_outputs = train_step(whole, optimizers[0], images, uniforms)
    outputs = train_step(sharded, optimizers[1], images[local], uniforms[local])
    found["forward"] = difference(outputs, wanted_outputs[local])
    wanted = dict(whole.named_parameters())
    gathered = {}
    for name, parameter in sharded.named_parameters():
        assert isinstance(parameter, DTensor), f"{name} is not sharded"
        gathered[name] = parameter.full_tensor()
    assert list(gathered) == list(wanted)
    found["weights"] = max(difference(gathered[name], wanted[name]) for name in wanted)
    with torch.no_grad():
        found["after"] = difference(sharded(images[local]), whole(images)[local])
    return found


def unequal_after_loading(mesh: DeviceMesh) -> list[str]:
    """Return differences after the state of a sharded run is loaded and trained further.

    It is loaded by processes that share the weights, and by one that has them whole.
    """
    first = build_state(mesh)
    states_step(first)
    saved = {name: tensor.clone() for name, tensor in gathered(first.tensors()).items()}
    again, alone = build_state(mesh, seed=1), build_state(None, seed=1)
    unequal = []
    for state in (again, alone):
        state.load(saved, first.progress())
        loaded = gathered(state.tensors())
        assert loaded.keys() == saved.keys()
        unequal += [name for name, tensor in saved.items() if not torch.equal(loaded[name], tensor)]
    kinds = {name.partition("/")[0] for name, t in again.tensors().items() if is_sharded(t)}
    assert kinds == set(PARTS), f"only {kinds} are sharded"
    states_step(first)
    states_step(again)
    wanted, gone_on = gathered(first.tensors()), gathered(again.tensors())
    return unequal + [name for name in wanted if not torch.equal(wanted[name], gone_on[name])]


def build_state(mesh: DeviceMesh | None, *, seed: int = 10) -> TrainState:
    """Return what changes in a run with an average and a best model; sharded, if over a mesh."""
    objective = Classification(build_small("ViT", seed=seed).train())
    if mesh is not None:
        for block in objective.model.block_modules():
            fully_shard(block, mesh=mesh)
        fully_shard(objective, mesh=mesh)
    optimizer = build_own_optimizer(objective, OptimizerSettings(), device=torch.device("cpu"))
    best = BestModel(objective)
    return TrainState(objective, optimizer, WeightAverage(objective, decay=0.5), best)


def states_step(state: TrainState) -> None:
    """Take a step, and keep its weights as the best."""
    images = small_batch(state.objective.model, count=PER_PROCESS)
    batch = {"image": images, "label": torch.arange(PER_PROCESS)}
    state.objective(batch).values.mean().backward()
    state.optimizer.step()
    state.optimizer.zero_grad()
    assert state.average and state.best
    state.average.update(state.objective, step=state.step)
    state.step += 1
    score = (float(state.step), 0.0)
    state.best.consider(state.objective.state_dict(), score=score, step=state.step)


def is_sharded(tensor: Tensor) -> bool:
    return isinstance(tensor, DTensor)


def build_optimizer(model: Model) -> torch.optim.Optimizer:
    """Return AdamW with an epsilon so large that rounding errors do not change signs of updates."""
    return torch.optim.AdamW(model.parameters(), lr=1e-2, eps=1e-2, weight_decay=0.1)


def train_step(
    model: Model, optimizer: torch.optim.Optimizer, images: Tensor, uniforms: Tensor
) -> Tensor:
    """Take a step on the mean over the images, and return the outputs before it."""
    model.train()
    with drop_path_from(model, uniforms if model.num_drop_paths else None):
        outputs = model(images)
    outputs.square().mean().backward()
    optimizer.step()
    model.eval()
    return outputs.detach()


def difference(one: Tensor, other: Tensor) -> float:
    """Return the largest absolute difference."""
    assert one.shape == other.shape
    return (one.detach() - other.detach()).abs().max().item()
