"""A finished run is found finished without TensorFlow, as long as nothing it reads has changed."""

import shutil
from pathlib import Path

import pytest

EXPERIMENT = Path(__file__).parents[1] / "fixtures" / "tiny_experiment.py"


@pytest.mark.slow
def test_a_finished_run_says_so_again_until_something_changes(call_all, start, tmp_path):
    config = shutil.copy(EXPERIMENT, tmp_path / "config.py")
    words = ("train.py", f"--config={config}:alone", f"--workdir={tmp_path}/run")
    cache = {"TFKD_CACHE": str(tmp_path / "cache")}
    trained, compared = call_all([words, words], **cache)
    assert trained[0] == 0, trained[2]
    assert " is finished: " in compared[1]

    (tmp_path / "tensorflow.py").write_text("raise ImportError('TensorFlow was imported')")
    environment = {**cache, "PYTHONPATH": str(tmp_path)}
    assert start(*words, **environment).ended() == (0, compared[1], "")

    def compares_again(*words):
        return "TensorFlow was imported" in start(*words, **environment).ended()[2]

    assert compares_again(*words, "--config.train.epochs=3")
    student = tmp_path / "run" / "student.keras"
    student.rename(tmp_path / "student.keras")
    assert compares_again(*words)
    (tmp_path / "student.keras").rename(student)
    assert not compares_again(*words)
    with open(config, "a") as file:
        file.write("\n")
    assert compares_again(*words)
