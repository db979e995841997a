"""Run folders of the version before: their configs are those of the same experiments today."""

import json
from pathlib import Path

import pytest

from tfkd import data
from tfkd.earlier_version import modernized
from tfkd.errors import TfkdError
from tfkd.evaluation.subjects import run_data_settings
from tfkd.training import config as configs
from tfkd.training import config_checks, run
from tfkd.training.config_sections import with_defaults
from tfkd.training.run_folder import RunFolder

FOLDERS = Path(__file__).parent / "fixtures" / "earlier_version"
THIN = (2, 2, 2, 2)


def small(name):
    config = configs.default()
    config.experiment = name
    config.data.name = "digits"
    config.data.augment = "none"
    config.data.train_size = 300
    config.student.name = "resnet8"
    config.student.kwargs.widths = THIN
    config.train.epochs = 2
    config.train.batch_size = 32
    config.train.verbose = 0
    return config


def adder():
    config = small("adder")
    config.student.kwargs.adder = True
    config.teacher.name = "resnet8"
    config.teacher.kwargs = dict(widths=THIN, logit_normalization=True)
    config.methods = configs.methods(pkkd={})
    return config


def distilled():
    config = small("distilled")
    config.methods = configs.methods(kd={}, dkd=dict(weight=0.9))
    config.student_loss_weight = 0.1
    config.teacher.config = "teacher_config.py:teacher"
    config.teacher.workdir = "teacher_run"
    config.export.enabled = True
    return config


def user():
    config = small("user")
    config.student.name = "user_networks.py:build"
    config.student.kwargs = dict(width=4)
    config.student.taps = dict(pooled="average")
    config.data.validation_size = 50
    config.train.optimizer.momentum_style = "keras"
    return config


EXPERIMENTS = {"adder": adder, "distilled": distilled, "user": user}


def recorded(name):
    return json.loads((FOLDERS / name / "config.json").read_text())


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_old_config_is_that_of_the_experiment_today(name):
    today = configs.to_dict(EXPERIMENTS[name]())
    assert configs.differences(with_defaults(modernized(recorded(name))), today) == []
    assert configs.differences(modernized(today), today) == []


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_modernized_config_is_a_valid_one(name):
    plain = with_defaults(modernized(recorded(name)))
    config = configs.default()
    for field, value in plain.items():
        config[field] = tuple(value) if isinstance(value, list) else value
    for section in (config.train.optimizer, config.train.schedule, config.compare):
        for field, value in section.items():
            section[field] = tuple(value) if isinstance(value, list) else value
    if name != "user":  # Its network is not on the path.
        config_checks.validate(config)
    made = [objective.name for objective in configs.objectives(config)]
    assert made == {"adder": ["pkkd"], "distilled": ["dkd", "kd"], "user": []}[name]


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_old_folder_knows_its_experiment_and_no_other(name):
    folder = RunFolder(FOLDERS / name)
    folder.check(configs.to_dict(EXPERIMENTS[name]()))
    other = configs.override(EXPERIMENTS[name](), train__learning_rate=0.1)
    with pytest.raises(TfkdError, match="train.learning_rate is 0.05 there and 0.1 here"):
        folder.check(configs.to_dict(other))


def test_old_run_is_finished_today(capsys):
    before = json.loads((FOLDERS / "adder" / "result.json").read_text())
    assert run(adder(), FOLDERS / "adder").items() >= before.items()
    assert "is finished" in capsys.readouterr().out


def test_epochs_that_were_written_out_are_those_left_at_their_default(tmp_path):
    config = small("alone")
    plain = configs.to_dict(config)
    plain["train"]["epochs"] = 1
    folder = RunFolder(tmp_path / "run")
    with folder.hold():
        folder.write_config(plain)
    config.train.epochs = None
    folder.check(configs.to_dict(config))


@pytest.mark.parametrize("name, held_out", [("adder", 360), ("user", 50)])
def test_data_of_an_old_run_are_loaded_for_evaluation(name, held_out):
    dataset = data.load(**run_data_settings(FOLDERS / name))
    assert dataset.info.validation_size == held_out
    assert dataset.info.train_size == 300


@pytest.mark.parametrize(
    ("validation", "split", "size"),
    [(None, None, None), (0.0, None, 0), (0.25, 0.25, None), (50.0, None, 50), (1, None, 1)],
)
def test_held_out_images_are_a_split_or_a_size(validation, split, size):
    found = modernized({"data": {"name": "digits", "validation": validation}})
    assert found == {"data": {"name": "digits", "validation_split": split, "validation_size": size}}
    assert type(found["data"]["validation_size"]) is type(size)


def test_renamed_fields_keep_their_values():
    found = modernized(
        {
            "train": {
                "batch_norm": "local",
                "optimizer": {"form": "keras", "decay": "decoupled", "name": "sgd"},
                "schedule": {"factor": 0.2, "name": "step"},
            },
            "distiller": [
                {"name": "kd", "weight": 0.5, "settings": {"temperature": 2.0}},
                {"name": "kd", "settings": {"name": "warm", "temperature": 8.0}},
            ],
        }
    )
    assert found == {
        "train": {
            "sync_batch_norm": False,
            "optimizer": {
                "momentum_style": "keras", "weight_decay_mode": "decoupled", "name": "sgd",
            },
            "schedule": {"decay_factor": 0.2, "name": "step"},
        },
        "methods": {
            "kd": {"weight": 0.5, "temperature": 2.0},
            "warm": {"method": "kd", "weight": 1.0, "temperature": 8.0},
        },
    }  # fmt: skip
