"""From the losses of all objectives to the one number that is differentiated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import tensorflow as tf

from tfkd.core.objective import Objective, Terms
from tfkd.core.step.context import Context
from tfkd.core.tasks.classification import Classification

TOTALS = ("loss", "total_loss", "student_loss", "distillation_loss")
"""Names of the numbers that stand before the single terms."""


@dataclass(frozen=True)
class StepLosses:
    """The losses of one step.

    Attributes:
        total: What is differentiated: ``student_loss_weight * label loss + sum of weighted terms``.
        values: Every number of :meth:`Distiller.loss_names`, in that order.
        terms: What each active objective returned.
    """

    total: tf.Tensor
    values: tf.Tensor
    terms: Mapping[str, Terms]


def names_of(objectives: Sequence[Objective]) -> list[str]:
    """Returns the names of the totals and of every term, as they are logged."""
    terms = [
        name if objective.term_names() == (objective.name,) else f"{objective.name}/{name}"
        for objective in objectives
        for name in objective.term_names()
    ]
    return [*TOTALS, *terms]


def combine(
    context: Context,
    task: Classification,
    objectives: Sequence[Objective],
    active: Sequence[tuple[Objective, float]],
    label_weight: float,
) -> StepLosses:
    """Forms every loss of a batch, and their weighted sum.

    Args:
        context: The batch with the outputs of the networks.
        task: What a label means.
        objectives: All objectives, in the order of :func:`names_of`.
        active: Those that take part, with their weights; the others count as 0.
        label_weight: Weight of the label loss, which an objective with one of its own replaces.
    """
    label_loss = context.mean(task.label_loss(context.labels, context.student_logits))
    if any(objective.replaces_label_loss for objective, _ in active):
        label_weight = 0.0  # Logged all the same: methods are compared by it.
    terms: dict[str, Terms] = {}
    values: dict[tuple[str, str], tf.Tensor] = {}
    distillation = tf.zeros(())
    for objective, weight in active:
        found = objective.to_terms(objective.compute(context))
        terms[objective.name] = found
        factors = objective.schedule(context.epoch)
        for name, value in found.losses.items():
            factor = factors[name] if isinstance(factors, Mapping) else factors
            value = tf.cast(value, tf.float32)
            distillation += weight * tf.cast(factor, tf.float32) * value
            values[(objective.name, name)] = value
    label_loss = tf.cast(label_loss, tf.float32)
    total = label_weight * label_loss + distillation
    listed = [
        values.get((objective.name, name), tf.zeros(()))
        for objective in objectives
        for name in objective.term_names()
    ]
    return StepLosses(total, tf.stack([total, total, label_loss, distillation, *listed]), terms)
