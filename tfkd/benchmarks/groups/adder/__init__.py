"""Adder layers beside convolutions of the same shape: speed, threads, memory, exactness."""

from __future__ import annotations

from collections.abc import Iterator

from tfkd.adder import compiled_ops
from tfkd.benchmarks.groups.adder import exactness, layers, memory, network, shapes, threads
from tfkd.benchmarks.measure import Experiment
from tfkd.errors import TfkdError


def experiments(tiny: bool) -> Iterator[Experiment]:
    """Yields the layers of an adder ResNet-20 one by one, threads, exactness, and the network.

    Raises:
        TfkdError: The op cannot be compiled here.
    """
    if compiled_ops.operations() is None:
        raise TfkdError("benchmark group 'adder': found no compiled adder op, wanted one")
    extra_memory = memory.extra_memory(tiny)
    for shape in shapes.all_shapes(tiny):
        yield layers.experiment(shape, extra_memory.get(str(shape), {}))
    if len(threads.processors()) > 1:
        for shape in shapes.shapes_for_threads(tiny):
            for batch_size in (shape.batch_size, 1):
                yield threads.experiment(shape, batch_size)
    yield exactness.experiment((18, 36) if tiny else (576, 1152, 2304, 4608))
    yield network.experiment(
        "resnet8" if tiny else "resnet20", 8 if tiny else 32, 2 if tiny else 64
    )
