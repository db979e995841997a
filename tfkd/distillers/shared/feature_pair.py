"""What methods share that compare one feature of the student with one of the teacher."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from tfkd import models
from tfkd.core import Context, Objective, Requires, Spec
from tfkd.distillers.shared.layers import check_width
from tfkd.distillers.shared.stage_taps import check_tap
from tfkd.distillers.shared.whole_batch import whole_batch
from tfkd.settings import field


class FeaturePair(Objective):
    """A loss of one feature of each network in the batch of all replicas, with nothing between.

    The features are vectors unless a method says otherwise by ``check_feature``; they may differ in
    width.
    """

    student_tap: str = field("pooled", "feature of the student, a vector")
    teacher_tap: str = field("pooled", "feature of the teacher, a vector")

    @property
    def requires(self) -> Requires:
        return Requires(
            taps={
                ("student", "main"): [self.student_tap],
                ("teacher", "main"): [self.teacher_tap],
            },
            allows_soft_labels=True,
            tasks=None,
        )

    def choose_taps(self, student: models.Network, teachers: Sequence[models.Network]) -> None:
        check_tap(student, self.student_tap, self.name, "student_tap")
        for teacher in teachers:
            check_tap(teacher, self.teacher_tap, self.name, "teacher_tap")

    def setup(self, spec: Spec) -> None:
        for network, tap in (("student", self.student_tap), ("teacher", self.teacher_tap)):
            self.check_feature(network, tap, spec.shapes[network, "main"][tap])

    def check_feature(self, network: str, tap: str, shape: Sequence[int | None]) -> None:
        """Raises a ``TfkdError`` for a feature whose shape the loss cannot read."""
        check_width(self.name, network, tap, shape)

    def whole_batch(self, context: Context) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor | None]:
        """Returns both features and the sample weights, of all replicas."""
        return whole_batch(context, self.student_tap, self.teacher_tap)
