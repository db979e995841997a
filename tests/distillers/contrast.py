"""Steps of contrastive objectives on features that the test gives."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from tests.distillers.contexts import context_of
from tfkd.core import Spec
from tfkd.distillers.shared.memory_bank import MemoryBank


def spec_of(student: tuple, teacher: tuple, labels, seed: int = 1) -> Spec:
    """A run with pooled features of these shapes on training images of these labels."""
    return Spec(
        num_classes=4,
        image_shape=(2, 2, 1),
        shapes={
            ("student", "main"): {"pooled": (None, *student)},
            ("teacher", "main"): {"pooled": (None, *teacher)},
        },
        train_size=len(labels),
        batch_size=None,
        seed=seed,
        head=lambda name: None,
        network=lambda name: None,
        train_labels=np.asarray(labels),
    )


def step(objective, student, teacher, labels=None, number=0, **batch):
    """A training step; returns its losses and what it carried on.

    Args:
        objective: The objective.
        student: Features of the student.
        teacher: Features of the teacher.
        labels: Of the batch; by default 0.
        number: Of the step, of which draws are functions.
        **batch: Further entries of the batch, such as ``index``.
    """
    pooled = {"student": student, "teacher": teacher}
    outputs = {name: {"pooled": tf.constant(each, tf.float32)} for name, each in pooled.items()}
    context = context_of(outputs, [0] * len(student) if labels is None else labels, **batch)
    context.step = tf.constant(number, tf.int64)
    terms = objective.to_terms(objective.compute(context))
    objective.after_step(context, terms.carry)
    return {name: float(each) for name, each in terms.losses.items()}, terms.carry


def features(rows: int, seed: int = 0, widths=(4, 5)) -> list[np.ndarray]:
    """Features of student and teacher."""
    draw = np.random.default_rng(seed)
    return [draw.normal(size=(rows, width)).astype("float32") for width in widths]


class Listed:
    """Negatives that the test lists, instead of a draw.

    Args:
        total: Number of training images.
        count: Negatives of an image.
    """

    def __init__(self, total: int, count: int) -> None:
        self.total, self.count = total, count
        self.rows: dict[int, list[int]] = {}

    def of_each(self, index, seed):
        rows = [self.rows[each] for each in index.numpy().tolist()]
        return tf.reduce_sum(tf.one_hot(rows, self.total), axis=1)


def use_oracle(objective, given: dict) -> Listed:
    """Sets the banks of an objective to those of the published numbers; returns their negatives."""
    negatives = Listed(given["n_data"], given["n_negatives"])
    objective.kept = MemoryBank(
        negatives,
        given["n_data"],
        len(given["memory_s"][0]),
        momentum=given["memory_momentum"],
        same_class=False,
        shares_negatives=False,
        seed=0,
        name="bank",
    )
    objective.kept.student.assign(given["memory_s"])
    objective.kept.teacher.assign(given["memory_t"])
    return negatives
