"""Forward and backward pass of the networks, beside their plainest Keras version."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import keras
import tensorflow as tf

from tfkd import models
from tfkd.benchmarks import plain_networks
from tfkd.benchmarks.measure import Case, Comparison, Experiment

_CLASSES = 100
_TAPS = ("stage1", "stage2", "stage3", "pre_pool", "pooled", "logits")


def experiments(tiny: bool) -> Iterator[Experiment]:
    """Yields one comparison for each network: in Keras alone, tfkd's, and tapped but unused."""
    shape, batch_size = ((8, 8, 3), 4) if tiny else ((32, 32, 3), 64)
    depth, width = (8, 1) if tiny else (20, 2)
    for name, plain in (
        (f"resnet{depth}", plain_networks.resnet(depth, _CLASSES, shape)),
        (f"wrn_16_{width}", plain_networks.wrn(16, width, _CLASSES, shape)),
    ):
        model = models.create(name, _CLASSES, shape)
        tapped = models.tapped(model, _TAPS)
        images = tf.random.stateless_normal((batch_size, *shape), (0, 1))
        labels = tf.random.stateless_uniform((batch_size,), (0, 2), 0, _CLASSES, tf.int32)
        yield Experiment(
            f"{name}, forward and backward",
            f"batch of {batch_size} images",
            [
                Case("plain Keras", _gradients(plain, images, labels)),
                Case("tfkd", _gradients(model, images, labels)),
                Case("tfkd, taps unused", _gradients(tapped, images, labels)),
            ],
            [
                Comparison("tfkd", ("plain Keras",), 1.02),
                Comparison("tfkd, taps unused", ("plain Keras",), 1.02),
                Comparison("tfkd, taps unused", ("tfkd",), 1.02, name="cost of unused taps"),
            ],
        )


def _gradients(model: keras.Model, images: tf.Tensor, labels: tf.Tensor) -> Callable[[], object]:
    """Returns a compiled function that forms the loss and its gradient on one batch."""

    @tf.function
    def compute():
        with tf.GradientTape() as tape:
            outputs = model(images, training=True)
            logits = outputs["logits"] if isinstance(outputs, dict) else outputs
            loss = tf.reduce_mean(
                tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
            )
        return loss, tape.gradient(loss, model.trainable_variables)

    return compute
