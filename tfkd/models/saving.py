"""A network on disk: a ``.keras`` file that plain Keras opens, and how pixels reach it."""

from __future__ import annotations

import dataclasses
import os
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np

from tfkd import archives, files
from tfkd.errors import TfkdError, reason, unknown
from tfkd.models.description import (
    DESCRIPTION,
    USUAL_FILES,
    describe_in_file,
    described,
    described_before,
    description_in_file,
    description_of_file,
    listed_as,
    load_description,
    write_description,
)
from tfkd.models.graph.keras_layers import stock
from tfkd.models.network import Network, as_network
from tfkd.models.preprocess import Preprocess

_WORD = re.compile(r"[a-z0-9_]+")
_CHECKED = ("input_shape", "outputs", "num_classes")
_SAID_TWICE = ("preprocess", "class_names")


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
    network: Network | keras.Model, folder: str | os.PathLike, which: str = "last"
) -> Path:
    """Writes a network as a ``.keras`` file (stock Keras layers, float32), with ``network.json``.

    The file also says itself what ``network.json`` says of it, so that it can be copied. Each file
    appears whole or not at all: it is written beside its place and then renamed. Networks of
    earlier calls stay in the list of ``network.json`` while their files exist.

    Args:
        network: A network, or a model that takes pixels as they are.
        folder: An existing or a new folder.
        which: ``"last"`` writes ``student.keras``; ``"best"``, or another word of ``a-z``, ``0-9``
            and ``_``, writes ``student_<word>.keras``.

    Returns:
        The path of the ``.keras`` file.

    Raises:
        TfkdError: For another word, a folder that cannot be written, or one whose ``network.json``
            is something else.
    """
    if not _WORD.fullmatch(which):
        raise TfkdError(
            f"student {which!r} to save: found characters that a file name may not bear, wanted a "
            "word of a-z, 0-9 and _"
        )
    file = USUAL_FILES.get(which, f"student_{which}.keras")
    return _save(_as_saved(network), Path(folder), which, file)


def save_network_file(
    network: Network | keras.Model, path: str | os.PathLike, *, is_stock: bool = False
) -> Path:
    """Writes a network as :func:`save_network`, to a ``.keras`` file of any name.

    It is the ``"last"`` one of its folder.

    Args:
        network: As for :func:`save_network`.
        path: The file.
        is_stock: Whether the model is one of stock Keras layers that was never compiled, so that it
            is written without a copy, which of a large network takes much memory.
    """
    saved = _as_saved(network, is_stock)
    return _save(saved, Path(path).parent, "last", Path(path).name)


def _save(network: Network, folder: Path, which: str, file: str) -> Path:
    before = described_before(folder)
    wanted = "a folder with write permission and space"
    with files.writing(f"folder {str(folder)!r} for the network", wanted):
        folder.mkdir(parents=True, exist_ok=True)
    files.clear_leftovers(folder)
    path = _write(network, folder / file)
    write_description(folder, before, which, file, network)
    return path


def save_alone(network: Network, path: str | os.PathLike) -> Path:
    """Writes a network to a ``.keras`` file that says itself what it is, without ``network.json``.

    Args:
        network: The network; stock Keras layers and float32 are written.
        path: The file, in an existing folder; it appears whole or not at all.
    """
    return _write(_as_saved(network), Path(path))


def _as_saved(network: Network | keras.Model, is_stock: bool = False) -> Network:
    network = as_network(network)
    return network.with_model(in_precision(network.model if is_stock else stock(network.model)))


def _write(network: Network, path: Path) -> Path:
    def write(fresh: Path) -> None:
        network.model.save(fresh)
        describe_in_file(fresh, network)

    return files.write(path, write)


