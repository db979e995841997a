"""A killed search goes on and ends as if nothing had happened: no trial is lost or repeated."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tfkd import tuning
from tfkd.training.checkpoints import Checkpoints
from tfkd.training.train_loop import TrainLoop

# keras-tuner's, of threading.currentThread in its oracle.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:keras_tuner")

SCRIPT = Path(__file__).parents[1] / "fixtures" / "killed_search.py"
MOMENTS = {
    # The trials that are still to be trained, and whether the first of them goes on.
    "within_trial_2": ([2, 3], True),
    "before_the_row": ([3], False),
    "end_of_trial_2": ([3], False),
}


@pytest.fixture(scope="module")
def config():
    """The experiment of the script."""
    sys.path.insert(0, str(SCRIPT.parent))
    try:
        spec = importlib.util.spec_from_file_location("killed_search", SCRIPT)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module.experiment()
    finally:
        sys.path.remove(str(SCRIPT.parent))


@pytest.fixture(scope="module")
def whole(config, tmp_path_factory):
    """An uninterrupted search: its folder and rows."""
    folder = tmp_path_factory.mktemp("whole") / "search"
    return folder, tuning.search(config, folder)


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """A folder of searches, each of which was killed at one of the moments."""
    root = tmp_path_factory.mktemp("killed")
    environment = {**os.environ, "PYTHONPATH": str(SCRIPT.parents[2])}
    done = subprocess.run(
        [sys.executable, SCRIPT, root, *MOMENTS],
        env=environment,
        capture_output=True,
        text=True,
        timeout=500,
    )
    statuses = [line for line in done.stdout.splitlines() if line.startswith(tuple(MOMENTS))]
    assert statuses == [f"{moment} {-signal.SIGKILL}" for moment in MOMENTS], done.stderr
    return root


def without_times(rows):
    return [{**row, "seconds": None} for row in rows]


@pytest.mark.slow
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_killed_search_is_continued(moment, killed, whole, config, monkeypatch, capsys):
    folder, (wanted_folder, wanted) = killed / moment, whole
    remaining, goes_on = MOMENTS[moment]
    # keras-tuner does not write its files whole or not at all.
    for path in (folder / "keras_tuner").rglob("*.json"):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    trained = []
    init, train = TrainLoop.__init__, TrainLoop.run

    def noted(self, experiment, *arguments):
        self.rate = experiment.config.train.learning_rate
        init(self, experiment, *arguments)

    def counted(self, progress):
        trained.append(1 + [0.1, 1.0, 10.0].index(self.rate))
        train(self, progress)

    monkeypatch.setattr(TrainLoop, "__init__", noted)
    monkeypatch.setattr(TrainLoop, "run", counted)
    rows = tuning.search(config, folder)
    assert trained == remaining
    assert ("continuing after step" in capsys.readouterr().out) == goes_on
    assert without_times(rows) == without_times(wanted)
    assert json.loads((folder / "search.json").read_text())["rows"] == rows
    for row in rows:
        own, other = folder / row["folder"], wanted_folder / row["folder"]
        for name in ("config.json", "metrics.csv"):
            assert (own / name).read_text() == (other / name).read_text()
        found, weights = (Checkpoints(each / "checkpoints").load()[0] for each in (own, other))
        for name, value in weights.items():
            np.testing.assert_array_equal(found[name], value)


@pytest.mark.slow
def test_a_finished_search_trains_nothing(whole, config, monkeypatch):
    folder, rows = whole
    (folder / "search.json").unlink()
    monkeypatch.setattr(TrainLoop, "run", None)
    assert tuning.search(config, folder) == rows
    assert json.loads((folder / "search.json").read_text())["rows"] == rows
