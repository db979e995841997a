"""Loading SavedModels that hold the compiled adder op."""

from __future__ import annotations

import os
from pathlib import Path

import tensorflow as tf

from tfkd import files
from tfkd.adder import compiled_ops
from tfkd.errors import TfkdError


def load(directory: str | os.PathLike):
    """Loads a SavedModel with the compiled adder op, as ``tf.saved_model.load`` does.

    Plain TensorFlow does not know the op. The plain form of an export loads without this.

    Args:
        directory: The SavedModel.

    Returns:
        The loaded object, with ``signatures``.

    Raises:
        TfkdError: It is no SavedModel, or the op cannot be compiled here.
    """
    if not (Path(directory) / "saved_model.pb").is_file():
        raise TfkdError(f"SavedModel {str(directory)!r}: found no saved_model.pb, wanted an export")
    if compiled_ops.operations() is None:
        raise TfkdError(
            f"SavedModel {str(directory)!r} with the adder op: found no compiled op on this "
            "machine, wanted a compiler (see the warning), or the plain form of the export"
        )
    with files.without_wildcards(directory) as path:
        return tf.saved_model.load(str(path))
