"""Small experiments, their teacher, and a way to stop a run in the middle."""

from pathlib import Path

import numpy as np
import pytest

from tfkd.training import config as configs
from tfkd.training import run
from tfkd.training.checkpoints import Checkpoints

EXPERIMENT = Path(__file__).parents[1] / "fixtures" / "tiny_experiment.py"


class Stopped(BaseException):
    """Ends a run as a kill would: nothing in tfkd catches it."""


def _experiment(argument="alone", **fields):
    return configs.override(configs.load(f"{EXPERIMENT}:{argument}"), **fields)


@pytest.fixture(scope="session")
def teacher_folder(tmp_path_factory):
    """The run folder of the finished teacher."""
    folder = tmp_path_factory.mktemp("teacher") / "seed0"
    run(_experiment("teacher"), folder)
    return folder


@pytest.fixture(scope="session")
def experiment(teacher_folder):
    """``experiment(argument, **fields)``: a config of tiny_experiment.py, changed."""

    def make(argument="alone", **fields):
        if argument not in ("alone", "teacher"):
            fields.setdefault("teacher__workdir", str(teacher_folder))
        return _experiment(argument, **fields)

    return make


@pytest.fixture
def stopped(monkeypatch):
    """``stopped(config, folder, after=n)``: runs until n checkpoints are written, then stops."""

    def run_until(config, folder, after, strategy="auto", **more):
        write, left = Checkpoints.save, [after]

        def save(self, *arguments):
            written = write(self, *arguments)
            left[0] -= 1
            if not left[0]:
                raise Stopped
            return written

        with monkeypatch.context() as patch:
            patch.setattr(Checkpoints, "save", save)
            with pytest.raises(Stopped):
                run(config, folder, strategy, **more)

    return run_until


@pytest.fixture(scope="session")
def same_run():
    """``same_run(a, b)``: asserts that two run folders ended with the same numbers, bit by bit."""

    def check(first, second):
        found = [Checkpoints(Path(folder) / "checkpoints").load() for folder in (first, second)]
        (arrays, meta), (others, other_meta) = found
        assert sorted(arrays) == sorted(others)
        different = [name for name in arrays if not np.array_equal(arrays[name], others[name])]
        assert different == []
        for state in (meta, other_meta):
            for key in ("seconds", "images", "image_seconds", "first_images", "first_seconds"):
                state.pop(key)
        assert meta == other_meta
        for name in ("metrics.csv", "config.json", "network.json"):
            assert (Path(first) / name).read_text() == (Path(second) / name).read_text()

    return check
