from typing import Any

import pytest

from vitral.config import run
from vitral.config.preprocessing import default_preprocessing
from vitral.config.vit import ViTConfig
from vitral.errors import RequestError

# What each section refuses.
SECTIONS = [
    (run.DataSettings, {"max_unreadable": 1.0}, "max_unreadable=1.0 is a share"),
    (run.DataSettings, {"validation_share": -0.1}, "validation_share=-0.1 is a share"),
    (run.DataSettings, {"keep_decoded": "yes"}, "keep_decoded='yes' is not known: use one of auto"),
    (
        run.DataSettings,
        {"keep_decoded": "on", "scaled_decoding": True},
        "scaled_decoding has no effect with keep_decoded='on'",
    ),
    (run.DataSettings, {"folds": 1}, "folds=1: give 2 or more, or 0 for the usual splits"),
    (run.DataSettings, {"folds": -2}, "folds=-2: give 2 or more"),
    (run.DataSettings, {"folds": 4, "fold": 4}, "fold=4: give 0 to 3"),
    (run.DataSettings, {"fold": 1}, "fold=1: give folds too, such as folds=5"),
    (run.AugmentSettings, {"crop": "centre"}, "crop='centre' is not known: use one of inception"),
    (run.AugmentSettings, {"min_area": 0.0}, "min_area=0.0: give a share above 0, at most 1"),
    (run.AugmentSettings, {"min_area": 1.5}, "min_area=1.5: give a share above 0"),
    (run.AugmentSettings, {"randaugment": -1}, "randaugment=-1 must be 0 or more"),
    (
        run.AugmentSettings,
        {"randaugment": 2, "randaugment_magnitude": 1.0},
        "randaugment_magnitude=1.0: give 5 to 20",
    ),
    (
        run.AugmentSettings,
        {"randaugment": 2, "randaugment_magnitude": 21.0},
        "randaugment_magnitude=21.0: give 5 to 20",
    ),
    (
        run.AugmentSettings,
        {"randaugment_magnitude": 15.0},
        "randaugment_magnitude=15.0 has no effect with randaugment=0: give the number of changes",
    ),
    (run.AugmentSettings, {"max_aspect": 0.75}, "max_aspect=0.75: give 1 or more"),
    (run.AugmentSettings, {"shift": 1.0}, "shift=1.0 is a share"),
    (run.AugmentSettings, {"crop_share": 0.0}, "crop_share=0.0: give a share above 0, at most 1"),
    (run.AugmentSettings, {"mixup": -0.2}, "mixup=-0.2 must be 0 or more"),
    (run.OptimizerSettings, {"learning_rate": 0.0}, "learning_rate=0.0 must be above 0"),
    (run.OptimizerSettings, {"learning_rate": float("nan")}, "learning_rate=nan must be"),
    (run.OptimizerSettings, {"epsilon": 0.0}, "epsilon=0.0 must be above 0"),
    (run.OptimizerSettings, {"weight_decay": -1.0}, "weight_decay=-1.0 must be 0 or more"),
    (run.OptimizerSettings, {"clip_norm": -1.0}, "clip_norm=-1.0 must be 0 or more"),
    (run.OptimizerSettings, {"beta1": 1.0}, "beta1=1.0 is a share"),
    (run.OptimizerSettings, {"beta2": -0.5}, "beta2=-0.5 is a share"),
    (run.OptimizerSettings, {"name": "adam"}, "name='adam' is not known.*adamw"),
    (run.OptimizerSettings, {"decayed": "norms"}, "decayed='norms' is not known"),
    (run.OptimizerSettings, {"layer_decay": 0.0}, "layer_decay=0.0: give a share above 0, at most"),
    (run.OptimizerSettings, {"momentum": 1.0}, "momentum=1.0 is a share"),
    (
        run.OptimizerSettings,
        {"momentum": 0.8},
        "momentum=0.8 has no effect with optimizer 'adamw': .* or use optimizer.name=sgd",
    ),
    (
        run.OptimizerSettings,
        {"name": "sgd", "beta2": 0.95},
        "beta2=0.95 has no effect with .*'sgd'",
    ),
    (run.ScheduleSettings, {"decay": "multistep"}, r"milestones=\(\) with decay='multistep': give"),
    (run.ScheduleSettings, {"milestones": (0.5,)}, r"milestones=\(0.5,\) with decay='cosine'"),
    (
        run.ScheduleSettings,
        {"decay": "multistep", "milestones": (0.5, 0.3)},
        r"milestones=\(0.5, 0.3\) .* rising shares",
    ),
    (
        run.ScheduleSettings,
        {"decay": "constant", "end": 0.1},
        "end=0.1 has no effect with decay='constant'",
    ),
    (run.ScheduleSettings, {"decay": "cosinus"}, "decay='cosinus' .* did you mean 'cosine'"),
    (run.ScheduleSettings, {"warmup_steps": -1}, "warmup_steps=-1 must be 0 or more"),
    (run.ScheduleSettings, {"end": 1.5}, "end=1.5: give a share of the peak, 0 to 1"),
    (run.TrainSettings, {"steps": 0}, "steps=0 must be above 0"),
    (run.TrainSettings, {"batch_size": 0}, "batch_size=0 must be above 0"),
    (run.TrainSettings, {"micro_batch_size": -1}, "micro_batch_size=-1 must be 0 or more"),
    (run.TrainSettings, {"seed": -1}, "seed=-1 must be 0 or more"),
    (run.TrainSettings, {"log_every_steps": -1}, "log_every_steps=-1 must be 0 or more"),
    (run.TrainSettings, {"precision": "bf16"}, "precision='bf16' is not known"),
    (run.TrainSettings, {"compile": "yes"}, "compile='yes' is not known: use one of auto, on, off"),
    (run.TrainSettings, {"device": "gpu"}, "device='gpu' is not known: use one of auto, cpu, cuda"),
    (run.TrainSettings, {"ema": 0.3}, "ema=0.3 is a half-life as a share of the run"),
    (run.TrainSettings, {"ema": -0.1}, "ema=-0.1 is a half-life"),
    (run.TrainSettings, {"ema_decay": 1.0}, "ema_decay=1.0: give a share below 1"),
    (run.TrainSettings, {"ema": 0.1, "ema_decay": 0.9}, "ema=0.1 and ema_decay=0.9 both say"),
    (run.EvaluationSettings, {"keep_best": True, "best_by": "f1"}, "best_by='f1' is not known"),
    (run.EvaluationSettings, {"best_by": "loss"}, "best_by='loss' has no effect with keep_best=f"),
    (run.EvaluationSettings, {"patience": 3}, "patience=3 has no effect with keep_best=false"),
    (run.EvaluationSettings, {"best_within": 1.0}, "best_within=1.0 has no effect with keep_best"),
    (run.EvaluationSettings, {"best_within": -1.0}, "best_within=-1.0 must be 0 or more"),
    (
        run.EvaluationSettings,
        {"keep_best": True, "best_by": "loss", "best_within": 1.0},
        "best_within=1.0 has no effect with best_by='loss': set evaluation.best_within=0",
    ),
    (
        run.EvaluationSettings,
        {"keep_best": True, "every_epochs": 0.0},
        "keep_best=true has no effect with every_epochs=0",
    ),
    (run.EvaluationSettings, {"every_epochs": -1.0}, "every_epochs=-1.0 must be 0 or more"),
    (run.EvaluationSettings, {"batch_size": 0}, "batch_size=0 must be above 0"),
    (run.CheckpointSettings, {"every_steps": -1}, "every_steps=-1 must be 0 or more"),
    (run.CheckpointSettings, {"keep": 0}, "keep=0 must be above 0"),
]
NEEDED: dict[type, dict[str, Any]] = {
    run.DataSettings: {"source": "birds"},
    run.TrainSettings: {"steps": 10},
}


