"""The caller's own objective: a function of the model and a batch."""

from collections.abc import Callable, Mapping

from torch import Tensor, nn

from vitral.data.loading import Batch
from vitral.errors import RequestError

ObjectiveFunction = Callable[[nn.Module, Batch], tuple[Tensor, Mapping[str, Tensor]] | Tensor]


class FunctionObjective(nn.Module):
    """Calls `function(model, batch)`, which returns the loss, or the loss and a dict of metrics.

    The loss is (N,), one value an example, or a scalar, taken for the mean over the batch.
    """

    def __init__(self, model: nn.Module, function: ObjectiveFunction) -> None:
        super().__init__()
        self.model = model
        self.function = function

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss (N,) and the metrics, (N,) each, of every example."""
        result = self.function(self.model, batch)
        loss, metrics = result if isinstance(result, tuple) else (result, {})
        count = len(batch["label"])
        return per_example(loss, count), {k: per_example(v, count) for k, v in metrics.items()}


def per_example(value: Tensor, count: int) -> Tensor:
    """Return one value an example; a scalar stands for each of them.

    Raises:
        RequestError: another shape.
    """
    if value.ndim == 0:
        return value.expand(count)
    if value.shape != (count,):
        raise RequestError(
            f"an objective or metric of shape {tuple(value.shape)}: return ({count},), one value "
            "an "
            "example, or a scalar mean"
        )
    return value
