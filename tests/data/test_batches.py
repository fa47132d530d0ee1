import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vitral.data.batches import mirrored, partner_of, to_model
from vitral.spec.preprocessing import Preprocessing

CPU = torch.device("cpu")
HOW = Preprocessing((4, 5), mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4))


def loaded(count, *, shares=None):
    random = np.random.default_rng(count)
    batch = {
        "image": torch.from_numpy(random.integers(0, 256, (count, 3, 4, 5), dtype=np.uint8)),
        "label": torch.from_numpy(random.integers(0, 9, count)),
        "index": torch.arange(count),
        "valid": torch.ones(count, dtype=torch.bool),
    }
    return batch if shares is None else batch | {"mix_share": torch.tensor(shares)}


def normalised(batch):
    mean, std = (np.reshape(v, (1, 3, 1, 1)) for v in (HOW.mean, HOW.std))
    return (batch["image"].numpy() / 255 - mean) / std


def test_a_batch_is_brought_into_the_models_range():
    batch = loaded(6)
    ready = to_model(batch, device=CPU, preprocessing=HOW)
    assert ready["image"].dtype == torch.float32
    np.testing.assert_allclose(ready["image"], normalised(batch), atol=1e-5)
    assert ready.keys() == batch.keys()
    assert all(torch.equal(ready[name], batch[name]) for name in ("label", "index", "valid"))


def test_images_are_mirrored_before_they_are_mixed():
    flips = torch.tensor([True, False, False, True])
    batch = loaded(4, shares=[0.3, 0.3, 1.0, 1.0])
    ready = to_model(batch | {"flip": flips}, device=CPU, preprocessing=HOW)
    turned = batch | {"image": batch["image"].clone()}
    turned["image"][flips] = batch["image"][flips].flip(3)
    expected = to_model(turned, device=CPU, preprocessing=HOW)
    assert torch.equal(ready["image"], expected["image"])
    assert "flip" not in ready


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("channels", [1, 3, 13])
def test_mirroring_keeps_type_and_layout(dtype, channels):
    images = torch.randint(0, 256, (5, 4, 6, channels)).to(dtype).permute(0, 3, 1, 2)
    flips = torch.tensor([True, False, True, True, False])
    turned = mirrored(images, flips)
    assert turned.dtype == dtype and turned.permute(0, 2, 3, 1).is_contiguous()
    assert torch.equal(turned[flips], images[flips].flip(3))
    assert torch.equal(turned[~flips], images[~flips])


def test_the_loaded_batch_is_not_changed():
    batch = loaded(4, shares=[0.3, 0.3, 0.9, 0.9]) | {"flip": torch.ones(4, dtype=torch.bool)}
    before = {name: tensor.clone() for name, tensor in batch.items()}
    to_model(batch, device=CPU, preprocessing=HOW)
    assert batch.keys() == before.keys()
    assert all(torch.equal(batch[name], before[name]) for name in before)


def test_pairs_are_mixed_by_their_share():
    shares = [0.3, 0.3, 0.9, 0.9, 1.0, 1.0, 1.0]
    batch = loaded(7, shares=shares)
    ready = to_model(batch, device=CPU, preprocessing=HOW)
    partner = [1, 0, 3, 2, 5, 4, 6]
    share, images = np.reshape(shares, (-1, 1, 1, 1)), normalised(batch)
    np.testing.assert_allclose(
        ready["image"], share * images + (1 - share) * images[partner], atol=1e-5
    )
    assert ready["mix_label"].tolist() == batch["label"].numpy()[partner].tolist()


def test_boxes_are_filled_from_the_partner_and_other_pairs_are_blended():
    boxes = torch.tensor([[1, 0, 3, 4], [1, 0, 3, 4], [0] * 4, [0] * 4, [0, 2, 4, 5]])
    batch = loaded(5, shares=[0.6, 0.6, 0.3, 0.3, 1.0]) | {"mix_box": boxes}
    ready = to_model(batch, device=CPU, preprocessing=HOW)
    images = normalised(batch)
    expected = images.copy()
    for row, other in ((0, 1), (1, 0)):
        expected[row, :, 1:3, 0:4] = images[other, :, 1:3, 0:4]
    for row, other in ((2, 3), (3, 2)):
        expected[row] = 0.3 * images[row] + 0.7 * images[other]
    np.testing.assert_allclose(ready["image"], expected, atol=1e-5)
    assert torch.equal(ready["mix_share"], batch["mix_share"])


@pytest.mark.parametrize("count", [1, 2, 5])
def test_a_share_of_one_leaves_the_image(count):
    mixed, plain = loaded(count, shares=[1.0] * count), loaded(count)
    first, second = (to_model(b, device=CPU, preprocessing=HOW) for b in (mixed, plain))
    assert torch.equal(first["image"], second["image"])


@given(st.integers(1, 200))
def test_partners_are_mutual_and_an_odd_last_one_is_alone(count):
    partner = partner_of(count, device=CPU)
    assert torch.equal(partner[partner], torch.arange(count))
    alone = (partner == torch.arange(count)).nonzero().flatten().tolist()
    assert alone == [count - 1] * (count % 2)
    assert (partner // 2 == torch.arange(count) // 2).all()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("shares", [None, [0.3, 0.3, 0.9, 0.9]])
def test_a_gpu_gets_the_same_batch(shares):
    batch = loaded(4, shares=shares)
    here = to_model(batch, device=CPU, preprocessing=HOW)
    there = to_model(batch, device=torch.device("cuda"), preprocessing=HOW)
    assert {tensor.device.type for tensor in there.values()} == {"cuda"}
    torch.testing.assert_close({name: t.cpu() for name, t in there.items()}, here)
