"""Training steps as cases: one random batch in memory, and a function that runs one step on it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import keras
import numpy as np
import tensorflow as tf

from tfkd import core, models
from tfkd.core.divergences import as_float
from tfkd.core.objective import VIEW_KEYS, VIEW_ROWS

PREPROCESS = models.Preprocess((129.3, 124.1, 112.4), (68.2, 65.4, 70.4))
PREPROCESS_GREY = models.Preprocess((77.9,), (95.9,))


class Batch:
    """One random batch, repeated for ever: as pixels for tfkd, normalized for Keras.

    Args:
        shape: Height, width and channels of an image.
        batch_size: Number of images.
        classes: Number of classes.
        keys: What else the batch holds: ``index``, images of further views, and ``heldout_image``
            with ``heldout_label``, as many as there are images.
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
        if "heldout_image" in keys:
            extras["heldout_image"] = generator.integers(0, 256, pixels.shape, np.uint8)
            extras["heldout_label"] = generator.integers(0, classes, batch_size, np.int32)
        self.classes = classes
        self.images = PREPROCESS(pixels)
        self.arrays = {"image": pixels, "label": labels, **extras}
        self.pixels = tf.data.Dataset.from_tensors(self.arrays).repeat()
        self.normalized = tf.data.Dataset.from_tensors((self.images, labels)).repeat()


def sgd() -> keras.optimizers.Optimizer:
    """Returns the optimizer of all steps; with its small rate, many on one batch stay finite."""
    return keras.optimizers.SGD(1e-3, momentum=0.9)


def distiller(teacher, student, losses, weights=0.9, label_weight=0.1, **settings):
    """Returns a compiled distiller, of the class of a method with a step of its own.

    Arguments are those of `tfkd.Distiller`.
    """
    kind = getattr(losses, "distiller_class", None) or core.Distiller
    made = kind(teacher, student, losses, weights, label_weight, **settings)
    made.compile(sgd())
    return made


def step(model: keras.Model, batches: tf.data.Dataset) -> Callable[[], object]:
    """Returns a function that runs one step of a compiled model, as `fit` does."""
    model.fit(batches, steps_per_epoch=1, verbose=0)
    train, iterator = model.make_train_function(), iter(batches)
    return lambda: train(iterator)


def passes(distiller: core.Distiller, batch: Mapping[str, np.ndarray]) -> Callable[[], object]:
    """Returns a function that runs what a step runs of networks, and nothing else.

    Every network on every view that its objectives read, and the gradient of the student.

    Args:
        distiller: The distiller of the step.
        batch: One batch, with all views.
    """
    tensors = {key: tf.constant(value) for key, value in batch.items()}
    read = {
        (network, tap, view)
        for each in distiller.active_requirements()
        for (network, view), taps in each.taps.items()
        for tap in taps
    }

    @tf.function
    def run() -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            context = distiller.forward(tensors, training=True)
            sums = {each: tf.reduce_sum(as_float(context.output(*each))) for each in read}
            total = tf.add_n([value for each, value in sums.items() if each[0] == "student"])
        gradients = tape.gradient(total, distiller.student.trainable_variables)
        # What is not returned TensorFlow does not compute.
        return [*sums.values(), *(each for each in gradients if each is not None)]

    return _ended(run)


def arithmetic(distiller: core.Distiller, batch: Mapping[str, np.ndarray]) -> Callable[[], object]:
    """Returns a function that forms the losses of a distiller's objectives, forward and backward.

    The features are given, random and of the shapes that the networks give them; the gradient is
    that of the student's features and of the objectives' own weights.

    Args:
        distiller: The distiller of the step; no network of it is run but heads.
        batch: One batch, with all views.
    """
    tensors = {key: tf.constant(value) for key, value in batch.items()}
    context = distiller.forward(tensors, training=True)
    features = {
        (network, view): {tap: tf.constant(context.output(network, tap, view)) for tap in taps}
        for objective in distiller.objectives
        for (network, view), taps in objective.requires.taps.items()
    }
    features.setdefault(("student", "main"), {}).setdefault("logits", context.student_logits)
    own = [
        tensor
        for (network, _), taps in features.items()
        if network == "student"
        for tensor in taps.values()
    ]

    @tf.function
    def run() -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(own)
            given = core.Context(
                tensors,
                training=True,
                epoch=tf.constant(100.0),
                epochs=tf.constant(240.0),
                step=tf.constant(1, tf.int64),
                seed=0,
                outputs=features,
                heads=context.head,
                stage=distiller.stage_name,
            )
            for objective in distiller.objectives:
                logits = objective.student_logits(given)
                if logits is not None:
                    given.replace_student_logits(logits)
            terms = [
                loss
                for objective in distiller.objectives
                for loss in objective.to_terms(
                    objective.compute(given), distiller.stage_name
                ).losses.values()
            ]
            total = tf.add_n([tf.cast(each, tf.float32) for each in terms])
        weights = [v for o in distiller.objectives for v in o.trainable_variables]
        return [each for each in tape.gradient(total, own + weights) if each is not None]

    return _ended(run)


def _ended(run: Callable[[], list[tf.Tensor]]) -> Callable[[], object]:
    """Returns a function that returns when the work is done, as a step's does."""
    run()
    return lambda: [each.numpy() for each in run()[:1]]
