"""Compare the cost of model inspection with plain forward passes.

python benchmarks/inspect_speed.py [--rounds 7] [--small]

One layer's attention and the logits of ViT-L/16 at 384 px against the logits alone; occlusion of an
image by ViT-B/16 against as many images in batches; everything from one forward pass of ViT-B/16
for one image, with figures and page, in seconds. Memory is that of a separate process.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from interleave import compare, options, record

from vitral.cli.inspect import PHOTOS
from vitral.cli.main import main as vitral
from vitral.inspection import occlusion_sensitivity
from vitral.models.build import create_model
from vitral.models.model import Model
from vitral.models.weights.save import save_model

BATCH = 49
"""A quarter of 196 parts: whole batches on both sides."""


def build(name: str, size: int, device: str) -> Model:
    """Return a model with a random head."""
    torch.manual_seed(0)
    model = create_model(name, image_size=size, num_classes=1000)
    torch.nn.init.normal_(model.head.weight, std=0.01)
    return model.eval().to(device)


@torch.no_grad()
def one_layer(args: argparse.Namespace) -> dict[str, Any]:
    """Return the time of logits with one layer's attention against logits alone."""
    name, size = ("ViT-Mi/8", 64) if args.small else ("ViT-L/16", 384)
    model = build(name, size, args.device)
    image = torch.randn(1, 3, size, size, device=args.device)
    layer = f"block{model.config.depth // 2:02}/attention"
    return {
        "what": "one layer's attention",
        "model": name,
        "size": size,
        **against(lambda: model.trace(image, [layer, "logits"]), lambda: model(image), args),
    }


@torch.no_grad()
def occlusion(args: argparse.Namespace) -> dict[str, Any]:
    """Return the time of occlusion against that of as many images in batches."""
    name, size = ("ViT-Mi/8", 64) if args.small else ("ViT-B/16", 224)
    model = build(name, size, args.device)
    image = torch.randn(1, 3, size, size, device=args.device)
    count = model.config.num_patches
    batches = torch.randn(count, 3, size, size, device=args.device).split(BATCH)

    @torch.no_grad()
    def plain() -> None:
        for images in batches:
            model(images)

    return {
        "what": "occlusion",
        "model": name,
        "size": size,
        **against(lambda: occlusion_sensitivity(model, image, [0], batch_size=BATCH), plain, args),
    }


def against(
    ours: Callable[[], object], plain: Callable[[], object], args: argparse.Namespace
) -> dict[str, float]:
    """Compare without gradients."""
    with torch.no_grad():
        return compare(ours, plain, rounds=args.rounds, device=torch.device(args.device))


def everything(args: argparse.Namespace) -> dict[str, Any]:
    """Return the time of the whole command for one image, without occlusion."""
    name, size = ("ViT-Mi/8", 64) if args.small else ("ViT-B/16", 224)
    with tempfile.TemporaryDirectory() as folder:
        save_model(build(name, size, "cpu"), Path(folder) / "model")
        photo = str(next(PHOTOS.glob("cat.jpg")))
        command = ["inspect", f"{folder}/model", photo, "--occlusion", "off"]
        times = []
        for _ in range(3):
            start = time.perf_counter()
            vitral([*command, "--device", args.device, "--output", f"{folder}/looks"])
            times.append(time.perf_counter() - start)
    return {"what": "everything of one image", "model": name, "size": size,
            "seconds": sorted(times)[1]}  # fmt: skip


MEMORY = """
import resource, torch
from vitral.models.build import create_model
model = create_model({name!r}, image_size={size}, num_classes=1000).eval()
image = torch.randn(1, 3, {size}, {size})
with torch.no_grad():
    {work}
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def memory(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Return the peak memory of processes that request no, one and all layers' attention."""
    name, size = ("ViT-Mi/8", 64) if args.small else ("ViT-L/16", 384)
    maps = "from vitral.inspection import attention_maps; attention_maps(model, image"
    works = {
        "logits": "model(image)",
        "one layer": f"{maps}, layers=[-1])",
        "all layers": f"{maps})",
    }
    rows = []
    for what, work in works.items():
        code = MEMORY.format(name=name, size=size, work=work)
        finished = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
        peak = float(finished.stdout.split()[-1])
        rows.append({"what": f"memory: {what}", "model": name, "size": size, "peak_mb": peak})
    return rows


def main() -> None:
    """Measure and record."""
    parser = options(__doc__)
    parser.add_argument("--small", action="store_true", help="a small model, to try the script")
    args = parser.parse_args()
    rows = [one_layer(args), occlusion(args), everything(args), *memory(args)]
    record("inspect_speed", rows, args=args)


if __name__ == "__main__":
    main()
