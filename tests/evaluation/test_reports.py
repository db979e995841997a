"""The report on a run folder or a SavedModel, on the digits."""

import json

import keras
import numpy as np
import pytest

from tests.fixtures import multi_exit
from tfkd import TfkdError, data, evaluation, export, models, tasks
from tfkd.evaluation import reports, subjects
from tfkd.models.saving import load_network, save_network

MULTI_LABEL = "tests/fixtures/multi_label.py:MultiLabel"


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
        "task": "classification",
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


@pytest.fixture
def exits_folder(tmp_path):
    """A run whose student has eleven exits, and further students beside it."""
    preprocess = models.Preprocess((80.0,), (90.0,))
    network = models.Network(multi_exit.lively(multi_exit.build()), preprocess, name="exits")
    folder = tmp_path / "exits"
    save_network(network, folder)
    last = models.Network(models.tapped(network.model, ["logits"]), preprocess, name="last exit")
    save_network(last, folder, "last_exit")
    (folder / "config.json").write_text(json.dumps({"data": {"name": "digits"}}))
    return folder


def test_every_exit_is_reported(exits_folder):
    report = reports.report(run=exits_folder)
    assert report["task"] == "multi_exit"
    costs = models.exit_costs(load_network(exits_folder).model)
    assert [each["name"] for each in report["exits"]] == list(multi_exit.NAMES)
    for each in report["exits"]:
        cost = costs[each["name"]]
        assert (each["params"], each["macs"]) == (cost.params, cost.macs)
    # A block has 9 x 4 x 4 weights (the first 9 x 4), 8 of normalization, a classifier 50.
    assert report["exits"][1]["params"] == 36 + 144 + 2 * 8 + 2 * 50
    assert report["exits"][1]["macs"] == 64 * (36 + 144) + 2 * 40
    deepest = reports.report(run=exits_folder, which="last_exit")
    assert (deepest["task"], "exits" in deepest) == ("classification", False)
    for key in ("top1", "top5", "loss"):
        assert report["exits"][-1][key] == pytest.approx(deepest[key])
    # The heads of the ten exits before are run as well.
    assert report["exits"][-1]["macs"] == report["macs"] == deepest["macs"] + 10 * 40


def test_the_table_shows_every_exit(exits_folder):
    report = reports.report(run=exits_folder)
    heading, numbers, empty, *exits = reports.table(report).splitlines()
    assert heading.split()[2:8] == ["mean", "top-1", "%", "top-1", "%", "top-5"]
    assert numbers.split()[2] == f"{report['mean_top1']:.2f}"
    assert empty == ""
    assert exits[0].split() == ["exit", "MACs", "params", "top-1", "%", "ECE", "%"]
    assert [line.split() for line in exits[1:]] == [
        [
            each["name"],
            f"{each['macs']:,}",
            f"{each['params']:,}",
            f"{each['top1']:.2f}",
            f"{each['ece']:.2f}",
        ]
        for each in report["exits"]
    ]
    assert len({len(line) for line in exits}) == 1


def test_an_export_of_exits_is_reported_alike(exits_folder, tmp_path):
    folder = export.save_run(exits_folder, tmp_path / "exported")
    found = reports.report(saved_model=folder, data_name="digits")
    expected = reports.report(run=exits_folder)
    assert found["task"] == "multi_exit"
    for each, wanted in zip(found["exits"], expected["exits"], strict=True):
        assert each == {
            key: value if isinstance(value, str) else pytest.approx(value, rel=1e-3)
            for key, value in wanted.items()
        }


def test_a_task_of_ones_own_is_reported(tmp_path):
    image = keras.Input((8, 8, 1))
    model = keras.Model(image, keras.layers.Dense(4)(keras.layers.Flatten()(image)))
    network = models.Network(model, name="attributes", task=MULTI_LABEL)
    save_network(network, tmp_path / "run")
    report = reports.report(run=tmp_path / "run", data_name="digits")
    expected = evaluation.scores(
        evaluation.predictor(network),
        data.load("digits").test(),
        tasks.create(MULTI_LABEL, network),
    )
    assert (report["task"], report["map"]) == (MULTI_LABEL, pytest.approx(expected["map"]))
    assert "top1" not in report
    heading, numbers = reports.table(report).splitlines()
    assert heading.split() == ["data", "split", "mAP", "%", "images", "images/s", "params", "MACs"]
    assert numbers.split()[2] == f"{report['map']:.2f}"
    folder = export.save_run(tmp_path / "run", tmp_path / "exported")
    exported = reports.report(saved_model=folder, data_name="digits")
    assert (exported["task"], exported["map"]) == (MULTI_LABEL, pytest.approx(report["map"]))


def test_an_unknown_student_is_named(run_folder):
    with pytest.raises(TfkdError, match="unknown student 'bets'; did you mean 'best'"):
        reports.report(run=run_folder, which="bets")


def test_mismatched_runs_and_data_are_named(run_folder, tmp_path):
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
    color = exported("color", 10, (8, 8, 3))
    with pytest.raises(TfkdError, match=r"found images \(8, 8, 1\), wanted \(8, 8, 3\)"):
        reports.report(saved_model=color, data_name="digits")


def test_a_report_is_written_as_json(tmp_path):
    report = {"network": "runs/a", "top1": 97.5, "macs": None}
    reports.write_report(report, tmp_path / "report.json")
    assert json.loads((tmp_path / "report.json").read_text()) == report
    with pytest.raises(TfkdError, match="cannot be written"):
        reports.write_report(report, tmp_path / "report.json" / "below")
