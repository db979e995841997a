"""A finished run whose networks are gone or damaged writes them anew from its checkpoint."""

import json
import shutil

import keras
import numpy as np
import pytest

from tfkd import TfkdWarning
from tfkd.training import run


def weights(folder, name):
    return keras.models.load_model(folder / name, compile=False).get_weights()


@pytest.fixture
def folder(teacher_folder, tmp_path):
    """A copy of a finished run."""
    return shutil.copytree(teacher_folder, tmp_path / "run")


def test_networks_are_written_anew(folder, teacher_folder, experiment, capsys):
    (folder / "student_best.keras").unlink()
    content = (folder / "student.keras").read_bytes()
    (folder / "student.keras").write_bytes(content[:-100])
    (folder / "network.json").write_text("[]")
    result = run(experiment("teacher"), folder)
    line = f"{folder}: network.json is gone or damaged; it is written anew from the last checkpoint"
    assert line in capsys.readouterr().out
    for name in ("student.keras", "student_best.keras"):
        for found, wanted in zip(weights(folder, name), weights(teacher_folder, name), strict=True):
            np.testing.assert_array_equal(found, wanted)
    before = json.loads((teacher_folder / "result.json").read_text())
    assert result["top1_last"] == before["top1_last"] and result["steps"] == before["steps"]
    assert run(experiment("teacher"), folder) == result
    assert capsys.readouterr().out.endswith(f"{folder} is finished: {result['summary']}\n")


def test_without_a_checkpoint_a_warning_says_so(folder, experiment):
    shutil.rmtree(folder / "checkpoints")
    (folder / "student.keras").unlink()
    with pytest.warns(TfkdWarning, match="student.keras is gone, and no checkpoint is there"):
        run(experiment("teacher"), folder)
