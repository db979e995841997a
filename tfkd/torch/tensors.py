"""What a pickle of PyTorch's says about its tensors, and the arrays that come of it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import ml_dtypes
import numpy as np

from tfkd.errors import TfkdError

STORAGE_TYPES = {
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "BoolStorage": np.dtype(np.bool_),
    "ByteStorage": np.dtype("u1"),
    "CharStorage": np.dtype("i1"),
    "DoubleStorage": np.dtype("<f8"),
    "FloatStorage": np.dtype("<f4"),
    "HalfStorage": np.dtype("<f2"),
    "IntStorage": np.dtype("<i4"),
    "LongStorage": np.dtype("<i8"),
    "ShortStorage": np.dtype("<i2"),
}
"""The classes of torch that hold the numbers of tensors, and the type of one number."""

_MOST_AXES = 32
_LARGEST = 2**48


@dataclass(eq=False)
class Storage:
    """A row of numbers that one or more tensors are cut from.

    Attributes:
        key: Its name in the file.
        dtype: The type of one number.
        count: How many numbers the file says it has.
        values: The numbers, (count,), once they were read.
    """

    key: str
    dtype: np.dtype
    count: int
    values: np.ndarray | None = field(default=None, repr=False)

    @property
    def bytes(self) -> int:
        """The bytes that the file says it has."""
        return self.count * self.dtype.itemsize

    def fill(self, raw) -> None:
        """Takes its numbers from a buffer.

        Raises:
            TfkdError: When the buffer has another size than the file says.
        """
        if len(raw) != self.bytes:
            raise TfkdError(
                f"storage {self.key!r}: found {len(raw)} bytes, wanted {self.bytes} for "
                f"{self.count} numbers of {self.dtype}"
            )
        self.values = np.frombuffer(raw, self.dtype)


@dataclass(frozen=True, eq=False)
class Tensor:
    """A view of a storage.

    Attributes:
        storage: The storage.
        offset: The place of the first number.
        shape: The length of each axis.
        strides: The step of each axis, in numbers.
    """

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def __post_init__(self):
        name = f"tensor of storage {self.storage.key!r}"
        if len(self.shape) != len(self.strides) or len(self.shape) > _MOST_AXES:
            raise TfkdError(
                f"{name}: found {len(self.shape)} lengths and {len(self.strides)} strides, wanted "
                f"one of each for at most {_MOST_AXES} axes"
            )
        numbers = (self.offset, *self.shape, *self.strides)
        if not all(type(each) is int and 0 <= each < _LARGEST for each in numbers):
            raise TfkdError(
                f"{name}: found an offset, length or stride that is none, wanted whole numbers >= 0"
            )
        # A view that repeats its numbers is nothing that weights need, and could be of any size.
        last = self.offset + sum((n - 1) * step for n, step in zip(self.shape, self.strides))
        count = math.prod(self.shape)
        if count and (last >= self.storage.count or count > self.storage.count):
            raise TfkdError(
                f"{name}: found shape {self.shape} and strides {self.strides} from {self.offset} "
                f"on, wanted a part of its {self.storage.count} numbers"
            )

    def array(self) -> np.ndarray:
        """The tensor as a read-only view of the storage's numbers."""
        size = self.storage.dtype.itemsize
        if not math.prod(self.shape):
            return np.zeros(self.shape, self.storage.dtype)
        return np.lib.stride_tricks.as_strided(
            self.storage.values[self.offset :],
            self.shape,
            [step * size for step in self.strides],
            writeable=False,
        )
