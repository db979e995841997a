"""A network on disk: a ``.keras`` file that plain Keras opens, and how pixels reach it."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import keras

from tfkd import files
from tfkd.errors import TfkdError, reason, unknown
from tfkd.models.graph.keras_layers import stock
from tfkd.models.network import Network, as_network
from tfkd.models.preprocess import Preprocess

DESCRIPTION = "network.json"
STEMS = {"last": "student", "best": "student_best"}


def in_precision(model: keras.Model, dtype: str = "float32") -> keras.Model:
    """Returns the model with every layer computing in one precision, weights copied.

    A model whose layers do so already is returned as it is. Mixed precision is a means of training:
    its variables are float32 all along, so float32 loses nothing.

    Args:
        model: A functional or sequential model; for ``"float64"`` one of stock Keras layers and
            adder layers.
        dtype: ``"float32"`` or ``"float64"``.
    """
    if all(layer.compute_dtype == dtype for layer in _layers(model)):
        return model

    def make(layer):
        return type(layer).from_config(_config_in_precision(layer.get_config(), dtype))

    clone = keras.models.clone_model(model, clone_function=make, recursive=True)
    clone.set_weights(model.get_weights())
    return clone


def save_network(
    network: Network | keras.Model,
    folder: str | os.PathLike,
    stem: str = "student",
    class_names: Sequence[str] | None = None,
) -> Path:
    """Writes ``<stem>.keras`` (stock Keras layers, float32) and ``network.json`` into a folder.

    Each file appears whole or not at all: it is written beside its place and then renamed.

    Args:
        network: A network, or a model that takes pixels as they are.
        folder: An existing or a new folder.
        stem: The file name without its ending.
        class_names: The names of the classes in the order of the logits, if they are known.

    Returns:
        The path of the ``.keras`` file.

    Raises:
        TfkdError: When the folder cannot be written.
    """
    network = as_network(network)
    folder = Path(folder)
    model = in_precision(stock(network.model))
    description = {
        "name": network.name,
        "preprocess": network.preprocess.to_config(),
        "taps": network.taps,
        "input_shape": list(model.input_shape[1:]),
        "num_classes": model.output_shape[-1],
        "class_names": None if class_names is None else [str(name) for name in class_names],
    }
    wanted = "a folder with write permission and space"
    with files.writing(f"folder {str(folder)!r} for the network", wanted):
        folder.mkdir(parents=True, exist_ok=True)
    files.write_json(folder / DESCRIPTION, description)
    return files.write(folder / f"{stem}.keras", model.save)


def save_model(model: keras.Model, path: str | os.PathLike) -> Path:
    """Writes a model to a ``.keras`` file, whole or not at all: stock Keras layers, float32.

    Args:
        model: A functional or sequential model.
        path: The file, in an existing folder.
    """
    return files.write(path, in_precision(stock(model)).save)


def load_network(run_folder: str | os.PathLike, which: str = "last") -> Network:
    """Returns the student of a run folder, ready for pixels 0..255.

    Args:
        run_folder: A folder that ``save_network`` wrote into.
        which: ``"last"`` is the student after the last epoch, ``"best"`` the one of the epoch with
            the best validation accuracy.

    Raises:
        TfkdError: When ``which`` is neither, the folder is not a run folder, or a file is missing,
            damaged or at odds with the other.
    """
    if which not in STEMS:
        raise unknown("student", which, STEMS)
    description = load_description(run_folder)
    path = Path(run_folder) / f"{STEMS[which]}.keras"
    if not path.is_file():
        found = sorted(each.name for each in path.parent.glob("*.keras"))
        raise TfkdError(
            f"run folder {str(run_folder)!r}: found {', '.join(found) or 'no .keras file'}, "
            f"wanted {path.name} (a run writes it at the end of its epochs)"
        )
    model = load_model(path)
    shape = list(model.input_shape[1:]), model.output_shape[-1]
    recorded = description["input_shape"], description["num_classes"]
    if shape != recorded:
        raise TfkdError(
            f"network file {str(path)!r}: found input shape and classes {shape}, "
            f"wanted {recorded} as {DESCRIPTION} beside it says"
        )
    preprocess = Preprocess.from_config(description["preprocess"])
    return Network(model, preprocess, name=description["name"], taps=description["taps"])


def load_model(path: str | os.PathLike) -> keras.Model:
    """Returns the model of a ``.keras`` file.

    Raises:
        TfkdError: When the file is missing or damaged.
    """
    path = Path(path)
    if not path.is_file():
        raise TfkdError(f"network file {str(path)!r}: no such file, wanted a .keras file")
    try:
        return keras.models.load_model(path, compile=False)
    # A damaged archive fails in as many ways as it has parts: zip, json, hdf5, shapes.
    except Exception as error:
        raise TfkdError(
            f"network file {str(path)!r}: found {path.stat().st_size} bytes that do not load "
            f"({reason(error)}), wanted a whole .keras file"
        ) from error


def load_description(run_folder: str | os.PathLike) -> dict:
    """Returns what ``network.json`` of a run folder says.

    Returns:
        A dict with ``name``, ``preprocess`` (a config of ``Preprocess``), ``taps`` (further names
        of taps), ``input_shape`` ``[height, width, channels]``, ``num_classes`` and ``class_names``
        (a list or None).

    Raises:
        TfkdError: When the folder or the file is missing or is something else.
    """
    path = Path(run_folder) / DESCRIPTION
    if not path.is_file():
        found = "a folder without that file" if path.parent.is_dir() else "no such folder"
        raise TfkdError(
            f"run folder {str(run_folder)!r}: found {found}, "
            f"wanted the --workdir of a training run, which holds {DESCRIPTION}"
        )
    wanted = ("name", "preprocess", "input_shape", "num_classes", "class_names")
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
        known = {key: description[key] for key in wanted}
        # Folders of earlier versions say nothing of taps: their networks have no other names.
        return {**known, "taps": description.get("taps", {})}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TfkdError(
            f"file {str(path)!r}: found something else ({reason(error)}), "
            f"wanted JSON with {', '.join(wanted)}"
        ) from error


def _layers(model: keras.Model) -> list[keras.layers.Layer]:
    """Returns the layers of a model and of the models inside it."""
    found = []
    for layer in model.layers:
        found += _layers(layer) if isinstance(layer, keras.Model) else [layer]
    return found


def _config_in_precision(config, dtype: str):
    """Returns a layer's config with every precision policy in it replaced, wrapped layers' too."""
    if isinstance(config, dict):
        if config.get("class_name") == "DTypePolicy":
            return dtype
        return {key: _config_in_precision(value, dtype) for key, value in config.items()}
    if isinstance(config, (list, tuple)):
        return type(config)(_config_in_precision(value, dtype) for value in config)
    return config
