"""The memory that one adder layer, or one convolution, needs besides its inputs and results."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import tensorflow as tf

from tfkd.benchmarks import memory
from tfkd.benchmarks.groups.adder import layers
from tfkd.benchmarks.groups.adder.shapes import all_shapes


def extra_memory(tiny: bool) -> dict[str, dict[str, float]]:
    """Returns the memory of each case of each shape in sizes of the input, by their names.

    Empty where the system does not tell (not Linux).
    """
    if not memory.is_told():
        return {}
    cases = [
        (number, name, passes, tiny)
        for number in range(len(all_shapes(tiny)))
        for name in layers.KINDS
        for passes in (layers.FORWARD, layers.BOTH)
    ]
    found: dict[str, dict[str, float]] = {}
    for (number, name, passes, _), ratio in zip(cases, memory.in_processes(of_layer, cases)):
        shape = all_shapes(tiny)[number]
        found.setdefault(str(shape), {})[f"{name}, {passes}"] = ratio
    return found


def of_layer(number: int, name: str, passes: str, tiny: bool) -> float:
    """Returns the memory of one layer in sizes of its input; for a process that does nothing else.

    Args:
        number: That of its shape.
        name: ``"conv2d"`` or ``"adder"``.
        passes: ``"forward"`` or ``"forward and backward"``.
        tiny: Whether the shapes are those of tests.
    """
    shape = all_shapes(tiny)[number]
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
    return memory.peak(run_on(shape.batch_size)) / size


def _any_batch(size: Sequence[int]) -> tf.TensorSpec:
    return tf.TensorSpec((None, *size), tf.float32)
