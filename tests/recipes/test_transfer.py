"""The paper's and BiT's settings for pretrained weights, against what they print."""

import pytest

from vitral.config.cost import images_at_once
from vitral.config.names import model_config
from vitral.recipes import Facts
from vitral.recipes.recipe import RECIPES, choose_recipe
from vitral.recipes.transfer import hyperrule_sizes

# Table 4: name, training images, steps.
TABLE_4 = [
    ("imagenet", 1_281_167, 20_000),
    ("cifar100", 50_000, 10_000),
    ("cifar10", 50_000, 10_000),
    ("pets", 3_680, 500),
    ("flowers102", 1_020, 500),
]
BY_SIZE = [(1, 500), (19_999, 500), (20_000, 10_000), (499_999, 10_000), (500_000, 20_000)]


def facts(**changes):
    name = changes.get("model", "ViT-B/16")
    config = model_config(name, image_size=384)
    values = {"num_images": 2000, "num_classes": 10, "image_size": (384, 384), "model": name,
              "embed_dim": 768, "config": config}  # fmt: skip
    return Facts(**values | changes)


@pytest.mark.parametrize("recipe", ["paper-finetune", "paper-table2"])
@pytest.mark.parametrize(
    ("data", "num_images", "steps"), TABLE_4 + [("photos", *row) for row in BY_SIZE]
)
def test_the_papers_steps_follow_the_data(recipe, data, num_images, steps):
    settings = RECIPES[recipe](facts(data=data, num_images=num_images))
    assert settings["train.steps"] == steps
    warmup = settings["schedule.warmup_share"] * steps
    assert warmup == pytest.approx(100 if steps == 500 else 500)


def test_the_papers_fine_tuning_is_sgd_of_512_images_without_decay():
    settings = RECIPES["paper-finetune"](facts())
    stated = {
        "optimizer.name": "sgd",
        "optimizer.weight_decay": 0.0,
        "optimizer.clip_norm": 1.0,
        "schedule.decay": "cosine",
        "train.batch_size": 512,
    }
    assert settings.items() >= stated.items()
    assert RECIPES["paper-table2"](facts()) == settings | {"train.ema_decay": 0.9999}


def test_vtab_has_one_setting_for_every_task():
    tasks = [
        facts(data=f"vtab-{n}", num_images=1000, num_classes=k) for n, k in (("a", 2), ("b", 397))
    ]
    first, second = (RECIPES["vtab"](task) for task in tasks)
    assert first == second
    assert first["train.steps"] == 2500
    assert first["optimizer.learning_rate"] == 0.01
    assert first["augment.crop_share"] * 448 == pytest.approx(384)


@pytest.mark.parametrize(
    ("num_images", "steps", "milestones", "mixup"),
    [
        (19_999, 500, (200, 300, 400), 0.0),
        (20_000, 10_000, (3000, 6000, 9000), 0.1),
        (499_999, 10_000, (3000, 6000, 9000), 0.1),
        (500_000, 20_000, (6000, 12_000, 18_000), 0.1),
    ],
)
def test_hyperrule_follows_the_datas_size(num_images, steps, milestones, mixup):
    settings = RECIPES["bit-hyperrule"](facts(num_images=num_images))
    assert settings["train.steps"] == steps
    assert [share * steps for share in settings["schedule.milestones"]] == pytest.approx(milestones)
    assert settings["augment.mixup"] == mixup
    assert settings["optimizer.learning_rate"] == 0.003
    assert settings["schedule.warmup_share"] * steps == pytest.approx(100 if steps == 500 else 500)


@pytest.mark.parametrize(
    ("model", "area", "sizes"),
    [
        ("R50x1", 32 * 32, (128, 160)),
        ("R50x1", 96 * 95, (128, 160)),
        ("R50x1", 96 * 96, (384, 448)),
        ("R152x4", 500 * 375, (480, 512)),
        ("R152x4", 32 * 32, (128, 160)),
    ],
)
def test_hyperrule_crops_by_the_images_area(model, area, sizes):
    task = facts(model=model, image_area=area)
    assert hyperrule_sizes(task) == sizes
    share = RECIPES["bit-hyperrule"](task)["augment.crop_share"]
    assert share == pytest.approx(sizes[0] / sizes[1])


def test_pretrained_weights_call_for_fine_tuning():
    recipe = choose_recipe(facts())
    assert recipe.name == "finetune"
    assert (
        "2,000 training images of 10 classes and pretrained weights: small steps" in recipe.reason
    )
    assert choose_recipe(facts(config=None)).name == "scratch-small"


# What autograd keeps for one image in MB, measured with saved_tensors_hooks (ViT without dropout).
MEASURED = [
    ("ViT-S/16", 224, 55.2),
    ("R50x1", 224, 124.6),
    ("R50x1+ViT-B/16", 224, 257.9),
    ("AxialViT-B/32", 224, 58.6),
    ("AxialResNet50s", 224, 371.6),
    ("ViT-Mi/8", 64, 1.79),
]


@pytest.mark.parametrize(("name", "size", "megabytes"), MEASURED)
def test_what_training_keeps_is_about_what_was_measured(name, size, megabytes):
    megabytes_kept = 4 * model_config(name, image_size=size).num_activations() / 1e6
    assert 0.9 < megabytes_kept / megabytes < 1.3


@pytest.mark.parametrize(("name", "size"), [("ViT-Mi/8", 64), ("ViT-B/16", 384), ("ViT-G/14", 518)])
def test_a_batch_is_passed_in_even_pieces_that_fit(name, size):
    config = model_config(name, image_size=size)
    settings = RECIPES["paper-finetune"](facts(config=config))
    micro = settings["train.micro_batch_size"]
    most = images_at_once(config)
    assert (micro == 0) == (most >= 512)
    if micro:
        assert 512 % micro == 0
        assert micro == 2 or micro <= most < 2 * micro
