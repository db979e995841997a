"""What every type of layer tells of itself, and the types by name."""

from __future__ import annotations

import abc
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import keras
import numpy as np

from tfkd.caffe.definition import Layer
from tfkd.caffe.errors import CaffeFormatError, shown, sizes

Shape = tuple[int, ...]
"""Lengths without the batch, in Caffe's order: (channels, height, width), or (values,)."""


@dataclass(frozen=True)
class Label:
    """The names that the Keras layers of one layer get.

    Attributes:
        name: That of the one which gives the output.
        part: Makes the name of a further one from a word.
    """

    name: str
    part: Callable[[str], str]


class Operation(abc.ABC):
    """A layer with its parameters."""

    bottoms: tuple[int, int] = (1, 1)
    """How many blobs it reads, at least and at most."""

    @classmethod
    @abc.abstractmethod
    def read(cls, layer: Layer) -> Operation:
        """Returns the operation that a layer says.

        Raises:
            CaffeFormatError: For parameters that are wrong or not supported.
        """

    @abc.abstractmethod
    def output(self, inputs: Sequence[Shape]) -> Shape:
        """Returns the shape of its output.

        Raises:
            CaffeFormatError: For inputs that it does not take.
        """

    def weights(self, inputs: Sequence[Shape]) -> tuple[Shape, ...]:
        """Returns the shapes of its blobs."""
        del inputs
        return ()

    def check_weights(self, arrays: Sequence[Callable[[], np.ndarray]]) -> None:
        """Refuses numbers that it cannot have.

        Args:
            arrays: Gives each of its blobs in the shapes of :meth:`weights`.

        Raises:
            CaffeFormatError: When there are such.
        """
        del arrays

    @abc.abstractmethod
    def build(self, inputs: Sequence, label: Label, arrays: Sequence[Callable[[], np.ndarray]]):
        """Returns its output, made by Keras layers that hold its weights.

        Args:
            inputs: Tensors (batch, height, width, channels) or (batch, values).
            label: The names of the layers.
            arrays: As in :meth:`check_weights`.
        """


_TYPES: dict[str, type[Operation]] = {}


def register(*names: str) -> Callable[[type[Operation]], type[Operation]]:
    """Returns a decorator that makes a class the operation of some types of layers."""

    def add(kind: type[Operation]) -> type[Operation]:
        _TYPES.update(dict.fromkeys(names, kind))
        return kind

    return add


def types() -> tuple[str, ...]:
    """Returns the types of layers that are supported, sorted."""
    return tuple(sorted(_TYPES))


def operation_of(layer: Layer) -> Operation:
    """Returns what a layer does.

    Raises:
        CaffeFormatError: For a type that is not supported, parameters that are wrong, or another
            number of blobs.
    """
    if layer.type not in _TYPES:
        raise CaffeFormatError(
            f"found the type {shown(layer.type)}, wanted one of {', '.join(types())}"
        )
    kind = _TYPES[layer.type]
    least, most = kind.bottoms
    if not least <= len(layer.bottoms) <= most or len(layer.tops) != 1:
        wanted = f"{least}" if least == most else f"{least} or more"
        raise CaffeFormatError(
            f"found {len(layer.bottoms)} bottoms and {len(layer.tops)} tops, wanted {wanted} and 1 "
            f"for {layer.type}"
        )
    return kind.read(layer)


def filled(layer: keras.Layer, inputs, kernel: Callable[[], np.ndarray], *bias: np.ndarray):
    """Returns the output of a layer that has its weights from the beginning.

    A large kernel is not made of random numbers first, which would take time and memory.

    Args:
        layer: A convolution or Dense layer, not yet built.
        inputs: Its input.
        kernel: Gives the kernel.
        *bias: The bias, if it has one.
    """
    usual = layer.kernel_initializer
    layer.kernel_initializer = lambda shape, dtype: kernel()
    found = layer(inputs)
    layer.kernel_initializer = usual
    for values in bias:
        layer.bias.assign(values)
    return found


def check_maps(inputs: Sequence[Shape]) -> Shape:
    """Returns (channels, height, width) of the one input.

    Raises:
        CaffeFormatError: When it is something else.
    """
    if len(inputs[0]) != 3:
        raise CaffeFormatError(
            f"found an input {sizes(inputs[0])}, wanted maps (channels, height, width)"
        )
    return inputs[0]


def check_axis(axis: int, rank: int) -> None:
    """Refuses an axis that is not that of the channels.

    Args:
        axis: The axis; one below 0 is counted from the end.
        rank: The number of axes with the batch.

    Raises:
        CaffeFormatError: When it is another one.
    """
    if axis not in (1, 1 - rank):
        raise CaffeFormatError(f"found axis {axis}, wanted 1, that of the channels")
