import dataclasses
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from vitral.config.checks import check_share
from vitral.config.model import FAMILIES, ModelConfig
from vitral.config.names import model_config
from vitral.config.run import LOCATION_SETTINGS, ObjectiveSettings, RunConfig
from vitral.config.settings import (
    STAND_INS,
    Settings,
    build_run_config,
    differences,
    flatten,
    nested,
    parse_assignments,
    parse_objective_settings,
    parse_settings,
    read_settings_file,
    read_tree,
    setting_types,
    settings_digest,
)
from vitral.config.vit import ViTConfig
from vitral.errors import RequestError


@dataclasses.dataclass(frozen=True)
class OwnSettings(ObjectiveSettings):
    """Settings of an objective that has some of its own."""

    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        check_share(label_smoothing=self.label_smoothing)


def build(settings: Any) -> RunConfig:
    """Build a run of that objective."""
    settings = settings if isinstance(settings, Settings) else Settings.of(settings, "option")
    read = parse_objective_settings(settings, OwnSettings, name="own")
    return build_run_config(read, objective=OwnSettings)


# A value for every setting, as a user writes it, and as the run has it. None is the default, so
# that each must have been read.
VALUES: dict[str, tuple[str, Any]] = {
    "data.source": ("photos/birds of 2024", "photos/birds of 2024"),
    "data.max_unreadable": ("0.2", 0.2),
    "data.validation_share": ("1e-1", 0.1),
    "data.unlabelled": ("more", "more"),
    "data.directory": ("data", "data"),
    "data.scaled_decoding": ("true", True),
    "data.keep_decoded": ("off", "off"),
    "data.group_pattern": ("^[^_]+", "^[^_]+"),
    "data.folds": ("5", 5),
    "data.fold": ("2", 2),
    "data.workers": ("3", 3),
    "train.steps": ("1e3", 1000),
    "train.batch_size": ("64", 64),
    "train.micro_batch_size": ("32", 32),
    "train.seed": ("7", 7),
    "train.ema": ("0.05", 0.05),
    "train.ema_decay": ("0", 0.0),  # has no effect beside train.ema
    "train.device": ("cuda:1", "cuda:1"),
    "train.precision": ("bfloat16", "bfloat16"),
    "train.compile": ("on", "on"),
    "train.log_every_steps": ("5", 5),
    "train.timeout_seconds": ("90", 90.0),
    "train.gradient_checkpointing": ("true", True),
    "preprocessing.size": ("24,32", (24, 32)),
    "preprocessing.resize": ("squash", "squash"),
    "preprocessing.crop_share": ("0.875", 0.875),
    "preprocessing.geometry": ("tensorflow", "tensorflow"),
    "preprocessing.interpolation": ("bicubic", "bicubic"),
    "preprocessing.antialias": ("false", False),
    "preprocessing.rounding": ("truncate", "truncate"),
    "preprocessing.mean": ("[0.1]", (0.1,)),
    "preprocessing.std": ("[1]", (1.0,)),
    "preprocessing.channels": ("1", 1),
    "preprocessing.levels": ("0,4095", (0.0, 4095.0)),
    "model.name": ("mine", "mine"),
    "model.patch_size": ("4,8", (4, 8)),
    "model.embed_dim": ("16", 16),
    "model.depth": ("2", 2),
    "model.num_heads": ("2", 2),
    "model.mlp_dim": ("24", 24),
    "model.image_size": ("24x32", (24, 32)),
    "model.in_channels": ("1", 1),
    "model.num_classes": ("0", 0),
    "model.pool": ("gap", "gap"),
    "model.representation_size": ("5", 5),
    "model.dropout": ("0.1", 0.1),
    "model.drop_path": ("0.2", 0.2),
    "model.activation": ("gelu", "gelu"),
    "model.norm_eps": ("1e-5", 1e-5),
    "model.position": ("1d", "1d"),  # the others allow no position_resize
    "model.position_at": ("shared", "shared"),
    "model.position_resize": ("bicubic", "bicubic"),
    "model.relative_per_head": ("false", False),  # has no effect beside position=1d
    "model.class_token": ("true", True),
    "model.num_registers": ("2", 2),
    "model.qk_norm": ("true", True),
    "model.layer_scale": ("1e-4", 1e-4),
    "model.norm_pooled": ("true", True),
    "model.attention": ("full", "full"),  # the other allows no registers
    "model.resnet": ("null", None),
    "model.stages": ("1,2", (1, 2)),
    "model.width_factor": ("0.5", 0.5),
    "model.version": ("v2", "v2"),
    "model.standardization": ("deviation", "deviation"),
    "model.standardization_eps": ("1e-5", 1e-5),
    "model.padding": ("same", "same"),
    "model.pool_padding": ("infinite", "infinite"),
    "model.root_gain": ("true", True),
    "model.num_groups": ("4", 4),
    "augment.crop": ("inception", "inception"),
    "augment.min_area": ("0.08", 0.08),
    "augment.max_aspect": ("2", 2.0),
    "augment.crop_share": ("0.875", 0.875),  # nor that
    "augment.shift": ("0.05", 0.05),  # another has no effect beside an inception crop
    "augment.flip": ("no", False),
    "augment.randaugment": ("2", 2),
    "augment.randaugment_magnitude": ("10", 10.0),  # another has no effect without changes
    "augment.mixup": ("0.2", 0.2),
    "augment.cutmix": ("1", 1.0),
    "objective.name": ("sigmoid", "sigmoid"),
    "objective.label_smoothing": ("0.1", 0.1),
    "optimizer.learning_rate": ("3e-4", 3e-4),
    "optimizer.weight_decay": ("0.3", 0.3),
    "optimizer.beta1": ("0.95", 0.95),
    "optimizer.beta2": ("0.99", 0.99),
    "optimizer.epsilon": ("1e-6", 1e-6),
    "optimizer.clip_norm": ("0", 0.0),
    "schedule.decay": ("linear", "linear"),
    "schedule.warmup_steps": ("100", 100),
    "schedule.end": ("0.01", 0.01),
    "schedule.milestones": ("[]", ()),  # has no effect beside a cosine
    "optimizer.name": ("adamw", "adamw"),  # the other allows no betas
    "optimizer.layer_decay": ("0.75", 0.75),
    "optimizer.decayed": ("all", "all"),
    "optimizer.momentum": ("0.9", 0.9),
    "evaluation.every_epochs": ("0.5", 0.5),
    "evaluation.batch_size": ("16", 16),
    "evaluation.keep_best": ("true", True),
    "evaluation.patience": ("4", 4),
    "evaluation.best_by": ("loss", "loss"),
    "evaluation.best_within": ("0", 0.0),  # another has no effect beside the loss
    "evaluation.fewshot": ("pets,photos/a", "pets,photos/a"),
    "evaluation.fewshot_shots": ("1,5", (1, 5)),
    "checkpoint.every_steps": ("50", 50),
    "checkpoint.keep": ("1", 1),
}
PARSED = {path: value for path, (_, value) in VALUES.items()}
TEXTS = {path: text for path, (text, _) in VALUES.items()}
FAMILY_NAMES = [family.__name__ for family in FAMILIES.values()]


