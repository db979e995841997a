"""``tfkd.json``: what an exported folder says about itself."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from pathlib import Path

import keras
import tensorflow as tf

from tfkd import models
from tfkd.errors import TfkdError

FILE_NAME = "tfkd.json"
_FORMAT = "tfkd export 1"


def write(
    directory: Path,
    network: models.Network,
    *,
    fold: bool,
    class_names: Sequence[str] | None,
    adder: str | None = None,
) -> None:
    """Writes ``tfkd.json`` into an exported folder.

    Args:
        directory: The folder.
        network: The network before folding: its parameters and MACs are the published ones.
        fold: Whether batch normalisation was folded.
        class_names: The names of the classes in the order of the logits, if they are known.
        adder: How adder layers are written; ``None`` for a network without any.
    """
    input_shape = network.model.input_shape[1:]
    # Without a fixed image size the work of one image is not a number.
    cost = None if None in input_shape else models.cost(network.model)
    description = {
        "format": _FORMAT,
        "name": network.name,
        "input_shape": list(input_shape),
        "num_classes": network.model.output_shape[-1],
        "class_names": None if class_names is None else list(class_names),
        "preprocess": network.preprocess.to_config(),
        "fold": fold,
        "adder": adder,
        "params": cost and cost.params,
        "macs": cost and cost.macs,
        "versions": {
            "tensorflow": tf.__version__,
            "keras": keras.__version__,
            "python": platform.python_version(),
        },
    }
    text = json.dumps(description, indent=2) + "\n"
    (directory / FILE_NAME).write_text(text, encoding="utf-8")


def describe(directory: str | os.PathLike) -> dict:
    """Returns what ``tfkd.json`` in an exported folder says.

    Args:
        directory: A folder that ``tfkd.export.save`` wrote.

    Returns:
        A dict with ``name``, ``input_shape`` ``[height, width, channels]``, ``num_classes``,
        ``class_names`` (a list or None), ``preprocess`` (a config of ``Preprocess``), ``fold``,
        ``adder`` ("plain", "op", or None without adder layers), ``params``, ``macs`` (of one image;
        both None for a network of any image size) and ``versions``.

    Raises:
        TfkdError: When the folder is not such an export.
    """
    path = Path(directory) / FILE_NAME
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise TfkdError(
            f"export folder {str(directory)!r}: no readable {FILE_NAME} ({error.strerror}), "
            "wanted a folder that tfkd exported"
        ) from error
    except ValueError as error:
        raise TfkdError(f"file {str(path)!r}: found no valid JSON ({error})") from error
    if not isinstance(description, dict) or description.pop("format", None) != _FORMAT:
        raise TfkdError(f"file {str(path)!r}: found something else, wanted format {_FORMAT!r}")
    return description


def is_export(directory: Path) -> bool:
    """Whether a folder holds an export of tfkd."""
    try:
        describe(directory)
    except TfkdError:
        return False
    return (directory / "saved_model.pb").is_file()
