"""Two worker processes on this machine train as one process does."""

import json
import signal
import socket
import time

import keras
import numpy as np
import pytest


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


@pytest.fixture
def arguments(experiment, tmp_path):
    """Arguments of a run whose batches are taken in twos; no dropout, which differs by worker."""

    def make(argument, name, *more):
        return (
            "train.py",
            experiment(argument),
            f"--workdir={tmp_path}/{name}/run",
            "--config.student.kwargs.dropout=0.0",
            "--config.train.steps_per_execution=2",
            "--config.train.checkpoint_seconds=0",
            *more,
        )

    return make


def start_workers(start, call):
    return [start(*call, "--strategy=multi_worker", TF_CONFIG=config) for config in cluster()]


def weights(folder):
    return keras.models.load_model(folder / "student.keras", compile=False).get_weights()


@pytest.mark.slow
def test_two_workers_equal_one_process(start, arguments, tmp_path):
    def distilled(name):
        return arguments("distilled", name, f"--config.teacher.workdir={tmp_path}/{name}/teacher")

    workers = start_workers(start, distilled("two"))
    (status, stdout, stderr), (other_status, other_stdout, other_stderr) = (
        worker.ended() for worker in workers
    )
    assert (status, stderr) == (other_status, other_stderr) == (0, "")
    assert "2 replica(s)" in stdout
    assert other_stdout == ""
    status, _, stderr = start(*distilled("one")).ended()
    assert status == 0, stderr
    for role in ("teacher", "run"):
        one, two = tmp_path / "one" / role, tmp_path / "two" / role
        for found, wanted in zip(weights(two), weights(one), strict=True):
            np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5 * np.abs(wanted).max())
        found, wanted = (json.loads((each / "result.json").read_text()) for each in (two, one))
        assert found["top1_last"] == wanted["top1_last"]
        assert len(list((two / "tensorboard").iterdir())) == 1


@pytest.mark.slow
def test_workers_go_on_after_a_kill(start, arguments, tmp_path):
    call = arguments("alone", "killed", "--config.train.epochs=12")
    workers = start_workers(start, call)
    checkpoints = tmp_path / "killed" / "run" / "checkpoints"
    for _ in range(2000):
        if list(checkpoints.glob("step_*.npz")):
            break
        time.sleep(0.05)
    workers[1].process.send_signal(signal.SIGKILL)
    status, _, stderr = workers[0].ended()
    workers[1].ended()
    assert not (tmp_path / "killed" / "run" / "result.json").exists()
    assert status != 0 and "Traceback" not in stderr
    assert "another worker is gone" in stderr
    assert [worker.ended()[0] for worker in start_workers(start, call)] == [0, 0]
    status, _, stderr = start(*arguments("alone", "whole", "--config.train.epochs=12")).ended()
    assert status == 0, stderr
    for found, wanted in zip(
        weights(tmp_path / "killed" / "run"), weights(tmp_path / "whole" / "run"), strict=True
    ):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4 * np.abs(wanted).max())
