"""What methods share that compare the stages of student and teacher in pairs."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from tfkd import models
from tfkd.core import Objective, Requires
from tfkd.distillers.shared.stage_taps import paired_stages, taps_of_pairs
from tfkd.settings import field


class StagePairs(Objective):
    """A loss at the end of every stage; stages are paired from the deepest on.

    Attributes:
        pairs: A tap of the student and one of the teacher each, once the networks are known.
    """

    student_taps: tuple[str, ...] = field((), "taps of the student to compare; none: its stages")
    teacher_taps: tuple[str, ...] = field((), "those of the teacher; none: its stages")

    requires = Requires(teacher=True, allows_soft_labels=True, tasks=None)

    def choose_taps(self, student: models.Network, teachers: Sequence[models.Network]) -> None:
        if not teachers:
            return  # The distiller tells of what is missing.
        named = (self.student_taps, self.teacher_taps)
        self.pairs = paired_stages(student, teachers[0], self.name, *named)
        self.requires = dataclasses.replace(self.requires, taps=taps_of_pairs(self.pairs))
