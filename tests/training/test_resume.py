"""A run that was killed goes on and ends as if nothing had happened, bit by bit."""

import csv
import functools
import os
import signal
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfkd import files
from tfkd.training import run
from tfkd.training.checkpoints import Checkpoints

DATA = Path(__file__).parents[1] / "fixtures"
OFTEN = {"train__checkpoint_seconds": 0.0}
MOMENTS = (
    "first_checkpoint",
    "rename_of_checkpoint",
    "end_of_epoch",
    "evaluation",
    "final_students",
)
SIGNALED = {
    "SIGTERM_in_an_epoch": (143, 3),
    "SIGINT_in_evaluation": (130, 10),
}
"""The exit status of a run that is asked to leave, and the step it goes on after."""


def best_weights(folder):
    return keras.models.load_model(folder / "student_best.keras", compile=False).get_weights()


@pytest.fixture(scope="module")
def whole(experiment, tmp_path_factory):
    """An uninterrupted run of the method with a bank, noise and dropout."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    run(experiment("noisy", **OFTEN), folder)
    return folder


@pytest.fixture(scope="module")
def killed(teacher_folder, tmp_path_factory):
    """A folder of runs, each of which was killed or asked to leave at one of the moments."""
    root = tmp_path_factory.mktemp("killed")
    command = [sys.executable, DATA / "killed_run.py", root, teacher_folder, *MOMENTS, *SIGNALED]
    environment = {**os.environ, "PYTHONPATH": str(DATA.parents[1])}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)
    found = [line for line in done.stdout.splitlines() if line.startswith((*MOMENTS, *SIGNALED))]
    wanted = [f"{moment} {-signal.SIGKILL}" for moment in MOMENTS]
    wanted += [f"{moment} {status}" for moment, (status, _) in SIGNALED.items()]
    assert found == wanted, done.stderr
    for moment, (_, step) in SIGNALED.items():
        line = f"by {moment.split('_')[0]}; the same command continues {root / moment} after step"
        assert f"{line} {step}\n" in done.stdout
    return root


@pytest.mark.slow
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_killed_process_is_continued(moment, killed, whole, experiment, same_run, capsys):
    folder = killed / moment
    assert not (folder / "result.json").exists()
    result = run(experiment("noisy", **OFTEN), folder)
    assert ("continuing after step" in capsys.readouterr().out) == (moment != "first_checkpoint")
    same_run(folder, whole)
    for found, wanted in zip(best_weights(folder), best_weights(whole), strict=True):
        np.testing.assert_array_equal(found, wanted)
    assert result["epochs"] == 2
    assert result["images_per_second"] > 0
    assert not list(folder.rglob(f"{files.NEW}*"))


@pytest.mark.slow
@pytest.mark.parametrize("moment", SIGNALED)
def test_a_process_that_is_asked_to_leave_saves_first(
    moment, killed, whole, experiment, same_run, capsys
):
    folder, step = killed / moment, SIGNALED[moment][1]
    assert not (folder / "result.json").exists()
    run(experiment("noisy", **OFTEN), folder)
    assert f"continuing after step {step} " in capsys.readouterr().out
    (folder / "config.json").write_text((whole / "config.json").read_text())
    same_run(folder, whole)


@pytest.mark.parametrize("after", [3, 8, 10])
def test_tensorboard_and_metrics_agree_after_a_kill(after, whole, experiment, stopped, tmp_path):
    """Killed within the first epoch, after and within the second."""
    config = experiment("noisy", **OFTEN)
    place = tmp_path / "run" / "tensorboard"
    for _ in range(2):  # A second kill meets the files of the first.
        stopped(config, tmp_path / "run", after // 2)
        (place / "events.out.tfevents.1.mine.v2").write_bytes(b"of another program")
    run(config, tmp_path / "run")
    mine, events = sorted(place.iterdir(), key=lambda path: path.suffix != ".v2")
    assert mine.read_bytes() == b"of another program"
    logged = {}
    for record in tf.compat.v1.train.summary_iterator(str(events)):
        for value in record.summary.value:
            logged.setdefault(value.tag, []).append(
                (record.step, float(tf.make_ndarray(value.tensor)))
            )
    with open(whole / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    for tag, points in logged.items():
        assert [step for step, _ in points] == [1, 2], tag
        wanted = [float(row[tag]) for row in rows]
        np.testing.assert_allclose([value for _, value in points], wanted, rtol=1e-6)
    assert set(logged) == set(rows[0]) - {"epoch", "stage"}


def test_another_seed_ends_elsewhere(whole, experiment, same_run, tmp_path):
    run(experiment("noisy", **OFTEN, train__seed=1, teacher__seed=0), tmp_path / "run")
    with pytest.raises(AssertionError):
        same_run(tmp_path / "run", whole)


@pytest.mark.parametrize("after", [1, 2, 4])
def test_with_several_steps_a_call(after, whole, experiment, same_run, stopped, tmp_path):
    config = experiment("noisy", **OFTEN, train__steps_per_execution=4)
    stopped(config, tmp_path / "run", after)
    run(config, tmp_path / "run")
    (tmp_path / "run" / "config.json").write_text((whole / "config.json").read_text())
    same_run(tmp_path / "run", whole)


@pytest.mark.parametrize(
    "optimizer",
    [
        {"name": "sgd", "nesterov": True, "clip_norm": 1.0},
        {"name": "adamw", "weight_decay": 0.01},
    ],
)
def test_with_other_optimizers(optimizer, experiment, same_run, stopped, tmp_path):
    fields = {f"train__optimizer__{key}": value for key, value in optimizer.items()}
    config = experiment("distilled", **OFTEN, **fields)
    run(config, tmp_path / "whole")
    stopped(config, tmp_path / "run", after=7)
    run(config, tmp_path / "run")
    same_run(tmp_path / "run", tmp_path / "whole")


def test_with_a_loss_scale(experiment, same_run, stopped, tmp_path):
    config = experiment("distilled", **OFTEN, train__precision="mixed_float16")
    run(config, tmp_path / "whole")
    stopped(config, tmp_path / "run", after=7)
    run(config, tmp_path / "run")
    same_run(tmp_path / "run", tmp_path / "whole")


@pytest.fixture(scope="module")
def staged(experiment, tmp_path_factory):
    """``staged(argument)``: the folder of an uninterrupted run in two stages."""

    @functools.cache
    def make(argument):
        folder = tmp_path_factory.mktemp(argument) / "run"
        run(experiment(argument, **OFTEN), folder)
        return folder

    return make


@pytest.mark.parametrize(
    ("argument", "after"),
    [("phases", 3), ("phases", 13), ("sskd", 3), ("sskd", 24)],
)
def test_within_either_stage(argument, after, staged, experiment, same_run, stopped, tmp_path):
    config = experiment(argument, **OFTEN)
    stopped(config, tmp_path / "run", after)
    run(config, tmp_path / "run")
    same_run(tmp_path / "run", staged(argument))


def test_the_head_of_sskd_is_trained_by_a_recipe_of_its_own(staged):
    with open(staged("sskd") / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["stage"] for row in rows] == ["teacher_head"] * 4 + ["student"] * 2
    rates = [float(row["learning_rate"]) for row in rows]
    np.testing.assert_allclose(rates, [0.02, 0.02, 0.002, 0.0002, 0.05, 0.025], rtol=1e-6)
    # The student is neither run nor scored before its own stage.
    for row in rows:
        begun = row["stage"] == "student"
        assert (float(row["student_loss"]) > 0) == bool(row["val_accuracy"]) == begun
        assert (float(row["sskd/similarity"]) > 0) != (float(row["sskd/head"]) > 0)


def test_while_the_teacher_is_trained(experiment, same_run, stopped, tmp_path):
    def config(name):
        return experiment("distilled", teacher__workdir=str(tmp_path / name / "teacher"))

    run(config("whole"), tmp_path / "whole" / "run")
    # The teacher's last checkpoint is its only one: it is stopped before its student is written.
    stopped(config("killed"), tmp_path / "killed" / "run", after=1)
    assert not (tmp_path / "killed" / "teacher" / "student.keras").exists()
    run(config("killed"), tmp_path / "killed" / "run")
    same_run(tmp_path / "killed" / "teacher", tmp_path / "whole" / "teacher")
    (tmp_path / "killed" / "run" / "config.json").write_text(
        (tmp_path / "whole" / "run" / "config.json").read_text()
    )
    same_run(tmp_path / "killed" / "run", tmp_path / "whole" / "run")


def test_the_best_student_of_an_earlier_epoch_is_kept(experiment, stopped, tmp_path):
    # From the second epoch on the rate is so large that the first student stays the best.
    config = experiment(
        train__epochs=3,
        train__checkpoint_seconds=0.0,
        train__learning_rate=1e-3,
        train__schedule__name="step",
        train__schedule__milestones=(1,),
        train__schedule__decay_factor=1e3,
    )
    result = run(config, tmp_path / "whole")
    stopped(config, tmp_path / "run", after=12)
    continued = run(config, tmp_path / "run")
    assert continued["best_epoch"] == result["best_epoch"]
    assert continued["top1_best"] == result["top1_best"]
    for found, wanted in zip(
        best_weights(tmp_path / "run"), best_weights(tmp_path / "whole"), strict=True
    ):
        np.testing.assert_array_equal(found, wanted)


def test_a_damaged_checkpoint_is_passed_over(whole, experiment, same_run, stopped, tmp_path):
    config = experiment("noisy", **OFTEN)
    stopped(config, tmp_path / "run", after=4)
    newest, before = Checkpoints(tmp_path / "run" / "checkpoints").paths()
    newest.write_bytes(newest.read_bytes()[:1000])
    with pytest.warns(
        UserWarning, match=f"{newest.name} is cut short.*going back to {before.name}"
    ):
        run(config, tmp_path / "run")
    same_run(tmp_path / "run", whole)


def test_a_run_with_nothing_but_damaged_checkpoints_starts_afresh(
    whole, experiment, same_run, stopped, tmp_path
):
    config = experiment("noisy", **OFTEN)
    stopped(config, tmp_path / "run", after=4)
    for path in Checkpoints(tmp_path / "run" / "checkpoints").paths():
        path.write_bytes(path.read_bytes()[:-200])
    with pytest.warns(UserWarning, match="starting afresh"):
        stopped(config, tmp_path / "run", after=2)
    # The new checkpoints have taken the place of the damaged ones of later steps.
    assert [path.stem for path in Checkpoints(tmp_path / "run" / "checkpoints").paths()] == [
        "step_000000000002",
        "step_000000000001",
    ]
    run(config, tmp_path / "run")
    same_run(tmp_path / "run", whole)
