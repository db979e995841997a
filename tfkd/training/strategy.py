"""Which devices train together."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf

from tfkd import interruption
from tfkd.core.step.replicas import mirrors
from tfkd.errors import TfkdError, reason, unknown
from tfkd.training import clusters

NAMES = ("auto", "one", "mirrored", "multi_worker")

MOST_CPU_DEVICES = 256
"""Each of them has threads and memory of its own."""

WORKER_IS_GONE = (tf.errors.UnavailableError, tf.errors.AbortedError)
"""What an operation over workers raises when one of them is gone."""


def create(name: str = "auto") -> tf.distribute.Strategy:
    """Returns a distribution strategy.

    Args:
        name: ``one``: a single device. ``mirrored``: all GPUs of this machine, or all logical CPUs
            where there is no GPU. ``multi_worker``: the cluster of the environment variable
            ``TF_CONFIG``. ``auto``: ``multi_worker`` where ``TF_CONFIG`` names several workers,
            ``mirrored`` where there are several GPUs, else ``one``.

    Raises:
        TfkdError: For an unknown name, ``multi_worker`` without a readable ``TF_CONFIG``, or a
            worker that does not come.
    """
    if name not in NAMES:
        raise unknown("strategy", name, NAMES)
    if name == "auto":
        cluster = clusters.read()
        several = len(tf.config.list_physical_devices("GPU")) > 1
        name = "mirrored" if several else "one"
        if cluster is not None and len(cluster.addresses) > 1:
            name = "multi_worker"
    if name == "one":
        return tf.distribute.get_strategy()
    if name == "mirrored":
        devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
        return _mirrored(tuple(device.name for device in devices))
    if clusters.read() is None:
        raise TfkdError(
            "strategy 'multi_worker': found no TF_CONFIG in the environment, or an empty one, "
            "wanted the cluster and the task of this worker as JSON"
        )
    return _multi_worker()


@functools.cache
def _mirrored(devices: tuple[str, ...]) -> tf.distribute.Strategy:
    # Strategies of one process share their collective keys and spoil each other's: one is enough.
    return tf.distribute.MirroredStrategy(devices)


@functools.cache
def _multi_worker() -> tf.distribute.Strategy:
    cluster = clusters.read()
    clusters.bound_wait(cluster)
    try:
        made = tf.distribute.MultiWorkerMirroredStrategy()
        interruption.renew()
        return made
    except RuntimeError as error:
        raise TfkdError(
            f"strategy 'multi_worker': found TensorFlow in use already ({reason(error)}), wanted "
            "it first"
        ) from None
    except tf.errors.DeadlineExceededError:
        raise clusters.missing(cluster.addresses[0]) from None
    except (tf.errors.OpError, ValueError) as error:
        raise TfkdError(
            f"strategy 'multi_worker': found a cluster that does not start ({reason(error)}), "
            f"wanted {cluster.own} free for this worker"
        ) from None


def check(strategy: tf.distribute.Strategy, batch_size: int, jit_compile: bool) -> None:
    """Checks what several replicas cannot do, before anything is made for them.

    Args:
        strategy: The strategy.
        batch_size: Images of one step over all replicas.
        jit_compile: Whether XLA is asked for.

    Raises:
        TfkdError: When they cannot share the batch evenly, or use XLA.
    """
    replicas = strategy.num_replicas_in_sync
    if batch_size % replicas:
        raise TfkdError(
            f"train.batch_size {batch_size}: cannot be shared by {replicas} replicas; wanted a "
            f"multiple of {replicas}"
        )
    if jit_compile and mirrors(strategy):
        raise TfkdError(
            f"train.jit_compile (XLA) under {replicas} mirrored replica(s): cannot reach mirrored "
            "variables; wanted --strategy=one or train.jit_compile=False"
        )


def split_cpu(devices: int) -> None:
    """Makes several logical devices of the CPU, to try replicas on a machine without GPUs.

    Args:
        devices: Their number; 1 leaves the CPU as it is.

    Raises:
        TfkdError: When TensorFlow has already started, or the number is not positive.
    """
    if not 1 <= devices <= MOST_CPU_DEVICES:
        raise TfkdError(
            f"cpu_devices: found {devices}, wanted a number from 1 to {MOST_CPU_DEVICES}"
        )
    if devices == 1:
        return
    cpu = tf.config.list_physical_devices("CPU")[0]
    try:
        tf.config.set_logical_device_configuration(
            cpu, [tf.config.LogicalDeviceConfiguration()] * devices
        )
    except RuntimeError as error:
        raise TfkdError(
            f"cpu_devices={devices}: TensorFlow has already started ({error})"
        ) from None


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Returns whether this process writes the files of the run."""
    resolver = strategy.cluster_resolver
    if resolver is None or not resolver.task_type:
        return True
    return resolver.task_type == "chief" or (
        resolver.task_type == "worker"
        and resolver.task_id == 0
        and "chief" not in resolver.cluster_spec().as_dict()
    )


