"""A student with AuxVar's Bayes head, beside the same one with its own linear layer."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import keras
import numpy as np
import tensorflow as tf

from tfkd import models
from tfkd.benchmarks import steps
from tfkd.benchmarks.measure import Case, Comparison, Experiment
from tfkd.benchmarks.networks import as_trained
from tfkd.distillers.auxvar import bayes_head

_CLASSES = 100
_SAME = 1.03


def experiments(tiny: bool) -> Iterator[Experiment]:
    """Yields the forward pass of both, for two students of the CIFAR-100 pairs."""
    for name in ("resnet8",) if tiny else ("resnet20", "resnet8x4"):
        shape, batch_size = ((8, 8, 3), 2) if tiny else ((32, 32, 3), 64)
        student = models.Network(as_trained(name, _CLASSES, shape), steps.PREPROCESS)
        width = models.tap_shapes(student.model, ["pooled"])["pooled"][0]
        kernel = np.random.default_rng(0).normal(size=(width, _CLASSES))
        other = bayes_head.with_kernel(student, "pooled", kernel)
        images = tf.random.stateless_normal((batch_size, *shape), (0, 0))
        yield Experiment(
            f"{name}, forward pass",
            f"call on {batch_size} images",
            [
                Case("linear", _call(student.model, images)),
                Case("bayes", _call(other.model, images)),
            ],
            [Comparison("bayes", ("linear",), _SAME, facts=_sizes(student.model, other.model))],
        )


def _call(model: keras.Model, images: tf.Tensor) -> Callable[[], object]:
    run = tf.function(lambda pixels: model(pixels, training=False))
    run(images)
    return lambda: run(images).numpy()


def _sizes(student: keras.Model, other: keras.Model) -> dict[str, object]:
    """Returns what the two have more or less than each other, in parameters and MACs."""
    costs = models.cost(student), models.cost(other)
    return {
        "more parameters": costs[1].params - costs[0].params,
        "more MACs": costs[1].macs - costs[0].macs,
    }
