"""Strategies by name, and what TF_CONFIG must hold."""

import concurrent.futures
import json
import threading
import types

import pytest
import tensorflow as tf

from tfkd import TfkdError
from tfkd.training import clusters
from tfkd.training import strategy as strategies


def worker(index):
    return {"type": "worker", "index": index}


def cluster(task=None, **jobs):
    """Returns TF_CONFIG of some jobs, by default of two workers."""
    jobs = jobs or {"worker": ["localhost:1", "localhost:2"]}
    return json.dumps({"cluster": jobs, "task": worker(0) if task is None else task})


def test_one_is_no_strategy_at_all():
    assert strategies.create("one") is tf.distribute.get_strategy()
    assert strategies.create("one").num_replicas_in_sync == 1


def test_auto_is_one_without_several_devices(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    assert strategies.create("auto").num_replicas_in_sync == 1
    monkeypatch.setenv("TF_CONFIG", cluster(worker=["localhost:1"]))
    assert strategies.create("auto").num_replicas_in_sync == 1


def test_mirrored_takes_the_logical_cpus_and_is_made_once():
    assert strategies.create("mirrored").num_replicas_in_sync == 2
    assert strategies.create("mirrored") is strategies.create("mirrored")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "strategy 'multi_worker': found no TF_CONFIG in the environment"),
        ("{", "TF_CONFIG: found '{', wanted JSON such as"),
        ("[1]", r"TF_CONFIG: found \[1\], wanted JSON such as"),
        ('{"task": {}}', "TF_CONFIG: cluster: found None, wanted JSON such as"),
        (cluster(worker=None), "cluster.worker: found None, wanted a list of 'host:port'"),
        (cluster(worker="a:1"), "cluster.worker: found 'a:1', wanted a list of 'host:port'"),
        (cluster(worker={"0": "a:1"}), "cluster.worker: found {.*, wanted a list of 'host:port'"),
        (cluster(worker=[]), r"cluster.worker: found \[\], wanted a list of 'host:port'"),
        (cluster(worker=["a"]), "cluster.worker: found 'a', wanted 'host:port' with a port below"),
        (cluster(worker=["a:70000"]), "cluster.worker: found 'a:70000', wanted 'host:port'"),
        (cluster(worker=[5]), "cluster.worker: found 5, wanted 'host:port'"),
        (cluster(worker=["a:1", "a:1"]), "cluster: found a:1 twice, wanted an address of its own"),
        (cluster(chief=["a:1", "b:1"]), "cluster.chief: found 2 tasks, wanted one"),
        (cluster(ps=["a:1"]), "cluster: found the jobs ps, wanted chief and worker"),
        ('{"cluster": {}, "task": {}}', "cluster: found the jobs none, wanted chief and worker"),
        ('{"cluster": {"worker": ["a:1"]}}', "TF_CONFIG: task: found None, wanted JSON such as"),
        (cluster(task=3), "TF_CONFIG: task: found 3, wanted JSON such as"),
        (cluster(task={"index": 0}), "task.type: found None, wanted 'worker'"),
        (cluster(task={"type": "chief", "index": 0}), "task.type: found 'chief', wanted 'worker'"),
        (cluster(task={"type": "worker"}), "task.index: found None, wanted a whole number from"),
        (cluster(task={"type": ["worker"]}), r"task.type: found \['worker'\], wanted 'worker'"),
        (cluster(task={"type": {}, "index": 0}), "task.type: found {}, wanted 'worker'"),
        (cluster(worker=["a..b:1"]), "cluster.worker: found 'a..b:1', wanted the name of a host"),
        (cluster(worker=["a" * 64 + ":1"]), "cluster.worker: found 'aaa.*, wanted the name of a"),
        (cluster(worker=["[::1.]..:1"]), r"cluster.worker: found '\[::1.]..:1', wanted"),
        (cluster(worker=["a\0:1"]), "cluster.worker: found 'a.x00:1', wanted 'host:port'"),
        (cluster(worker=["a:" + "9" * 5000]), "cluster.worker: found 'a:999.*, wanted 'host:port'"),
        (cluster(task=worker("9" * 5000)), "task.index: found '999.*, wanted a whole number"),
        ("[" * 100_000, r"TF_CONFIG: found '\[\[.*, wanted JSON such as"),
        (cluster(task=worker(2)), "task.index: found 2, wanted a whole number from 0 to 1"),
        (cluster(task=worker(-1)), "task.index: found -1, wanted a whole number from 0 to 1"),
        (cluster(task=worker("one")), "task.index: found 'one', wanted a whole number from 0"),
        (cluster(task=worker(True)), "task.index: found True, wanted a whole number from 0 to 1"),
        (cluster(task=worker(0.5)), "task.index: found 0.5, wanted a whole number from 0 to 1"),
    ],
)
def test_a_wrong_cluster_is_named(text, message, monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    if text is not None:
        monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(TfkdError, match=message) as told:
        strategies.create("multi_worker")
    assert "\n" not in str(told.value)
    if text is not None:
        with pytest.raises(TfkdError, match=message):
            strategies.create("auto")


def test_a_cluster_is_read(monkeypatch):
    tasks = {"worker": ["b:2", "[::1]:3"], "chief": ["a:1"]}
    monkeypatch.setenv("TF_CONFIG", cluster(**tasks, task=worker("1")))
    found = clusters.read()
    assert found == clusters.Cluster(
        {"chief": 1, "worker": 2}, ("a:1", "b:2", "[::1]:3"), "[::1]:3"
    )
    monkeypatch.setenv("TF_CONFIG", "  ")
    assert clusters.read() is None


def test_an_empty_one_is_no_cluster_as_it_is_to_tensorflow(monkeypatch):
    monkeypatch.setenv("TF_CONFIG", "{}")
    assert strategies.create("auto").num_replicas_in_sync == 1
    with pytest.raises(TfkdError, match="no TF_CONFIG in the environment, or an empty one, wanted"):
        strategies.create("multi_worker")


def test_a_wrong_time_to_wait_is_named(monkeypatch):
    for text in ("soon", "0", "-3", "nan", "inf"):
        monkeypatch.setenv("TFKD_WORKER_SECONDS", text)
        with pytest.raises(TfkdError, match=f"TFKD_WORKER_SECONDS: found '{text}', wanted a num"):
            clusters.wait_seconds()
    monkeypatch.delenv("TFKD_WORKER_SECONDS")
    assert clusters.wait_seconds() == 600.0


def test_who_is_done_may_be_the_last(monkeypatch):
    strategy = strategies.create("one")
    strategies.part(strategy, lambda: False)

    def gone(*_):
        raise tf.errors.UnavailableError(None, None, "Socket closed")

    monkeypatch.setattr(strategies, "wait_for_all", gone)
    strategies.part(strategy, lambda: True)
    with pytest.raises(tf.errors.UnavailableError):
        strategies.part(strategy, lambda: False)


def test_what_differs_between_workers_is_known_to_each_of_them(monkeypatch):
    """To those as well that hold the same as another one."""
    found = {"equal": [3, 3, 3], "all": [1, 2, 3], "one": ["a", "b", "a"]}
    strategy = types.SimpleNamespace(num_replicas_in_sync=3)
    meeting, sums = threading.Barrier(3), []

    def total(_, number):
        if meeting.wait() == 0:
            sums.clear()
        meeting.wait()
        sums.append(number)
        meeting.wait()
        return sum(sums)

    monkeypatch.setattr(strategies, "_sum_over_workers", total)
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        told = [
            pool.submit(strategies.differing, strategy, {key: found[key][at] for key in found})
            for at in range(3)
        ]
        assert [each.result() for each in told] == [["all", "one"]] * 3


def test_an_unknown_name_is_refused():
    with pytest.raises(TfkdError, match="unknown strategy 'mirored'; did you mean 'mirrored'"):
        strategies.create("mirored")


def test_the_cpu_is_not_split_after_the_start():
    tf.constant(1.0)
    with pytest.raises(TfkdError, match="cpu_devices=3: TensorFlow has already started"):
        strategies.split_cpu(3)
    with pytest.raises(TfkdError, match="cpu_devices: found 0, wanted a number from 1 to 256"):
        strategies.split_cpu(0)
    strategies.split_cpu(1)


def test_a_single_process_is_the_chief():
    assert strategies.is_chief(strategies.create("one"))
    assert strategies.is_chief(strategies.create("mirrored"))
