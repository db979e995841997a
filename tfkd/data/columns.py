"""Columns: values that a user adds to the examples, one row each, read by position."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from tfkd.errors import TfkdError

_NUMBERS = "biuf"  # NumPy's kinds: booleans, integers with and without sign, floats.


class Column:
    """The values of one part of a data set.

    An array in memory becomes a tensor. Of one on disk, only the rows of a batch are read.
    """

    def __init__(self, name: str, part: str, values, size: int):
        """Takes the values.

        Args:
            name: Name of the column.
            part: Name of the part, for messages.
            values: Numbers or booleans (size, ...): an array, or an object on disk that has
                ``shape``, ``dtype`` and indexing by ascending positions, such as ``np.memmap`` and
                ``h5py.Dataset``.
            size: Number of examples.

        Raises:
            TfkdError: The values have another length or type.
        """
        where = f"column {name!r}, {part}"
        if not _on_disk(values):
            values = _array(where, values)
        if values.dtype.kind not in _NUMBERS:
            raise TfkdError(f"{where}: found values {values.dtype}, wanted numbers or booleans")
        if len(values.shape) < 1 or values.shape[0] != size:
            raise TfkdError(
                f"{where}: found values of shape {tuple(values.shape)}, wanted {size} rows, one "
                f"for each {part} image"
            )
        self._shape = values.shape[1:]
        # Arrays from files may have the byte order of another machine.
        self._dtype = values.dtype.newbyteorder("=")
        self._values = self._tensor = None
        if _on_disk(values):
            self._values = values
        else:
            # The input pipeline runs on the host, also where the networks do not.
            with tf.device("CPU:0"):
                self._tensor = tf.constant(values.astype(self._dtype, copy=False))

    def rows(self, index: tf.Tensor) -> tf.Tensor:
        """Returns the values (b, ...) at some positions, int32 (b,)."""
        if self._tensor is not None:
            return tf.gather(self._tensor, index)
        found = tf.numpy_function(self._read, [index], self._dtype, stateful=False)
        return tf.ensure_shape(found, [*index.shape, *self._shape])

    def _read(self, index: np.ndarray) -> np.ndarray:
        # HDF5 wants ascending positions without repetitions; the rows that fill up a last batch
        # are repetitions.
        positions, places = np.unique(index, return_inverse=True)
        return np.asarray(self._values[positions], self._dtype)[places]


def _on_disk(values) -> bool:
    """Whether values are read row by row: a view of a mapped file, or no array but like one."""
    if isinstance(values, np.ndarray):
        base = values
        while isinstance(base, np.ndarray):
            if isinstance(base, np.memmap):
                return True
            base = base.base
        return False
    shape, dtype = getattr(values, "shape", None), getattr(values, "dtype", None)
    return bool(shape) and isinstance(dtype, np.dtype)


def _array(where: str, values) -> np.ndarray:
    try:
        return np.asarray(values)
    except ValueError as error:  # Lists of unequal lengths.
        raise TfkdError(f"{where}: found no array ({error}), wanted one row an image") from error
