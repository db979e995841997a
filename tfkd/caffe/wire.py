"""Where the fields of a message lie in a file, in the wire format of protocol buffers.

A file of weights is nearly all numbers. What says so is found here without reading them: `protobuf`
gets the rest, and the numbers are read from their place in the file when they are needed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

import numpy as np

from tfkd.caffe.errors import CaffeFormatError

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
"""How a field is written: a number of any length, 8 bytes, a length and its bytes, 4 bytes."""

_WIDTHS = {FIXED64: 8, FIXED32: 4}
_MOST_FIELDS = 2**16
_LONGEST_VARINT = 10
_PART = 2**16


class Field(NamedTuple):
    """A field of a message, or several of one number in a row that are of one fixed width.

    Attributes:
        number: Its number.
        kind: How it is written.
        begin: Where its tag begins in the file.
        start: Where its value begins, after tag and length.
        end: Where it ends.
        count: How many of them stand here one after the other; more than 1 at a fixed width only.
    """

    number: int
    kind: int
    begin: int
    start: int
    end: int
    count: int = 1


class Wire:
    """The messages of a file.

    Args:
        file: The file, open for reading; it must stay open.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.size = file.seek(0, os.SEEK_END)
        self._left = _MOST_FIELDS

    def fields(self, start: int, end: int) -> Iterator[Field]:
        """Yields the fields of the message between two places of the file, in their order.

        Raises:
            CaffeFormatError: When the bytes are no message, or end before one of its fields.
        """
        position = start
        while position < end:
            self._left -= 1
            if self._left < 0:
                raise CaffeFormatError(
                    f"found more than {_MOST_FIELDS:,} fields, wanted those of a network"
                )
            field = self._field(position, end)
            yield field
            position = field.end

    def read(self, start: int, end: int) -> bytes:
        """Returns the bytes between two places of the file."""
        self._file.seek(start)
        return self._file.read(end - start)

    def _field(self, begin: int, end: int) -> Field:
        tag, start = self._varint(begin, end)
        number, kind = tag >> 3, tag & 7
        if not number or number >= 2**29 or kind not in (VARINT, FIXED64, BYTES, FIXED32):
            raise CaffeFormatError(
                f"found at byte {begin:,} what is no field of a message, wanted a NetParameter of "
                "Caffe's in binary form"
            )
        if kind == VARINT:
            return Field(number, kind, begin, start, self._varint(start, end)[1])
        if kind == BYTES:
            length, start = self._varint(start, end)
            self._check(begin, start + length, end)
            return Field(number, kind, begin, start, start + length)
        width = _WIDTHS[kind]
        self._check(begin, start + width, end)
        count = self._repeated(start - 1, width, end) if start == begin + 1 else 1
        return Field(number, kind, begin, start, begin + count * (start - begin + width), count)

    def _repeated(self, position: int, width: int, end: int) -> int:
        """Returns how many fields with a tag of one byte stand here one after the other."""
        record = np.dtype([("tag", "u1"), ("value", f"V{width}")])
        first, found = self.read(position, position + 1)[0], 0
        while True:
            begin = position + found * record.itemsize
            most = min((end - begin) // record.itemsize, _PART)
            raw = self.read(begin, begin + most * record.itemsize)
            other = np.flatnonzero(np.frombuffer(raw, record)["tag"] != first)
            if len(other) or most < _PART:
                return found + (int(other[0]) if len(other) else most)
            found += most

    def _varint(self, position: int, end: int) -> tuple[int, int]:
        """Returns the number at a place of the file, and the place after it."""
        raw = self.read(position, min(position + _LONGEST_VARINT, end))
        value = 0
        for place, byte in enumerate(raw):
            value |= (byte & 0x7F) << (7 * place)
            if byte < 0x80:
                return value, position + place + 1
        self._check(position, position + len(raw) + (len(raw) < _LONGEST_VARINT), end)
        raise CaffeFormatError(
            f"found a number of more than {_LONGEST_VARINT} bytes at byte {position:,}, wanted a "
            "NetParameter of Caffe's in binary form"
        )

    def _check(self, begin: int, found: int, end: int) -> None:
        """Refuses a field that is longer than its message."""
        if found > end:
            where = "the file" if end == self.size else "its message"
            raise CaffeFormatError(
                f"found the end of {where} at byte {end:,}, inside a field that begins at byte "
                f"{begin:,}; wanted a whole file"
            )
