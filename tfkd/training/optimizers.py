"""Optimizers: SGD in its two published styles, Keras' Adam and RMSprop, all with one decay rule.

The published recipes come from torch and Caffe, and differ from Keras' optimizers where it shows:

- where momentum keeps the learning rate (they part at every change of it; see `SGD`);
- weight decay that is a part of the gradient, as torch and Caffe have it, not a separate shrinking;
- which variables decay.
"""

from __future__ import annotations

import fnmatch
import warnings
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import keras
import tensorflow as tf

from tfkd.errors import TfkdError, TfkdWarning, unknown
from tfkd.settings import NonNegative, Positive, Range, Settings, checked, field
from tfkd.training.settings_by_name import used

# What `decay_exclude` may name, and the variable names that stand for it in Keras' layers.
_KINDS = {"bias": ("bias",), "batch_normalization": ("gamma", "beta")}

BelowOne = Annotated[float, Range(low=0, below=1)]
MomentumStyle = Literal["torch", "keras"]
WeightDecayMode = Literal["coupled", "decoupled"]


class OptimizerSettings(Settings):
    """An optimizer as a config describes it, in its section ``train.optimizer``."""

    name: Literal["sgd", "adam", "adamw", "rmsprop"] = field("sgd", "sgd | adam | adamw | rmsprop")
    momentum: BelowOne | None = field(
        None, "momentum of sgd and rmsprop; none: 0.9 of sgd, 0 of rmsprop"
    )
    nesterov: bool = field(False, "Nesterov momentum of sgd")
    momentum_style: MomentumStyle = field(
        "torch", "torch (learning rate outside the buffer) | keras (inside, as Caffe), of sgd"
    )
    weight_decay: NonNegative = field(5e-4, "weight decay")
    weight_decay_mode: WeightDecayMode | None = field(
        None, "coupled (L2, added to the gradient) | decoupled; none: the usual one"
    )
    decay_exclude: tuple[str, ...] = field(
        (), "what does not decay: bias, batch_normalization, path patterns"
    )
    clip_norm: Positive | None = field(
        None, "largest norm of the whole gradient; none: no clipping"
    )
    beta_1: BelowOne | None = field(
        None, "decay of the mean of gradients of adam and adamw; none: 0.9"
    )
    beta_2: BelowOne | None = field(
        None, "decay of the mean of squares of adam and adamw; none: 0.999"
    )
    rho: BelowOne | None = field(None, "decay of the mean of squares of rmsprop; none: 0.9")
    epsilon: Positive | None = field(
        None, "added to the root of adam, adamw and rmsprop; none: 1e-7"
    )

    def check(self) -> None:
        if self.name == "adamw" and self.weight_decay_mode == "coupled":
            raise TfkdError(
                "optimizer 'adamw' has weight_decay_mode 'coupled'; wanted 'decoupled', which "
                "makes it AdamW, or the optimizer 'adam'"
            )
        _exclusions(self.decay_exclude)


_OWN = {
    "sgd": ("momentum", "nesterov", "momentum_style"),
    "adam": ("beta_1", "beta_2", "epsilon"),
    "adamw": ("beta_1", "beta_2", "epsilon"),
    "rmsprop": ("rho", "momentum", "epsilon"),
}
"""Settings that not every optimizer has."""


def create(
    settings: OptimizerSettings | Mapping[str, Any],
    schedule: float | keras.optimizers.schedules.LearningRateSchedule,
) -> keras.optimizers.Optimizer:
    """Makes an optimizer from settings.

    Args:
        settings: :class:`OptimizerSettings`, or a mapping of them, such as
            ``config.train.optimizer``. Those of other optimizers are set aside, with a warning
            unless they hold their default.
        schedule: A learning rate, or a schedule that gives it from the step.

    Raises:
        TfkdError: If a name or setting is unknown or a value is out of range.
    """
    if not isinstance(settings, OptimizerSettings):
        settings = OptimizerSettings.from_mapping(settings, "optimizer: ")
    name = settings.name
    values = used(settings, _OWN)
    values["global_clipnorm"] = values.pop("clip_norm", None)
    if name == "adamw":
        values["weight_decay_mode"] = "decoupled"
    if name == "sgd":
        values.setdefault("momentum", 0.9)
    return {"sgd": SGD, "rmsprop": RMSprop}.get(name, Adam)(schedule, **values)


