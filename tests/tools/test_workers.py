"""Two worker processes on this machine train as one process does."""

import json
import signal
import socket
import time

import keras
import numpy as np
import pytest

from tests.tools.clusters import cluster
from tfkd.training import config as configs
from tfkd.training import run

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
def test_two_workers_end_as_one_process_after_a_kill_as_well(start, experiment, tmp_path):
    two, one = tmp_path / "two", tmp_path / "one"
    more = (f"--config.teacher.workdir={two}/teacher", "--config.train.epochs=8")
    workers = start_workers(start, experiment("distilled"), two, *more)
    config = configs.load(experiment("distilled").removeprefix("--config="))
    for _ in range(4000):
        if list(two.glob("run/checkpoints/step_*.npz")):
            break
        time.sleep(0.02)
    workers[1].process.send_signal(signal.SIGKILL)
    status, stdout, stderr = workers[0].ended()
    *_, other_stdout, _ = workers[1].ended()
    assert not (two / "run" / "result.json").exists()
    assert status != 0 and "Traceback" not in stderr
    assert "another worker is gone" in stderr
    assert "2 replica(s)" in stdout and other_stdout == ""
    again = start_workers(start, experiment("distilled"), two, *more)
    fields = {**FIELDS, "train__epochs": 8, "teacher__workdir": str(one / "teacher")}
    run(configs.override(config, **fields), one / "run")
    (status, stdout, stderr), (other_status, other_stdout, other_stderr) = (
        worker.ended() for worker in again
    )
    assert (status, stderr) == (other_status, other_stderr) == (0, "")
    assert "continuing after step" in stdout and other_stdout == ""
    for role in ("teacher", "run"):
        assert_close(two / role, one / role)
        found, wanted = (
            json.loads((each / role / "result.json").read_text()) for each in (two, one)
        )
        assert found["top1_last"] == wanted["top1_last"]
    assert len(list((two / "teacher" / "tensorboard").iterdir())) == 1


@pytest.mark.slow
def test_when_one_worker_is_asked_to_leave_the_chief_saves_and_both_leave(
    start, experiment, tmp_path
):
    more = ("--config.train.epochs=100000", "--config.train.checkpoint_seconds=1e6")
    workers = start_workers(start, experiment("alone"), tmp_path, *more)
    for _ in range(12000):
        if (tmp_path / "run" / "metrics.csv").exists():
            break
        time.sleep(0.02)
    workers[1].process.send_signal(signal.SIGTERM)
    ends = [worker.ended() for worker in workers]
    assert [status for status, *_ in ends] == [143, 143], ends
    (checkpoint,) = tmp_path.glob("run/checkpoints/step_*.npz")
    step = int(checkpoint.stem.removeprefix("step_"))
    line = f"the same command continues {tmp_path}/run after step {step:,}\n"
    for *_, stderr in ends:
        assert stderr == f"train.py: stopped by SIGTERM; {line}"


@pytest.mark.slow
def test_workers_that_do_not_come_are_named(start, experiment, tmp_path):
    """The leader and another worker, each of which waits for the other one of its own cluster."""
    first, second = cluster()[0], cluster()[1]
    flags = ("train.py", experiment("alone"), f"--workdir={tmp_path}/run")
    missing = [json.loads(each)["cluster"]["worker"] for each in (first, second)]
    for worker, address in (
        (start(*flags, TF_CONFIG=first, TFKD_WORKER_SECONDS="4"), missing[0][1]),
        (start(*flags, TF_CONFIG=second, TFKD_WORKER_SECONDS="4"), missing[1][0]),
    ):
        status, _, stderr = worker.ended()
        assert (status, stderr.count("\n")) == (2, 1)
        assert f"strategy 'multi_worker': found nobody at {address} within 4 s, wanted" in stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_port_that_is_taken_is_named(start, experiment, tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        task = {"cluster": {"worker": [address]}, "task": {"type": "worker", "index": 0}}
        flags = (experiment("alone"), f"--workdir={tmp_path}/run", "--strategy=multi_worker")
        status, _, stderr = start("train.py", *flags, TF_CONFIG=json.dumps(task)).ended()
    assert (status, stderr.count("\n")) == (2, 1)
    assert (
        f"found a cluster that does not start (Could not start gRPC server), wanted {address}"
        in (stderr)
    )
