"""``tfkd.json``: what an exported folder says about itself."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from tfkd import json_shapes, models
from tfkd.core import tasks
from tfkd.errors import TfkdError
from tfkd.models.graph.outputs import LOGITS, class_width, in_depth_order, output_sizes

FILE_NAME = "tfkd.json"
_FORMAT = "tfkd export 1"
_SHAPE = {
    "name": str,
    "input_shape": [(None, int)],
    "num_classes?": (None, int),
    "class_names": (None, [(int, str)]),
    "preprocess": {"mean": [float], "std": [float], "bgr?": bool},
    "params?": (None, int),
    "macs?": (None, int),
    "adder?": (None, str),
    "fold?": bool,
    "task?": str,
    "crop?": (None, str),
    "outputs?": {"*": [(None, int)]},
    "exits?": (None, {"*": {"params": int, "macs": int}}),
    "early_exit?": (None, {"points?": (None, [{"*": object}]), "*": object}),
}


def write(
    directory: Path,
    network: models.Network,
    outputs: Mapping[str, list[int | None]],
    *,
    fold: bool,
    class_names: Sequence[str] | None,
    adder: str | None = None,
    further: Mapping[str, Any] | None = None,
) -> None:
    """Writes ``tfkd.json`` into an exported folder.

    Args:
        directory: The folder.
        network: The network before folding: its parameters and MACs are the published ones.
        outputs: The shape of each output of the export after the batch axis.
        fold: Whether batch normalization was folded.
        class_names: The names of the classes in the order of the logits, if they are known.
        adder: How adder layers are written; ``None`` for a network without any.
        further: What else the exporter tells.
    """
    description = {
        "format": _FORMAT,
        "name": network.name,
        **facts(network),
        "outputs": dict(outputs),
        "class_names": None if class_names is None else list(class_names),
        "preprocess": network.preprocess.to_config(),
        "crop": network.crop,
        "fold": fold,
        "adder": adder,
        **(further or {}),
        "versions": {
            "tensorflow": tf.__version__,
            "keras": keras.__version__,
            "python": platform.python_version(),
        },
    }
    text = json.dumps(description, indent=2) + "\n"
    (directory / FILE_NAME).write_text(text, encoding="utf-8")


def facts(network: models.Network) -> dict[str, Any]:
    """Returns ``task``, ``input_shape``, ``num_classes``, ``params``, ``macs`` and ``exits``.

    They are as in :func:`describe`.
    """
    input_shape = list(network.model.input_shape[1:])
    # Without a fixed image size the work of one image is not a number.
    cost = None if None in input_shape else models.cost(network.model)
    return {
        "task": tasks.name_of(network),
        "input_shape": input_shape,
        "num_classes": class_width(output_sizes(network.model)),
        "params": cost and cost.params,
        "macs": cost and cost.macs,
        "exits": cost and _exit_costs(network.model),
    }


def _exit_costs(model: keras.Model) -> dict[str, dict[str, int]] | None:
    names = in_depth_order(models.outputs(model))
    if len(names) < 2 or names[-1] != LOGITS:
        return None
    costs = models.exit_costs(model)
    return {name: {"params": each.params, "macs": each.macs} for name, each in costs.items()}


def describe(directory: str | os.PathLike) -> dict:
    """Returns what ``tfkd.json`` in an exported folder says.

    Args:
        directory: A folder that ``tfkd.export.save`` wrote.

    Returns:
        A dict with ``name``, ``task``, ``input_shape`` ``[height, width, channels]``, ``outputs``
        (the shape of each output of the signatures after the batch axis), ``num_classes`` (the
        width of ``logits``, or None), ``class_names`` (a list or None), ``preprocess`` (a config of
        ``Preprocess``), ``crop`` (as ``Network.crop``), ``fold``, ``adder`` ("plain", "op", or None
        without adder layers), ``params``, ``macs`` (of one image; both None for a network of any
        image size), ``exits`` (``params`` and ``macs`` up to each exit; None for a network with
        one), ``early_exit`` (None where no signature leaves early, otherwise a dict with
        ``points``, of which a budget chooses one: a list, or None without ``early_exit_budget``)
        and ``versions``.

    Raises:
        TfkdError: When the folder is not such an export.
    """
    path = Path(directory) / FILE_NAME
    try:
        description = json_shapes.read(path, {"*": object})
        if description.pop("format", None) != _FORMAT:
            raise json_shapes.Misfit("the file is of another format")
        json_shapes.require(description, _SHAPE)
    except OSError as error:
        raise TfkdError(
            f"export folder {str(directory)!r}: no readable {FILE_NAME} ({error.strerror}), "
            "wanted a folder that tfkd exported"
        ) from error
    except json_shapes.Misfit as error:
        raise TfkdError(f"file {str(path)!r}: {error}; wanted format {_FORMAT!r}") from error
    # Exports of earlier versions are classifiers with one exit.
    classes = [description.get("num_classes")]
    usual = {
        "task": "classification",
        "outputs": {"logits": classes, "probabilities": classes},
        "exits": None,
        "early_exit": None,
        "crop": None,
    }
    return usual | description


def is_export(directory: Path) -> bool:
    """Whether a folder holds an export of tfkd."""
    try:
        describe(directory)
    except TfkdError:
        return False
    return (directory / "saved_model.pb").is_file()
