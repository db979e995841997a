"""Layers that leave values as they are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import keras

from tfkd.caffe.definition import Layer
from tfkd.caffe.errors import CaffeFormatError
from tfkd.caffe.layers.operation import Operation, Shape, register


@register("Flatten")
@dataclass(frozen=True)
class Flatten(Operation):
    """All values of an image in a row, in Caffe's order: channels, height, width."""

    axis: int
    end_axis: int

    @classmethod
    def read(cls, layer: Layer) -> Flatten:
        found = layer.parameters("flatten_param")
        return cls(found.axis, found.end_axis)

    def output(self, inputs: Sequence[Shape]) -> Shape:
        rank = len(inputs[0]) + 1
        if self.axis % rank != 1 or self.end_axis % rank != rank - 1 or abs(self.axis) > rank:
            raise CaffeFormatError(
                f"found axis {self.axis} and end_axis {self.end_axis}, wanted 1 and -1"
            )
        return (math.prod(inputs[0]),)

    def build(self, inputs, label, arrays):
        (features,) = inputs
        if len(features.shape) == 4 and features.shape[1:3] != (1, 1):
            features = keras.layers.Permute((3, 1, 2), name=label.part("order"))(features)
        return keras.layers.Flatten(name=label.name)(features)
