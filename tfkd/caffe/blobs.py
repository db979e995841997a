"""Blobs: the arrays of numbers in Caffe's files."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from google.protobuf.message import DecodeError

from tfkd.caffe.errors import CaffeFormatError, sizes
from tfkd.caffe.schema import BlobProto
from tfkd.caffe.wire import BYTES, FIXED32, FIXED64, Field, Wire

_DATA, _DIFF, _DOUBLE_DATA, _DOUBLE_DIFF = 5, 6, 8, 9
_TYPES = {_DATA: np.dtype("<f4"), _DOUBLE_DATA: np.dtype("<f8")}
_UNPACKED = {_DATA: FIXED32, _DOUBLE_DATA: FIXED64}
_LEGACY = ("num", "channels", "height", "width")
_MOST_AXES = 32
_LARGEST = 2**40
_PART = 2**20
_LONGEST_REST = 2**20


@dataclass(frozen=True)
class _Piece:
    """Numbers in a row.

    Attributes:
        offset: Where the first of them is in the file.
        count: How many there are.
        gap: The bytes between one and the next.
    """

    offset: int
    count: int
    gap: int


@dataclass(frozen=True)
class Blob:
    """An array in a file; its numbers are read when they are asked for.

    Attributes:
        path: The file.
        shape: The length of each axis, in Caffe's order.
        dtype: The type of a number in the file.
        pieces: Where the numbers are.
    """

    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype
    pieces: tuple[_Piece, ...]

    @property
    def count(self) -> int:
        """How many numbers it has."""
        return math.prod(self.shape)

    def values(self) -> np.ndarray:
        """Returns the numbers, float32 of its shape."""
        found = np.empty(self.count, np.float32)
        start = 0
        for part in self._parts():
            found[start : start + len(part)] = part
            start += len(part)
        return found.reshape(self.shape)

    def check_finite(self) -> None:
        """Refuses numbers that are infinite or none, or are so in float32.

        Raises:
            CaffeFormatError: When it has some.
        """
        for part in self._parts():
            if not np.isfinite(part).all():
                raise CaffeFormatError(
                    "found numbers that are infinite or none, wanted finite ones"
                )

    def _parts(self) -> Iterator[np.ndarray]:
        """Yields the numbers part by part, in float32."""
        with self.path.open("rb") as file:
            for piece in self.pieces:
                record = np.dtype([("value", self.dtype), ("gap", f"V{piece.gap}")])
                for start in range(0, piece.count, _PART):
                    file.seek(piece.offset + start * record.itemsize)
                    count = min(_PART, piece.count - start)
                    raw = file.read(count * record.itemsize - piece.gap).ljust(
                        count * record.itemsize, b"\0"
                    )
                    with np.errstate(over="ignore", invalid="ignore"):
                        yield np.frombuffer(raw, record)["value"].astype(np.float32)


def read_blob(wire: Wire, path: Path, start: int, end: int) -> Blob:
    """Returns the blob that a message says; its numbers stay in the file.

    Args:
        wire: The file.
        path: Its path.
        start: Where the message begins.
        end: Where it ends.

    Raises:
        CaffeFormatError: When the message is none, or its numbers are not those of its shape.
    """
    rest, pieces = [], {_DATA: [], _DOUBLE_DATA: []}
    for field in wire.fields(start, end):
        if field.number in pieces and field.kind in (BYTES, _UNPACKED[field.number]):
            pieces[field.number].append(_piece(field))
        elif field.number not in (_DATA, _DIFF, _DOUBLE_DATA, _DOUBLE_DIFF):
            rest.append(field)
    shape = _shape(parsed(BlobProto, wire, rest))
    if pieces[_DATA] and pieces[_DOUBLE_DATA]:
        raise CaffeFormatError("found both data and double_data, wanted one of them")
    number = _DOUBLE_DATA if pieces[_DOUBLE_DATA] else _DATA
    found = sum(piece.count for piece in pieces[number])
    if shape is None:
        # Caffe writes a single number, such as the slope of all channels, without any length.
        if found != 1:
            raise CaffeFormatError(
                f"found a blob without a shape of {found:,} numbers, wanted one with it"
            )
        shape = ()
    if found != math.prod(shape):
        raise CaffeFormatError(
            f"found {found:,} numbers, wanted {math.prod(shape):,} for the shape {sizes(shape)}"
        )
    return Blob(path, shape, _TYPES[number], tuple(pieces[number]))


def parsed(message_class, wire: Wire, fields: list[Field]):
    """Returns the message that some fields of a file make.

    Args:
        message_class: The class of the message.
        wire: The file.
        fields: The fields, without those that hold the numbers of blobs.

    Raises:
        CaffeFormatError: When they make none.
    """
    length = sum(field.end - field.begin for field in fields)
    if length > _LONGEST_REST:
        raise CaffeFormatError(
            f"found {length:,} bytes beside the numbers, wanted at most {_LONGEST_REST:,}"
        )
    raw = b"".join(wire.read(field.begin, field.end) for field in fields)
    try:
        return message_class.FromString(raw)
    except DecodeError:
        raise CaffeFormatError(
            f"found what is no {message_class.DESCRIPTOR.name}, wanted a file that Caffe wrote"
        ) from None


def _piece(field: Field) -> _Piece:
    width = _TYPES[field.number].itemsize
    if field.kind != BYTES:
        # One field for each number: a tag stands before each.
        return _Piece(field.start, field.count, field.start - field.begin)
    length = field.end - field.start
    if length % width:
        raise CaffeFormatError(
            f"found {length:,} bytes for numbers of {width} bytes, wanted a multiple of that"
        )
    return _Piece(field.start, length // width, 0)


def _shape(message) -> tuple[int, ...] | None:
    if message.HasField("shape"):
        shape = tuple(message.shape.dim)
    elif any(message.HasField(name) for name in _LEGACY):
        shape = tuple(getattr(message, name) for name in _LEGACY)
    else:
        return None
    if len(shape) > _MOST_AXES or not all(0 < length < _LARGEST for length in shape):
        raise CaffeFormatError(
            f"found the shape {sizes(shape)}, wanted at most {_MOST_AXES} lengths of 1 or more"
        )
    if math.prod(shape) >= _LARGEST:
        raise CaffeFormatError(f"found the shape {sizes(shape)}, wanted fewer numbers")
    return shape
