"""The memory that a piece of work needs besides what is held already, as Linux counts it.

Each case is measured in a process of its own, at its first run of full size, as TensorFlow may keep
the memory of a run for the next one.
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


def is_told() -> bool:
    """Returns whether the system tells how much memory a process held at most."""
    return os.path.exists("/proc/self/clear_refs")


def in_processes(function: Callable[..., float], cases: Sequence[tuple]) -> list[float]:
    """Returns what a function gives for each case, called in a process of its own.

    Args:
        function: One that stands in a module.
        cases: Its arguments: tuples of words, numbers and truth values.
    """
    environment = {
        **os.environ,
        # Freed memory goes back to the system at once (glibc).
        "MALLOC_MMAP_THRESHOLD_": "32768",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }

    def call(arguments: tuple) -> float:
        code = (
            f"import json; from {function.__module__} import {function.__name__} as call; "
            f"print(json.dumps(call(*{arguments!r})))"
        )
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=environment,
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        )
        return json.loads(done.stdout.splitlines()[-1])

    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(call, cases))


def peak(work: Callable[[], object]) -> int:
    """Returns the most bytes that a piece of work holds, besides its results.

    Args:
        work: Does it once, and returns tensors. What does not grow with the size of the work (a
            graph, the slots of an optimizer) has to be there already, after a run of small size.
    """
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
