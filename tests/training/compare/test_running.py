"""The comparison: every role an ordinary run, one table of all, and failures as rows of it."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from tfkd import TfkdError, data, evaluation
from tfkd.core import NonFiniteLoss
from tfkd.models.saving import load_network
from tfkd.training import config as configs
from tfkd.training import run
from tfkd.training.checkpoints import Checkpoints
from tfkd.training.compare import compare, failures, roles, running, table
from tfkd.training.train_loop import TrainLoop

FIXTURES = Path(__file__).parents[2] / "fixtures"
EXPERIMENT = FIXTURES / "tiny_experiment.py"
CONTRACTS = FIXTURES / "contract_experiments.py"
DIVERGING = 1e38


@pytest.fixture(scope="module")
def config(experiment):
    """A distillation with an export."""
    return experiment("distilled", teacher__workdir=None, export__enabled=True)


@pytest.fixture(scope="module")
def compared(config, tmp_path_factory):
    """A finished comparison of two seeds: its folder and summary."""
    folder = tmp_path_factory.mktemp("compared")
    return folder, compare(config, folder, [0, 3])


@pytest.fixture
def brief(tmp_path):
    """``brief(argument, **fields)``: a config file of a tiny experiment of one epoch."""

    def write(argument, **fields):
        path = tmp_path / f"{argument}.py"
        path.write_text(
            "from tfkd.training import config as configs\n"
            "def get_config():\n"
            f"    config = configs.load('{EXPERIMENT}:{argument}')\n"
            f"    return configs.override(config, train__epochs=1, **{fields!r})\n"
        )
        return str(path)

    return write


def result_of(folder, row):
    path = folder / row["role"] / f"seed{row['seed']}" / "result.json"
    return json.loads(path.read_text())


def test_a_row_for_every_role_and_seed(compared):
    folder, summary = compared
    rows = summary["rows"]
    assert [(row["role"], row["seed"]) for row in rows] == [
        (role, seed) for seed in (0, 3) for role in ("teacher", "alone", "distilled")
    ]
    for row in rows:
        assert sorted(row) == [
            "agreement", "best_selected_on", "error", "exits", "loss", "macs", "params", "role",
            "score", "seconds", "seed", "top1", "top5", "variants",
        ]  # fmt: skip
        result = result_of(folder, row)
        assert row["score"] == row["top1"] == result["top1_last"]
        assert (row["top5"], row["loss"]) == (result["top5_last"], result["loss_last"])
        assert (row["params"], row["macs"]) == (result["params"], result["macs"])
        assert row["seconds"] == result["seconds"]
        assert row["error"] is None
    assert json.loads((folder / "summary.json").read_text()) == summary
    assert summary["experiment"] == "tiny-distilled"
    assert [column["label"] for column in summary["columns"]] == ["top-1 %", "top-5 %", "loss"]
    with open(folder / "summary.csv", newline="") as file:
        written = list(csv.DictReader(file))
    assert [float(row["score"]) for row in written] == [row["score"] for row in rows]
    assert failures(summary) == []


def test_agreements_are_those_of_the_saved_networks(compared):
    folder, summary = compared
    batches = list(data.load("digits", batch_size=100).test())
    kept = np.concatenate([batch["sample_weight"] for batch in batches]) > 0

    def classes(role, seed):
        network = load_network(folder / role / f"seed{seed}")
        logits = [network.model(network.preprocess(batch["image"])) for batch in batches]
        return np.concatenate(logits).argmax(-1)[kept]

    for row in summary["rows"]:
        if row["role"] == "teacher":
            assert row["agreement"] is None
        else:
            same = classes(row["role"], row["seed"]) == classes("teacher", row["seed"])
            assert row["agreement"] == pytest.approx(100 * same.mean())


def test_student_of_the_first_seed_is_exported(compared):
    folder, summary = compared
    predict = evaluation.saved_model_predictor(folder / "export")
    found = evaluation.scores(predict, data.load("digits").test())["top1"]
    assert found == pytest.approx(summary["rows"][2]["score"])
    assert not list(folder.glob("*/seed*/export"))
    assert (folder / "curves.png").read_bytes()[1:4] == b"PNG"


def test_a_role_is_what_a_run_of_its_config_makes(compared, config, tmp_path):
    folder, _ = compared
    run(roles({"distilled": config}, 0, folder)["alone"].config, tmp_path / "run")
    own, others = tmp_path / "run", folder / "alone" / "seed0"
    assert (own / "metrics.csv").read_text() == (others / "metrics.csv").read_text()
    found, wanted = (Checkpoints(each / "checkpoints").load()[0] for each in (own, others))
    for name, value in wanted.items():
        np.testing.assert_array_equal(found[name], value)


def test_a_finished_comparison_trains_nothing_and_finds_the_same(
    compared, config, capsys, monkeypatch
):
    folder, summary = compared
    (folder / "summary.json").unlink()
    monkeypatch.setattr(TrainLoop, "run", None)
    assert compare(config, folder, [0, 3]) == summary
    assert json.loads((folder / "summary.json").read_text()) == summary
    assert capsys.readouterr().out.count("is finished") == 6


def test_an_interrupted_comparison_goes_on_where_it_was_stopped(
    compared, config, monkeypatch, tmp_path
):
    _, summary = compared
    calls = []

    def stops(settings, path, strategy):
        calls.append(path)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return run(settings, path, strategy)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(running, "run", stops)
        compare(config, tmp_path, [0])
    assert not (tmp_path / "summary.json").exists()
    found = compare(config, tmp_path, [0])["rows"]
    for row, wanted in zip(found, summary["rows"][:3], strict=True):
        assert {**row, "seconds": 0} == {**wanted, "seconds": 0}


@pytest.mark.slow
def test_several_methods_share_teacher_and_lone_student(
    experiment, brief, tmp_path, monkeypatch, capsys
):
    def some_fail(settings, path, strategy):
        if "broken" in path.parts:
            raise RuntimeError("a bug of the method's\nwith a second line")
        return run(settings, path, strategy)

    monkeypatch.setattr(running, "run", some_fail)
    config = experiment("distilled", teacher__workdir=None, train__epochs=1)
    experiments = {
        "kd": config,
        "diverging": configs.override(config, train__learning_rate=DIVERGING),
        "colder": configs.override(config, methods=configs.methods(kd=dict(temperature=1.0))),
        "broken": config,
        "twin": configs.override(
            config,
            teacher__config=brief("alone"),
            methods=configs.methods(teacher_free=dict(form="self")),
        ),
    }
    out = tmp_path / "out"
    with pytest.warns(UserWarning, match="diverging trains by a recipe of its own"):
        summary = compare(experiments, out, [0])
    rows = {row["role"]: row for row in summary["rows"]}
    assert list(rows) == ["teacher", "alone", *experiments]
    # What fails is a row that says why, and all others are as if it were not there.
    assert "is not finite at step 1" in rows["diverging"]["error"]
    assert rows["broken"]["error"] == "RuntimeError: a bug of the method's"
    assert [row["role"] for row in failures(summary)] == ["diverging", "broken"]
    assert rows["broken"]["score"] is None and rows["broken"]["seconds"] is None
    assert "Traceback" in capsys.readouterr().err
    lines = {line.split()[0]: line for line in table(summary).splitlines()[2:]}
    assert "failed: " in lines["diverging"] and lines["broken"].endswith("a bug of the method's")
    assert "failed" not in lines["colder"] + lines["kd"] + lines["twin"]
    assert (out / "curves.png").exists()

    kd, colder, twin = rows["kd"], rows["colder"], rows["twin"]
    assert kd["score"] != colder["score"] or kd["agreement"] != colder["agreement"]
    used = json.loads((out / "twin" / "seed0" / "config.json").read_text())["teacher"]
    assert used["workdir"] == str(out / "alone" / "seed0")
    result = result_of(out, twin)
    assert result["teacher_top1"] == rows["alone"]["score"], "its own teacher is the lone student"
    assert twin["agreement"] != result["agreement"], (
        "the table's agreement is with the common teacher"
    )


@pytest.mark.slow
def test_failed_teacher_fails_its_students_alone(experiment, brief, tmp_path, capsys):
    taught = experiment(
        "distilled",
        train__epochs=1,
        teacher__workdir=None,
        teacher__config=brief("teacher", train__learning_rate=DIVERGING),
    )
    lonely = experiment(
        train__epochs=1, methods=configs.methods(teacher_free={}), export__enabled=True
    )
    out = tmp_path / "out"
    summary = compare({"lonely": lonely, "kd": taught}, out, [0])
    rows = {row["role"]: row for row in summary["rows"]}
    assert "is not finite" in rows["teacher"]["error"]
    assert rows["kd"]["error"] == "teacher failed"
    assert not (out / "kd").exists()
    assert rows["alone"]["error"] is rows["lonely"]["error"] is None
    assert rows["alone"]["agreement"] is rows["lonely"]["agreement"] is None
    assert (out / "export" / "saved_model.pb").exists()
    lines = table(summary).splitlines()
    assert [line.split()[0] for line in lines[2:]] == ["teacher", "alone", "lonely", "kd"]
    assert lines[4].split()[2].startswith(("+", "-"))
    # The next call tries again what failed, and that alone.
    capsys.readouterr()
    assert [
        row["error"] for row in compare({"lonely": lonely, "kd": taught}, out, [0])["rows"]
    ] == [row["error"] for row in summary["rows"]]
    assert capsys.readouterr().out.count("is finished") == 2


def test_failed_run_of_the_first_experiment_is_not_exported(
    experiment, tmp_path, monkeypatch, capsys
):
    def fails(settings, path, strategy):
        raise NonFiniteLoss("loss is not finite")

    monkeypatch.setattr(running, "run", fails)
    config = experiment(methods=configs.methods(teacher_free={}), export__enabled=True)
    summary = compare({"lonely": config}, tmp_path, [0, 1])
    assert [row["error"] for row in summary["rows"]] == ["loss is not finite"] * 4
    assert summary["columns"] == []
    assert json.loads((tmp_path / "summary.json").read_text()) == summary
    assert "not exported: lonely, seed 0 failed" in capsys.readouterr().out
    assert sorted(each.name for each in tmp_path.iterdir()) == ["summary.csv", "summary.json"]


def test_several_workers_end_with_what_may_have_failed_on_one_of_them(
    experiment, tmp_path, monkeypatch
):
    errors = [NonFiniteLoss("loss is not finite"), TfkdError("disk: found it full")]

    def fails(settings, path, strategy):
        raise errors.pop(0)

    monkeypatch.setattr(running, "run", fails)
    monkeypatch.setattr("tfkd.training.strategy.is_single", lambda strategy: False)
    config = experiment(methods=configs.methods(teacher_free={}))
    with pytest.raises(TfkdError, match="disk: found it full"):
        compare({"lonely": config}, tmp_path, [0])
    assert errors == []


@pytest.mark.slow
def test_methods_without_a_teacher_have_no_row_of_one(experiment, tmp_path):
    def lonely(name, **settings):
        methods = configs.methods(**{name: settings})
        return experiment(train__epochs=1, methods=methods)

    experiments = {name: lonely(name) for name in ("ps_kd", "teacher_free")}
    summary = compare(experiments, tmp_path, [0])
    assert [row["role"] for row in summary["rows"]] == ["alone", "ps_kd", "teacher_free"]
    assert {row["agreement"] for row in summary["rows"]} == {None}
    assert all(row["score"] > 0 for row in summary["rows"])
    alone, ps_kd, _ = (line.split() for line in table(summary).splitlines()[2:])
    assert alone[:3] == ["alone", f"{summary['rows'][0]['score']:.2f}", "-"]
    gain = summary["rows"][1]["score"] - summary["rows"][0]["score"]
    assert ps_kd[2] == f"{gain:+.2f}"


@pytest.mark.slow
def test_exits_have_numbers_of_their_own(tmp_path):
    config = configs.load(f"{CONTRACTS}:exits")
    summary = compare(configs.override(config, train__epochs=1), tmp_path, [0])
    teacher, alone, distilled = summary["rows"]
    assert [column["label"] for column in summary["columns"]][:2] == ["mean top-1 %", "top-1 %"]
    result = result_of(tmp_path, distilled)
    assert distilled["score"] == distilled["mean_top1"] == result["mean_top1_last"]
    assert distilled["score"] == pytest.approx(
        np.mean([each["top1"] for each in distilled["exits"]])
    )
    assert [each["macs"] for each in distilled["exits"]] == [
        each["macs"] for each in result["exits"]
    ]
    # The teacher has a single exit.
    assert teacher["score"] == teacher["top1"] == result_of(tmp_path, teacher)["top1_last"]
    assert teacher["mean_top1"] is None and teacher["exits"] == []
    names = [f"exit{number}" for number in range(1, 11)] + ["logits"]
    lines = table(summary).splitlines()[2:]
    assert [line.split()[:2][1] for line in lines[14:]] == names
    assert [line.split()[0] for line in lines] == ["teacher", *["alone"] * 12, *["distilled"] * 12]
    gain = distilled["exits"][3]["top1"] - alone["exits"][3]["top1"]
    assert lines[17].split()[3] == f"{gain:+.2f}"


def test_variants_have_numbers_of_their_own(tmp_path):
    config = configs.load(f"{CONTRACTS}:calibrated")
    summary = compare(configs.override(config, train__epochs=1), tmp_path, [0])
    alone, distilled = summary["rows"]
    assert alone["variants"] == {}
    cool = result_of(tmp_path, distilled)["variants"]["cool"]
    assert distilled["variants"] == {"cool": {**cool, "score": cool["top1"]}}
    lines = table(summary).splitlines()[2:]
    assert [line.split("  ")[0] for line in lines] == ["alone", "distilled", "distilled (cool)"]
    assert f"{cool['loss']:.4f}" in lines[2] and cool["loss"] != distilled["loss"]


def test_wrong_config_or_folder_stops_before_anything_is_trained(config, tmp_path):
    with pytest.raises(TfkdError, match="temperature"):
        wrong = configs.override(config, methods=configs.methods(kd=dict(temperature=-1.0)))
        compare({"kd": config, "wrong": wrong}, tmp_path, [0])
    with pytest.raises(TfkdError, match="widht"):
        compare(configs.override(config, student__kwargs={"widht": 4}), tmp_path, [0])
    with pytest.raises(TfkdError, match="no such file"):
        compare(configs.override(config, teacher__config="nowhere.py"), tmp_path, [0])
    assert list(tmp_path.iterdir()) == []
    taken = tmp_path / "distilled" / "seed3"
    taken.mkdir(parents=True)
    (taken / "config.json").write_text("{}")
    with pytest.raises(TfkdError, match="distilled/seed3' holds a run of another config"):
        compare(config, tmp_path, [0, 3])
    assert [each.name for each in tmp_path.iterdir()] == ["distilled"]
