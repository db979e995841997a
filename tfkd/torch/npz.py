"""NumPy's archives of arrays, read without its pickles."""

from __future__ import annotations

import io
import math
import zipfile

import numpy as np

from tfkd.errors import TfkdError

_MOST_GROWTH = 32
"""How much larger than an archive its arrays may be: weights can hardly be compressed at all."""

_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def read(archive: zipfile.ZipFile, size: int) -> dict[str, np.ndarray]:
    """Returns the arrays of an archive by name.

    Args:
        archive: An archive as `numpy.savez` and `numpy.savez_compressed` write it.
        size: The bytes of the archive.

    Raises:
        TfkdError: For arrays that are too large, of Python objects, or cut off.
        Exception: Of `zipfile`, for a damaged archive.
    """
    members = [each for each in archive.infolist() if each.filename.endswith(".npy")]
    total = sum(each.file_size for each in members)
    if total > _MOST_GROWTH * size:
        raise TfkdError(
            f"found arrays of {total} bytes in an archive of {size}, wanted at most "
            f"{_MOST_GROWTH} times as much"
        )
    return {each.filename.removesuffix(".npy"): _array(archive, each) for each in members}


def _array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    raw = archive.read(member)
    stream = io.BytesIO(raw)
    version = np.lib.format.read_magic(stream)
    if version not in _HEADERS:
        raise TfkdError(f"array {member.filename!r}: found format {version}, wanted 1.0 or 2.0")
    shape, by_columns, dtype = _HEADERS[version](stream)
    if dtype.hasobject or dtype.kind not in "biuf":
        raise TfkdError(f"array {member.filename!r}: found type {dtype}, wanted numbers")
    numbers = memoryview(raw)[stream.tell() :]
    if math.prod(shape) * dtype.itemsize != len(numbers):
        raise TfkdError(
            f"array {member.filename!r}: found {len(numbers)} bytes, wanted those of shape {shape} "
            f"and type {dtype}"
        )
    return np.frombuffer(numbers, dtype).reshape(shape, order="F" if by_columns else "C")
