import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vitral.config.names import parse_model_name
from vitral.config.preprocessing import default_preprocessing
from vitral.config.settings import build_run_config, setting_types
from vitral.errors import RequestError
from vitral.recipes import Facts
from vitral.recipes.recipe import (
    MEDIUM_BELOW_IMAGES,
    RECIPES,
    SMALL_BELOW_IMAGES,
    choose_recipe,
    default_model,
)
from vitral.training.objectives.classification import ClassificationSettings

IMAGENET = {"num_images": 1_281_167, "num_classes": 1000, "image_size": (224, 224)}


def facts(**changes):
    values = {"num_images": 2000, "num_classes": 10, "image_size": (64, 64), "model": "ViT-Mi/8",
              "embed_dim": 128}  # fmt: skip
    return Facts(**values | changes)


def run_config(recipe, facts):
    """The settings of a run with the recipe and no wish of the user."""
    given_ = dict(recipe.settings)
    steps_per_epoch = -(-facts.num_images // given_["train.batch_size"])
    epochs = given_.pop("train.epochs", None)
    steps = given_.pop("train.steps", None) or max(1, round(epochs * steps_per_epoch))
    warmup = int(given_.pop("schedule.warmup_share", 0) * steps)
    model = {f"model.{k}": v for k, v in parse_model_name(facts.model).items()}
    size = default_preprocessing(facts.image_size, channels=3)
    task = {"data.source": "photos", "train.steps": steps, "schedule.warmup_steps": warmup,
            "model.image_size": facts.image_size}  # fmt: skip
    return build_run_config(
        {f"preprocessing.{k}": v for k, v in vars(size).items()} | task | model | given_,
        objective=ClassificationSettings,
    )


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("model", ["ViT-Mi/8", "ViT-Ti/16", "ViT-B/16", "ViT-L/16"])
def test_every_recipe_gives_a_run(name, model):
    task = facts(**IMAGENET, model=model, embed_dim=parse_model_name(model)["embed_dim"])
    recipe = choose_recipe(task, name=name)
    config = run_config(recipe, task)
    assert (recipe.name, recipe.reason) == (name, "as asked")
    assert config.train.batch_size % 2 == 0
    assert config.schedule.warmup_steps > 0
    known = setting_types().keys() | {"objective.label_smoothing"}
    assert recipe.settings.keys() <= known


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_says_where_it_comes_from(name):
    assert len(RECIPES[name].__doc__) > 40


@settings(max_examples=60)
@given(
    num_images=st.integers(1, 20_000_000),
    num_classes=st.integers(2, 20_000),
    side=st.integers(8, 512),
    embed_dim=st.integers(0, 2048),
)
def test_the_chosen_recipe_gives_a_run_for_any_task(num_images, num_classes, side, embed_dim):
    task = facts(
        num_images=num_images, num_classes=num_classes, image_size=(side, side), embed_dim=embed_dim
    )
    recipe = choose_recipe(task)
    config = run_config(recipe, task)
    assert f"{num_images:,} training images of {num_classes} classes" in recipe.reason
    assert 0 < config.optimizer.learning_rate <= 3e-3


@pytest.mark.parametrize(
    ("num_images", "name"),
    [
        (1, "scratch-small"),
        (SMALL_BELOW_IMAGES - 1, "scratch-small"),
        (SMALL_BELOW_IMAGES, "scratch-medium"),
        (MEDIUM_BELOW_IMAGES - 1, "scratch-medium"),
        (MEDIUM_BELOW_IMAGES, "scratch-large"),
        (14_000_000, "scratch-large"),
    ],
)
def test_the_number_of_images_chooses_the_recipe(num_images, name):
    assert choose_recipe(facts(num_images=num_images)).name == name


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("scratch-smal", "there is no recipe 'scratch-smal': did you mean 'scratch-small'"),
        ("Paper-ImageNet", "did you mean 'paper-imagenet'"),
        ("xyz", f"there is no recipe 'xyz': use one of {', '.join(RECIPES)}"),
    ],
)
def test_an_unknown_recipe_suggests_a_known_one(name, message):
    with pytest.raises(RequestError, match=message):
        choose_recipe(facts(), name=name)


def test_the_papers_recipe_has_the_papers_numbers():
    # Table 3, "ImageNet" from fresh weights; section B.1 for the optimiser.
    settings_ = choose_recipe(facts(**IMAGENET), name="paper-imagenet").settings
    assert settings_["train.epochs"] == 300
    assert settings_["train.batch_size"] == 4096
    assert settings_["optimizer.learning_rate"] == 3e-3
    assert settings_["optimizer.weight_decay"] == 0.3
    assert settings_["optimizer.clip_norm"] == 1.0
    assert settings_["schedule.decay"] == "cosine"
    assert settings_["schedule.warmup_steps"] == 10_000
    assert settings_["model.dropout"] == 0.1


@given(st.integers(1, 49_999), st.integers(1, 49_999))
def test_small_sets_get_more_epochs_the_smaller_they_are(first, second):
    fewer, more = sorted((first, second))
    epochs = [
        choose_recipe(facts(num_images=count)).settings["train.epochs"] for count in (fewer, more)
    ]
    assert 10 <= epochs[1] <= epochs[0]


@pytest.mark.parametrize(("side", "crop"), [(28, "shift"), (64, "shift"), (65, "inception")])
def test_tiny_images_are_shifted_instead_of_cropped(side, crop):
    assert choose_recipe(facts(image_size=(side, 20))).settings["augment.crop"] == crop


@pytest.mark.parametrize(
    ("embed_dim", "rate"), [(0, 1e-3), (128, 1e-3), (384, 1e-3), (768, 5e-4), (1536, 2.5e-4)]
)
def test_wide_models_learn_at_lower_rates(embed_dim, rate):
    settings_ = choose_recipe(facts(embed_dim=embed_dim)).settings
    assert settings_["optimizer.learning_rate"] == pytest.approx(rate)


@given(st.integers(4, 5000))
def test_the_default_model_fits_any_image(side):
    name, image_size = default_model(side)
    fields = parse_model_name(name)
    patch_size = fields["patch_size"]
    assert 1 <= patch_size <= image_size
    assert 4 <= (image_size // patch_size) ** 2 <= 100


@pytest.mark.parametrize(
    ("side", "expected"),
    [(28, ("ViT-Mi/7", 28)), (32, ("ViT-Mi/4", 32)), (64, ("ViT-Mi/8", 64)),
     (500, ("ViT-Mi/16", 128))],
)  # fmt: skip
def test_the_default_model_of_usual_sizes(side, expected):
    assert default_model(side) == expected
