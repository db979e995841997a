"""From the losses of all objectives to the one number that is differentiated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import tensorflow as tf

from tfkd.core.objective import Objective, Terms
from tfkd.core.step.context import Context
from tfkd.core.tasks.task import Task
from tfkd.errors import TfkdError

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


def names_of(objectives: Sequence[Objective], label_terms: Sequence[str] = ()) -> list[str]:
    """Returns the names of the totals and of every term, as they are logged."""
    terms = [
        name if objective.term_names() == (objective.name,) else f"{objective.name}/{name}"
        for objective in objectives
        for name in objective.term_names()
    ]
    return [*TOTALS, *(f"student_loss/{name}" for name in label_terms), *terms]


def label_losses(
    context: Context, task: Task, label_terms: Sequence[str] = ()
) -> dict[str | None, tf.Tensor]:
    """Returns the means of the label loss: of each of its parts, or of the only one as ``None``.

    They are 0 where the student was not run.
    """
    if not context.outputs("student"):
        return dict.fromkeys(label_terms or (None,), tf.zeros(()))
    found = task.label_loss(context.batch, context.outputs("student"))
    parts = found if isinstance(found, Mapping) else {None: found}
    return {name: tf.cast(context.mean(each), tf.float32) for name, each in parts.items()}


def combine(
    context: Context,
    task: Task,
    objectives: Sequence[Objective],
    active: Sequence[tuple[Objective, float]],
    label_weight: float,
    label_terms: Sequence[str] = (),
) -> StepLosses:
    """Forms every loss of a batch, and their weighted sum.

    A term is logged as it enters the total: times the weight of its objective, the factor of its
    schedule and that of :class:`Terms`. So the logged terms add up to ``distillation_loss``.

    Args:
        context: The batch with the outputs of the networks.
        task: What a label means.
        objectives: All objectives, in the order of :func:`names_of`.
        active: Those that take part, with their weights; the others count as 0.
        label_weight: Weight of the label loss, which an objective with one of its own replaces.
        label_terms: Names of the parts of the label loss, if it has several.
    """
    parts = label_losses(context, task, label_terms)
    if label_terms and set(parts) != set(label_terms):
        raise TfkdError(
            f"task {task.name!r}: found the label losses {sorted(map(str, parts))}, wanted "
            f"{sorted(label_terms)}, its label terms"
        )
    label_loss = tf.add_n(list(parts.values()))
    if any(objective.replaces_label_loss for objective, _ in active):
        label_weight = 0.0  # Logged all the same: methods are compared by it.
    terms: dict[str, Terms] = {}
    values: dict[tuple[str, str], tf.Tensor] = {}
    for objective, weight in active:
        found = objective.to_terms(objective.compute(context), context.stage)
        terms[objective.name] = found
        schedule = objective.schedule(context.epoch)
        for name, value in found.losses.items():
            factor = schedule[name] if isinstance(schedule, Mapping) else schedule
            factor = tf.cast(factor, tf.float32)
            if name in found.factors:
                factor *= tf.stop_gradient(tf.cast(found.factors[name], tf.float32))
            values[objective.name, name] = weight * factor * tf.cast(value, tf.float32)
    distillation = tf.zeros(())
    for value in values.values():
        distillation += value
    total = label_weight * label_loss + distillation
    listed = [
        values.get((objective.name, name), tf.zeros(()))
        for objective in objectives
        for name in objective.term_names()
    ]
    of_labels = [parts[name] for name in label_terms]
    logged = tf.stack([total, total, label_loss, distillation, *of_labels, *listed])
    return StepLosses(total, logged, terms)
