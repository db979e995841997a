"""What methods share that read one feature of each network, by settings."""

from __future__ import annotations

from collections.abc import Sequence

from tfkd import models
from tfkd.core import Objective
from tfkd.distillers.shared.stage_taps import check_tap


class TapPair(Objective):
    """A loss of the features that the settings ``student_tap`` and ``teacher_tap`` name.

    A method declares both, with defaults of its own.
    """

    def choose_taps(self, student: models.Network, teachers: Sequence[models.Network]) -> None:
        check_tap(student, self.student_tap, self.name, "student_tap")
        for teacher in teachers:
            check_tap(teacher, self.teacher_tap, self.name, "teacher_tap")
