"""The safetensors format: a JSON table of names, types, shapes and places, then the numbers."""

from __future__ import annotations

import json
import math

import ml_dtypes
import numpy as np

from tfkd.errors import TfkdError

_TYPES = {
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "BOOL": np.dtype(np.bool_),
    "F16": np.dtype("<f2"),
    "F32": np.dtype("<f4"),
    "F64": np.dtype("<f8"),
    "I16": np.dtype("<i2"),
    "I32": np.dtype("<i4"),
    "I64": np.dtype("<i8"),
    "I8": np.dtype("i1"),
    "U8": np.dtype("u1"),
}
_MOST_AXES = 32


def read(data: bytes) -> dict[str, np.ndarray]:
    """Returns the arrays of a file by name, as read-only views of it.

    Args:
        data: The whole file: the length of the table in 8 bytes, the table, the numbers.

    Raises:
        TfkdError: For a table that is cut off, or an entry that does not fit the numbers.
        Exception: Of `json`, for a damaged table.
    """
    length = int.from_bytes(data[:8], "little")
    if length > len(data) - 8:
        raise TfkdError(f"found a table of {length} bytes in a file of {len(data)}")
    table = json.loads(data[8 : 8 + length], object_pairs_hook=_without_doubles)
    if not isinstance(table, dict):
        raise TfkdError(f"found a table that is a {type(table).__name__}, wanted one of names")
    numbers = memoryview(data)[8 + length :]
    table.pop("__metadata__", None)
    return {name: _array(name, entry, numbers) for name, entry in table.items()}


def _without_doubles(pairs: list[tuple[str, object]]) -> dict:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise TfkdError("found a name twice in the table, wanted each once")
    return table


def _array(name: str, entry, numbers: memoryview) -> np.ndarray:
    try:
        kind, shape, (start, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
        whole = all(type(each) is int and each >= 0 for each in (*shape, start, end))
    except (KeyError, TypeError, ValueError):
        whole = False
    if not whole or len(shape) > _MOST_AXES:
        raise TfkdError(f"array {name!r}: found no entry with dtype, shape and data_offsets")
    if not isinstance(kind, str) or kind not in _TYPES:
        found = repr(kind)[:20] if isinstance(kind, str) else type(kind).__name__
        raise TfkdError(f"array {name!r}: found type {found}, wanted one of {', '.join(_TYPES)}")
    dtype = _TYPES[kind]
    # Python's numbers have no size, so a product that would wrap around does not.
    wanted = math.prod(shape) * dtype.itemsize
    if not start <= end <= len(numbers) or end - start != wanted:
        raise TfkdError(
            f"array {name!r}: found bytes {start} to {end} of {len(numbers)}, wanted {wanted} for "
            f"shape {tuple(shape)} of {dtype}"
        )
    return np.frombuffer(numbers[start:end], dtype).reshape(shape)
