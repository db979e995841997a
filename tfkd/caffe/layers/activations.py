"""Functions of each value, and of each column of channels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import keras

from tfkd.caffe.definition import Layer
from tfkd.caffe.errors import CaffeFormatError
from tfkd.caffe.layers.operation import Operation, Shape, check_axis, register


class _OfEachValue(Operation):
    """What leaves a shape as it is."""

    def output(self, inputs: Sequence[Shape]) -> Shape:
        return inputs[0]


@register("ReLU")
@dataclass(frozen=True)
class ReLU(_OfEachValue):
    """max(x, 0) + slope * min(x, 0)."""

    slope: float

    @classmethod
    def read(cls, layer: Layer) -> ReLU:
        slope = layer.parameters("relu_param").negative_slope
        if not math.isfinite(slope):
            raise CaffeFormatError(f"found negative_slope {slope}, wanted a finite number")
        return cls(slope)

    def build(self, inputs, label, arrays):
        if self.slope < 0:
            # Keras' ReLU takes no such slope: the values below 0 are turned over and scaled.
            above = keras.layers.ReLU(name=label.part("above"))(inputs[0])
            turned = keras.layers.Rescaling(-1.0, name=label.part("turned"))(inputs[0])
            below = keras.layers.ReLU(name=label.part("below"))(turned)
            below = keras.layers.Rescaling(-self.slope, name=label.part("scaled"))(below)
            return keras.layers.Add(name=label.name)([above, below])
        return keras.layers.ReLU(negative_slope=self.slope, name=label.name)(inputs[0])


@register("PReLU")
@dataclass(frozen=True)
class PReLU(_OfEachValue):
    """max(x, 0) + slope * min(x, 0) with a learned slope: (channels,), or one of all channels."""

    shared: bool

    @classmethod
    def read(cls, layer: Layer) -> PReLU:
        return cls(layer.parameters("prelu_param").channel_shared)

    def weights(self, inputs: Sequence[Shape]) -> tuple[Shape, ...]:
        return ((1,) if self.shared else (inputs[0][0],),)

    def build(self, inputs, label, arrays):
        rank = len(inputs[0].shape) - 1
        axes = list(range(1, rank + 1 if self.shared else rank))
        layer = keras.layers.PReLU(shared_axes=axes or None, name=label.name)
        found = layer(inputs[0])
        layer.set_weights([arrays[0]().reshape(layer.alpha.shape)])
        return found


@register("Sigmoid", "TanH")
@dataclass(frozen=True)
class Activation(_OfEachValue):
    """1 / (1 + exp(-x)), or tanh(x)."""

    function: str

    @classmethod
    def read(cls, layer: Layer) -> Activation:
        return cls(layer.type.lower())

    def build(self, inputs, label, arrays):
        return keras.layers.Activation(self.function, name=label.name)(inputs[0])


@register("Softmax")
@dataclass(frozen=True)
class Softmax(_OfEachValue):
    """exp(x) divided by its sum over the channels."""

    axis: int

    @classmethod
    def read(cls, layer: Layer) -> Softmax:
        return cls(layer.parameters("softmax_param").axis)

    def output(self, inputs: Sequence[Shape]) -> Shape:
        check_axis(self.axis, rank=len(inputs[0]) + 1)
        return inputs[0]

    def build(self, inputs, label, arrays):
        return keras.layers.Softmax(name=label.name)(inputs[0])


@register("Dropout")
@dataclass(frozen=True)
class Dropout(_OfEachValue):
    """Nothing at inference; in training some values are 0 and the others larger, as in Keras."""

    ratio: float

    @classmethod
    def read(cls, layer: Layer) -> Dropout:
        ratio = layer.parameters("dropout_param").dropout_ratio
        if not 0 <= ratio < 1:
            raise CaffeFormatError(f"found dropout_ratio {ratio}, wanted 0 or more, below 1")
        return cls(ratio)

    def build(self, inputs, label, arrays):
        return keras.layers.Dropout(self.ratio, name=label.name)(inputs[0])
