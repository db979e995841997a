"""The forward pass, and both passes, of adder layers and of TensorFlow's convolutions.

Convolutions are TensorFlow's, as this installation runs them, with "SAME" zeros where those are the
same, which it runs fastest. The backward pass has both gradients, that of the filters normalized as
in training.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence

import tensorflow as tf

from tfkd.adder import AdderConv2D, compiled_ops
from tfkd.benchmarks.groups.adder.shapes import Shape, normal
from tfkd.benchmarks.measure import Case, Comparison, Experiment

FORWARD, BOTH = "forward", "forward and backward"
_EXTRA_MEMORY = 2.0
# Layers of one call: the fixed cost of a call is small beside them, as it is in a network.
_LAYERS = 8

Layer = tuple[Callable[[tf.Tensor], tf.Tensor], tf.Variable]
"""A function from images to outputs, and its filters."""


def experiment(shape: Shape, extra_memory: Mapping[str, float]) -> Experiment:
    """Several adder layers of one shape, side by side in a call, beside as many convolutions.

    A goal holds only if the layer needs at most twice its input in memory, besides inputs and
    results.

    Args:
        shape: The shape of all layers.
        extra_memory: The memory of each case in sizes of the input, as far as it is known.
    """
    works = _works(shape)
    comparisons = []
    for passes, goal, count in ((FORWARD, 1.0, 1), (BOTH, 1.5, 3)):
        adder, convolution = f"adder, {passes}", f"conv2d, {passes}"
        extra = {
            f"extra memory / input{words}": extra_memory.get(case, math.nan)
            for words, case in (("", adder), (" of conv2d", convolution))
        }
        facts = {
            "instructions": compiled_ops.instructions(),
            "multiply-adds": _LAYERS * count * shape.multiply_adds,
            **extra,
        }
        sound = not extra["extra memory / input"] > _EXTRA_MEMORY
        comparisons.append(Comparison(adder, (convolution,), goal, facts=facts, sound=sound))
    return Experiment(
        str(shape),
        f"{_LAYERS} layers, batch of {shape.batch_size} images",
        [Case(name, work) for name, work in works.items()],
        comparisons,
    )


def _works(shape: Shape) -> dict[str, Callable[[], object]]:
    images = shape.images(shape.batch_size)
    works = {}
    for name, make in KINDS.items():
        layers = [make(shape) for _ in range(_LAYERS)]
        run_forward, run_both = tf.function(forward(layers)), tf.function(both(layers))
        upstream = [normal(*outputs.shape) for outputs in run_forward(images)]
        works[f"{name}, {FORWARD}"] = functools.partial(run_forward, images)
        works[f"{name}, {BOTH}"] = functools.partial(run_both, images, upstream)
    return works


def _convolution(shape: Shape) -> Layer:
    """TensorFlow's convolution with the same zeros around the images."""
    pad = shape.kernel // 2
    same = shape.stride == 1 or not pad
    padding = "SAME" if same else [[0, 0], [pad, pad], [pad, pad], [0, 0]]
    filters = tf.Variable(shape.random_filters())
    return lambda images: tf.nn.conv2d(images, filters, shape.stride, padding), filters


def _adder(shape: Shape) -> Layer:
    layer = AdderConv2D(shape.filters, shape.kernel, strides=shape.stride)
    layer.build((None, shape.size, shape.size, shape.channels))
    return layer, layer.kernel.value


KINDS: Mapping[str, Callable[[Shape], Layer]] = {"conv2d": _convolution, "adder": _adder}


def forward(layers: Sequence[Layer]) -> Callable[[tf.Tensor], list[tf.Tensor]]:
    """Returns a function that computes the outputs of all layers for the same images."""
    return lambda images: [layer(images) for layer, _ in layers]


def both(layers: Sequence[Layer]) -> Callable[[tf.Tensor, Sequence[tf.Tensor]], object]:
    """Returns a function that computes the outputs and both gradients of each layer by itself."""

    def compute(images, upstream):
        found = []
        for (layer, filters), direction in zip(layers, upstream, strict=True):
            with tf.GradientTape() as tape:
                tape.watch(images)
                outputs = layer(images)
            found.append((outputs, tape.gradient(outputs, (images, filters), direction)))
        return found

    return compute