def of_family(values: dict[str, Any], family: type[ModelConfig]) -> dict[str, Any]:
    """Leave out what models of other families have."""
    names = {f"model.{name}" for name in family.__dataclass_fields__}
    return {p: value for p, value in values.items() if not p.startswith("model.") or p in names}


def family_with(path: str) -> type[ModelConfig]:
    section, _, name = path.partition(".")
    found = [family for family in FAMILIES.values() if name in family.__dataclass_fields__]
    return found[0] if section == "model" else ViTConfig


def test_every_setting_has_a_value_here() -> None:
    retired = {"objective.label_smoothing"}
    assert set(VALUES) == retired | set(setting_types()) - set(STAND_INS)


@pytest.mark.parametrize("path", VALUES)
def test_every_setting_can_be_given_as_text(path: str) -> None:
    text, value = VALUES[path]
    parsed = parse_assignments([f"{path}={text}"])
    parsed = parse_objective_settings(parsed, OwnSettings, name="own")
    assert parsed == {path: value}
    assert type(parsed[path]) is type(value)


@pytest.mark.parametrize("path", VALUES)
def test_every_setting_reaches_its_place_in_the_run(path: str) -> None:
    section, _, name = path.partition(".")
    config = build(parse_settings(of_family(TEXTS, family_with(path))))
    assert getattr(getattr(config, section), name) == PARSED[path]


