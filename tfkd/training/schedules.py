"""Learning rates over a run: constant, in steps, or along a cosine, each with a linear warm-up.

Times are given in epochs, which may be fractional, and turned into steps once. The rate of a step
is computed in the graph from the global step (0 for the first), so that a compiled training step
is never traced again and a resumed run needs no state. It is computed in float64 and rounded once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import keras
import tensorflow as tf

from tfkd.errors import TfkdError
from tfkd.settings import Count, Fraction, NonNegative, Positive, Range, Settings, checked, field
from tfkd.training.settings_by_name import used


class ScheduleSettings(Settings):
    """A learning-rate schedule as a config describes it, in its section ``train.schedule``."""

    name: Literal["constant", "step", "cosine"] = field("step", "constant | step | cosine")
    milestones: tuple[NonNegative, ...] = field((), "epochs at which step multiplies the rate")
    decay_factor: Positive = field(0.1, "factor of step at each milestone")
    per_step: bool = field(False, "whether cosine moves with every step instead of every epoch")
    final_rate: NonNegative = field(0.0, "last rate of cosine")
    warmup_epochs: NonNegative = field(0.0, "length of the linear warm-up")
    warmup_factor: Fraction = field(0.1, "first rate of the warm-up as a part of the base rate")

    def check(self) -> None:
        _check_increasing(self.milestones)


_OWN = {
    "constant": (),
    "step": ("milestones", "decay_factor"),
    "cosine": ("per_step", "final_rate"),
}
"""Settings that not every schedule has."""


def create(
    settings: ScheduleSettings | Mapping[str, Any],
    *,
    base_rate: float,
    steps_per_epoch: int,
    epochs: float,
) -> keras.optimizers.schedules.LearningRateSchedule:
    """Makes the learning-rate schedule of a run, or of one stage of it.

    Args:
        settings: :class:`ScheduleSettings`, or a mapping of them, such as
            ``config.train.schedule``. Those of other schedules are set aside, with a warning unless
            they hold their default.
        base_rate: The learning rate that the schedule scales.
        steps_per_epoch: Optimizer steps in one epoch.
        epochs: Length of the run in epochs; where a cosine ends.

    Raises:
        TfkdError: If a name or setting is unknown or a value is out of range.
    """
    if not isinstance(settings, ScheduleSettings):
        settings = ScheduleSettings.from_mapping(settings, "schedule: ")
    values = used(settings, _OWN)
    if settings.name == "constant":
        return Constant(base_rate, steps_per_epoch, **values)
    if settings.name == "step":
        return Step(base_rate, steps_per_epoch, **values)
    return Cosine(base_rate, steps_per_epoch, epochs, **values)


@keras.saving.register_keras_serializable("tfkd")
class Constant(keras.optimizers.schedules.LearningRateSchedule):
    """The base rate throughout, reached by a linear warm-up.

    During the warm-up of W steps, step s = 0 .. W-1 has the rate
    ``base_rate * (warmup_factor + (1 - warmup_factor) * s / W)``; it moves with every step.

    Args:
        base_rate: The learning rate after the warm-up.
        steps_per_epoch: Optimizer steps in one epoch.
        warmup_epochs: Length of the warm-up in epochs; 0 for none.
        warmup_factor: Rate of the first step as a part of `base_rate`, from 0 to 1.

    Raises:
        TfkdError: If a value is out of range.
    """

    def __init__(
        self,
        base_rate: float,
        steps_per_epoch: int,
        warmup_epochs: float = 0.0,
        warmup_factor: float = 0.1,
    ):
        self.base_rate = checked("base_rate", Positive, base_rate)
        self.steps_per_epoch = checked("steps_per_epoch", Count, steps_per_epoch)
        self.warmup_epochs = checked("warmup_epochs", NonNegative, warmup_epochs)
        self.warmup_factor = checked("warmup_factor", Fraction, warmup_factor)
        self._warmup_steps = self._first_step(self.warmup_epochs)

    def _first_step(self, epochs: float) -> int:
        """Returns the first step that does not lie before a time in epochs."""
        # 0.1 epochs of 30 steps are 3.0000000000000004 steps in floating point, and mean 3.
        return math.ceil(round(epochs * self.steps_per_epoch, 6))

    def __call__(self, step: Any) -> tf.Tensor:
        """Returns the scalar learning rate of a global step, the first being 0."""
        step = tf.cast(step, tf.int64)
        rate = self._settled(step)
        if self._warmup_steps:
            done = tf.cast(step, tf.float64) / self._warmup_steps
            rising = self.base_rate * (self.warmup_factor + (1.0 - self.warmup_factor) * done)
            rate = tf.where(step < self._warmup_steps, rising, rate)
        return tf.cast(rate, keras.config.floatx())

    def _settled(self, step: tf.Tensor) -> tf.Tensor:
        """Returns the float64 rate of a step as if there were no warm-up."""
        del step  # The rate does not depend on it.
        return tf.constant(self.base_rate, tf.float64)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments from which `from_config` makes an equal schedule."""
        return {
            "base_rate": self.base_rate,
            "steps_per_epoch": self.steps_per_epoch,
            "warmup_epochs": self.warmup_epochs,
            "warmup_factor": self.warmup_factor,
        }


