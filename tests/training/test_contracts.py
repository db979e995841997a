"""Runs that need the contracts: stages with networks of their own, exits, artifacts, tasks."""

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.distillers import runs
from tfkd import NonFiniteLoss, TfkdError, data, evaluation, models, tasks
from tfkd.colors import GRAY
from tfkd.distillers import RKD, CoCoRD
from tfkd.models.saving import load_network
from tfkd.training import build, early_exit, run
from tfkd.training import config as configs
from tfkd.training.run import tell_of_methods
from tfkd.training.run_folder import RunFolder

FIXTURES = Path(__file__).parents[1] / "fixtures"
EXPERIMENTS = FIXTURES / "contract_experiments.py"
ROLES = ("blockwise", "exits", "calibrated", "attributes", "cached", "contrast", "hdkd")
EXITS = [*(f"exit{n}" for n in range(1, 11)), "logits"]


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """The run folder of the teacher of three blocks."""
    folder = tmp_path_factory.mktemp("contracts") / "teacher"
    run(configs.load(f"{EXPERIMENTS}:teacher"), folder, "one")
    return folder


@pytest.fixture(scope="module")
def contract(teacher):
    """``contract(role, **fields)``: the config of a toy, with the finished teacher."""

    def make(role, **fields):
        config = configs.load(f"{EXPERIMENTS}:{role}")
        if config.teacher.config:
            fields.setdefault("teacher__workdir", str(teacher))
        return configs.override(config, **fields)

    return make


@pytest.fixture(scope="module")
def whole(contract, tmp_path_factory):
    """``whole(role)``: the folder of an uninterrupted run on one replica."""
    root, done = tmp_path_factory.mktemp("whole"), {}

    def folder(role):
        if role not in done:
            run(contract(role), root / role, "one")
            done[role] = root / role
        return done[role]

    return folder


@pytest.fixture(scope="module")
def on_three(teacher, tmp_path_factory):
    """The folder of the same runs on three replicas, made in a process of its own."""
    root = tmp_path_factory.mktemp("three")
    command = [sys.executable, FIXTURES / "replicated_runs.py", "3", root, teacher, *ROLES]
    environment = {**os.environ, "PYTHONPATH": str(FIXTURES.parents[1])}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    return root


def rows(folder):
    with open(folder / "metrics.csv", newline="") as file:
        return list(csv.DictReader(file))


def result(folder):
    return json.loads((folder / "result.json").read_text())


def weights(folder, name="student"):
    return keras.models.load_model(folder / f"{name}.keras", compile=False).get_weights()


def assert_close(folder, other):
    for found, wanted in zip(weights(folder), weights(other), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=2e-5, atol=2e-5 * np.abs(wanted).max())
    for row, wanted in zip(rows(folder), rows(other), strict=True):
        assert row.pop("stage") == wanted.pop("stage")
        numbers = {key: float(value) for key, value in row.items() if value}
        expected = {key: float(value) for key, value in wanted.items() if value}
        assert numbers == pytest.approx(expected, rel=1e-4, abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("role", ROLES)
def test_one_two_and_three_replicas_end_alike(
    role, whole, contract, two_replicas, on_three, tmp_path
):
    run(contract(role), tmp_path / "two", two_replicas)
    assert_close(tmp_path / "two", whole(role))
    assert_close(on_three / role, whole(role))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("role", "after"),
    [("blockwise", 3), ("blockwise", 8), ("blockwise", 17), ("blockwise", 25)]
    + [("cached", 6), *((role, 8) for role in ROLES[1:])],
)
def test_a_run_goes_on_in_the_middle_of_any_stage(
    role, after, whole, contract, stopped, same_run, tmp_path
):
    stopped(contract(role), tmp_path / "run", after, "one")
    run(contract(role), tmp_path / "run", "one")
    same_run(tmp_path / "run", whole(role))
    if role == "calibrated":
        found, wanted = (np.load(each / "records.npz") for each in (tmp_path / "run", whole(role)))
        np.testing.assert_array_equal(found["calibrated/weight"], wanted["calibrated/weight"])