def test_every_stand_in_can_be_given() -> None:
    assert parse_settings({"train.epochs": "2.5", "schedule.warmup_share": "0.1"}) == {
        "train.epochs": 2.5,
        "schedule.warmup_share": 0.1,
    }


def without_model(config: RunConfig) -> RunConfig:
    train = dataclasses.replace(config.train, gradient_checkpointing=False)
    evaluation = dataclasses.replace(config.evaluation, fewshot="", fewshot_shots=(5,))
    return dataclasses.replace(config, model=None, train=train, evaluation=evaluation)


@pytest.mark.parametrize("change", [dataclasses.replace, without_model])
@pytest.mark.parametrize("wrap", [dict, lambda tree: {"settings": tree, "sources": {"a": "b"}}])
@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILY_NAMES)
def test_a_run_comes_back_from_its_file(change: Any, wrap: Any, family: type[ModelConfig]) -> None:
    config = change(build(of_family(PARSED, family)))
    text = yaml.safe_dump(wrap(nested(flatten(config))))
    assert build(read_settings_file(text, path="config.yaml")) == config


def test_a_run_of_a_hybrid_comes_back_from_its_file() -> None:
    model = model_config("R26+S/32", image_size=(64, 96), num_classes=3)
    fields = {path: value for path, value in PARSED.items() if not path.startswith("model.")}
    fields |= {f"model.{name}": value for name, value in vars(model).items()}
    fields |= {"preprocessing.size": (64, 96), "preprocessing.channels": 3}
    fields |= {"preprocessing.mean": (0.5,) * 3, "preprocessing.std": (0.5,) * 3}
    config = build(fields)
    assert config.model == model
    text = yaml.safe_dump({"settings": nested(flatten(config))})
    assert build(read_settings_file(text, path="config.yaml")) == config


plain_text = st.text(st.characters(categories=("L", "N", "P", "Zs")), max_size=8)


@given(
    source=plain_text,
    rate=st.floats(1e-300, 1e300),
    size=st.tuples(st.integers(1, 999), st.integers(1, 999)),
    workers=st.integers(-1, 64),
    flip=st.booleans(),
    compile_=st.sampled_from(["auto", "on", "off"]),
)
@settings(max_examples=50)
def test_any_values_come_back_from_the_file(
    source: str, rate: float, size: tuple[int, int], workers: int, flip: bool, compile_: str
) -> None:
    config = build(
        of_family(PARSED, ViTConfig)
        | {
            "data.source": source,
            "optimizer.learning_rate": rate,
            "preprocessing.size": size,
            "model.image_size": size,
            "model.patch_size": (1, 1),
            "data.workers": workers,
            "augment.flip": flip,
            "train.compile": compile_,
        }
    )
    text = yaml.safe_dump(nested(flatten(config)))
    assert build(read_settings_file(text, path="config.yaml")) == config


@given(path=st.sampled_from(sorted(setting_types())), text=st.text(max_size=12))
@settings(max_examples=200)
def test_any_text_is_a_value_or_a_wrong_request(path: str, text: str) -> None:
    try:
        assert set(parse_settings({path: text})) == {path}
    except RequestError as error:
        assert str(error).startswith(path)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("224", 224), ("224,320", (224, 320)), ("224x320", (224, 320)), ("[224, 320]", (224, 320)),
    ],
)  # fmt: skip
def test_sizes_are_one_number_or_two(text: str, value: int | tuple[int, int]) -> None:
    assert parse_settings({"model.image_size": text}) == {"model.image_size": value}


