"""Single steps as methods see them, of outputs that the test gives instead of networks."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import keras
import numpy as np
import tensorflow as tf

from tests.distillers.logit_oracles import NUM_CLASSES
from tfkd.core import Context, Objective, Spec

ROWS = 10
"""Samples of the cases made here."""

VIEWS = {
    "student": ("student", "main"),
    "teacher": ("teacher", "main"),
    "pair": ("student", "pair"),
    "student_strong": ("student", "strong"),
    "teacher_strong": ("teacher", "strong"),
}
"""Where the logits of a case come from, by their names in the oracle file."""


def no_head(network: str, start: str = "pre_pool") -> keras.Model:
    """The head of a network that a test does not have."""
    raise AssertionError(f"found that the head of {network} from {start} is asked for")


def context_of(
    outputs: Mapping,
    labels,
    *,
    training: bool = True,
    epoch: float = 0.0,
    heads: Callable[..., keras.Model] = no_head,
    **batch,
) -> Context:
    """A step whose networks gave these outputs.

    Args:
        outputs: ``{network: {tap: value}}`` on the main view, or with ``(network, view)`` as keys.
        labels: Labels of the batch.
        training: Whether it is a training step.
        epoch: The epoch, of ten.
        heads: ``heads(network, start)`` is the part of a network from a tap on.
        **batch: Further entries of the batch, such as ``sample_weight``; ``None`` is left out.
    """
    further = {name: tf.convert_to_tensor(each) for name, each in batch.items() if each is not None}
    return Context(
        {
            "image": tf.zeros((len(labels), 2, 2, 1)),
            "label": tf.convert_to_tensor(labels),
            **further,
        },
        training=training,
        epoch=tf.constant(epoch),
        epochs=tf.constant(10.0),
        step=tf.constant(0, tf.int64),
        seed=0,
        outputs={
            (key if isinstance(key, tuple) else (key, "main")): taps
            for key, taps in outputs.items()
        },
        heads=heads,
    )


def losses(objective: Objective, given: Mapping, **batch) -> dict[str, tf.Tensor]:
    """The losses of an objective by name, of logits by the names of :data:`VIEWS` and ``labels``.

    Args:
        objective: The objective.
        given: The case.
        **batch: As in :func:`context_of`.
    """
    outputs = {view: {"logits": given[name]} for name, view in VIEWS.items() if name in given}
    context = context_of(outputs, given["labels"], **batch)
    return dict(objective.to_terms(objective.compute(context)).losses)


Shapes = Mapping[str, tuple[int | None, ...]]
"""Shapes of taps by name, batch axis first."""


def spec_of(
    student: Shapes, teacher: Shapes | None = None, heads: Callable[..., keras.Model] = no_head
) -> Spec:
    """A run of five classes whose networks have taps of these shapes.

    Args:
        student: The student's taps.
        teacher: The teacher's.
        heads: As in :func:`context_of`.
    """
    return Spec(
        num_classes=5,
        image_shape=(2, 2, 1),
        shapes={("student", "main"): student, ("teacher", "main"): teacher or {}},
        train_size=None,
        batch_size=None,
        seed=1,
        head=heads,
        network=lambda name: None,
    )


def moved(given: Mapping, rows=None, classes=None) -> dict[str, tf.Tensor]:
    """A case with its samples or its classes in another order, labels included."""
    found = dict(given)
    if rows is not None:
        found = {name: tf.gather(each, rows) for name, each in found.items()}
    if classes is not None:
        labels = [list(classes).index(each) for each in np.asarray(found["labels"])]
        found = {
            name: tf.gather(each, classes, axis=1) if name != "labels" else tf.constant(labels)
            for name, each in found.items()
        }
    return found


def random_case() -> dict[str, tf.Tensor]:
    """Logits of every view in float64, and labels."""
    draw = np.random.default_rng(0)
    found = {name: tf.constant(draw.normal(0.0, 2.0, (ROWS, NUM_CLASSES))) for name in VIEWS}
    return {**found, "labels": tf.constant(draw.integers(0, NUM_CLASSES, ROWS), tf.int32)}


def extreme_case(dtype: str) -> dict[str, tf.Tensor]:
    """Logits of +-1e4: networks that agree, contradict, cannot decide or name one class."""
    values = np.random.default_rng(0).choice([-1e4, 1e4], size=(len(VIEWS), ROWS, NUM_CLASSES))
    values[0, 0], values[0, 1] = values[1, 0], -values[1, 1]
    values[:, 2], values[:, 3], values[:, 4] = 1e4, -1e4, 0.0
    values[:, 5], values[:, 5, 0] = -1e4, 1e4
    values[0, 6], values[1, 6] = values[0, 5], -values[0, 5]
    found = {name: tf.constant(each, dtype) for name, each in zip(VIEWS, values)}
    return {**found, "labels": tf.range(ROWS) % NUM_CLASSES}