def test_what_a_method_holds_is_told_before_training(contract, stopped, tmp_path, capsys):
    config = contract("contrast")
    stopped(config, tmp_path / "run", 1, "one")
    images = build.data_set(config).info.train_size
    # Of 32 channels and width 16: two heads with their vectors, two banks, two constants.
    held = 4 * (2 * (32 + 1 + 1) * 16 + 2 * images * 16 + 2)
    told = capsys.readouterr().out.splitlines()
    assert f"method wcord: {held:,} bytes of its own on each replica" in told


def test_networks_of_a_method_and_tables_of_its_steps_are_told():
    made = CoCoRD(queue_size=12, projection_width=8, predictor_width=4)
    distiller = runs.distiller_of(made, RKD())
    said = []
    tell_of_methods(distiller, 16, lambda line, flush: said.append(line))
    [twin] = made.companions.values()
    layers = [made.projector, made.slow_projector, made.teacher_projector, made.predictor]
    own = sum(each.count_params() for each in (twin.model, *layers)) + 12 * (8 + 1) + 1
    assert said == [
        f"method cocord: {4 * own:,} bytes of its own on each replica",
        f"method rkd: 0 bytes of its own on each replica, and about {8 * 4 * 16**3:,} for the "
        "tables of a step",
    ]


@pytest.mark.parametrize("role", ROLES)
def test_a_loss_that_is_not_finite_ends_the_run(role, contract, tmp_path):
    # The stages of the blockwise toy set a rate of their own; their gradients are clipped to
    # nothing.
    config = contract(role, train__learning_rate=1e30)
    if role == "blockwise":
        config = contract(role, student_loss_weight=1e38)
    with pytest.raises(NonFiniteLoss, match="not finite at step .*no gradient was applied from"):
        run(config, tmp_path / "run", "one")
    assert not (tmp_path / "run" / "result.json").exists()


def test_stages_run_hybrids_in_the_order_asked_for(whole, contract, tmp_path):
    folder = whole("blockwise")
    listed = [row["stage"] for row in rows(folder)]
    assert listed == ["block2", "block1", "block3", "classifier", "classifier"]
    stages = result(folder)["stages"]
    lengths = [(each["name"], each["epochs"], each["steps"]) for each in stages]
    assert lengths == [*((f"block{n}", 1, 7) for n in (2, 1, 3)), ("classifier", 2, 10)]
    assert result(folder)["steps"] == 31
    # What a stage runs costs less with every block, and in the end what the student costs.
    saved = models.cost(load_network(folder).model)
    assert stages[0]["macs"] > stages[1]["macs"] > stages[2]["macs"] == saved.macs
    assert [each["params"] for each in stages[2:]] == [saved.params] * 2
    scores = [100 * float(row["val_accuracy"]) for row in rows(folder)]
    np.testing.assert_allclose([each["score"] for each in stages], [*scores[:3], scores[4]])
    picture = tf.io.decode_png((folder / "stages.png").read_bytes(), channels=3).numpy()
    assert (
        np.sum(np.all(picture == tuple(bytes.fromhex(GRAY[1:])), axis=-1)) > 5000
    )  # The bars of the costs.
    # The recipe of a stage: a constant rate of its own, then that of the run.
    rates = [float(row["learning_rate"]) for row in rows(folder)]
    np.testing.assert_allclose(rates[:4], [0.02, 0.02, 0.02, 0.1], rtol=1e-6)
    local = [float(row["blockwise"]) for row in rows(folder)]
    assert all(value > 0 for value in local[:3]) and local[3:] == [0.0, 0.0]
    run(contract("blockwise,3,1,2"), tmp_path / "other", "one")
    assert [row["stage"] for row in rows(tmp_path / "other")][:3] == [
        "block3",
        "block1",
        "block2",
    ]
    assert result(folder)["params"] == saved.params


