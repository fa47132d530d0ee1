"""What computes outputs takes pixels as they were prepared, and normalises them itself."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support.runs import pattern_images

import vitral
from vitral.errors import DataError, RequestError
from vitral.predict.backends.torch_eager import TorchBackend
from vitral.predict.predictor import Predictor


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    torch.manual_seed(0)
    model = vitral.create_model(
        "ViT-Mi/4", image_size=8, embed_dim=16, depth=1, num_heads=2, mlp_dim=32, num_classes=4,
        in_channels=1,
    )  # fmt: skip
    assert isinstance(model.head, torch.nn.Linear)
    torch.nn.init.normal_(model.head.weight)
    return Predictor(model, device="cpu")


def test_prepare_and_run_give_what_a_call_does(predictor: Predictor, tmp_path: Path) -> None:
    images, _ = pattern_images(5, side=11)
    pixels = np.stack([predictor.prepare(image) for image in images])
    assert pixels.shape == (5, 1, 8, 8) and pixels.dtype == np.uint8
    logits = predictor.run(pixels)
    assert logits.dtype == np.float32
    shares = predictor.model.probabilities(torch.from_numpy(logits)).max(dim=1)
    answers = predictor(list(images))
    assert [answer.probability for answer in answers] == pytest.approx(shares.values.tolist())
    named = [predictor.classes[index] for index in shares.indices.tolist()]
    assert [answer.class_name for answer in answers] == named


def test_a_path_bytes_an_array_and_a_picture_are_prepared_alike(
    predictor: Predictor, tmp_path: Path
) -> None:
    image = pattern_images(1, side=11)[0][0]
    picture, path, file = Image.fromarray(image), tmp_path / "a.png", io.BytesIO()
    picture.save(path)
    picture.save(file, "PNG")
    first, *others = (
        predictor.prepare(given) for given in (image, picture, path, str(path), file.getvalue())
    )
    assert all(np.array_equal(first, other) for other in others)


def test_what_can_not_be_read_or_run_is_told(predictor: Predictor) -> None:
    with pytest.raises(DataError, match="the image can't be read: "):
        predictor.prepare(b"\x89PNG\r\n\x1a\n broken")
    with pytest.raises(DataError, match="no such file"):
        predictor.prepare("nowhere.png")
    with pytest.raises(RequestError, match=r"pixels of shape \(1, 8, 8\): give a batch .*\(N, 1"):
        predictor.run(np.zeros((1, 8, 8), np.uint8))


def test_normalisation_is_inside(predictor: Predictor) -> None:
    model, how = predictor.model, predictor.preprocessing
    backend = TorchBackend(
        model.features, device=torch.device("cpu"), precision=torch.float32, preprocessing=how
    )
    pixels = torch.randint(0, 256, (3, 1, 8, 8), dtype=torch.uint8)
    images = (pixels.float() - 255 * how.mean[0]) / (255 * how.std[0])
    found = backend(pixels)
    assert not found.requires_grad
    torch.testing.assert_close(found, model.features(images).detach(), atol=1e-5, rtol=1e-5)
    assert (backend.name, backend.precision, backend.batch_sizes) == ("torch", "float32", ())
