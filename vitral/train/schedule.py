"""The learning rate as a pure function of the step."""

import math

from vitral.spec.run import ScheduleSettings


def learning_rate_share(step: int, *, total_steps: int, settings: ScheduleSettings) -> float:
    """Return the learning rate of a step, counted from 0, as a share of the peak.

    As in the official code (vision_transformer `utils.create_learning_rate_schedule`): the decay
    runs from the end of the warm-up to `total_steps`, and step 0 of a warm-up has rate 0. A
    milestone's own step still has the rate before it (big_transfer `bit_hyperrule.get_lr`).
    """
    warmup = settings.warmup_steps
    progress = min(max((step - warmup) / max(total_steps - warmup, 1), 0.0), 1.0)
    if settings.decay == "cosine":
        share = settings.end + (1 - settings.end) * 0.5 * (1 + math.cos(math.pi * progress))
    elif settings.decay == "linear":
        share = settings.end + (1 - settings.end) * (1 - progress)
    else:
        share = 0.1 ** sum(step > round(place * total_steps) for place in settings.milestones)
    return share * min(1.0, step / warmup) if warmup else share
