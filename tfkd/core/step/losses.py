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

OWN = "own_losses"
"""The part of the label loss that the student holds itself."""


@dataclass(frozen=True)
class StepLosses:
    """The losses of one step.

    Attributes:
        total: What is differentiated: ``student_loss_weight * label loss + sum of weighted terms``,
            the student's own losses being part of the label loss.
        values: Every number of :meth:`Distiller.loss_names`, in that order.
        terms: What each active objective returned.
    """

    total: tf.Tensor
    values: tf.Tensor
    terms: Mapping[str, Terms]


def names_of(objectives: Sequence[Objective], label_terms: Sequence[str] = ()) -> list[str]:
    """Returns the names of the totals and of every term, as they are logged.

    Args:
        objectives: The objectives.
        label_terms: The parts of the label loss that are logged.
    """
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
    own: tf.Tensor | None = None,
) -> StepLosses:
    """Forms every loss of a batch, and their weighted sum.

    A term is logged as it enters the total: times the weight of its objective, the factor of its
    schedule and that of :class:`Terms`. So the logged terms add up to ``distillation_loss``. The
    label loss is logged without its weight, with the student's own losses in it.

    Where objectives replace the label loss, what the student holds itself has their weights.

    Args:
        context: The batch with the outputs of the networks.
        task: What a label means.
        objectives: All objectives, in the order of :func:`names_of`.
        active: Those that take part, with their weights; the others count as 0.
        label_weight: Weight of the label loss, which an objective with one of its own replaces.
        label_terms: The parts of the label loss that are logged: those of the task, if it has
            several, and perhaps :data:`OWN`.
        own: Sum of the losses that the student holds itself; ``None`` without any.
    """
    of_task = [name for name in label_terms if name != OWN]
    parts = label_losses(context, task, of_task)
    if of_task and set(parts) != set(of_task):
        raise TfkdError(
            f"task {task.name!r}: found the label losses {sorted(map(str, parts))}, wanted "
            f"{sorted(of_task)}, its label terms"
        )
    if own is not None or OWN in label_terms:
        parts[OWN] = tf.zeros(()) if own is None else own
    label_loss = tf.add_n(list(parts.values()))
    replacing = [weight for objective, weight in active if objective.replaces_label_loss]
    of_labels = label_weight * label_loss
    if replacing:  # Logged all the same: methods are compared by it.
        of_labels = tf.zeros(()) if own is None else sum(replacing) * own
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
    total = of_labels + distillation
    listed = [
        values.get((objective.name, name), tf.zeros(()))
        for objective in objectives
        for name in objective.term_names()
    ]
    logged_parts = [parts[name] for name in label_terms]
    logged = tf.stack([total, total, label_loss, distillation, *logged_parts, *listed])
    return StepLosses(total, logged, terms)