@pytest.mark.parametrize(
    ("path", "text", "value"),
    [
        ("evaluation.fewshot_shots", "5", (5,)),
        ("evaluation.fewshot_shots", "1,5", (1, 5)),
        ("preprocessing.mean", "0.5", (0.5,)),
    ],
)
def test_a_list_may_be_of_one_number(path: str, text: str, value: tuple[float, ...]) -> None:
    assert parse_settings({path: text}) == {path: value}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train.seed", "--set 'train.seed': give a setting and its value, as in train.seed=1"),
        ("train.sed=1", "there is no setting 'train.sed': did you mean 'train.seed'"),
        ("optim.learning_rate=1", "did you mean 'optimizer.learning_rate'"),
        (
            "learning_rate=1",
            "there is no setting 'learning_rate': did you mean 'optimizer.learning",
        ),
        ("zzz=1", "there is no setting 'zzz': the sections are train, schedule, data, preproc"),
        ("train.seed=1.5", "train.seed=1.5: give a whole number"),
        ("train.seed=one", "train.seed='one': give a whole number"),
        ("train.seed=2000-13-01", "train.seed='2000-13-01': give a whole number"),
        ("train.seed=[1", r"train.seed='\[1': give a whole number"),
        ("train.seed=true", "train.seed=True: give a whole number"),
        ("train.ema=true", "train.ema=True: give a number"),
        ("train.ema=", "train.ema=None: give a number"),
        ("augment.flip=1", "augment.flip=1: give true or false"),
        ("model.image_size=big", "model.image_size='big': give a number, or two such as 224,320"),
        ("preprocessing.size=24", "preprocessing.size=24: give 2 numbers, such as 224,320"),
        ("preprocessing.size=1,2,3", r"preprocessing.size=\[1, 2, 3\]: give 2 numbers"),
        ("preprocessing.mean=grey", "preprocessing.mean='grey': give numbers, such as 0.5,0.5,0.5"),
    ],
)
def test_a_bad_assignment_is_refused_with_what_to_do(text: str, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        parse_assignments([text])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1", "my.yaml is not YAML .*give a tree of settings"),
        ("when: 2000-13-01", "my.yaml is not YAML"),
        ("- 1", "my.yaml must hold sections of settings, as in `train: {seed: 1}`"),
        ("seed: 1", "my.yaml must hold sections of settings"),
        ("", "my.yaml must hold sections of settings"),
        ("settings: 3", "my.yaml must hold sections of settings"),
        ("train: {sed: 1}", "there is no setting 'train.sed': did you mean 'train.seed'"),
        ("data: {source: 3}", "data.source=3: give text"),
    ],
)
def test_a_bad_file_is_refused_with_what_to_do(text: str, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        read_settings_file(text, path="my.yaml")


@pytest.mark.parametrize(("word", "value"), [("on", "on"), ("off", "off"), ("true", "on")])
def test_yaml_s_truth_values_are_on_and_off_where_text_is_meant(word: str, value: str) -> None:
    read = read_settings_file(f"train: {{compile: {word}}}", path="my.yaml")
    assert read == {"train.compile": value}


def test_what_a_section_refuses_is_told_with_the_section() -> None:
    with pytest.raises(RequestError, match="optimizer: learning_rate=-1.0 must be above 0"):
        build(of_family(PARSED, ViTConfig) | {"optimizer.learning_rate": -1.0})
    with pytest.raises(RequestError, match="model: num_heads=3 does not divide embed_dim=16"):
        build(of_family(PARSED, ViTConfig) | {"model.num_heads": 3})


def test_what_is_left_out_has_its_default() -> None:
    needed = ("data.source", "train.steps", "preprocessing.size")
    config = build({path: PARSED[path] for path in needed})
    assert config.model is None
    assert (config.train.batch_size, config.optimizer.weight_decay) == (128, 0.1)


def name_of(run: dict[str, Any]) -> str:
    return settings_digest(run, given="abc")


OTHERS = {path for path in VALUES if path not in LOCATION_SETTINGS}


@pytest.mark.parametrize("path", sorted(OTHERS))
def test_any_setting_but_those_of_place_tells_runs_apart(path: str) -> None:
    other = {**PARSED, path: "something else"}
    written = yaml.safe_load(yaml.safe_dump(nested({path: PARSED[path]})))
    section, _, name = path.partition(".")
    assert differences(PARSED, other) == {path: (written[section][name], "something else")}
    assert name_of(other) != name_of(PARSED)


@pytest.mark.parametrize("path", LOCATION_SETTINGS)
def test_where_a_run_is_made_does_not_tell_runs_apart(path: str) -> None:
    other = {**PARSED, path: "something else"}
    assert differences(PARSED, other) == {}
    assert name_of(other) == name_of(PARSED)


def test_the_order_of_settings_does_not_tell_runs_apart() -> None:
    reordered = dict(reversed(PARSED.items()))
    assert name_of(reordered) == name_of(PARSED)
    assert len(name_of(PARSED)) == 6
    assert int(name_of(PARSED), 16) >= 0


def test_other_data_tells_runs_apart() -> None:
    assert settings_digest(PARSED, given="abd") != name_of(PARSED)


def test_a_setting_that_only_one_run_has_is_a_difference() -> None:
    rest = {path: value for path, value in PARSED.items() if path != "model.pool"}
    assert differences(PARSED, rest) == {"model.pool": ("gap", None)}


@pytest.mark.parametrize(
    ("path", "text", "said"),
    [
        ("objective.label_smoothin", "0.1", "label_smoothin has no effect on the objective 'own': "
         "did you mean 'objective.label_smoothing'"),
        ("objective.label_smoothing", "much", "label_smoothing='much': give a number"),
    ],
)  # fmt: skip
def test_an_objectives_own_settings_are_read_when_it_is_known(
    path: str, text: str, said: str
) -> None:
    parsed = parse_assignments([f"{path}={text}"])
    assert parsed == {path: text}
    with pytest.raises(RequestError, match=said):
        parse_objective_settings(parsed, OwnSettings, name="own")


def test_runs_of_older_versions_are_the_same_runs() -> None:
    """They lack settings that came later, and call the primary figure an accuracy."""
    new = {**PARSED, "objective.output": "auto", "evaluation.best_by": "primary"}
    old = {**PARSED, "evaluation.best_by": "accuracy"}
    assert differences(old, new) == {}
    assert name_of(new) == name_of(old)
    other = {**new, "objective.output": "sigmoid"}
    assert differences(old, other) == {"objective.output": (None, "sigmoid")}
    assert name_of(other) != name_of(old)


def test_a_runs_own_file_is_read_as_it_stands() -> None:
    text = yaml.safe_dump({"command": "x", "settings": nested(PARSED)})
    assert differences(read_tree(text), PARSED) == {}


def test_a_shift_reaches_a_run_that_shifts() -> None:
    no_box = {
        p: v
        for p, v in of_family(PARSED, ViTConfig).items()
        if p not in ("augment.min_area", "augment.max_aspect")
    }
    config = build(no_box | {"augment.crop": "shift", "augment.shift": 0.25})
    assert config.augment.shift == 0.25


PATHS = st.sampled_from(sorted({*TEXTS, "train.epochs", "schedule.warmup_share"}))
SOME = st.builds(
    Settings.of,
    st.dictionaries(PATHS, st.integers()).filter(
        lambda values: not {"train.epochs", "train.steps"} <= values.keys()
    ),
    st.sampled_from(["option", "file", "recipe", "automatic"]),
)


@given(SOME, SOME)
def test_of_two_settings_the_second_counts_with_its_origin(one: Settings, other: Settings) -> None:
    both = one | other
    assert {path: both[path] for path in other} == other
    assert {path: both.origins[path] for path in other} == other.origins
    assert both.keys() == both.origins.keys() and both.keys() <= one.keys() | other.keys()
    lost = one.keys() - both.keys()
    assert lost <= {
        "train.epochs", "train.steps", "schedule.warmup_share", "schedule.warmup_steps",
    }  # fmt: skip


def test_a_length_replaces_a_length_of_the_other_kind() -> None:
    recipe = parse_settings({"train.epochs": 3, "schedule.warmup_share": 0.1}, origin="recipe")
    assert recipe | parse_settings({"train.steps": 5}) == {
        "train.steps": 5, "schedule.warmup_share": 0.1,
    }  # fmt: skip
    assert parse_settings({"train.steps": 5}) | recipe == recipe


@given(SOME, st.sampled_from(["train.", "augment.", "train.seed", "augment.crop"]))
def test_settings_are_left_out_by_path_section_or_origin(some: Settings, path: str) -> None:
    rest = some.without(path)
    gone = some.keys() - rest.keys()
    is_section = path.endswith(".")
    assert all(name.startswith(path) if is_section else name == path for name in gone)
    assert not any(name.startswith(path) if is_section else name == path for name in rest)
    assert some.without(path, origin="elsewhere") == some


def test_one_layer_says_once_how_long() -> None:
    twice = parse_settings({"train.epochs": 2, "train.steps": 5}, origin="file")
    for left, right in ((twice, Settings()), (Settings(), twice)):
        with pytest.raises(RequestError, match="epochs=2 and train.steps=5 both say how long"):
            left | right