class Decayed:
    """Weight decay and its exclusions, the same for all optimizers here.

    A mix-in to be put before a Keras optimizer. For a decay of d, ``"coupled"`` adds ``d * w`` to
    the gradient of the variable w before anything else is done with it (the gradient of
    ``d / 2 * ||w||^2``; torch's and Caffe's weight decay, Keras' ``L2(d / 2)``); ``"decoupled"``
    takes ``learning_rate * d * w`` off w beside the step (Loshchilov and Hutter, 2019,
    https://arxiv.org/abs/1711.05101; Keras' ``weight_decay``). Variables without a gradient are
    left alone.

    Args:
        learning_rate: A number, or a schedule that gives it from the step.
        weight_decay: d, at least 0.
        weight_decay_mode: ``"coupled"`` or ``"decoupled"``.
        decay_exclude: What does not decay: ``"bias"``, ``"batch_normalization"`` (scale and offset,
            gamma and beta, of this and Keras' other normalization layers) or patterns of variable
            paths with ``*``, such as ``"stem/*"``.
        **kwargs: Arguments of the Keras optimizer, such as `global_clipnorm`.

    Raises:
        TfkdError: If a value is out of range or an exclusion is neither kind nor pattern.
    """

    def __init__(
        self,
        learning_rate=0.01,
        weight_decay: float = 0.0,
        weight_decay_mode: str = "coupled",
        decay_exclude: Sequence[str] = (),
        **kwargs,
    ):
        if not callable(learning_rate):
            learning_rate = checked("learning_rate", NonNegative, learning_rate)
        weight_decay = checked("weight_decay", NonNegative, weight_decay)
        super().__init__(learning_rate=learning_rate, weight_decay=weight_decay, **kwargs)
        self.weight_decay_mode = checked("weight_decay_mode", WeightDecayMode, weight_decay_mode)
        self.decay_exclude = _exclusions(decay_exclude)
        self._decays = ()

    def build(self, variables):
        """Makes the optimizer's own variables and settles which variables decay."""
        if self.built:
            return
        super().build(variables)
        paths = [_path(variable) for variable in variables]
        for pattern in self.decay_exclude:
            if pattern not in _KINDS and not any(_excluded(path, pattern) for path in paths):
                warnings.warn(
                    f"decay_exclude {pattern!r} fits none of {len(paths)} variables, "
                    f"for instance {paths[0]!r}",
                    TfkdWarning,
                    stacklevel=2,
                )
        # By position: under a distribution strategy `update_step` sees a bare variable of one
        # replica, which has no path.
        self._decays = tuple(
            self.weight_decay > 0
            and not any(_excluded(path, pattern) for pattern in self.decay_exclude)
            for path in paths
        )

    def update_step(self, gradient, variable, learning_rate):
        """Updates one variable, its decay included, from its gradient over the whole batch."""
        gradient = self._with_decay(gradient, variable, learning_rate)
        super().update_step(gradient, variable, learning_rate)

    def _with_decay(self, gradient, variable, learning_rate) -> tf.Tensor:
        """Returns the gradient to go on with, after a decoupled decay has been done."""
        gradient = tf.cast(tf.convert_to_tensor(gradient), variable.dtype)
        if not self._decays[self._get_variable_index(variable)]:
            return gradient
        if self.weight_decay_mode == "coupled":
            return gradient + self.weight_decay * variable
        rate = tf.cast(learning_rate, variable.dtype)
        variable.assign_sub(rate * self.weight_decay * variable)
        return gradient

    def _apply_weight_decay(self, variables):
        """Does nothing: `update_step` decays, where Keras would do so for every optimizer."""

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments from which `from_config` makes an equal, fresh optimizer."""
        return {
            **super().get_config(),
            "weight_decay_mode": self.weight_decay_mode,
            "decay_exclude": list(self.decay_exclude),
        }


@keras.saving.register_keras_serializable("tfkd")
class SGD(Decayed, keras.optimizers.Optimizer):
    """Stochastic gradient descent with momentum, in the style of torch or of Keras and Caffe.

    With gradient g, momentum m and learning rate r, ``"torch"`` keeps gradients in its buffer::

        b = m * b + g            (b = g in the first step)
        w = w - r * b            or, with Nesterov, w = w - r * (g + m * b)

    and ``"keras"`` keeps steps, with the learning rate inside::

        v = m * v - r * g
        w = w + v                or, with Nesterov, w = w + m * v - r * g

    The two are the same while r stays as it is. After a drop of r the torch style scales down the
    momentum gathered before it, the other one lets it run out at the old rate. Each is one fused
    kernel a variable.

    Args:
        learning_rate: A number, or a schedule that gives it from the step.
        momentum: m, at least 0 and less than 1.
        nesterov: Whether to look ahead along the momentum; needs a momentum.
        momentum_style: ``"torch"`` or ``"keras"``.
        weight_decay: As for `Decayed`, as are the following two.
        weight_decay_mode: ``"coupled"`` or ``"decoupled"``.
        decay_exclude: Kinds or patterns of variables that do not decay.
        **kwargs: Arguments of `keras.optimizers.Optimizer`, such as `global_clipnorm`.

    Raises:
        TfkdError: If a value is out of range.
    """

    def __init__(
        self,
        learning_rate=0.01,
        momentum: float = 0.0,
        nesterov: bool = False,
        momentum_style: str = "torch",
        weight_decay: float = 0.0,
        weight_decay_mode: str = "coupled",
        decay_exclude: Sequence[str] = (),
        **kwargs,
    ):
        super().__init__(
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            weight_decay_mode=weight_decay_mode,
            decay_exclude=decay_exclude,
            **kwargs,
        )
        self.momentum = checked("momentum", BelowOne, momentum)
        self.nesterov = checked("nesterov", bool, nesterov)
        if self.nesterov and not self.momentum:
            raise TfkdError("nesterov is True with momentum 0; wanted a momentum above 0")
        self.momentum_style = checked("momentum_style", MomentumStyle, momentum_style)

    def build(self, variables):
        """Makes one buffer a variable, unless the momentum is 0."""
        if self.built:
            return
        super().build(variables)
        self.momentums = (
            self.add_optimizer_variables(variables, "momentum") if self.momentum else []
        )

    def update_step(self, gradient, variable, learning_rate):
        """Updates one variable and its buffer from its gradient over the whole batch."""
        gradient = self._with_decay(gradient, variable, learning_rate)
        rate = tf.cast(learning_rate, variable.dtype)
        if not self.momentum:
            tf.raw_ops.ResourceApplyGradientDescent(var=variable.handle, alpha=rate, delta=gradient)
            return
        kernel = (
            tf.raw_ops.ResourceApplyMomentum
            if self.momentum_style == "torch"
            else tf.raw_ops.ResourceApplyKerasMomentum
        )
        buffer = self.momentums[self._get_variable_index(variable)].value
        kernel(
            var=variable.handle,
            accum=buffer.handle,
            lr=rate,
            grad=gradient,
            momentum=tf.constant(self.momentum, variable.dtype),
            use_nesterov=self.nesterov,
        )

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments from which `from_config` makes an equal, fresh optimizer."""
        return {
            **super().get_config(),
            "momentum": self.momentum,
            "nesterov": self.nesterov,
            "momentum_style": self.momentum_style,
        }