@pytest.mark.parametrize(("section", "fields", "message"), SECTIONS)
def test_a_section_refuses_what_can_t_be(
    section: type, fields: dict[str, Any], message: str
) -> None:
    section(**NEEDED.get(section, {}))
    with pytest.raises(RequestError, match=message):
        section(**NEEDED.get(section, {}) | fields)


SMALL_VIT = ViTConfig(
    name="x", image_size=(8, 8), patch_size=4, embed_dim=8, depth=1, num_heads=1, mlp_dim=8
)


def build(**sections: Any) -> run.RunConfig:
    needed = {
        "data": run.DataSettings(source="birds"),
        "train": run.TrainSettings(steps=10, batch_size=8),
        "preprocessing": default_preprocessing((8, 8), channels=3),
        "model": None,
    }
    return run.RunConfig(**needed | sections)


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        (
            {
                "augment": run.AugmentSettings(mixup=0.2),
                "train": run.TrainSettings(steps=10, batch_size=7),
            },
            "train.batch_size=7 is odd: mixup works on pairs, use 8 or augment.mixup=0",
        ),
        (
            {
                "augment": run.AugmentSettings(mixup=0.2),
                "train": run.TrainSettings(steps=10, batch_size=8, micro_batch_size=3),
            },
            "train.micro_batch_size=3 is odd: mixup works on pairs, use 4 or augment.mixup=0",
        ),
        (
            {
                "augment": run.AugmentSettings(cutmix=1.0),
                "train": run.TrainSettings(steps=10, batch_size=7),
            },
            "train.batch_size=7 is odd: cutmix works on pairs, use 8 or augment.cutmix=0",
        ),
        (
            {"schedule": run.ScheduleSettings(warmup_steps=10)},
            "schedule.warmup_steps=10 leaves nothing of train.steps=10: use fewer",
        ),
        (
            {"augment": run.AugmentSettings(crop="shift", min_area=0.5)},
            "augment.min_area=0.5 has no effect with augment.crop='shift': use augment.crop=inc",
        ),
        (
            {"model": SMALL_VIT, "preprocessing": default_preprocessing((8, 4), channels=1)},
            r"preprocessing gives 1 channels of \(8, 4\) pixels, the model takes 3 of",
        ),
    ],
)
def test_settings_that_do_not_go_together_are_refused(
    sections: dict[str, Any], message: str
) -> None:
    with pytest.raises(RequestError, match=message):
        build(**sections)


@pytest.mark.parametrize(
    "sections",
    [
        {},
        {"augment": run.AugmentSettings(mixup=0.2)},
        {"train": run.TrainSettings(steps=10, batch_size=7, micro_batch_size=3)},
        {"schedule": run.ScheduleSettings(warmup_steps=9)},
        {"augment": run.AugmentSettings(crop="none")},
        {"model": SMALL_VIT},
        {"train": run.TrainSettings(steps=1, device="cuda:1", ema=0.2)},
    ],
)
def test_settings_that_go_together_are_kept(sections: dict[str, Any]) -> None:
    config = build(**sections)
    assert {name: getattr(config, name) for name in sections} == sections
