"""Convolution."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import keras

from tfkd.caffe.definition import Layer
from tfkd.caffe.errors import CaffeFormatError, sizes
from tfkd.caffe.layers.operation import Operation, Shape, check_axis, check_maps, filled, register
from tfkd.caffe.layers.windows import Pair, pair


@register("Convolution")
@dataclass(frozen=True)
class Convolution(Operation):
    """A convolution of maps, perhaps in groups of channels.

    The output has floor((size + 2 pad - dilation (kernel - 1) - 1) / stride) + 1 values in each
    direction. Weights are (filters, channels / groups, height, width) and, with a bias, (filters,).
    """

    filters: int
    kernel: Pair
    stride: Pair
    pad: Pair
    dilation: Pair
    groups: int
    bias: bool

    @classmethod
    def read(cls, layer: Layer) -> Convolution:
        found = layer.parameters("convolution_param")
        check_axis(found.axis, rank=4)
        if found.num_output < 1 or found.group < 1:
            raise CaffeFormatError(
                f"found num_output {found.num_output} and group {found.group}, wanted 1 or more"
            )
        dilation = list(found.dilation) or [1]
        if len(dilation) > 2 or not all(1 <= each < 2**16 for each in dilation):
            raise CaffeFormatError(f"found dilation {dilation[:8]}, wanted 1 or 2 numbers >= 1")
        return cls(
            found.num_output,
            pair(found, "kernel_size", "kernel", None, 1),
            pair(found, "stride", "stride", 1, 1),
            pair(found, "pad", "pad", 0, 0),
            (dilation[0], dilation[-1]),
            found.group,
            found.bias_term,
        )

    def output(self, inputs: Sequence[Shape]) -> Shape:
        channels, *lengths = check_maps(inputs)
        if channels % self.groups or self.filters % self.groups:
            raise CaffeFormatError(
                f"found {channels} channels and {self.filters} filters in {self.groups} groups, "
                "wanted numbers that the groups divide"
            )
        found = tuple(
            (length + 2 * pad - dilation * (kernel - 1) - 1) // stride + 1
            for length, kernel, stride, pad, dilation in zip(
                lengths, self.kernel, self.stride, self.pad, self.dilation
            )
        )
        if min(found) < 1:
            raise CaffeFormatError(
                f"found an input {sizes(inputs[0])}, wanted one not smaller than its filters"
            )
        return (self.filters, *found)

    def weights(self, inputs: Sequence[Shape]) -> tuple[Shape, ...]:
        kernel = (self.filters, inputs[0][0] // self.groups, *self.kernel)
        return (kernel, (self.filters,)) if self.bias else (kernel,)

    def build(self, inputs, label, arrays):
        (images,) = inputs
        padding = "same" if self._is_same() else "valid"
        if padding == "valid" and any(self.pad):
            images = keras.layers.ZeroPadding2D(self.pad, name=label.part("pad"))(images)
        # Keras strides or dilates; a convolution that does both is one without strides, of which
        # every so many values are kept.
        strides = self.stride if max(self.dilation) == 1 else (1, 1)
        kept_later = strides != self.stride
        settings = {
            "strides": strides,
            "padding": padding,
            "dilation_rate": self.dilation,
            "use_bias": self.bias,
            "name": label.part("dense") if kept_later else label.name,
        }
        found = self._convolved(images, settings, arrays)
        if not kept_later:
            return found
        return keras.layers.MaxPooling2D(1, strides=self.stride, name=label.name)(found)

    def _convolved(self, images, settings: dict, arrays):
        channels = images.shape[-1]
        bias = [each() for each in arrays[1:]]
        # Keras' depthwise convolution takes equal strides only.
        if 1 < self.groups == channels and len(set(settings["strides"])) == 1:
            each = self.filters // channels
            layer = keras.layers.DepthwiseConv2D(self.kernel, depth_multiplier=each, **settings)
            found = layer(images)
            # (channels x multiplier, 1, height, width) -> (height, width, channels, multiplier).
            apart = arrays[0]().reshape(channels, each, *self.kernel)
            layer.set_weights([apart.transpose(2, 3, 0, 1), *bias])
            return found
        layer = keras.layers.Conv2D(self.filters, self.kernel, groups=self.groups, **settings)
        # (filters, channels / groups, height, width) -> (height, width, channels, filters).
        return filled(layer, images, lambda: arrays[0]().transpose(2, 3, 1, 0), *bias)

    def _is_same(self) -> bool:
        """Whether Keras' "same" is this padding; elsewhere it pads right and bottom more."""
        return self.stride == (1, 1) and all(
            kernel % 2 and 2 * pad == dilation * (kernel - 1)
            for kernel, pad, dilation in zip(self.kernel, self.pad, self.dilation)
        )
