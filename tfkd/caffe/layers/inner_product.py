"""Linear layers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import keras

from tfkd.caffe.definition import Layer
from tfkd.caffe.errors import CaffeFormatError
from tfkd.caffe.layers.operation import Operation, Shape, check_axis, filled, register


@register("InnerProduct")
@dataclass(frozen=True)
class InnerProduct(Operation):
    """A linear layer over all values of an image.

    Weights are (outputs, values), or (values, outputs) where ``transpose`` says so, and, with a
    bias, (outputs,). Values of maps are in the order channels, height, width; Keras flattens them
    in the order height, width, channels, so that the weights are brought into that.
    """

    outputs: int
    bias: bool
    transpose: bool
    axis: int

    @classmethod
    def read(cls, layer: Layer) -> InnerProduct:
        found = layer.parameters("inner_product_param")
        if found.num_output < 1:
            raise CaffeFormatError(f"found num_output {found.num_output}, wanted 1 or more")
        return cls(found.num_output, found.bias_term, found.transpose, found.axis)

    def output(self, inputs: Sequence[Shape]) -> Shape:
        check_axis(self.axis, rank=len(inputs[0]) + 1)
        return (self.outputs,)

    def weights(self, inputs: Sequence[Shape]) -> tuple[Shape, ...]:
        values = math.prod(inputs[0])
        kernel = (values, self.outputs) if self.transpose else (self.outputs, values)
        return (kernel, (self.outputs,)) if self.bias else (kernel,)

    def build(self, inputs, label, arrays):
        (features,) = inputs
        _, *lengths = features.shape
        if len(lengths) == 3:
            features = keras.layers.Flatten(name=label.part("flatten"))(features)
        layer = keras.layers.Dense(self.outputs, use_bias=self.bias, name=label.name)

        def kernel():
            values = arrays[0]() if self.transpose else arrays[0]().T
            if len(lengths) == 1:
                return values
            height, width, channels = lengths
            apart = values.reshape(channels, height, width, self.outputs)
            return apart.transpose(1, 2, 0, 3).reshape(-1, self.outputs)

        return filled(layer, features, kernel, *(each() for each in arrays[1:]))
