"""Batch normalization, which Caffe does in two layers: BatchNorm, and Scale behind it."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import keras
import numpy as np

from tfkd.caffe.definition import Layer
from tfkd.caffe.errors import CaffeFormatError, shown
from tfkd.caffe.layers.operation import Operation, Shape, check_axis, register
from tfkd.errors import TfkdWarning


@register("BatchNorm")
@dataclass(frozen=True)
class BatchNorm(Operation):
    """(x - mean) / sqrt(variance + eps), by the statistics of training.

    The blobs are mean and variance, (channels,) each, times the third one, (1,), by which they are
    divided; where that is 0, they are 0. Those of a Scale that it does the work of follow.
    """

    epsilon: float
    scale: Scale | None = None

    @classmethod
    def read(cls, layer: Layer) -> BatchNorm:
        found = layer.parameters("batch_norm_param")
        if found.HasField("use_global_stats") and not found.use_global_stats:
            warnings.warn(
                f"layer {shown(layer.name)} asks for the statistics of each batch "
                "(use_global_stats: false); those of training are used",
                TfkdWarning,
                stacklevel=2,
            )
        if not 0 <= found.eps < 1e3:
            raise CaffeFormatError(f"found eps {found.eps}, wanted 0 or more")
        return cls(found.eps)

    def output(self, inputs: Sequence[Shape]) -> Shape:
        return inputs[0]

    def weights(self, inputs: Sequence[Shape]) -> tuple[Shape, ...]:
        channels = inputs[0][0]
        further = () if self.scale is None else self.scale.weights(inputs)
        return ((channels,), (channels,), (1,), *further)

    def check_weights(self, arrays: Sequence[Callable[[], np.ndarray]]) -> None:
        mean, variance = self._statistics(arrays)
        if not (np.isfinite(mean).all() and np.isfinite(variance).all()):
            raise CaffeFormatError(
                f"found a mean or variance that is infinite with the factor {arrays[2]()[0]:.4g}, "
                "wanted finite ones"
            )
        least = float(variance.min())
        if not least + self.epsilon > 0:
            raise CaffeFormatError(
                f"found the variance {least:.4g} and eps {self.epsilon:.4g}, wanted a sum above 0"
            )

    def build(self, inputs, label, arrays):
        layer = keras.layers.BatchNormalization(
            epsilon=self.epsilon,
            center=self.scale is not None and self.scale.bias,
            scale=self.scale is not None,
            name=label.name,
        )
        found = layer(inputs[0])
        layer.set_weights([*(each() for each in arrays[3:]), *self._statistics(arrays)])
        return found

    def with_scale(self, scale: Scale) -> BatchNorm:
        """Returns the operation that it makes together with a Scale that alone reads it."""
        return dataclasses.replace(self, scale=scale)

    def _statistics(
        self, arrays: Sequence[Callable[[], np.ndarray]]
    ) -> tuple[np.ndarray, np.ndarray]:
        mean, variance, factor = (each() for each in arrays[:3])
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
            inverse = np.float32(0) if factor[0] == 0 else 1 / factor[0]
            return mean * inverse, variance * inverse


@register("Scale")
@dataclass(frozen=True)
class Scale(Operation):
    """x * weight, and plus a bias where it has one: (channels,) each."""

    bias: bool
    axis: int = 1

    @classmethod
    def read(cls, layer: Layer) -> Scale:
        found = layer.parameters("scale_param")
        if found.num_axes != 1:
            raise CaffeFormatError(f"found num_axes {found.num_axes}, wanted 1")
        return cls(found.bias_term, found.axis)

    def output(self, inputs: Sequence[Shape]) -> Shape:
        check_axis(self.axis, rank=len(inputs[0]) + 1)
        return inputs[0]

    def weights(self, inputs: Sequence[Shape]) -> tuple[Shape, ...]:
        channels = inputs[0][0]
        return ((channels,), (channels,)) if self.bias else ((channels,),)

    def build(self, inputs, label, arrays):
        (features,) = inputs
        _, *lengths = features.shape
        is_flat = len(lengths) == 1
        if is_flat:
            maps = keras.layers.Reshape((1, 1, *lengths), name=label.part("maps"))
            features = maps(features)
        layer = keras.layers.DepthwiseConv2D(
            1, use_bias=self.bias, name=label.part("maps_scale") if is_flat else label.name
        )
        found = layer(features)
        weight, *bias = (each() for each in arrays)
        layer.set_weights([weight.reshape(1, 1, -1, 1), *bias])
        return keras.layers.Reshape(lengths, name=label.name)(found) if is_flat else found
