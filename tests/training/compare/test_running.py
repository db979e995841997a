"""The comparison: every role an ordinary run, and one table of all."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from tfkd import TfkdError, TfkdWarning, data, evaluation
from tfkd.models.saving import load_network
from tfkd.training import compare as comparison
from tfkd.training import config as configs
from tfkd.training import run
from tfkd.training.checkpoints import Checkpoints
from tfkd.training.compare import compare, of_methods, roles, table

EXPERIMENT = Path(__file__).parents[1] / "fixtures" / "tiny_experiment.py"


@pytest.fixture(scope="module")
def config(experiment):
    """A distillation with an export."""
    return experiment("distilled", teacher__workdir=None, export__enabled=True)


@pytest.fixture(scope="module")
def compared(config, tmp_path_factory):
    """A finished comparison of two seeds: its folder and rows."""
    folder = tmp_path_factory.mktemp("compared")
    return folder, compare(config, folder, [0, 3])


def test_a_row_for_every_role_and_seed(compared):
    folder, rows = compared
    assert [(row["role"], row["seed"]) for row in rows] == [
        (role, seed) for seed in (0, 3) for role in ("teacher", "alone", "distilled")
    ]
    for row in rows:
        assert sorted(row) == sorted(
            ("role", "seed", "top1", "agreement", "params", "macs", "seconds")
        )
        result = json.loads(
            (folder / row["role"] / f"seed{row['seed']}" / "result.json").read_text()
        )
        assert row["top1"] == result["top1_last"]
        assert (row["params"], row["macs"]) == (result["params"], result["macs"])
        assert row["seconds"] == result["seconds"]
    summary = json.loads((folder / "summary.json").read_text())
    assert summary == {"experiment": "tiny-distilled", "rows": rows}
    with open(folder / "summary.csv", newline="") as file:
        written = list(csv.DictReader(file))
    assert [float(row["top1"]) for row in written] == [row["top1"] for row in rows]


def test_agreements_are_those_of_the_saved_networks(compared):
    folder, rows = compared
    batches = list(data.load("digits", batch_size=100).test())
    kept = np.concatenate([batch["sample_weight"] for batch in batches]) > 0

    def classes(role, seed):
        network = load_network(folder / role / f"seed{seed}")
        logits = [network.model(network.preprocess(batch["image"])) for batch in batches]
        return np.concatenate(logits).argmax(-1)[kept]

    for row in rows:
        if row["role"] == "teacher":
            assert row["agreement"] is None
        else:
            same = classes(row["role"], row["seed"]) == classes("teacher", row["seed"])
            assert row["agreement"] == pytest.approx(100 * same.mean())


def test_the_first_seeds_student_is_exported(compared):
    folder, rows = compared
    predict = evaluation.saved_model_predictor(folder / "export")
    found = evaluation.accuracy(predict, data.load("digits").test())["top1"]
    assert found == pytest.approx(rows[2]["top1"])
    assert not list(folder.glob("*/seed*/export"))
    assert (folder / "curves.png").read_bytes()[1:4] == b"PNG"


def test_a_role_is_what_a_run_of_its_config_makes(compared, config, tmp_path):
    folder, _ = compared
    settings, _ = roles({"distilled": config}, 0, folder)["alone"]
    run(settings, tmp_path / "run")
    own, others = tmp_path / "run", folder / "alone" / "seed0"
    assert (own / "metrics.csv").read_text() == (others / "metrics.csv").read_text()
    found, wanted = (Checkpoints(each / "checkpoints").load()[0] for each in (own, others))
    for name, value in wanted.items():
        np.testing.assert_array_equal(found[name], value)


def test_alone_differs_from_distilled_in_nothing_but_the_teacher(config, tmp_path):
    planned = roles({"distilled": config}, 3, tmp_path)
    alone, distilled = (json.loads(planned[role][0].to_json()) for role in ("alone", "distilled"))
    assert alone["methods"] == {} and alone["teacher"]["config"] is None
    for section in ("data", "student", "train"):
        assert alone[section] == distilled[section]
    assert {settings.train.seed for settings, _ in planned.values()} == {3}


def test_again_it_trains_nothing_and_finds_the_same(compared, config, capsys, monkeypatch):
    folder, rows = compared
    (folder / "summary.json").unlink()
    monkeypatch.setattr("tfkd.training.train_loop.fit", None)
    assert compare(config, folder, [0, 3, 0]) == rows
    assert json.loads((folder / "summary.json").read_text())["rows"] == rows
    assert capsys.readouterr().out.count("is finished") == 6


def test_it_goes_on_where_it_was_stopped(compared, config, monkeypatch, tmp_path):
    folder, rows = compared
    calls = []

    def stops(settings, path, strategy):
        calls.append(path)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return run(settings, path, strategy)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(comparison, "run", stops)
        compare(config, tmp_path, [0])
    assert not (tmp_path / "summary.json").exists()
    found = compare(config, tmp_path, [0])
    for row, wanted in zip(found, rows[:3], strict=True):
        assert {**row, "seconds": 0} == {**wanted, "seconds": 0}


def test_the_table_gives_mean_and_deviation():
    def row(role, seed, top1, agreement):
        return {
            "role": role, "seed": seed, "top1": top1, "agreement": agreement,
            "params": 1234, "macs": 5678901, "seconds": 2.0 + seed,
        }  # fmt: skip

    rows = [
        row("teacher", 0, 98.0, None), row("alone", 0, 90.0, 91.0), row("alone", 1, 92.0, 95.0),
        row("method", 0, 92.0, 91.0), row("method", 1, 93.0, 91.0),
    ]  # fmt: skip
    lines = table(rows).splitlines()
    assert len(lines) == 5
    assert lines[2].split() == ["teacher", "98.00", "-", "-", "1,234", "5,678,901", "2.0"]
    assert lines[3].split() == [
        "alone", "91.00", "±", "1.41", "-", "93.00", "±", "2.83", "1,234", "5,678,901", "2.5",
    ]  # fmt: skip

    # Its gain is paired with the seeds: 2 and 1, though the means differ by 1.5.
    assert lines[4].split()[:7] == ["method", "92.50", "±", "0.71", "+1.50", "±", "0.71"]


def test_several_methods_share_teacher_and_lone_student(experiment, tmp_path):
    config = experiment("distilled", teacher__workdir=None, train__epochs=1)
    colder = configs.override(config, methods=configs.methods(kd=dict(temperature=1.0)))
    twin = configs.override(
        config,
        teacher__config=str(write_brief_alone(tmp_path)),
        methods=configs.methods(teacher_free=dict(form="self")),
    )
    rows = compare({"kd": config, "colder": colder, "twin": twin}, tmp_path / "out", [0])
    assert [row["role"] for row in rows] == ["teacher", "alone", "kd", "colder", "twin"]
    out = tmp_path / "out"
    assert sorted(each.name for each in out.iterdir() if each.is_dir()) == sorted(
        row["role"] for row in rows
    )
    assert rows[2]["top1"] != rows[3]["top1"] or rows[2]["agreement"] != rows[3]["agreement"]
    used = json.loads((out / "twin" / "seed0" / "config.json").read_text())["teacher"]
    assert used["workdir"] == str(out / "alone" / "seed0")
    result = json.loads((out / "twin" / "seed0" / "result.json").read_text())
    assert result["teacher_top1"] == rows[1]["top1"], "its own teacher is the lone student"
    assert rows[4]["agreement"] != result["agreement"], (
        "the table's agreement is with the common one"
    )


def write_brief_alone(folder):
    """Writes a config that is the lone student of one epoch."""
    path = folder / "brief.py"
    path.write_text(
        "from tfkd.training import config as configs\n"
        "def get_config():\n"
        f"    config = configs.load('{EXPERIMENT}:alone')\n"
        "    return configs.override(config, train__epochs=1)\n"
    )
    return path


def test_experiments_that_do_not_compare_are_refused(experiment, tmp_path):
    config = experiment("distilled", teacher__workdir=None)
    other = configs.override(config, student__kwargs={"width": 4})
    with pytest.raises(TfkdError, match="student.kwargs.* differs between kd and other"):
        compare({"kd": config, "other": other}, tmp_path, [0])
    with pytest.raises(TfkdError, match="wanted methods other than 'teacher' and 'alone'"):
        compare({"alone": config}, tmp_path, [0])
    other = configs.override(config, teacher__config=f"{EXPERIMENT}:distilled")
    with pytest.raises(TfkdError, match="wanted the same teacher for every experiment"):
        compare({"kd": config, "other": other}, tmp_path, [0])


def test_the_lone_student_has_the_recipe_of_most_and_others_are_told(experiment, tmp_path):
    config = experiment("distilled", teacher__workdir=None)
    faster = configs.override(config, train__learning_rate=0.5)
    experiments = {"faster": faster, "kd": config, "other": config}
    alone, _ = roles(experiments, 0, tmp_path)["alone"]
    assert alone.train.learning_rate == config.train.learning_rate
    reverse = dict(reversed(experiments.items()))
    assert roles(reverse, 0, tmp_path)["alone"][0].to_json() == alone.to_json()
    with pytest.warns(
        TfkdWarning, match="faster trains by a recipe of its own .train.learning_rate"
    ):
        with pytest.raises(TfkdError, match="no such folder"):
            broken = {
                role: configs.override(each, data__name="folder:/nowhere")
                for role, each in experiments.items()
            }
            compare(broken, tmp_path, [0])


def test_methods_of_a_config(tmp_path):
    reference = f"{EXPERIMENT}:distilled,unused"
    with pytest.raises(TfkdError, match="--methods, phases: .*unknown argument"):
        of_methods(reference, ["phases"])
    found = of_methods(str(EXPERIMENT), ["distilled", "noisy"], {"train.epochs": 7})
    assert [list(each.methods) for each in found.values()] == [["kd"], ["noisy"]]
    assert {each.train.epochs for each in found.values()} == {7}
    pair = of_methods("configs/cifar100.py:kd,resnet56,resnet20", ["dkd"])["dkd"]
    assert (pair.student.name, list(pair.methods)) == ("resnet20", ["dkd"])
    with pytest.raises(TfkdError, match="'noisy' twice"):
        of_methods(str(EXPERIMENT), ["noisy", "noisy"])
    with pytest.raises(TfkdError, match="beside --methods"):
        of_methods(str(EXPERIMENT), ["noisy"], {"methods.noisy.weight": 2.0})
    small = of_methods("configs/cifar100.py:kd,resnet56,smoke,resnet20", ["dkd"])["dkd"]
    assert small.experiment == "cifar100-dkd-resnet56-resnet20-smoke"


def test_what_cannot_be_compared_is_refused(experiment, teacher_folder, tmp_path):
    with pytest.raises(TfkdError, match="found a config without methods"):
        compare(experiment("alone"), tmp_path, [0])
    no_config = experiment("distilled", teacher__config=None, teacher__workdir=str(teacher_folder))
    with pytest.raises(TfkdError, match="found no config as teacher.config"):
        compare(no_config, tmp_path, [0])
    with pytest.raises(TfkdError, match="found no seeds"):
        compare(experiment("distilled"), tmp_path, [])
    assert list(tmp_path.iterdir()) == []
