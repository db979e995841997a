"""Pooling, with Caffe's own rule of how many windows there are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import keras
import numpy as np

from tfkd.caffe.definition import Layer
from tfkd.caffe.errors import CaffeFormatError, sizes
from tfkd.caffe.layers.operation import Operation, Shape, check_maps, register
from tfkd.caffe.layers.windows import Pair, pair
from tfkd.caffe.schema import ENUMS
from tfkd.models.graph.calls import named

_MAX, _AVE = ENUMS["PoolMethod"]["MAX"], ENUMS["PoolMethod"]["AVE"]
_LOWEST = float(np.finfo(np.float32).min)


@register("Pooling")
@dataclass(frozen=True)
class Pooling(Operation):
    """The largest value or the mean of windows.

    There are ceil((size + 2 pad - kernel) / stride) + 1 windows in each direction (floor where the
    rounding says so), less the last one where, with padding in one of them, it would begin behind
    image and padding. A mean divides by the values of the window within image and padding; a window
    that reaches further has fewer. Nothing but the image can be the largest value.

    A kernel of None is the whole image.
    """

    method: int
    kernel: Pair | None
    stride: Pair
    pad: Pair
    rounds_up: bool

    @classmethod
    def read(cls, layer: Layer) -> Pooling:
        found = layer.parameters("pooling_param")
        if found.pool not in (_MAX, _AVE):
            raise CaffeFormatError("found pool STOCHASTIC, wanted MAX or AVE")
        stride = pair(found, "stride", "stride", 1, 1)
        pad = pair(found, "pad", "pad", 0, 0)
        kernel = None
        if not found.global_pooling:
            kernel = pair(found, "kernel_size", "kernel", None, 1)
            if pad[0] >= kernel[0] or pad[1] >= kernel[1]:
                raise CaffeFormatError(f"found pad {pad}, wanted less than the kernel {kernel}")
        elif any(map(found.HasField, ("kernel_size", "kernel_h", "kernel_w"))):
            raise CaffeFormatError("found both global_pooling and a kernel, wanted one of them")
        elif any(pad) or stride != (1, 1):
            raise CaffeFormatError(
                f"found pad {pad} and stride {stride} with global_pooling, wanted 0 and 1"
            )
        rounds_up = found.round_mode == ENUMS["RoundMode"]["CEIL"] and found.ceil_mode
        return cls(found.pool, kernel, stride, pad, rounds_up)

    def output(self, inputs: Sequence[Shape]) -> Shape:
        channels, *lengths = check_maps(inputs)
        return (channels, *(self._windows(axis, lengths) for axis in (0, 1)))

    def _windows(self, axis: int, lengths: Sequence[int]) -> int:
        """How many windows there are in a direction."""
        if self.kernel is None:
            return 1
        length, kernel = lengths[axis], self.kernel[axis]
        stride, pad = self.stride[axis], self.pad[axis]
        steps = (length + 2 * pad - kernel) / stride
        found = (math.ceil(steps) if self.rounds_up else math.floor(steps)) + 1
        if any(self.pad) and (found - 1) * stride >= length + pad:
            found -= 1
        if found < 1 or (found - 1) * stride >= length + pad:
            raise CaffeFormatError(
                f"found maps {sizes(lengths)} for windows {sizes(self.kernel)} every "
                f"{sizes(self.stride)} values, wanted each to begin in the image"
            )
        return found

    def build(self, inputs, label, arrays):
        (images,) = inputs
        _, *lengths, _ = images.shape
        kernel = tuple(lengths) if self.kernel is None else self.kernel
        windows = [self._windows(axis, lengths) for axis in (0, 1)]
        reach = [(n - 1) * step + size for n, step, size in zip(windows, self.stride, kernel)]
        # In front what Caffe pads; behind what the last window needs.
        padding = [
            (pad, max(0, whole - length - pad))
            for pad, whole, length in zip(self.pad, reach, lengths)
        ]
        is_largest = self.method == _MAX
        if any(map(any, padding)):
            around = ((0, 0), *padding, (0, 0))
            value = _LOWEST if is_largest else 0.0
            padded = keras.ops.pad(images, around, constant_values=value)
            images = named(padded, label.part("pad"))
        kind = keras.layers.MaxPooling2D if is_largest else keras.layers.AveragePooling2D
        factors = {} if is_largest else self._factors(kernel, windows, lengths)
        name = label.part("mean") if factors else label.name
        found = kind(kernel, strides=self.stride, name=name)(images)
        for number, axis in enumerate(factors, start=1):
            name = label.name if number == len(factors) else label.part("mean")
            shape = (-1, 1, 1) if axis == 0 else (1, -1, 1)
            scale = factors[axis].reshape(shape).tolist()
            found = keras.layers.Rescaling(scale, name=name)(found)
        return found

    def _factors(
        self, kernel: Pair, windows: Sequence[int], lengths: Sequence[int]
    ) -> dict[int, np.ndarray]:
        """What the mean over whole windows is multiplied by in each direction, where not by 1."""
        found = {}
        for axis in (0, 1):
            starts = np.arange(windows[axis]) * self.stride[axis] - self.pad[axis]
            ends = np.minimum(starts + kernel[axis], lengths[axis] + self.pad[axis])
            factors = kernel[axis] / (ends - starts)
            if (factors != 1).any():
                found[axis] = factors
        return found
