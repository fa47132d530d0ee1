"""BiT ResNet and hybrid against transformers' BiT and ViTHybrid, eager and compiled.

python benchmarks/resnet_speed.py [--rounds 9] [--device cpu] [--modes eager compiled]

transformers has the hybrid up to version 4: with a later one only BiT is measured.
"""

from collections.abc import Callable
from typing import Any

import torch
import transformers
from interleave import compare, options, record
from model_speed import inference, training_step
from torch import nn

from vitral.models.build import create_model

CLASSES, SIZE, BATCH = 1000, 224, 8


def bit() -> nn.Module:
    """Return transformers' R50x1."""
    return transformers.BitForImageClassification(transformers.BitConfig(num_labels=CLASSES))


def hybrid() -> nn.Module:
    """Return transformers' R50x1+ViT-B/16 for 224 pixels, with the tanh GELU of ours."""
    from transformers.modeling_utils import no_init_weights

    config = transformers.ViTHybridConfig(
        num_labels=CLASSES, image_size=SIZE, backbone_featmap_shape=[1, 1024, 14, 14],
        hidden_act="gelu_pytorch_tanh",
    )  # fmt: skip
    with no_init_weights():  # version 4.57 fails on a mask token that is not there
        return transformers.ViTHybridForImageClassification(config)


CASES: dict[str, Callable[[], nn.Module]] = {"R50x1": bit}
if hasattr(transformers, "ViTHybridConfig"):
    CASES["R50x1+ViT-B/16"] = hybrid


def main() -> None:
    """Measure all cases and record them."""
    parser = options(__doc__)
    parser.add_argument("--modes", nargs="+", default=["eager", "compiled"])
    args = parser.parse_args()
    device = torch.device(args.device)
    rows: list[dict[str, Any]] = []
    for name, build_theirs in CASES.items():
        ours = create_model(name, num_classes=CLASSES, image_size=SIZE).to(device)
        theirs = build_theirs().to(device)
        count = sum(p.numel() for p in ours.parameters())
        assert count == sum(p.numel() for p in theirs.parameters())
        images = torch.randn(BATCH, 3, SIZE, SIZE, device=device)
        labels = torch.randint(CLASSES, (BATCH,), device=device)
        for mode in args.modes:
            if mode == "compiled":
                ours, theirs = torch.compile(ours), torch.compile(theirs)
            facts = {"model": name, "image_size": SIZE, "mode": mode, "batch": BATCH}
            measured = compare(
                inference(ours, images, precision=torch.float32),
                inference(theirs, images, precision=torch.float32),
                rounds=args.rounds,
                device=device,
            )
            rows.append({**facts, "what": "inference", **measured})
            measured = compare(
                training_step(
                    ours, images, labels, logits_of=lambda out: out, precision=torch.float32
                ),
                training_step(
                    theirs,
                    images,
                    labels,
                    logits_of=lambda out: out.logits,
                    precision=torch.float32,
                ),
                rounds=args.rounds,
                device=device,
            )
            rows.append({**facts, "what": "training", **measured})
    record("resnet_speed", rows, args=args, transformers=transformers.__version__)


if __name__ == "__main__":
    main()