def load_network(run_folder: str | os.PathLike, which: str = "last") -> Network:
    """Returns a student of a run folder, ready for pixels 0..255.

    Args:
        run_folder: A folder that ``save_network`` wrote into.
        which: ``"last"`` is the student after the last epoch, ``"best"`` the one of the epoch with
            the best score (``best_selected_on`` in ``result.json`` says on which images); a method
            may leave further ones, by words of its own.

    Raises:
        TfkdError: When ``which`` is none of them, the folder is not a run folder, or a file is
            missing, damaged or at odds with the other.
    """
    description = load_description(run_folder, which)
    listed = description["files"]
    if which not in {**USUAL_FILES, **listed}:
        raise unknown("student", which, listed or USUAL_FILES)
    path = Path(run_folder) / listed.get(which, USUAL_FILES.get(which))
    if not path.is_file():
        found = sorted(each.name for each in path.parent.glob("*.keras"))
        raise TfkdError(
            f"run folder {str(run_folder)!r}: found {', '.join(found) or 'no .keras file'}, "
            f"wanted {path.name} (a run writes it at the end of its epochs)"
        )
    network = Network(
        load_model(path),
        Preprocess.from_config(description["preprocess"]),
        name=description["name"],
        task=description["task"],
        class_names=description["class_names"],
        crop=description["crop"],
    )
    found = described(network)
    differ = [key for key in _CHECKED if found[key] != description[key]]
    own = description_in_file(path)
    if own is not None:
        found |= {key: own[key] for key in _SAID_TWICE}
        differ += [
            key
            for key in _SAID_TWICE
            if None not in (own[key], description[key]) and own[key] != description[key]
        ]
    if differ:
        raise TfkdError(
            f"network file {str(path)!r}: found {_shown(found, differ)}; "
            f"wanted {_shown(description, differ)}, as {DESCRIPTION} beside it says"
        )
    names = found["class_names"] or description["class_names"]
    return dataclasses.replace(network, taps=description["taps"], class_names=names)


def load_network_file(path: str | os.PathLike) -> Network:
    """Returns the network of a ``.keras`` file that tfkd wrote, wherever it was copied to.

    Raises:
        TfkdError: When the file is missing or damaged, neither it nor ``network.json`` beside it
            says what it is, or the two are at odds.
    """
    which = listed_as(path)
    if which is not None:
        return load_network(Path(path).parent, which)
    model, known = load_model(path), description_of_file(path)
    if known is None:
        raise TfkdError(
            f"network file {str(path)!r}: found nothing that says how pixels reach it; wanted a "
            "file that tfkd wrote"
        )
    return Network(
        model,
        Preprocess.from_config(known["preprocess"]),
        name=known["name"],
        taps=known["taps"],
        task=known["task"],
        class_names=known["class_names"],
        crop=known["crop"],
    )


def load_model(path: str | os.PathLike) -> keras.Model:
    """Returns the model of a ``.keras`` file.

    Raises:
        TfkdError: When the file is missing or damaged, or a weight is no number.
    """
    path = Path(path)
    if not path.is_file():
        raise TfkdError(f"network file {str(path)!r}: no such file, wanted a .keras file")
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                archives.check_sizes(archive, path.stat().st_size)
        model = keras.models.load_model(path, compile=False)
    # A damaged archive fails in as many ways as it has parts: zip, json, hdf5, shapes.
    except Exception as error:
        raise TfkdError(
            f"network file {str(path)!r}: found {path.stat().st_size} bytes that do not load "
            f"({reason(error)}), wanted a whole .keras file"
        ) from error
    check_finite(model, f"network file {str(path)!r}")
    return model


def check_finite(model: keras.Model, who: str) -> None:
    """Refuses a network with weights that are no numbers, which would spoil all it meets.

    Args:
        model: The network.
        who: What it is called in the message.

    Raises:
        TfkdError: Naming the first of them.
    """
    for variable in model.variables:
        values = np.asarray(variable)
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            count = int(np.sum(~np.isfinite(values)))
            raise TfkdError(
                f"{who}: found {count:,} weights of {variable.path!r} that are NaN or infinite, "
                "wanted numbers"
            )


def _shown(description: dict, keys: Sequence[str]) -> str:
    return " and ".join(f"{key} {description[key]}" for key in keys)


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
