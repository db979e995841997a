"""What the tests of methods of exits share: logits of three exits, and networks that have them."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from tests.distillers import runs
from tests.distillers.contexts import context_of
from tfkd import models
from tfkd.distillers.shared.exits import OfExits

EXITS = ("exit1", "exit2", "logits")
LABELS = np.array([0, 1])
LOGITS = {
    "exit1": np.array([[1.0, 0, -1], [0, 2, 0]]),
    "exit2": np.array([[2.0, 0, -1], [0, 1, 1]]),
    "logits": np.array([[3.0, -1, 0], [-1, 2, 0]]),
}
CE = np.array([0.3235754, 0.5159204, 0.1178650])
"""The cross-entropy of each exit."""

KD = np.array([0.2471827, 0.3186128, 0.3611449])
"""The divergences of the pairs 12, 13, 23 at temperature 2."""


def network() -> models.Network:
    """A student with three exits."""
    model = runs.network("student")
    return models.Network(models.multi_exit(model, ["stage1", "stage2"], seed=1))


def terms(objective: OfExits, **batch) -> dict[str, float]:
    """The terms of an objective on :data:`LOGITS`, by their names."""
    objective.choose_taps(network(), [])
    context = context_of({"student": tensors()}, LABELS, **batch)
    found = objective.to_terms(objective.compute(context)).losses
    assert list(found) == list(objective.term_names())
    return {name: float(value) for name, value in found.items()}


def tensors() -> dict[str, tf.Tensor]:
    """:data:`LOGITS` as tensors."""
    return {name: tf.constant(each) for name, each in LOGITS.items()}
