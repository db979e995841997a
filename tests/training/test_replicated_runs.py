"""Runs on two replicas (two logical CPUs) end as those on one do."""

import csv

import keras
import numpy as np
import pytest

from tfkd import TfkdError, models
from tfkd.training import run
from tfkd.training.checkpoints import Checkpoints

# Without dropout: the replicas draw masks of their own.
PLAIN = {"student__kwargs": {}, "train__checkpoint_seconds": 0.0}


def weights(folder):
    return keras.models.load_model(folder / "student.keras", compile=False).get_weights()


def metrics(folder):
    with open(folder / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    stages = [row.pop("stage") for row in rows]
    assert set(stages) == {"train"}
    return [{key: float(value) for key, value in row.items()} for row in rows]


def assert_close(folder, other):
    for found, wanted in zip(weights(folder), weights(other), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5 * np.abs(wanted).max())
    for row, wanted in zip(metrics(folder), metrics(other), strict=True):
        assert row == pytest.approx(wanted, rel=2e-5)


@pytest.fixture(scope="module")
def one(experiment, tmp_path_factory):
    """A distilled run on one replica."""
    folder = tmp_path_factory.mktemp("one") / "run"
    run(experiment("distilled", **PLAIN), folder, "one")
    return folder


@pytest.mark.parametrize("steps_per_execution", [1, 3])
def test_two_replicas_equal_one(steps_per_execution, one, experiment, two_replicas, tmp_path):
    config = experiment("distilled", **PLAIN, train__steps_per_execution=steps_per_execution)
    result = run(config, tmp_path / "run", two_replicas)
    assert_close(tmp_path / "run", one)
    assert result["epochs"] == 2


def test_two_replicas_go_on_where_they_were_stopped(
    one, experiment, two_replicas, stopped, same_run, tmp_path
):
    config = experiment("distilled", **PLAIN, train__steps_per_execution=3)
    run(config, tmp_path / "whole", two_replicas)
    stopped(config, tmp_path / "run", 3, two_replicas)
    run(config, tmp_path / "run", two_replicas)
    same_run(tmp_path / "run", tmp_path / "whole")


def test_one_replica_continues_the_checkpoint_of_two(
    one, experiment, two_replicas, stopped, tmp_path
):
    config = experiment("distilled", **PLAIN)
    stopped(config, tmp_path / "run", 4, two_replicas)
    run(config, tmp_path / "run", "one")
    assert_close(tmp_path / "run", one)


def test_a_bank_is_the_same_on_two_replicas(experiment, two_replicas, tmp_path):
    # No noise: it would be drawn for each replica.
    fields = {**PLAIN, "train__epochs": 1}
    config = experiment("noisy", **fields)
    config.methods.noisy.noise = 0.0
    config.methods.noisy.dropout = 0.0
    banks = []
    for name, strategy in (("one", "one"), ("two", two_replicas)):
        run(config, tmp_path / name, strategy)
        arrays, _ = Checkpoints(tmp_path / name / "checkpoints").load()
        (bank,) = [value for value in arrays.values() if value.shape[:1] == (1077,)]
        banks.append(bank)
    np.testing.assert_allclose(banks[1], banks[0], rtol=1e-4, atol=1e-5)
    assert np.count_nonzero(banks[0].any(axis=1)) == 1000


def test_local_batch_normalization_runs_and_is_another_thing(
    one, experiment, two_replicas, tmp_path, monkeypatch
):
    made = []
    create = models.create

    def watched(*arguments, **keywords):
        made.append(create(*arguments, **keywords))
        return made[-1]

    monkeypatch.setattr(models, "create", watched)
    config = experiment("distilled", **PLAIN, train__sync_batch_norm=False)
    run(config, tmp_path / "run", two_replicas)
    layers = [layer for layer in made[-1].layers if isinstance(layer, models.BatchNormalization)]
    assert [layer.synchronized for layer in layers] == [False]
    differences = [
        np.abs(found - wanted).max()
        for found, wanted in zip(weights(tmp_path / "run"), weights(one), strict=True)
    ]
    assert max(differences) > 1e-4


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"train__batch_size": 201},
            "train.batch_size 201: cannot be shared by 2 replicas; wanted a multiple of 2",
        ),
        ({"train__jit_compile": True}, r"train.jit_compile \(XLA\) under 2 mirrored replica"),
    ],
)
def test_runs_that_replicas_cannot_share_are_refused(
    fields, message, experiment, two_replicas, tmp_path
):
    with pytest.raises(TfkdError, match=message):
        run(experiment(**fields), tmp_path / "run", two_replicas)
    assert list(tmp_path.iterdir()) == []
