"""The layers of an adder ResNet-20 that are measured, and their numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import tensorflow as tf


@dataclass(frozen=True)
class Shape:
    """One layer: images of size x size x channels, square filters, padding size // 2."""

    size: int
    channels: int
    filters: int
    kernel: int = 3
    stride: int = 1
    batch_size: int = 64

    def __str__(self) -> str:
        stride = f", stride {self.stride}" if self.stride > 1 else ""
        return (
            f"{self.kernel}x{self.kernel}{stride}, {self.channels}@{self.size}x{self.size} -> "
            f"{self.filters}"
        )

    @property
    def multiply_adds(self) -> int:
        """Those of the convolution; the adder layer has as many differences."""
        places = -(-self.size // self.stride)
        return self.batch_size * places**2 * self.kernel**2 * self.channels * self.filters

    def images(self, batch_size: int) -> tf.Tensor:
        """A batch of random images."""
        return normal(batch_size, self.size, self.size, self.channels)

    def random_filters(self) -> tf.Tensor:
        """Random filters, always the same ones."""
        return normal(self.kernel, self.kernel, self.channels, self.filters)


_SHAPES = (
    Shape(32, 16, 16),
    Shape(32, 16, 32, stride=2),
    Shape(16, 32, 32),
    Shape(16, 32, 64, stride=2),
    Shape(8, 64, 64),
    Shape(32, 16, 32, kernel=1, stride=2),
    Shape(16, 32, 64, kernel=1, stride=2),
)
_TINY_SHAPES = (Shape(6, 3, 4, batch_size=2), Shape(6, 3, 4, kernel=1, stride=2, batch_size=2))


def all_shapes(tiny: bool) -> Sequence[Shape]:
    """The shapes of all layers."""
    return _TINY_SHAPES if tiny else _SHAPES


def shapes_for_threads(tiny: bool) -> Sequence[Shape]:
    """The shapes whose work is shared among threads: of many pixels, and of many filters."""
    return _TINY_SHAPES[:1] if tiny else (_SHAPES[0], _SHAPES[4])


def normal(*shape: int) -> tf.Tensor:
    """Normal random numbers, the same for the same shape."""
    return tf.random.stateless_normal(shape, (len(shape), sum(shape)))
