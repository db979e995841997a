"""What methods share that compare one feature of the student with one of the teacher."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from tfkd.core import Context, Requires, Spec
from tfkd.core.divergences import as_float
from tfkd.distillers.shared.layers import check_width
from tfkd.distillers.shared.tap_pair import TapPair
from tfkd.settings import field


class FeaturePair(TapPair):
    """A loss of one feature of each network in the batch of all replicas, with nothing between.

    The features are vectors unless a method says otherwise by ``check_feature``; they may differ in
    width.
    """

    student_tap: str = field("pooled", "feature of the student, a vector")
    teacher_tap: str = field("pooled", "feature of the teacher, a vector")

    @property
    def pair(self) -> tuple[str, str]:
        """The taps of student and teacher."""
        return self.student_tap, self.teacher_tap

    @property
    def requires(self) -> Requires:
        student, teacher = self.pair
        return Requires(
            taps={("student", "main"): [student], ("teacher", "main"): [teacher]},
            allows_soft_labels=True,
            tasks=None,
        )

    def setup(self, spec: Spec) -> None:
        for network, tap in zip(("student", "teacher"), self.pair):
            self.check_feature(network, tap, spec.shapes[network, "main"][tap])

    def check_feature(self, network: str, tap: str, shape: Sequence[int | None]) -> None:
        """Raises a ``TfkdError`` for a feature whose shape the loss cannot read."""
        check_width(self.name, network, tap, shape)

    def whole_batch(self, context: Context) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor | None]:
        """Returns one feature of each network, and the sample weights, of all replicas.

        Returns:
            Both features ``(rows, values)`` in at least float32, and the weights ``(rows,)``,
            ``None`` where the batch has none.
        """
        own, theirs = self.pair
        student, teacher = (
            context.gather(as_float(tf.reshape(feature, [tf.shape(feature)[0], -1])))
            for feature in (context.student(own), context.teacher(theirs))
        )
        weights = context.batch.get("sample_weight")
        if weights is not None:
            weights = context.gather(as_float(tf.reshape(weights, [-1])))
        return student, teacher, weights