def test_what_a_stage_keeps_of_its_frozen_parts_changes_no_weight(
    whole, contract, tmp_path, capsys
):
    run(contract("blockwise"), tmp_path / "kept", "one")
    told = [line for line in capsys.readouterr().out.splitlines() if "of all images" in line]
    assert [line.split(":")[0] for line in told] == [f"stage block{n}" for n in (2, 2, 1, 3, 3)]
    images = 1337 * 4
    assert told[0].endswith(
        f"reference of all images, {images * 512:,} bytes: computed once, in memory"
    )
    run(contract("blockwise", methods__blockwise__stage_cache_bytes=0), tmp_path / "all", "one")
    assert "of all images" not in capsys.readouterr().out
    for found, wanted in zip(weights(tmp_path / "kept"), weights(tmp_path / "all"), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_blocks_may_learn_from_labels_for_some_steps_and_keep_their_inputs_on_disk(
    contract, tmp_path, capsys
):
    config = contract("blockwise")
    config.methods = configs.methods(
        pbkd=dict(
            cuts=("block1", "block2", "block3"),
            learns_from="labels",
            stage_steps=4,
            stage_cache_folder=str(tmp_path / "kept"),
            finetune_epochs=1.0,
        )
    )
    run(config, tmp_path / "run", "one")
    stages = [(each["name"], each["steps"]) for each in result(tmp_path / "run")["stages"]]
    assert stages == [("block1", 4), ("block2", 4), ("block3", 4), ("finetune", 7)]
    told = [line for line in capsys.readouterr().out.splitlines() if "of all images" in line]
    assert [line.split(" of all")[0] for line in told] == [
        "stage block2: block_input",
        "stage block3: block_input",
    ]
    assert all(line.endswith("computed once, on disk") for line in told)
    assert any((tmp_path / "kept").iterdir())


def test_a_hybrid_stage_trains_its_block_alone(contract, stopped, tmp_path):
    from tfkd.training.checkpoints import Checkpoints

    def student(folder):
        arrays, _ = Checkpoints(folder / "checkpoints").load()
        return {key: value for key, value in arrays.items() if key.startswith("student/")}

    stopped(contract("blockwise"), tmp_path / "run", 1, "one")
    first = student(tmp_path / "run")
    stopped(contract("blockwise"), tmp_path / "run", 3, "one")
    second = student(tmp_path / "run")
    moved = {int(k.split("/")[1]) for k in first if not np.array_equal(first[k], second[k])}
    # Seven variables a block: kernel, four of the normalization, kernel and bias.
    assert moved and moved <= set(range(7, 14))


def test_lengths_of_stages_leave_no_room_for_epochs(contract, tmp_path):
    config = contract("blockwise", train__epochs=3)
    message = "train.epochs: found 3 beside blockwise, whose stages set their own lengths .block2 1"
    with pytest.raises(TfkdError, match=message):
        run(config, tmp_path / "run", "one")
    assert not (tmp_path / "run").exists()


def test_a_student_with_eleven_exits_is_scored_at_each(whole):
    folder = whole("exits")
    found, last = result(folder), rows(folder)[-1]
    assert [each["name"] for each in found["exits"]] == EXITS
    assert found["score"] == "mean_top1" and found["score_label"] == "mean top-1 %"
    np.testing.assert_allclose(
        found["mean_top1_last"], np.mean([each["top1"] for each in found["exits"]])
    )
    assert found["top1_last"] == found["exits"][-1]["top1"]
    costs = [(each["macs"], each["params"]) for each in found["exits"]]
    assert costs == sorted(costs) and len(set(costs)) == 11
    for each in found["exits"]:
        assert 0 <= each["ece"] <= 100
    means = [float(row["val_mean_accuracy"]) for row in rows(folder)]
    np.testing.assert_allclose(found["best_score"], 100 * max(means), rtol=1e-6)
    assert {f"student_loss/{name}" for name in EXITS} <= set(last)


def test_a_student_with_exits_leaves_its_accuracy_over_cost(whole):
    folder = whole("exits")
    exits = result(folder)["exits"]
    early = json.loads((folder / "early_exit.json").read_text())
    assert set(early) == {"last", "best"}
    found = early["last"]
    assert (found["exits"], found["macs"]) == (EXITS, [each["macs"] for each in exits])
    anytime = [(point["test_top1"], point["test_macs"]) for point in found["anytime"]]
    assert anytime == [(pytest.approx(each["top1"]), each["macs"]) for each in exits]
    assert len(found["budgeted"]) == 39
    for point in found["budgeted"]:
        assert len(point["thresholds"]) == 11 and point["thresholds"][-1] == "-inf"
        assert found["macs"][0] <= point["test_macs"] <= found["macs"][-1]
    assert (folder / "early_exit.png").read_bytes().startswith(b"\x89PNG")
    assert "each leaves where it is sure" in (folder / "early_exit.svg").read_text()


def test_without_validation_images_there_are_no_thresholds_which_is_said(whole, tmp_path, capsys):
    network = load_network(whole("exits"))
    task = tasks.create(network.task, network)
    digits = data.load("digits", validation_size=0)
    students, predictors = {"last": network}, {"last": evaluation.predictor(network)}
    early_exit.evaluate(RunFolder(tmp_path), digits, task, students, predictors, print)
    said = "no validation images: no thresholds for leaving early (data.validation_size or"
    assert capsys.readouterr().out.startswith(said)
    found = json.loads((tmp_path / "early_exit.json").read_text())["last"]
    assert found["budgeted"] is None and len(found["anytime"]) == 11
    assert (tmp_path / "early_exit.png").is_file()


def test_exits_are_saved_and_loaded_by_name(whole):
    network = load_network(whole("exits"))
    assert models.exits(network.model) == tuple(EXITS)
    assert network.class_names == tuple("0123456789")
    assert tasks.create(network.task, network).name == "multi_exit"


def test_a_method_may_end_in_a_second_student(whole):
    folder = whole("calibrated")
    described = json.loads((folder / "network.json").read_text())
    assert described["files"]["cool"] == "student_cool.keras"
    images = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 1)).astype("uint8")
    first, second = (np.asarray(load_network(folder, w)(images)) for w in ("last", "cool"))
    ratio = first / second
    np.testing.assert_allclose(ratio, np.full_like(ratio, ratio.mean()), rtol=1e-4)
    scored = result(folder)["variants"]["cool"]
    for key, whose in (("top1", "top1_last"), ("params", "params"), ("macs", "macs")):
        assert scored[key] == result(folder)[whose]
    assert scored["loss"] != result(folder)["loss_last"]
    records = np.load(folder / "records.npz")["calibrated/weight"]
    assert records.shape == (2, 2) and not np.array_equal(records[0], records[1])


