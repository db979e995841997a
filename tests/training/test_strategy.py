"""Strategies by name, and what TF_CONFIG must hold."""

import json

import pytest
import tensorflow as tf

from tfkd import TfkdError
from tfkd.training import strategy as strategies


def test_one_is_no_strategy_at_all():
    assert strategies.create("one") is tf.distribute.get_strategy()
    assert strategies.create("one").num_replicas_in_sync == 1


def test_auto_is_one_without_several_devices(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    assert strategies.create("auto").num_replicas_in_sync == 1
    cluster = {"cluster": {"worker": ["localhost:1"]}, "task": {"type": "worker", "index": 0}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(cluster))
    assert strategies.create("auto").num_replicas_in_sync == 1


def test_mirrored_takes_the_logical_cpus_and_is_made_once():
    assert strategies.create("mirrored").num_replicas_in_sync == 2
    assert strategies.create("mirrored") is strategies.create("mirrored")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "strategy 'multi_worker': found no TF_CONFIG in the environment"),
        ("{", "TF_CONFIG is '{', wanted JSON with 'cluster' and 'task'"),
        ("[1]", "TF_CONFIG is .*wanted JSON"),
        ('{"task": {}}', "TF_CONFIG is .*wanted JSON"),
    ],
)
def test_a_wrong_cluster_is_named(text, message, monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    if text is not None:
        monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(TfkdError, match=message):
        strategies.create("multi_worker")


def test_an_unknown_name_is_refused():
    with pytest.raises(TfkdError, match="unknown strategy 'mirored'; did you mean 'mirrored'"):
        strategies.create("mirored")


def test_the_cpu_is_not_split_after_the_start():
    tf.constant(1.0)
    with pytest.raises(TfkdError, match="cpu_devices=3: TensorFlow has already started"):
        strategies.split_cpu(3)
    with pytest.raises(TfkdError, match="cpu_devices: found 0, wanted a number >= 1"):
        strategies.split_cpu(0)
    strategies.split_cpu(1)


def test_a_single_process_is_the_chief():
    assert strategies.is_chief(strategies.create("one"))
    assert strategies.is_chief(strategies.create("mirrored"))
