import threading

import numpy as np
import pytest
import torch
from support.runs import pattern_images
from torch import Tensor, nn

from vitral.config.preprocessing import default_preprocessing
from vitral.data.examples import Examples
from vitral.data.sources.arrays import ArrayStore
from vitral.evaluate.forward import evaluating, model_outputs

HOW = {
    "preprocessing": default_preprocessing((8, 8), channels=1),
    "device": torch.device("cpu"),
    "precision": torch.float32,
}


def some_examples(count: int) -> Examples:
    images, labels = pattern_images(count)
    return Examples(ArrayStore(images, path="memory"), np.arange(count), labels)


def mean(images: Tensor) -> Tensor:
    return images.mean(dim=(1, 2, 3)).double()[:, None]


@pytest.mark.parametrize(("count", "batch_size"), [(0, 4), (1, 4), (10, 4), (8, 4), (40, 1)])
@pytest.mark.parametrize("workers", [0, 2])
def test_each_batch_stands_beside_its_own_outputs(
    count: int, batch_size: int, workers: int
) -> None:
    examples = some_examples(max(count, 1)).select(np.arange(count))
    given = list(
        model_outputs(mean, examples, batch_size=batch_size, workers=workers, errors={}, **HOW)  # type: ignore[arg-type]
    )
    assert len(given) == -(-count // batch_size)
    seen = [index for batch, _ in given for index in batch["index"].tolist()]
    assert seen == list(range(count))
    for batch, outputs in given:
        assert outputs.dtype == torch.float32
        torch.testing.assert_close(outputs, mean(batch["image"] / 127.5 - 1).float())


def test_outputs_that_are_left_stop_the_threads() -> None:
    stream = model_outputs(mean, some_examples(40), batch_size=2, errors={}, **HOW)  # type: ignore[arg-type]
    next(iter(stream))
    stream.close()  # type: ignore[attr-defined]
    assert not [t for t in threading.enumerate() if t.name.startswith("loader")]


def test_no_gradient_is_kept() -> None:
    layer = nn.Linear(1, 2)
    stream = model_outputs(
        lambda images: layer(mean(images).float()), some_examples(4), batch_size=2, errors={}, **HOW
    )  # type: ignore[arg-type]
    assert [outputs.requires_grad for _, outputs in stream] == [False, False]
    assert torch.is_grad_enabled()


def test_each_module_gets_its_own_mode_back_whatever_happens() -> None:
    model = nn.Sequential(nn.Dropout(), nn.Sequential(nn.Dropout(), nn.Dropout()))
    model[1].eval()
    before = [module.training for module in model.modules()]
    with pytest.raises(KeyboardInterrupt), evaluating(model):
        assert not any(module.training for module in model.modules())
        raise KeyboardInterrupt
    assert [module.training for module in model.modules()] == before