@keras.saving.register_keras_serializable("tfkd")
class Adam(Decayed, keras.optimizers.Adam):
    """Keras' Adam with the decay of `Decayed`; decoupled, it is AdamW.

    Args:
        learning_rate: A number, or a schedule that gives it from the step.
        weight_decay: As for `Decayed`, as are the following two.
        weight_decay_mode: ``"coupled"`` (torch's Adam) or ``"decoupled"`` (AdamW).
        decay_exclude: Kinds or patterns of variables that do not decay.
        **kwargs: Arguments of `keras.optimizers.Adam`.
    """


@keras.saving.register_keras_serializable("tfkd")
class RMSprop(Decayed, keras.optimizers.RMSprop):
    """Keras' RMSprop with the decay of `Decayed`.

    Args:
        learning_rate: A number, or a schedule that gives it from the step.
        weight_decay: As for `Decayed`, as are the following two.
        weight_decay_mode: ``"coupled"`` or ``"decoupled"``.
        decay_exclude: Kinds or patterns of variables that do not decay.
        **kwargs: Arguments of `keras.optimizers.RMSprop`.
    """


def _exclusions(given: Sequence[str]) -> tuple[str, ...]:
    """Returns the exclusions as a tuple after checking that each is a kind or a pattern."""
    listed = checked("decay_exclude", tuple[str, ...], given)
    for each in listed:
        if each not in _KINDS and "*" not in each:
            raise unknown("decay_exclude", each, [*_KINDS, "a pattern with *"])
    return listed


def _path(variable) -> str:
    """Returns the path of a Keras variable, or the name of a TensorFlow one."""
    return getattr(variable, "path", None) or variable.name.split(":")[0]


def _excluded(path: str, pattern: str) -> bool:
    """Returns whether an exclusion, a kind or a pattern, fits the variable at a path."""
    if pattern in _KINDS:
        return path.rsplit("/", 1)[-1] in _KINDS[pattern]
    return fnmatch.fnmatchcase(path, pattern)
