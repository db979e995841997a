"""Layers that make one blob of several."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import keras

from tfkd.caffe.definition import Layer
from tfkd.caffe.errors import CaffeFormatError, sizes
from tfkd.caffe.layers.operation import Operation, Shape, check_axis, register
from tfkd.caffe.schema import ENUMS

_OPERATIONS = ENUMS["EltwiseOp"]
_MOST = 1000


@register("Eltwise")
@dataclass(frozen=True)
class Eltwise(Operation):
    """The product, the sum with coefficients, or the largest of values at the same place."""

    operation: int
    coefficients: tuple[float, ...]

    bottoms = (2, _MOST)

    @classmethod
    def read(cls, layer: Layer) -> Eltwise:
        found = layer.parameters("eltwise_param")
        coefficients = tuple(found.coeff)
        if coefficients and found.operation != _OPERATIONS["SUM"]:
            raise CaffeFormatError("found coeff without a sum, wanted it with SUM alone")
        if coefficients and len(coefficients) != len(layer.bottoms):
            raise CaffeFormatError(
                f"found {len(coefficients)} numbers of coeff, wanted {len(layer.bottoms)}, one for "
                "each bottom"
            )
        if not all(map(math.isfinite, coefficients)):
            raise CaffeFormatError(f"found coeff {list(coefficients)[:8]}, wanted finite numbers")
        return cls(found.operation, coefficients)

    def output(self, inputs: Sequence[Shape]) -> Shape:
        if len(set(inputs)) > 1:
            raise CaffeFormatError(
                f"found inputs {', '.join(map(sizes, inputs[:8]))}, wanted equal ones"
            )
        return inputs[0]

    def build(self, inputs, label, arrays):
        kinds = {
            _OPERATIONS["PROD"]: keras.layers.Multiply,
            _OPERATIONS["SUM"]: keras.layers.Add,
            _OPERATIONS["MAX"]: keras.layers.Maximum,
        }
        values = [
            tensor
            if factor == 1
            else keras.layers.Rescaling(factor, name=label.part(f"{n}"))(tensor)
            for n, (tensor, factor) in enumerate(
                zip(inputs, self.coefficients or [1.0] * len(inputs)), start=1
            )
        ]
        return kinds[self.operation](name=label.name)(values)


@register("Concat")
@dataclass(frozen=True)
class Concat(Operation):
    """The channels of several inputs one after the other."""

    axis: int

    bottoms = (1, _MOST)

    @classmethod
    def read(cls, layer: Layer) -> Concat:
        found = layer.parameters("concat_param")
        if found.HasField("axis") and found.HasField("concat_dim"):
            raise CaffeFormatError("found both axis and concat_dim, wanted one of them")
        return cls(found.concat_dim if found.HasField("concat_dim") else found.axis)

    def output(self, inputs: Sequence[Shape]) -> Shape:
        check_axis(self.axis, rank=len(inputs[0]) + 1)
        if len({shape[1:] for shape in inputs}) > 1:
            raise CaffeFormatError(
                f"found inputs {', '.join(map(sizes, inputs[:8]))}, wanted maps of one size"
            )
        return (sum(shape[0] for shape in inputs), *inputs[0][1:])

    def build(self, inputs, label, arrays):
        if len(inputs) == 1:
            return keras.layers.Identity(name=label.name)(inputs[0])
        return keras.layers.Concatenate(name=label.name)(list(inputs))