def test_weights_that_are_learned_are_kept_logged_and_drawn(whole):
    folder = whole("hdkd")
    kept = np.load(folder / "records.npz")["hdkd/weights"]
    assert kept.shape == (2, 6) and not np.array_equal(kept[0], kept[1])
    np.testing.assert_allclose(kept.sum(axis=1), [2.5, 2.5], rtol=1e-6)
    names = [name for name in rows(folder)[-1] if name.startswith("hdkd/weight/")]
    means = [[float(row[name]) for name in names] for row in rows(folder)]
    np.testing.assert_allclose(np.sum(means, axis=1), [2.5, 2.5], rtol=1e-5)
    picture = tf.io.decode_png((folder / "hdkd_weights.png").read_bytes(), channels=3)
    picture = picture.numpy().astype(int)
    for color in ((68, 1, 84), (253, 231, 37)):  # The least and the greatest weight.
        assert np.sum(np.all(np.abs(picture - np.array(color)) < 12, axis=-1)) > 3000, color


def test_a_result_tells_of_the_student_that_is_saved(contract, tmp_path, monkeypatch):
    from tfkd import distillers

    def wider(self, student, finish):
        assert finish.data.info.name == "digits" and finish.seed == 0
        assert finish.network("teacher").name == "three_blocks"
        model = student.model
        deeper = keras.layers.Dense(10, name="deeper", kernel_initializer="identity")(
            models.outputs(model)["logits"]
        )
        outputs = {**models.outputs(model), "logits": deeper}
        return student.with_model(keras.Model(model.input, outputs, name=model.name))

    monkeypatch.setattr(distillers.KD, "finalize", wider)
    run(contract("exits", train__epochs=1), tmp_path / "run", "one")
    found = result(tmp_path / "run")
    saved = load_network(tmp_path / "run").model
    assert found["params"] == models.cost(saved).params == found["exits"][-1]["params"]


