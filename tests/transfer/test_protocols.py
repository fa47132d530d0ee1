import numpy as np
import pytest

from vitral.config.names import model_config
from vitral.config.run import DataSettings
from vitral.data.dataset import open_dataset
from vitral.data.datasets.published import class_names
from vitral.errors import RequestError
from vitral.recipes import Facts
from vitral.recipes.recipe import RECIPES
from vitral.training.resolve import facts_of
from vitral.transfer.protocols import PROTOCOLS, choose_protocol

MODELS = ["ViT-B/16", "ViT-L/16", "ViT-H/14", "R50x1+ViT-B/16", "R50x1", "R152x4", "ViT-Mi/8"]
# Table 4 and B.2: name, images, rates, dev share.
TABLE_4 = [
    ("imagenet", 1_281_167, (0.003, 0.01, 0.03, 0.06), 0.01),
    ("cifar100", 50_000, (0.001, 0.003, 0.01, 0.03), 0.02),
    ("cifar10", 50_000, (0.001, 0.003, 0.01, 0.03), 0.02),
    ("pets", 3_680, (0.001, 0.003, 0.01, 0.03), 0.1),
    ("flowers102", 1_020, (0.001, 0.003, 0.01, 0.03), 0.1),
    ("photos", 19_999, (0.001, 0.003, 0.01, 0.03), 0.1),
    ("photos", 20_000, (0.001, 0.003, 0.01, 0.03), 0.02),
    ("photos", 499_999, (0.001, 0.003, 0.01, 0.03), 0.02),
    ("photos", 500_000, (0.001, 0.003, 0.01, 0.03), 0.01),
]


def facts(model="ViT-B/16", *, data="photos", num_images=2000, **changes):
    config = model_config(model, image_size=224)
    return Facts(num_images, 10, (224, 224), config.name, 768, data=data, config=config, **changes)


def rates_of(protocol):
    return tuple(
        candidate.settings["optimizer.learning_rate"]
        for candidate in protocol.candidates
        if candidate.settings
    )


@pytest.mark.parametrize(("data", "num_images", "rates", "share"), TABLE_4)
def test_the_papers_sweep_is_table_4s(data, num_images, rates, share):
    protocol = choose_protocol("paper", facts(data=data, num_images=num_images))
    assert rates_of(protocol) == rates
    assert protocol.dev_share == share
    assert protocol.num_seeds == 3
    assert {candidate.image_size for candidate in protocol.candidates} == {384}
    assert {candidate.recipe for candidate in protocol.candidates} == {"paper-finetune"}
    assert protocol.keeps_validation == (data != "photos")


@pytest.mark.parametrize("model", MODELS)
def test_resnets_also_try_hyperrule(model):
    names = [candidate.name for candidate in choose_protocol("paper", facts(model)).candidates]
    assert ("hyperrule" in names) == (model in ("R50x1", "R152x4"))


@pytest.mark.parametrize("model", MODELS)
def test_models_have_the_official_dropout(model):
    expected = 0.1 if model in ("ViT-L/16", "ViT-H/14", "R50x1+ViT-B/16") else 0.0
    assert choose_protocol("paper", facts(model)).dropout == expected


@pytest.mark.parametrize(("model", "size"), [("ViT-L/16", 512), ("ViT-H/14", 518), ("R50x1", 512)])
def test_table_2_is_of_imagenet_at_its_size(model, size):
    protocol = choose_protocol("paper-table2", facts(model, data="imagenet", num_images=1_281_167))
    assert {candidate.image_size for candidate in protocol.candidates} == {size}
    assert {candidate.recipe for candidate in protocol.candidates} == {"paper-table2"}
    assert rates_of(protocol) == (0.003, 0.01, 0.03, 0.06)


def test_hyperrule_compares_nothing():
    protocol = choose_protocol("bit-hyperrule", facts("R50x1", image_area=32 * 32))
    (candidate,) = protocol.candidates
    assert (candidate.recipe, candidate.image_size) == ("bit-hyperrule", 128)
    assert protocol.num_seeds == 1


@pytest.mark.parametrize("name", PROTOCOLS)
def test_what_is_asked_goes_before_the_protocol(name):
    task = facts(data="imagenet")
    protocol = choose_protocol(name, task, image_size=64, seeds=5)
    assert {candidate.image_size for candidate in protocol.candidates} == {64}
    assert protocol.num_seeds == 5
    assert all(candidate.recipe in RECIPES for candidate in protocol.candidates)
    assert len({candidate.name for candidate in protocol.candidates}) == len(protocol.candidates)


def test_rates_of_the_callers_own_are_compared():
    assert rates_of(choose_protocol("paper", facts(), rates=(0.5, 0.25))) == (0.5, 0.25)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("papper", {}, "there is no protocol 'papper': did you mean 'paper'"),
        ("paper", {"rates": (0.1, -0.1)}, r"rates=\(0.1, -0.1\): give learning rates above 0"),
        ("paper", {"seeds": 0}, "seeds=0: give 1 or more"),
        ("paper-table2", {}, "paper-table2 is the paper's for imagenet alone, not for photos"),
        ("bit-hyperrule", {"rates": (0.1,)}, "bit-hyperrule compares no learning rates"),
    ],
)
def test_what_does_not_fit_is_refused(name, options, message):
    with pytest.raises(RequestError, match=message):
        choose_protocol(name, facts(), **options)


def test_a_named_set_is_known_by_its_name_when_it_is_open(tmp_path):
    """Ten images a file in CIFAR-10's own form: Table 4's steps go by the name."""
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    for name in ("test_batch", *(f"data_batch_{number}" for number in range(1, 6))):
        pixels = np.random.default_rng(len(name)).integers(0, 256, (10, 3072), dtype=np.uint8)
        rows = (bytes([label]) + image.tobytes() for label, image in enumerate(pixels))
        (folder / f"{name}.bin").write_bytes(b"".join(rows))
    (folder / "batches.meta.txt").write_text("\n".join(class_names("cifar10")))
    settings = DataSettings("cifar10", directory=str(tmp_path), validation_share=0.0)
    images = open_dataset("cifar10", settings=settings)
    task = facts_of(images, model_config("ViT-B/16", image_size=384))
    assert RECIPES["paper-finetune"](task)["train.steps"] == 10_000  # by size it would be 500
    assert choose_protocol("paper", task).dev_share == 0.02
