"""Run folders and exports that the version before wrote."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from tfkd import evaluation, export, models
from tfkd.evaluation import reports
from tfkd.models.saving import load_network, save_network

FOLDER = Path(__file__).parents[1] / "fixtures" / "earlier_version"
RUNS = ["distilled", "adder", "user"]
IMAGES = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 1), dtype=np.uint8)


def expected(run):
    return np.array(json.loads((FOLDER / run / "expected_logits.json").read_text()))


@pytest.mark.parametrize("run", RUNS)
def test_a_student_loads(run):
    network = load_network(FOLDER / run)
    np.testing.assert_allclose(network(IMAGES), expected(run), rtol=0, atol=1e-5)
    assert network.task == "classification"
    assert network.class_names == tuple("0123456789")
    assert network.taps == ({"pooled": "average"} if run == "user" else {})
    assert load_network(FOLDER / run, "best").model.count_params()


@pytest.mark.parametrize("run", RUNS)
def test_a_student_scores_as_its_run_did(run):
    report = reports.report(run=FOLDER / run)
    result = json.loads((FOLDER / run / "result.json").read_text())
    for key in ("top1", "loss"):
        assert report[key] == pytest.approx(result[f"{key}_last"], rel=1e-5)
    assert (report["params"], report["macs"]) == (result["params"], result["macs"])
    assert report["task"] == "classification"


@pytest.mark.parametrize("run", RUNS)
def test_a_student_is_exported(run, tmp_path):
    folder = export.save_run(FOLDER / run, tmp_path / "exported")
    found = evaluation.saved_model_predictor(folder)(IMAGES)
    assert set(found) == {"logits", "probabilities"}
    tolerance = 1e-4 * np.abs(expected(run)).max()
    np.testing.assert_allclose(found["logits"], expected(run), rtol=0, atol=tolerance)
    assert export.describe(folder)["class_names"] == list("0123456789")


def test_an_export_is_described_and_evaluated():
    folder = FOLDER / "distilled" / "export"
    known = export.describe(folder)
    assert (known["task"], known["exits"]) == ("classification", None)
    assert known["outputs"] == {"logits": [10], "probabilities": [10]}
    found = evaluation.saved_model_predictor(folder)(IMAGES)
    np.testing.assert_allclose(found["logits"], expected("distilled"), rtol=0, atol=1e-5)
    report = reports.report(saved_model=folder, data_name="digits")
    result = json.loads((FOLDER / "distilled" / "result.json").read_text())
    assert report["top1"] == pytest.approx(result["top1_last"])
    assert (report["params"], report["macs"]) == (known["params"], known["macs"])


def test_a_folder_lists_its_students_once_one_is_written(tmp_path):
    folder = shutil.copytree(FOLDER / "distilled", tmp_path / "run")
    save_network(load_network(folder), folder, "merged")
    for which in ("last", "merged"):
        network = load_network(folder, which)
        np.testing.assert_allclose(network(IMAGES), expected("distilled"), rtol=0, atol=1e-5)
    assert models.saving.load_description(folder)["files"] == {
        "last": "student.keras",
        "best": "student_best.keras",
        "merged": "student_merged.keras",
    }
