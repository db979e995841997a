"""Training steps as cases: one random batch in memory, and a function that runs one step on it."""

from __future__ import annotations

from collections.abc import Callable, Collection

import keras
import numpy as np
import tensorflow as tf

from tfkd import core, models
from tfkd.core.objective import VIEW_KEYS, VIEW_ROWS

PREPROCESS = models.Preprocess((129.3, 124.1, 112.4), (68.2, 65.4, 70.4))
PREPROCESS_GREY = models.Preprocess((77.9,), (95.9,))


class Batch:
    """One random batch, repeated for ever: as pixels for tfkd, normalized for Keras.

    Args:
        shape: Height, width and channels of an image.
        batch_size: Number of images.
        classes: Number of classes.
        keys: What else the batch holds: ``index``, and images of further views.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        batch_size: int,
        classes: int,
        keys: Collection[str] = (),
    ) -> None:
        generator = np.random.default_rng(0)
        pixels = generator.integers(0, 256, (batch_size, *shape), np.uint8)
        labels = generator.integers(0, classes, batch_size, np.int32)
        extras = {
            key: generator.integers(0, 256, (VIEW_ROWS.get(view, 1) * batch_size, *shape), np.uint8)
            for view, key in VIEW_KEYS.items()
            if key in keys
        }
        if "index" in keys:
            extras["index"] = np.arange(batch_size, dtype=np.int32)
        self.classes = classes
        self.images = PREPROCESS(pixels)
        batch = {"image": pixels, "label": labels, **extras}
        self.pixels = tf.data.Dataset.from_tensors(batch).repeat()
        self.normalized = tf.data.Dataset.from_tensors((self.images, labels)).repeat()


def sgd() -> keras.optimizers.Optimizer:
    """Returns the optimizer of all steps; with its small rate, many on one batch stay finite."""
    return keras.optimizers.SGD(1e-3, momentum=0.9)


def distiller(teacher, student, losses, weights=0.9, label_weight=0.1, **settings):
    """Returns a compiled distiller; arguments as those of `tfkd.Distiller`."""
    made = core.Distiller(teacher, student, losses, weights, label_weight, **settings)
    made.compile(sgd())
    return made


def step(model: keras.Model, batches: tf.data.Dataset) -> Callable[[], object]:
    """Returns a function that runs one step of a compiled model, as `fit` does."""
    model.fit(batches, steps_per_epoch=1, verbose=0)
    train, iterator = model.make_train_function(), iter(batches)
    return lambda: train(iterator)
