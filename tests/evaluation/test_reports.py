"""The report on a run folder or a SavedModel, on the digits."""

import json

import keras
import numpy as np
import pytest

from tfkd import TfkdError, data, export, models
from tfkd.evaluation import reports, subjects
from tfkd.models.saving import load_network


def top1_by_hand(folder, which, dataset):
    """The top-1 accuracy in percent, with Keras' predict and the padding left out."""
    network = load_network(folder, which)
    right = total = 0
    for batch in dataset.as_numpy_iterator():
        kept = batch["sample_weight"] > 0
        pixels = (batch["image"][kept].astype(np.float32) - 80) / 90
        found = network.model.predict(pixels, verbose=0).argmax(-1)
        right += int((found == batch["label"][kept]).sum())
        total += len(found)
    return 100 * right / total, total


@pytest.mark.parametrize("which", ["last", "best"])
def test_a_run_is_measured_on_its_own_test_part(run_folder, which):
    report = reports.report(run=run_folder, which=which)
    top1, total = top1_by_hand(run_folder, which, data.load("digits").test())
    assert report["top1"] == pytest.approx(top1)
    assert report["images"] == total
    assert (report["dataset"], report["split"]) == ("digits", "test")
    assert 0 < report["top1"] <= report["top5"] <= 100
    assert report["params"] == 9 * 4 + 2 * 4 + 144 * 10 + 10
    assert report["macs"] == 36 * 9 * 4 + 144 * 10


def test_the_validation_part_is_that_of_the_run(run_folder):
    report = reports.report(run=run_folder, split="validation", batch_size=32)
    validation = data.load("digits", validation_size=100).validation()
    top1, total = top1_by_hand(run_folder, "last", validation)
    assert (report["images"], total) == (100, 100)
    assert report["top1"] == pytest.approx(top1)


@pytest.mark.parametrize(
    "recorded, settings",
    [
        ({"validation": 100}, {"validation_size": 100}),
        ({"validation": 100.0}, {"validation_size": 100}),
        ({"validation": 0.0}, {"validation_size": 0}),
        ({"validation": 0.25}, {"validation_split": 0.25}),
        ({"validation": None}, {}),
        ({"validation_split": 0.25, "validation_size": None}, {"validation_split": 0.25}),
        ({"validation_split": None, "validation_size": 100}, {"validation_size": 100}),
    ],
)
def test_the_validation_images_of_every_version_are_found(run_folder, recorded, settings):
    config = {"data": {"name": "digits", "seed": 3} | recorded}
    (run_folder / "config.json").write_text(json.dumps(config))
    found = subjects.run_data_settings(run_folder)
    given = {key: value for key, value in found.items() if value is not None}
    assert given == {"name": "digits"} | settings
    sizes = {0.25: 359, 100: 100, 0: 0}
    wanted = [sizes[each] for each in settings.values()] or [360]
    assert [data.load(**found).info.validation_size] == wanted


def test_the_training_part_is_not_augmented(run_folder):
    report = reports.report(run=run_folder, split="train")
    dataset = data.load("digits", validation_size=100)
    top1, total = top1_by_hand(run_folder, "last", dataset.train_evaluation())
    assert report["images"] == total == dataset.info.train_size
    assert report["top1"] == pytest.approx(top1)


def test_an_export_scores_as_its_run(run_folder, tmp_path):
    folder = export.save(load_network(run_folder), tmp_path / "exported", verify=False)
    found = reports.report(saved_model=folder, data_name="digits")
    expected = reports.report(run=run_folder)
    changing = ("network", "images_per_second", "loss")
    assert {key: found[key] for key in found if key not in changing} == {
        key: expected[key] for key in expected if key not in changing
    }
    assert found["loss"] == pytest.approx(expected["loss"], rel=1e-5)


def test_a_foreign_saved_model_is_measured_without_its_size(run_folder, tmp_path):
    layers = [keras.layers.Flatten(), keras.layers.Dense(10)]
    model = keras.Sequential([keras.Input((8, 8, 1)), *layers])
    model.export(tmp_path / "exported", verbose=False)
    report = reports.report(saved_model=tmp_path / "exported", data_name="digits")
    assert (report["params"], report["macs"]) == (None, None)
    assert "params" not in reports.table(report)


def test_the_table_shows_every_known_number():
    report = {
        "network": "runs/a",
        "dataset": "digits",
        "split": "test",
        "top1": 97.5,
        "top5": 100.0,
        "loss": 0.12345,
        "images": 360,
        "images_per_second": 12345.6,
        "params": 1494,
        "macs": None,
    }
    header, row = reports.table(report).splitlines()
    assert header.split() == [
        "data",
        "split",
        "top-1",
        "%",
        "top-5",
        "%",
        "loss",
        "images",
        "images/s",
        "params",
    ]
    assert row.split() == ["digits", "test", "97.50", "100.00", "0.1235", "360", "12,346", "1,494"]
    assert len(header) == len(row)


def test_what_does_not_fit_is_named(run_folder, tmp_path):
    with pytest.raises(TfkdError, match="found neither of --run and --saved_model"):
        reports.report()
    with pytest.raises(TfkdError, match="found both of --run and --saved_model"):
        reports.report(run=run_folder, saved_model=tmp_path)
    with pytest.raises(TfkdError, match="found none, wanted --data=NAME"):
        reports.report(saved_model=tmp_path)
    with pytest.raises(TfkdError, match="unknown split 'tset'; did you mean 'test'"):
        reports.report(run=run_folder, split="tset")
    (run_folder / "config.json").unlink()
    with pytest.raises(TfkdError, match="config.json': found no data.name"):
        reports.report(run=run_folder)


def test_data_of_another_form_is_named(tmp_path):
    def exported(name, classes, shape):
        return export.save(models.create("resnet8", classes, shape), tmp_path / name, verify=False)

    classes = exported("classes", 7, (8, 8, 1))
    with pytest.raises(TfkdError, match="found 10 classes, wanted 7"):
        reports.report(saved_model=classes, data_name="digits")
    colour = exported("colour", 10, (8, 8, 3))
    with pytest.raises(TfkdError, match=r"found images \(8, 8, 1\), wanted \(8, 8, 3\)"):
        reports.report(saved_model=colour, data_name="digits")


def test_a_report_is_written_as_json(tmp_path):
    report = {"network": "runs/a", "top1": 97.5, "macs": None}
    reports.write_report(report, tmp_path / "report.json")
    assert json.loads((tmp_path / "report.json").read_text()) == report
    with pytest.raises(TfkdError, match="cannot be written"):
        reports.write_report(report, tmp_path / "report.json" / "below")