@keras.saving.register_keras_serializable("tfkd")
class Step(Constant):
    """The base rate, multiplied by a factor at each milestone.

    As in torch's MultiStepLR: with milestones (150, 180), epochs 0..149 have the base rate, epochs
    150..179 have ``decay_factor`` times it, and so on. A milestone within an epoch acts from the
    first step that does not lie before it.

    Args:
        base_rate: The learning rate before the first milestone.
        steps_per_epoch: Optimizer steps in one epoch.
        milestones: Times of the changes in epochs, increasing.
        decay_factor: What the rate is multiplied by at each of them.
        warmup_epochs: As for `Constant`.
        warmup_factor: As for `Constant`.

    Raises:
        TfkdError: If a value is out of range or the milestones do not increase.
    """

    def __init__(
        self,
        base_rate: float,
        steps_per_epoch: int,
        milestones: Sequence[float] = (),
        decay_factor: float = 0.1,
        warmup_epochs: float = 0.0,
        warmup_factor: float = 0.1,
    ):
        super().__init__(base_rate, steps_per_epoch, warmup_epochs, warmup_factor)
        self.milestones = checked("milestones", tuple[NonNegative, ...], milestones)
        _check_increasing(self.milestones)
        self.decay_factor = checked("decay_factor", Positive, decay_factor)

    def _settled(self, step: tf.Tensor) -> tf.Tensor:
        if not self.milestones:
            return super()._settled(step)
        # A table, and not a power computed in the graph, so that every rate is exact.
        rates = [
            self.base_rate * self.decay_factor**passed for passed in range(len(self.milestones) + 1)
        ]
        starts = tf.constant([self._first_step(each) for each in self.milestones], tf.int64)
        passed = tf.math.count_nonzero(step >= starts)
        return tf.gather(tf.constant(rates, tf.float64), passed)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "milestones": list(self.milestones),
            "decay_factor": self.decay_factor,
        }


@keras.saving.register_keras_serializable("tfkd")
class Cosine(Constant):
    """Half a cosine from the base rate down to the final rate (Loshchilov and Hutter, 2017).

    ``final_rate + (base_rate - final_rate) * (1 + cos(pi * e / epochs)) / 2``, where e is the
    number of whole epochs done, as in the published CIFAR loops and torch's CosineAnnealingLR, or
    with `per_step` the steps done divided by `steps_per_epoch`. With a warm-up of w epochs,
    ``(e - w) / (epochs - w)`` takes the place of ``e / epochs``. From `epochs` on, the final rate.
    https://arxiv.org/abs/1608.03983

    Args:
        base_rate: The learning rate at the start of the cosine.
        steps_per_epoch: Optimizer steps in one epoch.
        epochs: When the cosine ends, in epochs from the start of the run.
        per_step: Whether the rate moves with every step instead of every epoch.
        final_rate: The learning rate at the end, not above `base_rate`.
        warmup_epochs: As for `Constant`; less than `epochs`.
        warmup_factor: As for `Constant`.

    Raises:
        TfkdError: If a value is out of range.
    """

    def __init__(
        self,
        base_rate: float,
        steps_per_epoch: int,
        epochs: float,
        per_step: bool = False,
        final_rate: float = 0.0,
        warmup_epochs: float = 0.0,
        warmup_factor: float = 0.1,
    ):
        super().__init__(base_rate, steps_per_epoch, warmup_epochs, warmup_factor)
        self.epochs = checked("epochs", Positive, epochs)
        self.per_step = checked("per_step", bool, per_step)
        self.final_rate = checked(
            "final_rate", Annotated[float, Range(low=0, high=self.base_rate)], final_rate
        )
        if self.warmup_epochs >= self.epochs:
            raise TfkdError(
                f"warmup_epochs is {self.warmup_epochs:g} of {self.epochs:g} epochs; "
                "wanted fewer, so that the cosine has room"
            )

    def _settled(self, step: tf.Tensor) -> tf.Tensor:
        if self.per_step:
            epoch = tf.cast(step, tf.float64) / self.steps_per_epoch
        else:
            epoch = tf.cast(step // self.steps_per_epoch, tf.float64)
        done = (epoch - self.warmup_epochs) / (self.epochs - self.warmup_epochs)
        height = (1.0 + tf.cos(math.pi * tf.clip_by_value(done, 0.0, 1.0))) / 2.0
        return self.final_rate + (self.base_rate - self.final_rate) * height

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "epochs": self.epochs,
            "per_step": self.per_step,
            "final_rate": self.final_rate,
        }


def _check_increasing(milestones: Sequence[float]) -> None:
    if any(late <= early for early, late in zip(milestones, milestones[1:])):
        raise TfkdError(f"milestones: found {list(milestones)!r}, wanted increasing epochs")
