"""What is measured on the validation images beside the objective's own figures."""

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor, nn

from vitral.data.loading import Batch
from vitral.errors import RequestError, nearest
from vitral.train.objectives.base import check_metric_name
from vitral.train.objectives.function import per_example

MetricFunction = Callable[[nn.Module, Batch], Tensor]
"""From the model and a batch to (N,), one value an example, or to a scalar mean."""


def top5(model: nn.Module, batch: Batch) -> Tensor:
    """Say for each example whether its label is among the five largest logits.

    Raises:
        RequestError: images may have any classes.
    """
    if batch["label"].ndim == 2:
        raise RequestError("the metric top5 is for images of one class each: leave it out")
    logits = model(batch["image"])
    best = logits.topk(min(5, logits.shape[1]), dim=1).indices
    return (best == batch["label"].unsqueeze(1)).any(dim=1).float()


METRICS: dict[str, MetricFunction] = {"top5": top5}


def named_metrics(
    metrics: Mapping[str, MetricFunction] | Sequence[str | MetricFunction],
) -> dict[str, MetricFunction]:
    """Return functions by name, from a mapping or from names and functions.

    Raises:
        RequestError: an unknown name, or one that rows of metrics have already.
    """
    found = dict(metrics) if isinstance(metrics, Mapping) else _by_name(metrics)
    for name in found:
        check_metric_name(name, of="your own metrics")
    return found


def _by_name(metrics: Sequence[str | MetricFunction]) -> dict[str, MetricFunction]:
    if isinstance(metrics, str) or callable(metrics):
        metrics = (metrics,)
    found: dict[str, MetricFunction] = {}
    for metric in metrics:
        if not isinstance(metric, str):
            found[getattr(metric, "__name__", type(metric).__name__)] = metric
        elif metric in METRICS:
            found[metric] = METRICS[metric]
        else:
            raise RequestError(f"there is no metric {metric!r}{nearest(metric, METRICS)}")
    return found


def named_values(
    metrics: Mapping[str, MetricFunction], model: nn.Module, batch: Batch
) -> dict[str, Tensor]:
    """Return what functions measure of a batch, (N,) each, by name."""
    count = len(batch["valid"])
    return {name: per_example(function(model, batch), count) for name, function in metrics.items()}
