"""Local response normalization (Krizhevsky, Sutskever, Hinton, NIPS 2012)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import keras

from tfkd.caffe.definition import Layer
from tfkd.caffe.errors import CaffeFormatError
from tfkd.caffe.layers.operation import Label, Operation, Shape, check_maps, register
from tfkd.caffe.schema import ENUMS
from tfkd.models.graph.calls import named

_LARGEST = 63


@register("LRN")
@dataclass(frozen=True)
class LRN(Operation):
    """x / (k + alpha * mean of x^2 near it) ** beta.

    The mean is over ``size`` channels, or over ``size`` x ``size`` values of its own channel, where
    k is 1 whatever the parameter; zeros stand for values outside.
    """

    size: int
    alpha: float
    beta: float
    k: float
    across: bool

    @classmethod
    def read(cls, layer: Layer) -> LRN:
        found = layer.parameters("lrn_param")
        if found.local_size % 2 != 1 or found.local_size > _LARGEST:
            raise CaffeFormatError(
                f"found local_size {found.local_size}, wanted an odd number, at most {_LARGEST}"
            )
        if not all(map(math.isfinite, (found.alpha, found.beta, found.k))):
            raise CaffeFormatError("found alpha, beta or k that is infinite or none")
        across = found.norm_region == ENUMS["NormRegion"]["ACROSS_CHANNELS"]
        k = found.k if across else 1.0
        if k <= 0 or found.alpha < 0:
            raise CaffeFormatError(
                f"found k {k} and alpha {found.alpha}, wanted k above 0 and alpha not below"
            )
        return cls(found.local_size, found.alpha, found.beta, k, across)

    def output(self, inputs: Sequence[Shape]) -> Shape:
        return check_maps(inputs)

    def build(self, inputs, label, arrays):
        (features,) = inputs
        squares = keras.layers.Multiply(name=label.part("squares"))([features, features])
        if self.across:
            near, share = _sum_over_channels(squares, self.size, label), self.alpha / self.size
        else:
            padding = keras.layers.ZeroPadding2D(self.size // 2, name=label.part("pad"))
            pooling = keras.layers.AveragePooling2D(self.size, 1, name=label.part("mean"))
            near, share = pooling(padding(squares)), self.alpha
        base = keras.layers.Rescaling(share, self.k, name=label.part("base"))(near)
        factor = named(keras.ops.power(base, -self.beta), label.part("factor"))
        return keras.layers.Multiply(name=label.name)([features, factor])


def _sum_over_channels(values, size: int, label: Label):
    """The sum of a value and its neighbors among the channels, zeros outside."""
    channels, half = values.shape[-1], size // 2
    around = ((0, 0), (0, 0), (0, 0), (half, half))
    padded = named(keras.ops.pad(values, around), label.part("pad"))
    # Of parts: on CPUs ten times as fast as a pooling over one channel.
    parts = [
        named(padded[:, :, :, first : first + channels], label.part(f"part{first + 1}"))
        for first in range(size)
    ]
    return keras.layers.Add(name=label.part("sum"))(parts) if size > 1 else parts[0]
