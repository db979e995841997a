"""Digests of networks: of their weights, and of what is computed with these.

They are the same whenever and after whatever else a network was made or written: dates do not
count, nor do the numbers that Keras gives to layers without a name of their own.
"""

from __future__ import annotations

import functools
import hashlib
import io
import json
import re
import zipfile
from pathlib import Path
from typing import Any

import h5py
import keras

from tfkd import archives
from tfkd.models.description import description_of_file
from tfkd.models.network import Network

WEIGHTS, CONTENTS = "weights", "contents"
"""What the digest of a file covers."""

_SAID = ("preprocess", "class_names", "taps")
_ARRAYS, _CONFIG = "model.weights.h5", "config.json"  # In a .keras archive.

# Of the process, of training, or of the place that code was imported from.
_PASSING = ("module", "seed", "build_config", "compile_config", "shared_object_id")
_NUMBERED = re.compile(r"(.+?)(_\d+)?")


def of_file(path: Path) -> dict[str, Any]:
    """Returns what a file is: of a network as Keras writes it, weights and layers.

    Args:
        path: The file.

    Returns:
        ``file``, its name; ``digest`` and ``by``, what that covers: the arrays of an HDF5 or
        ``.keras`` file, the contents of any other. Of a ``.keras`` file also ``architecture``, a
        digest of its layers.
    """
    facts = path.stat()
    return {"file": path.name, **_of_file(path.resolve(), facts.st_size, facts.st_mtime_ns)}


def of_network_file(path: Path, known: dict[str, Any] | None = None) -> dict[str, Any]:
    """Returns :func:`of_file` with what is said of the network: pixels, class names and taps.

    Args:
        path: The file.
        known: Its description; by default what it says itself, or ``network.json`` beside it.

    Raises:
        TfkdError: When a description is something else.
    """
    own = description_of_file(path)
    said = {**(own or {}), **(known or {})}
    if own is not None and said.get("class_names") is None:
        said["class_names"] = own["class_names"]
    return {**of_file(path), **{key: said.get(key) for key in _SAID}}


def of_network(network: Network) -> dict[str, Any]:
    """Returns the digests of a network in memory, in the form of :func:`of_network_file`.

    ``file`` is its name. ``keras`` is the version that described the layers, since another one may
    describe the same ones otherwise. Layers that cannot be described have no ``architecture``.
    """
    digest = hashlib.sha256()
    for number, array in enumerate(network.model.get_weights()):
        _add(digest, str(number), array)
    found = {"file": network.name, "digest": digest.hexdigest(), "by": WEIGHTS}
    try:
        found |= {"architecture": _architecture(network.model.to_json())}
    # Keras asks layers of one's own for a config, which need not have one.
    except (NotImplementedError, TypeError, ValueError):
        pass
    return {
        **found,
        "keras": keras.__version__,
        "preprocess": network.preprocess.to_config(),
        "class_names": None if network.class_names is None else list(network.class_names),
        "taps": dict(network.taps),
    }


@functools.lru_cache(maxsize=32)
def _of_file(path: Path, size: int, time: int) -> dict[str, str]:
    """Returns the digests of a file; one that stays as it is is read once."""
    del time
    digest = hashlib.sha256()
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                archives.check_sizes(archive, size)
                arrays = io.BytesIO(archive.read(_ARRAYS))
                architecture = _architecture(archive.read(_CONFIG))
            _add_arrays(digest, arrays)
            return {"digest": digest.hexdigest(), "by": WEIGHTS, "architecture": architecture}
        _add_arrays(digest, path)
        return {"digest": digest.hexdigest(), "by": WEIGHTS}
    except (OSError, KeyError, ValueError, *archives.DAMAGES):  # No file of Keras.
        with open(path, "rb") as file:
            contents = hashlib.file_digest(file, "sha256").hexdigest()
        return {"digest": contents, "by": CONTENTS}


def _add_arrays(digest: Any, file: Path | io.BytesIO) -> None:
    """Adds every array of an HDF5 file to a digest; their places bear no names of layers."""

    def add(name: str, item: h5py.Group | h5py.Dataset) -> None:
        if isinstance(item, h5py.Dataset):
            _add(digest, name, item[()])

    with h5py.File(file, "r") as opened:
        opened.visititems(add)


def _add(digest: Any, name: str, array: Any) -> None:
    digest.update(f"{name} {array.shape} {array.dtype}\0".encode())
    digest.update(array.tobytes())


def _architecture(text: str | bytes) -> str:
    """Returns a digest of a model's config in JSON."""
    config = json.loads(text)
    automatic: dict[str, str] = {}
    _collect(config, automatic)
    plain = json.dumps(_without_numbers(config, automatic), sort_keys=True)
    return hashlib.sha256(plain.encode()).hexdigest()


def _collect(value: Any, automatic: dict[str, str]) -> None:
    """Finds the layers that Keras named by their class and a number, in their order."""
    if isinstance(value, dict):
        inner = value.get("config")
        kind, name = value.get("class_name"), inner.get("name") if isinstance(inner, dict) else None
        if isinstance(kind, str) and isinstance(name, str):
            base = _NUMBERED.fullmatch(name)
            # An input bears the name of its tensor, which has a number as well.
            if kind == "InputLayer" or (base and base[1].replace("_", "") == kind.lower()):
                automatic.setdefault(name, f"{kind} {len(automatic)}")
    for each in value.values() if isinstance(value, dict) else value:
        if isinstance(each, (dict, list)):
            _collect(each, automatic)


def _without_numbers(value: Any, automatic: dict[str, str]) -> Any:
    """Returns a config with other names for these layers, and without what is passing."""
    if isinstance(value, dict):
        found = {
            key: _without_numbers(each, automatic)
            for key, each in value.items()
            if key not in _PASSING
        }
        if isinstance(value.get("name"), str):
            found["name"] = automatic.get(value["name"], value["name"])
        return found
    if isinstance(value, list):
        # A tensor is the layer that it comes from, the number of the call, and that of the output.
        if len(value) == 3 and isinstance(value[0], str) and isinstance(value[1], int):
            return [automatic.get(value[0], value[0]), *value[1:]]
        return [_without_numbers(each, automatic) for each in value]
    return value
