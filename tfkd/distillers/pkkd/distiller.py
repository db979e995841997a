"""The training step of PKKD: student and teacher learn from the same batches, each by its own loss.

Algorithm 1 of Xu et al., "Kernel Based Progressive Distillation for Adder Neural Networks", NeurIPS
2020, arXiv 2009.13044. **Reconstruction** of what the paper leaves open: both networks run once, in
training mode; both gradients are formed before either is applied; the teacher has an optimizer of
its own, of the same kind and schedule.
"""

from __future__ import annotations

import dataclasses
import warnings

import keras
import tensorflow as tf

from tfkd.core import Context, Distiller, StepLosses
from tfkd.core.objective import NetworkView
from tfkd.core.state import by_role
from tfkd.core.step.replicas import replica_count
from tfkd.core.step.updates import check_optimizer
from tfkd.errors import TfkdError, TfkdWarning

TEACHER: NetworkView = ("teacher", "main")
TEACHER_VALUES = ("teacher_loss", "teacher_accuracy")


@dataclasses.dataclass(frozen=True)
class JointLosses(StepLosses):
    """The losses of one step of two networks.

    Attributes:
        teacher_loss: The paper's L_ce, the label loss of the teacher, with the losses that it holds
            itself (regularizers).
    """

    teacher_loss: tf.Tensor


class PKKDDistiller(Distiller):
    """A :class:`tfkd.Distiller` whose one teacher trains as well, on the label loss alone.

    The teacher is the very model that was given, not a copy, and usually starts with fresh weights;
    after ``fit`` it is trained. The losses see its outputs without a gradient. ``teacher_loss`` and
    ``teacher_accuracy`` are logged in training and in evaluation.

    Arguments are those of :class:`tfkd.Distiller`; one of the losses must train its teacher, as
    :class:`tfkd.distillers.PKKD` does. What belongs to frozen teachers, ``teacher_dtype`` and
    ``fold_teacher``, has no effect.

    Raises:
        TfkdError: When no loss trains its teacher, or there are several teachers.
    """

    trainable_teacher = True
    weighted_names = (*Distiller.weighted_names, "teacher_accuracy")

    def __init__(self, teacher, student, distillation_losses=(), *args, **kwargs) -> None:
        super().__init__(teacher, student, distillation_losses, *args, **kwargs)
        if not any(each.distiller_class is not None for each in self.objectives):
            raise TfkdError(
                f"{type(self).__name__}: found no loss that trains the teacher, wanted "
                "PKKD(progressive=True), or tfkd.Distiller for a teacher that stays as it is"
            )
        if len(self.teachers) != 1:
            raise TfkdError(
                f"{type(self).__name__}: found {len(self.teachers)} teachers, wanted one"
            )

    @property
    def teacher(self) -> keras.Model:
        """The teacher that trains."""
        return self.teachers[0]

    def compile(
        self, optimizer="adam", loss=None, metrics=None, teacher_optimizer=None, **kwargs
    ) -> None:
        """As :meth:`tfkd.Distiller.compile`.

        Args:
            optimizer: Optimizer of the student and of what the losses learn.
            loss: Label loss of both networks.
            metrics: Metrics of the student.
            teacher_optimizer: Optimizer of the teacher; ``None`` is a fresh one like the student's,
                schedule included.
            **kwargs: Further arguments of ``keras.Model.compile``.
        """
        super().compile(optimizer, loss, metrics, **kwargs)
        if teacher_optimizer is None:
            teacher_optimizer = type(self.optimizer).from_config(self.optimizer.get_config())
        self.teacher_optimizer = keras.optimizers.get(teacher_optimizer)
        check_optimizer(self.teacher_optimizer, self.distribute_strategy)
        with warnings.catch_warnings():
            # What is excluded from decay may be the losses' own, of which the teacher has nothing.
            warnings.simplefilter("ignore", TfkdWarning)
            self.teacher_optimizer.build(self.teacher.trainable_variables)

    def fit(self, *args, **kwargs):
        """As :meth:`tfkd.Distiller.fit`."""
        history = super().fit(*args, **kwargs)
        # As Keras does for the optimizer of the student: a moving average takes effect at the end.
        self.teacher_optimizer.finalize_variable_values(self.teacher.trainable_variables)
        return history

    def state(self) -> dict[str, keras.Variable]:
        """As :meth:`tfkd.Distiller.state`, with the role ``teacher_optimizer``."""
        optimizer = self.teacher_optimizer.variables if self.compiled else ()
        return {**super().state(), **by_role({"teacher_optimizer": optimizer})}

    def loss_names(self) -> list[str]:
        return [*super().loss_names(), *TEACHER_VALUES]

    def test_names(self) -> list[str]:
        names = super().test_names()
        return names if "teacher_loss" in names else [*names, *TEACHER_VALUES]

    def test_views(self) -> set[NetworkView]:
        return {*super().test_views(), TEACHER}

    def test_values(self, context: Context) -> list[tf.Tensor]:
        values = super().test_values(context)
        complete = "teacher_loss" in super().test_names()
        return values if complete else [*values, *self._teacher_values(context)]

    def combine(self, context: Context) -> JointLosses:
        outcome = super().combine(context)
        loss, accuracy = self._teacher_values(context)
        values = tf.concat([outcome.values, tf.stack([loss, accuracy])], axis=0)
        return JointLosses(outcome.total, values, outcome.terms, teacher_loss=loss)

    def _teacher_values(self, context: Context) -> tuple[tf.Tensor, tf.Tensor]:
        logits = context.output("teacher", stop_gradient=False)
        outputs = {"logits": logits}
        loss = tf.cast(context.mean(self.task.label_loss(context.batch, outputs)), tf.float32)
        own = self.own_losses(context, "teacher")
        accuracy = context.weighted_mean(self.task.correct(context.batch, outputs))
        return loss if own is None else loss + own, accuracy

    def train_step(self, data):
        """Runs one training step: both networks once, both gradients, then both updates."""
        batch = self.task.batch(data)
        with tf.GradientTape(persistent=True) as tape:
            context = self.forward(batch, training=True)
            outcome = self.combine(context)
            total = self.optimizer.scale_loss(outcome.total / replica_count())
            own = self.teacher_optimizer.scale_loss(outcome.teacher_loss / replica_count())
        variables, taught = self.trained_variables, self.teacher.trainable_variables
        gradients = tape.gradient(total, variables)
        pairs = [(g, v) for g, v in zip(tape.gradient(own, taught), taught) if g is not None]
        further = [(self.teacher_optimizer, pairs)]
        self.update(context, outcome, gradients, variables, further=further)
        return self.train_results()
