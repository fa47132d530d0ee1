"""Training step and inference of our ViT against transformers' ViT: same shapes, sdpa, precision.

python benchmarks/model_speed.py [--rounds 15] [--device cpu]
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
import transformers
from interleave import compare, options, record
from torch import Tensor, nn

from vitral.config.run import OptimizerSettings
from vitral.models.build import create_model
from vitral.models.vit import ViT
from vitral.runtime.device import autocast
from vitral.training.optimizer import build_optimizer, clip_gradients

# Name, image size, channels, classes, batch of a training step, batch of inference.
CASES = (
    ("ViT-S/16", 224, 3, 1000, 16, 16),
    ("ViT-Mi/7", 28, 1, 10, 64, 256),
)


def theirs_like(ours: ViT) -> nn.Module:
    """Return transformers' ViT of the same shape and function."""
    config = ours.config
    return transformers.ViTForImageClassification(
        transformers.ViTConfig(
            hidden_size=config.embed_dim,
            num_hidden_layers=config.depth,
            num_attention_heads=config.num_heads,
            intermediate_size=config.mlp_dim,
            hidden_act="gelu_pytorch_tanh",
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            layer_norm_eps=config.norm_eps,
            image_size=config.image_hw[0],
            patch_size=config.patch_hw[0],
            num_channels=config.in_channels,
            num_labels=config.num_classes,
            attn_implementation="sdpa",
        )
    )


def training_step(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    logits_of: Callable[[Any], Tensor],
    precision: torch.dtype,
) -> Callable[[], object]:
    """Return a step, the same code for both: forward, backward, clip, fused AdamW."""
    optimizer = build_optimizer(model, OptimizerSettings(), device=images.device)
    model.train()

    def step() -> None:
        with autocast(images.device, precision):
            logits = logits_of(model(images))
        F.cross_entropy(logits.float(), labels).backward()
        clip_gradients(model.parameters(), max_norm=1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def inference(model: nn.Module, images: Tensor, *, precision: torch.dtype) -> Callable[[], object]:
    """Return a forward pass."""
    model.eval()

    @torch.inference_mode()
    def call() -> object:
        with autocast(images.device, precision):
            return model(images)

    return call


def main() -> None:
    """Measure all cases and record them."""
    args = options(__doc__).parse_args()
    device = torch.device(args.device)
    rows: list[dict[str, Any]] = []
    for name, size, channels, classes, train_batch, batch in CASES:
        for precision in (torch.float32, torch.bfloat16):
            ours = create_model(
                name, image_size=size, in_channels=channels, num_classes=classes
            ).to(device)
            theirs = theirs_like(ours).to(device)
            count = sum(p.numel() for p in ours.parameters())
            assert count == sum(p.numel() for p in theirs.parameters())
            images = torch.randn(batch, channels, size, size, device=device)
            labels = torch.randint(classes, (train_batch,), device=device)
            facts = {"model": name, "image_size": size, "precision": str(precision)[6:]}
            measured = compare(
                inference(ours, images, precision=precision),
                inference(theirs, images, precision=precision),
                rounds=args.rounds,
                device=device,
            )
            rows.append({**facts, "what": "inference", "batch": batch, **measured})
            few = images[:train_batch]
            measured = compare(
                training_step(
                    ours, few, labels, logits_of=lambda logits: logits, precision=precision
                ),
                training_step(
                    theirs, few, labels, logits_of=lambda out: out.logits, precision=precision
                ),
                rounds=args.rounds,
                device=device,
            )
            rows.append({**facts, "what": "training", "batch": train_batch, **measured})
    record("model_speed", rows, args=args, transformers=transformers.__version__)


if __name__ == "__main__":
    main()
