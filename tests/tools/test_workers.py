"""Two worker processes on this machine train as one process does."""

import json
import signal
import socket
import time

import keras
import numpy as np
import pytest

from tfkd.training import config as configs
from tfkd.training import run


def cluster():
    """Returns TF_CONFIG of two workers on free ports."""
    sockets = [socket.socket() for _ in range(2)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    workers = [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]
    for each in sockets:
        each.close()
    return [
        json.dumps({"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}})
        for index in range(2)
    ]


FIELDS = {
    # Dropout draws other masks on every worker.
    "student__kwargs": {"dropout": 0.0},
    "train__steps_per_execution": 2,
    "train__checkpoint_seconds": 0.0,
}


def start_workers(start, config, folder, *more):
    """Starts two workers with the fields above."""
    flags = (
        "--config.student.kwargs.dropout=0.0",
        "--config.train.steps_per_execution=2",
        "--config.train.checkpoint_seconds=0",
        "--strategy=multi_worker",
    )
    call = ("train.py", config, f"--workdir={folder}/run", *flags, *more)
    return [start(*call, TF_CONFIG=task) for task in cluster()]


def assert_close(folder, other):
    for found, wanted in zip(weights(folder), weights(other), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5 * np.abs(wanted).max())


def weights(folder):
    return keras.models.load_model(folder / "student.keras", compile=False).get_weights()


@pytest.mark.slow
def test_two_workers_equal_one_process(start, experiment, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    workers = start_workers(
        start, experiment("distilled"), two, f"--config.teacher.workdir={two}/teacher"
    )
    config = configs.load(experiment("distilled").removeprefix("--config="))
    run(configs.override(config, **FIELDS, teacher__workdir=str(one / "teacher")), one / "run")
    (status, stdout, stderr), (other_status, other_stdout, other_stderr) = (
        worker.ended() for worker in workers
    )
    assert (status, stderr) == (other_status, other_stderr) == (0, "")
    assert "2 replica(s)" in stdout
    assert other_stdout == ""
    for role in ("teacher", "run"):
        assert_close(two / role, one / role)
        found, wanted = (
            json.loads((each / role / "result.json").read_text()) for each in (two, one)
        )
        assert found["top1_last"] == wanted["top1_last"]
        assert len(list((two / role / "tensorboard").iterdir())) == 1


@pytest.mark.slow
def test_workers_go_on_after_a_kill(start, experiment, tmp_path):
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    workers = start_workers(start, experiment("alone"), killed, "--config.train.epochs=12")
    config = configs.load(experiment("alone").removeprefix("--config="))
    for _ in range(2000):
        if list(killed.glob("run/checkpoints/step_*.npz")):
            break
        time.sleep(0.02)
    workers[1].process.send_signal(signal.SIGKILL)
    status, _, stderr = workers[0].ended()
    workers[1].ended()
    assert not (killed / "run" / "result.json").exists()
    assert status != 0 and "Traceback" not in stderr
    assert "another worker is gone" in stderr
    again = start_workers(start, experiment("alone"), killed, "--config.train.epochs=12")
    run(configs.override(config, **FIELDS, train__epochs=12), whole / "run")
    (status, stdout, _), (other_status, *_) = (worker.ended() for worker in again)
    assert (status, other_status) == (0, 0)
    assert "continuing after step" in stdout
    assert_close(killed / "run", whole / "run")
