"""The training step of an adder network beside that of its convolutional counterpart."""

from __future__ import annotations

import keras
import tensorflow as tf

from tfkd import models
from tfkd.benchmarks import steps
from tfkd.benchmarks.groups.adder.shapes import normal
from tfkd.benchmarks.measure import Case, Comparison, Experiment

_STEP = 1.5


def experiment(name: str, size: int, batch_size: int) -> Experiment:
    """Training steps of two networks of the same graph.

    Args:
        name: A name of ``tfkd.models``.
        size: Height and width of an image.
        batch_size: Number of images.
    """
    images = normal(batch_size, size, size, 3)
    labels = tf.random.stateless_uniform((batch_size,), (0, 2), 0, 100, tf.int32)
    cases = []
    for words, settings in (
        ("convolutions", {"logit_normalization": True}),
        ("adder layers", {"adder": True}),
    ):
        model = models.create(name, 100, (size, size, 3), **settings)
        model.compile(steps.sgd(), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        batches = tf.data.Dataset.from_tensors((images, labels)).repeat()
        cases.append(Case(words, steps.step(model, batches)))
    return Experiment(
        f"{name}, training",
        f"step of {batch_size} images",
        cases,
        [Comparison("adder layers", ("convolutions",), _STEP)],
    )
