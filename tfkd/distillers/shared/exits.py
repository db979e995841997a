"""What the methods share that train a network with several exits."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import tensorflow as tf

from tfkd import models
from tfkd.core import Context, Objective, Requires
from tfkd.distillers.shared.exit_losses import label_names
from tfkd.errors import TfkdError


class OfExits(Objective):
    """Losses of the exits of the student, in the place of the label loss; needs no teacher.

    A term is the cross-entropy of an exit (``exit1_ce``), or all that an exit learns from deeper
    ones (``exit1_kd``), as it enters the total. :meth:`compute` forms them in this order.

    Attributes:
        exits: Names of the exits, shallow to deep; known from :meth:`choose_taps` on.
    """

    exits = ()
    requires = Requires(taps={("student", "main"): ["logits"]}, allows_soft_labels=True)
    replaces_label_loss = True
    distills = True
    """Whether exits learn from deeper ones."""

    def choose_taps(self, student: models.Network, teachers: Sequence[models.Network]) -> None:
        exits = models.exits(student.model)
        if len(exits) < 2:
            raise TfkdError(
                f"{self.name}: found one exit in network {student.name!r}, wanted two or more, as "
                "an msdnet has them, or a network with exits by tfkd.models.multi_exit"
            )
        self.exits = exits
        taps = {("student", "main"): list(exits)}
        self.requires = dataclasses.replace(self.requires, taps=taps)

    def term_names(self) -> tuple[str, ...]:
        learners = self.exits[:-1] if self.distills else ()
        return (*label_names(self.exits), *(f"{name}_kd" for name in learners))

    def logits(self, context: Context) -> list[tf.Tensor]:
        """Returns the logits of the exits, shallow to deep."""
        return [context.student(name) for name in self.exits]

    def named(self, losses: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns the terms of a vector, by their names."""
        names = self.term_names()
        return dict(zip(names, tf.unstack(losses, len(names)), strict=True))
