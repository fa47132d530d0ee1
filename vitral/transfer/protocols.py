"""Fine-tuning protocols as data: candidate settings, the split they are compared on, seeds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from vitral.config.resnet import ResNetConfig
from vitral.errors import RequestError, nearest
from vitral.recipes import Facts
from vitral.recipes.transfer import MEDIUM_BELOW, SMALL_BELOW, hyperrule_sizes

# Table 4, by this library's names of data sets: the rates swept, and the share held out for that.
IMAGENET_RATES = (0.003, 0.01, 0.03, 0.06)
OTHER_RATES = (0.001, 0.003, 0.01, 0.03)
DEV_SHARES = {
    "imagenet": 0.01,
    "cifar100": 0.02,
    "cifar10": 0.02,
    "pets": 0.1,
    "flowers102": 0.1,
}
DROPOUT = {"ViT-L/16": 0.1, "ViT-H/14": 0.1, "R50x1+ViT-B/16": 0.1}
"""Dropout in fine-tuning, for the models that use it (`vit_jax/configs/models.py`)."""
PAPER_SIZE = 384
PAPER_SEEDS = 3
"""Number of runs that a mean of Table 2 is over."""


@dataclass(frozen=True)
class Candidate:
    """One set of settings for fine-tuning."""

    name: str
    """Name of its folder."""
    recipe: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    """By path, in addition to the recipe's."""
    image_size: int | tuple[int, int] | None = None
    """None: the model's own."""


@dataclass(frozen=True)
class Protocol:
    """Candidates that are compared on a dev split, and how the best one is then tested."""

    name: str
    candidates: tuple[Candidate, ...]
    """If there is only one, nothing is compared."""
    dev_share: float
    """Share of the training images, if the data has no validation split of its own."""
    num_seeds: int = 1
    """Number of runs over which the result is averaged."""
    keeps_validation: bool = False
    """Whether a validation split of the data itself is not used, since the paper trains on the
    published training sets."""
    dropout: float = 0.0


def choose_protocol(
    name: str,
    facts: Facts,
    *,
    rates: Sequence[float] = (),
    image_size: int | tuple[int, int] | None = None,
    seeds: int | None = None,
) -> Protocol:
    """Return a protocol for a task.

    Args:
        name: "paper", "paper-table2" or "bit-hyperrule".
        facts: of the data and the pretrained model.
        rates: learning rates to compare, instead of those of the protocol.
        image_size: instead of that of the protocol.
        seeds: number of runs, instead of that of the protocol.

    Raises:
        RequestError: an unknown name, or one that does not fit the data.
    """
    if name not in PROTOCOLS:
        raise RequestError(f"there is no protocol {name!r}{nearest(name, PROTOCOLS)}")
    if any(rate <= 0 for rate in rates):
        raise RequestError(f"rates={tuple(rates)}: give learning rates above 0")
    if seeds is not None and seeds < 1:
        raise RequestError(f"seeds={seeds}: give 1 or more")
    protocol = PROTOCOLS[name](facts, tuple(rates))
    if image_size is not None:
        candidates = tuple(
            replace(candidate, image_size=image_size) for candidate in protocol.candidates
        )
        protocol = replace(protocol, candidates=candidates)
    return protocol if seeds is None else replace(protocol, num_seeds=seeds)


def _paper(facts: Facts, rates: tuple[float, ...]) -> Protocol:
    """Return that of Table 4: compare rates on held-out training images, then three runs on all."""
    candidates = _with_rates("paper-finetune", rates or _rates(facts), image_size=PAPER_SIZE)
    if isinstance(facts.config, ResNetConfig):  # B.1.1: also HyperRule, whichever is better
        candidates += _bit_hyperrule(facts, ()).candidates
    return Protocol(
        "paper",
        candidates,
        dev_share=_dev_share(facts),
        num_seeds=PAPER_SEEDS,
        keeps_validation=facts.data in DEV_SHARES,
        dropout=DROPOUT.get(facts.model, 0.0),
    )


def _paper_table2(facts: Facts, rates: tuple[float, ...]) -> Protocol:
    """Return that of Table 2 for ImageNet: 512 pixels (518 for patch size 14), averaged weights."""
    if facts.data != "imagenet":
        raise RequestError(
            f"the protocol paper-table2 is the paper's for imagenet alone, not for {facts.data}: "
            "use paper"
        )
    patch = getattr(facts.config, "patch_size", None)
    size = 518 if patch == (14, 14) else 512
    return replace(
        _paper(facts, rates),
        name="paper-table2",
        candidates=_with_rates("paper-table2", rates or _rates(facts), image_size=size),
    )


def _bit_hyperrule(facts: Facts, rates: tuple[float, ...]) -> Protocol:
    """Return BiT's: settings depend on the data's size, without a sweep (arXiv 1912.11370, 3.3)."""
    if rates:
        raise RequestError("bit-hyperrule compares no learning rates: leave --rates out")
    size = hyperrule_sizes(facts)[0]
    candidate = Candidate("hyperrule", "bit-hyperrule", image_size=size)
    return Protocol("bit-hyperrule", (candidate,), dev_share=0.0, keeps_validation=True)


PROTOCOLS = {
    "paper": _paper,
    "paper-table2": _paper_table2,
    "bit-hyperrule": _bit_hyperrule,
}


def _with_rates(recipe: str, rates: tuple[float, ...], *, image_size: int) -> tuple[Candidate, ...]:
    return tuple(
        Candidate(f"rate-{rate:g}", recipe, {"optimizer.learning_rate": rate}, image_size)
        for rate in rates
    )


def _rates(facts: Facts) -> tuple[float, ...]:
    return IMAGENET_RATES if facts.data == "imagenet" else OTHER_RATES


def _dev_share(facts: Facts) -> float:
    if facts.data in DEV_SHARES:
        return DEV_SHARES[facts.data]
    if facts.num_images < SMALL_BELOW:
        return 0.1
    return 0.02 if facts.num_images < MEDIUM_BELOW else 0.01
