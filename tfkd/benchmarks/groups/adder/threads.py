"""The compiled ops with all threads of the process on one processor, then on two."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Sequence

import tensorflow as tf

from tfkd.adder import compiled_ops
from tfkd.benchmarks.groups.adder.shapes import Shape
from tfkd.benchmarks.measure import Case, Comparison, Experiment

_SCALING = 1.8
# Layers of one call: its fixed cost, which threads do not share, is small beside so many.
_LAYERS = 32


def experiment(shape: Shape, batch_size: int) -> Experiment:
    """Layers of one shape in turn, so that only the threads within an op share its work.

    TensorFlow's convolution shows the speedup that the machine allows.
    """
    images = shape.images(batch_size)
    filters = [shape.random_filters() for _ in range(_LAYERS)]
    operations, pad = compiled_ops.operations(), shape.kernel // 2
    settings = {"strides": [shape.stride] * 2, "padding": [pad] * 4}

    def one_by_one(layer):
        made: list[tf.Tensor] = []
        for each in filters:
            with tf.control_dependencies(made[-1:]):
                made.append(layer(each))
        return made

    @tf.function
    def forward():
        return one_by_one(
            lambda each: operations.tfkd_adder_conv2d(x=images, filter=each, **settings)
        )

    upstream = forward()[0]

    @tf.function
    def input_gradient():
        return one_by_one(
            lambda each: operations.tfkd_adder_conv2d_input_grad(
                x=images, filter=each, gradient=upstream, **settings
            )
        )

    @tf.function
    def convolution():
        return one_by_one(lambda each: tf.nn.conv2d(images, each, shape.stride, "SAME"))

    usable = processors()
    works = {"forward": forward, "input gradient": input_gradient, "conv2d, forward": convolution}
    cases, comparisons = [], []
    for name, work in works.items():
        for count, words in ((1, "one processor"), (2, "two processors")):
            prepare = functools.partial(_move, usable[:count], work)
            cases.append(Case(f"{name}, {words}", work, prepare))
        # One image alone may be too little work to be shared.
        goal = _SCALING if batch_size > 1 and work is not convolution else None
        comparisons.append(
            Comparison(f"{name}, two processors", (f"{name}, one processor",), goal, True)
        )
    return Experiment(
        f"threads, {shape}",
        f"{_LAYERS} layers, batch of {batch_size} images",
        cases,
        comparisons,
        lambda: _keep_to(usable),
    )


def processors() -> list[int]:
    """Returns the processors that this process may use; none where the system does not tell."""
    if not hasattr(os, "sched_getaffinity"):
        return []
    return sorted(os.sched_getaffinity(0))


def _move(processors: Sequence[int], work: Callable[[], object]) -> None:
    """Moves all threads to these processors; they arrive during a run."""
    _keep_to(processors)
    work()


def _keep_to(processors: Sequence[int]) -> None:
    """Lets all threads of this process run on these processors only."""
    for thread in os.listdir("/proc/self/task"):
        with contextlib.suppress(ProcessLookupError):  # The thread ended meanwhile.
            os.sched_setaffinity(int(thread), processors)
