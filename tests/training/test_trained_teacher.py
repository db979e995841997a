"""Runs whose teacher trains beside the student: made fresh, checkpointed, kept and measured."""

import csv
from pathlib import Path

import keras
import numpy as np
import pytest

from tfkd import evaluation, models
from tfkd.errors import TfkdError
from tfkd.models.saving import load_network
from tfkd.training import build, config_checks, run
from tfkd.training import config as configs
from tfkd.training.checkpoints import Checkpoints

EXPERIMENT = Path(__file__).parents[1] / "fixtures" / "joint_experiment.py"
OFTEN = {"train__checkpoint_seconds": 0.0}


def joint(**fields):
    return configs.override(configs.load(str(EXPERIMENT)), **fields)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A finished run and its result."""
    folder = tmp_path_factory.mktemp("joint") / "run"
    return folder, run(joint(**OFTEN), folder)


def test_the_trained_teacher_is_kept_and_measured(whole):
    folder, result = whole
    dataset = build.data_set(joint())
    student = load_network(folder)
    teacher = models.Network(keras.models.load_model(folder / "teacher.keras"), student.preprocess)
    found = evaluation.evaluate(
        {"student": evaluation.predictor(student), "teacher": evaluation.predictor(teacher)},
        dataset.test(),
    )
    assert result["teacher"] == "one_block"
    assert result["teacher_top1"] == pytest.approx(found.scores["teacher"]["top1"])
    assert result["top1_last"] == pytest.approx(found.scores["student"]["top1"])
    assert result["agreement"] == pytest.approx(found.agreement("student", "teacher"))
    assert result["teacher_top1"] > 20


def test_accuracy_of_the_teacher_is_a_column(whole):
    folder, _ = whole
    with open(folder / "metrics.csv") as file:
        rows = list(csv.DictReader(file))
    names = {"teacher_loss", "teacher_accuracy", "val_teacher_loss", "val_teacher_accuracy"}
    assert names <= set(rows[-1])
    teacher = models.Network(
        keras.models.load_model(folder / "teacher.keras"), load_network(folder).preprocess
    )
    found = evaluation.scores(evaluation.predictor(teacher), build.data_set(joint()).validation())
    assert float(rows[-1]["val_teacher_accuracy"]) * 100 == pytest.approx(found["top1"])
    assert float(rows[1]["teacher_loss"]) < float(rows[0]["teacher_loss"])


def test_checkpoints_hold_the_teacher_and_its_optimizer(whole):
    arrays, _ = Checkpoints(whole[0] / "checkpoints").load()
    trained = keras.models.load_model(whole[0] / "teacher.keras")
    for position, value in enumerate(trained.get_weights()):
        np.testing.assert_array_equal(arrays[f"teacher:0/{position}"], value)
    momentum = [value for name, value in arrays.items() if name.startswith("teacher_optimizer/")]
    assert any(np.any(value != 0) and value.ndim == 4 for value in momentum)


@pytest.mark.parametrize("after", [3, 9])
def test_an_interrupted_run_ends_the_same(after, whole, stopped, same_run, tmp_path, capsys):
    stopped(joint(**OFTEN), tmp_path / "run", after)
    result = run(joint(**OFTEN), tmp_path / "run")
    assert "continuing after step" in capsys.readouterr().out
    same_run(tmp_path / "run", whole[0])
    assert result["teacher_top1"] == whole[1]["teacher_top1"]


def test_nothing_is_said_of_a_teacher_before_it_has_trained(tmp_path, capsys):
    result = run(joint(train__epochs=1), tmp_path / "run")
    lines = [line for line in capsys.readouterr().out.splitlines() if "teacher" in line]
    assert lines == [f"teacher one_block: top-1 {result['teacher_top1']:.2f} % on digits test"]


def test_twins_start_apart_and_from_the_seed():
    info = build.data_set(joint()).info
    student, teacher, again = (
        make(joint(), info).model.get_layer("conv").kernel
        for make in (build.student, build.trained_teacher, build.trained_teacher)
    )
    assert np.all(np.array(student) != np.array(teacher))
    np.testing.assert_array_equal(teacher, again)
    other = build.trained_teacher(joint(teacher__seed=3), info).model.get_layer("conv").kernel
    assert np.all(np.array(other) != np.array(teacher))


def test_two_replicas_are_as_one(whole, two_replicas, tmp_path):
    run(joint(**OFTEN), tmp_path / "run", two_replicas)
    for name in ("student.keras", "teacher.keras"):
        one, two = (
            keras.models.load_model(folder / name).get_weights()
            for folder in (whole[0], tmp_path / "run")
        )
        for found, wanted in zip(two, one, strict=True):
            np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"teacher__name": None}, "found no teacher.name, wanted the network of a fresh teacher"),
        ({"teacher__config": "configs/quickstart.py"}, "found teacher.config, wanted the network"),
        ({"teacher__workdir": "runs/a"}, "found teacher.workdir, wanted the network"),
        ({"teacher__weights": "a.keras"}, "found teacher.weights, wanted the network"),
        ({"teacher__preprocess": "torch"}, "teacher.preprocess: found 'torch', wanted it unset"),
        ({"teacher__name": "one_blok"}, "unknown network .teacher.name. 'one_blok'; did you mean"),
    ],
)
def test_another_teacher_is_refused(fields, message):
    with pytest.raises(TfkdError, match=message):
        config_checks.validate(joint(**fields))


def test_arguments_of_the_teacher_are_checked_before_anything_is_written(tmp_path):
    config = joint()
    config.teacher.kwargs.widht = 3
    with pytest.raises(TfkdError, match="argument of network 'one_block' 'widht'; did you mean"):
        run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_teacher_that_stays_as_it_is_comes_from_elsewhere(whole, tmp_path):
    config = joint(
        teacher__name=None,
        teacher__weights=str(whole[0] / "teacher.keras"),
        methods=configs.methods(pkkd=dict(progressive=False)),
        train__epochs=1,
    )
    result = run(config, tmp_path / "run")
    assert result["teacher_top1"] == pytest.approx(whole[1]["teacher_top1"])
    assert not (tmp_path / "run" / "teacher.keras").exists()