def is_single(strategy: tf.distribute.Strategy) -> bool:
    """Returns whether this process trains alone, on however many devices."""
    return strategy.cluster_resolver is None


def any_worker(strategy: tf.distribute.Strategy, value: bool) -> bool:
    """Returns whether a value holds on some worker; every worker has to ask."""
    return _sum_over_workers(strategy, int(value)) > 0


def wait_for_all(strategy: tf.distribute.Strategy) -> None:
    """Lets every worker reach this point, so that files of the chief are there for all."""
    _sum_over_workers(strategy, 0)


def part(strategy: tf.distribute.Strategy, is_done: Callable[[], bool]) -> None:
    """Lets every worker reach the end of a run.

    The first that comes through may end its process before the others have heard that it came:
    where the run is done all the same, they end well, too.

    Args:
        strategy: The strategy.
        is_done: Tells whether all that was to be done is done.

    Raises:
        tf.errors.OpError: When a worker is gone and the run is not done.
    """
    try:
        wait_for_all(strategy)
    except WORKER_IS_GONE:
        if not is_done():
            raise


def check_agreed(strategy: tf.distribute.Strategy, step: int, folder: Path) -> None:
    """Checks that all workers continue from the same step.

    Args:
        strategy: The strategy.
        step: The step of this worker.
        folder: The run folder, for the message.

    Raises:
        TfkdError: When they do not, because the folder is not the same one for all.
    """
    total = _sum_over_workers(strategy, step)
    if total != step * strategy.num_replicas_in_sync:
        raise TfkdError(
            f"workdir {str(folder)!r}: this worker found step {step} there and others another one; "
            "wanted one folder that all workers share"
        )


def differing(strategy: tf.distribute.Strategy, found: Mapping[str, Any]) -> list[str]:
    """Returns the keys whose values are not the same on all workers; the same keys on each of them.

    Args:
        strategy: The strategy; every worker has to ask.
        found: What this worker found, of the kind that JSON can hold.
    """
    keys = []
    for key, value in found.items():
        plain = json.dumps(value, sort_keys=True)
        # Small enough for the sum over any number of workers.
        number = int(hashlib.sha256(plain.encode()).hexdigest()[:12], 16)
        mine = number * strategy.num_replicas_in_sync
        # Where not all are equal, one of them at least is not equal to their mean.
        if any_worker(strategy, _sum_over_workers(strategy, number) != mine):
            keys.append(key)
    return keys


def sums(strategy: tf.distribute.Strategy, numbers: Sequence[int]) -> list[int]:
    """Returns the sum of each number over all replicas of all workers; waits for every worker."""
    if is_single(strategy):
        return [number * strategy.num_replicas_in_sync for number in numbers]
    found = _summing(strategy)(tf.constant(list(map(int, numbers)), tf.int64))
    return [int(each) for each in found]


def _sum_over_workers(strategy: tf.distribute.Strategy, number: int) -> int:
    return sums(strategy, [number])[0]


@functools.cache
def _summing(strategy: tf.distribute.Strategy):
    """Returns the compiled sum of numbers over all replicas."""

    @tf.function
    def total(numbers: tf.Tensor) -> tf.Tensor:
        values = strategy.run(tf.identity, args=(numbers,))
        return strategy.reduce(tf.distribute.ReduceOp.SUM, values, axis=None)

    return total
