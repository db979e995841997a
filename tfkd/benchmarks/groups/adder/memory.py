"""The memory that one layer needs besides its inputs and results, as the system counts it (Linux).

Each case is measured in a process of its own, at its first run on a whole batch, as TensorFlow may
keep the memory of a run for the next one.
"""

from __future__ import annotations

import concurrent.futures
import ctypes
import gc
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence

import tensorflow as tf

from tfkd.benchmarks.groups.adder import layers
from tfkd.benchmarks.groups.adder.shapes import Shape, all_shapes


def extra_memory(tiny: bool) -> dict[str, dict[str, float]]:
    """Returns the memory of each case of each shape in sizes of the input, by their names.

    Empty where the system does not tell (not Linux).
    """
    if not os.path.exists("/proc/self/clear_refs"):
        return {}
    environment = {
        **os.environ,
        # Freed memory goes back to the system at once (glibc).
        "MALLOC_MMAP_THRESHOLD_": "32768",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }

    def measured(shape: Shape, name: str, passes: str) -> float:
        arguments = all_shapes(tiny).index(shape), name, passes, tiny
        code = f"from {__name__} import print_extra_memory as show; show{arguments}"
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=environment,
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        )
        return json.loads(done.stdout.splitlines()[-1])

    cases = [
        (shape, name, passes)
        for shape in all_shapes(tiny)
        for name in layers.KINDS
        for passes in (layers.FORWARD, layers.BOTH)
    ]
    found: dict[str, dict[str, float]] = {}
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for (shape, name, passes), ratio in zip(
            cases, pool.map(lambda case: measured(*case), cases)
        ):
            found.setdefault(str(shape), {})[f"{name}, {passes}"] = ratio
    return found


def print_extra_memory(position: int, name: str, passes: str, tiny: bool) -> None:
    """Prints the memory of one layer in sizes of its input.

    Args:
        position: The number of its shape.
        name: ``"conv2d"`` or ``"adder"``.
        passes: ``"forward"`` or ``"forward and backward"``.
        tiny: Whether the shapes are those of tests.
    """
    shape = all_shapes(tiny)[position]
    layer = [layers.KINDS[name](shape)]
    image = _any_batch((shape.size, shape.size, shape.channels))
    forward = tf.function(layers.forward(layer), input_signature=[image])
    results = [_any_batch(each.shape[1:]) for each in forward.get_concrete_function().outputs]
    both = tf.function(layers.both(layer), input_signature=[image, results])

    def run_on(batch_size: int) -> Callable[[], object]:
        # Ones are made in place: the leftovers of a computation would hide what a run needs.
        images, *upstream = (tf.ones((batch_size, *each.shape[1:])) for each in (image, *results))
        run_forward = passes == layers.FORWARD
        return lambda: forward(images) if run_forward else both(images, upstream)

    # One image first: it makes everything that does not grow with the batch.
    run_on(1)()
    size = shape.batch_size * shape.size**2 * shape.channels * tf.float32.size
    print(json.dumps(_peak_memory(run_on(shape.batch_size)) / size))


def _any_batch(size: Sequence[int]) -> tf.TensorSpec:
    return tf.TensorSpec((None, *size), tf.float32)


def _peak_memory(work: Callable[[], object]) -> int:
    """Returns the most bytes that a piece of work holds, besides its results."""
    gc.collect()
    if hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)  # Memory that is free already would hide what the work needs.
    with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
        file.write("5")  # Resets the peak to the memory held now.
    before = _held("VmRSS")
    results = work()
    return max(0, _held("VmHWM") - before - _bytes(results))


def _held(name: str) -> int:
    """Returns the memory of this process as the system counts it, in bytes."""
    with open("/proc/self/status", encoding="ascii") as file:
        found = [line.split() for line in file if line.startswith(f"{name}:")]
    return 1024 * int(found[0][1])


def _bytes(tensors) -> int:
    return sum(each.shape.num_elements() * each.dtype.size for each in tf.nest.flatten(tensors))