def test_a_task_of_ones_own_is_trained_and_scored(whole):
    folder = whole("attributes")
    found = result(folder)
    assert found["score"] == "map" and found["score_label"] == "mAP %"
    assert 50 < found["map_last"] <= 100
    assert found["summary"].startswith("mAP ")
    assert load_network(folder).model.output_shape == (None, 4)
    assert float(rows(folder)[-1]["val_mean_average_precision"]) > 0.5
    again = evaluation.predictor(load_network(folder))
    assert set(again(np.zeros((1, 8, 8, 1), "uint8"))) == {"logits"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("tap", "unknown tap of model 'eleven_exits' 'blok2'"),
        ("key", "unknown batch entry 'image_storng'; did you mean 'image_strong'"),
        ("heldout", "found 100 validation images of digits, wanted at least a batch of 180"),
        ("recipe", "recipe of stage 'only': found 'learning_rat', wanted learning_rate, optimizer"),
        (
            "batch_size",
            "recipe of stage 'only': found 'batch_size', wanted learning_rate, optimizer",
        ),
        ("value", "recipe of stage 'only': .*found -1.0, wanted a number"),
        ("column", "unknown batch entry 'hiden'"),
        ("names", "kd: found two stages called 'one', wanted names of their own"),
        ("last", "last stage 'one' of kd: found evaluate=False"),
        ("optimizer", "stage 'one': found the optimizer None, wanted one of Keras"),
        ("which", "unknown teacher.which 'bst'; did you mean 'best'"),
    ],
)
def test_wrong_experiments_are_refused_before_a_teacher_is_trained(
    change, message, contract, tmp_path, monkeypatch
):
    from tfkd import Requires, Stage, distillers

    changed = {
        "tap": Requires(taps={("student", "main"): ["blok2"], ("teacher", "main"): ["logits"]}),
        "key": Requires(batch_keys=("image_storng",)),
        "heldout": Requires(batch_keys=("heldout_image", "heldout_label")),
    }
    changed["column"] = Requires(batch_keys=("hiden",))
    columns = {"data": lambda distiller, dataset: dataset, "columns": ("hidden",)}
    stages = {
        "recipe": [Stage("only", recipe={"learning_rat": 1.0})],
        "batch_size": [Stage("only", recipe={"batch_size": 10})],
        "value": [Stage("only", recipe={"learning_rate": -1.0})],
        "column": [Stage("only", **columns)],
        "names": [Stage("one"), Stage("one")],
        "last": [Stage("one", evaluate=False)],
        "optimizer": [Stage("one", optimizer=lambda steps_per_epoch: None)],
    }
    if change in changed:
        monkeypatch.setattr(distillers.KD, "requires", changed[change])
    if change in stages:
        monkeypatch.setattr(distillers.KD, "stages", lambda self: stages[change])
    config = contract("exits", teacher__workdir=str(tmp_path / "teacher"))
    config.methods = configs.methods(kd={})
    if change == "which":
        config.teacher.which = "bst"
    with pytest.raises(TfkdError, match=message):
        run(config, tmp_path / "run", "one")
    assert list(tmp_path.iterdir()) == []


EARLIER = FIXTURES / "earlier_version"


@pytest.mark.parametrize("name", ["distilled", "adder", "user"])
def test_finished_runs_of_the_version_before_are_reported(name, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(EARLIER / name, tmp_path / "run")
    shutil.copy(FIXTURES / "user_networks.py", tmp_path)
    from tfkd.earlier_version import modernized

    plain = modernized(json.loads((tmp_path / "run" / "config.json").read_text()))
    config = configs.default()
    with config.unlocked():
        config.update(plain)
    found = run(config, tmp_path / "run", "one")
    assert found["top1_last"] == result(EARLIER / name)["top1_last"]
    assert "run is finished: top-1" in capsys.readouterr().out


def test_an_unfinished_run_of_the_version_before_is_refused(tmp_path):
    shutil.copytree(EARLIER / "distilled", tmp_path / "run")
    (tmp_path / "run" / "result.json").unlink()
    from tfkd.earlier_version import modernized

    plain = modernized(json.loads((tmp_path / "run" / "config.json").read_text()))
    config = configs.default()
    with config.unlocked():
        config.update(plain)
    with pytest.raises(TfkdError, match="holds an unfinished run of an earlier version, which"):
        run(config, tmp_path / "run", "one")
