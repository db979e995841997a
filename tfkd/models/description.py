"""What trained networks say about themselves: ``network.json`` of their folder, and each file.

A ``.keras`` file is a zip archive; its ``metadata.json``, in which Keras writes its version and
which it does not read, also holds the description of the network. So a file that was copied out of
its folder still says how pixels reach it, and what its classes are.
"""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from pathlib import Path
from typing import Any

from tfkd import archives, files, json_shapes
from tfkd.errors import TfkdError, reason
from tfkd.models.graph.outputs import LOGITS, class_width, output_sizes
from tfkd.models.network import Network
from tfkd.models.preprocess import Preprocess

DESCRIPTION = "network.json"
TEACHER_FILE = "teacher.keras"
"""A teacher that trained beside the student, which pixels reach as they reach the student."""

USUAL_FILES = {"last": "student.keras", "best": "student_best.keras"}
_METADATA = "metadata.json"
_OURS = "tfkd"
_FIELDS = ("name", "preprocess", "input_shape", "num_classes", "class_names")
_NETWORK = {
    "name": str,
    "preprocess": {"mean": [float], "std": [float], "bgr?": bool},
    "input_shape": [(None, int)],
    "num_classes": (None, int),
    "class_names": (None, [(int, str)]),
    "task?": str,
    "taps?": {"*": str},
    "crop?": (None, str),
    "outputs?": {"*": [(None, int)]},
}
_FILE = {**_NETWORK, "files?": (None, {"*": str}), "differences?": {"*": {"*": object}}}
_MOST_METADATA = 2**24


def load_description(run_folder: str | os.PathLike, which: str = "last") -> dict[str, Any]:
    """Returns what ``network.json`` of a run folder says of a network.

    Args:
        run_folder: The folder.
        which: The word of the network, as ``load_network`` takes it; of one that is not listed it
            says what it says of the last.

    Returns:
        A dict with ``name``, ``task``, ``preprocess`` (a config of ``Preprocess``), ``taps``
        (further names of taps), ``input_shape`` ``[height, width, channels]``, ``outputs`` (the
        shape of each after the batch axis), ``num_classes`` (the width of ``logits``, or None),
        ``class_names`` (a list or None), ``crop`` (as ``Network.crop``) and ``files`` (the file of
        each network by its word).

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
    wanted = f"JSON with {', '.join(_FIELDS)}"
    content = json_shapes.read_or_tell(path, _FILE, wanted)
    try:
        known = {key: content[key] for key in _FIELDS}
        # Folders of earlier versions hold classifiers with one output, and no list of files.
        outputs = content.get("outputs", {LOGITS: [known["num_classes"]]})
        known |= {
            "task": content.get("task", "classification"),
            "taps": content.get("taps", {}),
            "crop": content.get("crop"),
            "outputs": {str(name): list(sizes) for name, sizes in outputs.items()},
            **content.get("differences", {}).get(which, {}),
            "files": _listed(path.parent, content.get("files")),
        }
        json_shapes.require(known, _NETWORK)
        Preprocess.from_config(known["preprocess"])
    except ValueError as error:
        raise TfkdError(f"file {str(path)!r}: {reason(error)}; wanted {wanted}") from error
    return known


def describe_in_file(path: Path, network: Network) -> None:
    """Writes the description of a network into its ``.keras`` file, anew beside it and then over.

    Args:
        path: The file, as Keras saved it.
        network: The network.
    """
    fresh = path.with_name(f"described-{path.name}")
    with zipfile.ZipFile(path) as before, zipfile.ZipFile(fresh, "w") as after:
        for entry in before.infolist():
            copy = zipfile.ZipInfo(entry.filename, entry.date_time)
            if entry.filename == _METADATA:
                known = {**json.loads(before.read(entry)), _OURS: described(network)}
                after.writestr(copy, json.dumps(known))
                continue
            with before.open(entry) as source, after.open(copy, "w", force_zip64=True) as target:
                shutil.copyfileobj(source, target, 2**20)
    os.replace(fresh, path)


def description_in_file(path: str | os.PathLike) -> dict[str, Any] | None:
    """Returns what a ``.keras`` file says of its network; ``None`` where it says nothing.

    Args:
        path: The file. Whether it is whole is told by those who load it.

    Returns:
        The fields of :func:`described`.

    Raises:
        TfkdError: When what it says is something else.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            text = archives.read(archive, _METADATA, _MOST_METADATA)
        known = json_shapes.parse(text, {"*": object}).get(_OURS)
    except (OSError, ValueError, LookupError, *archives.DAMAGES):
        return None
    if known is None:
        return None
    try:
        json_shapes.require(known, {**_NETWORK, "task": str, "taps": {"*": str}})
        Preprocess.from_config(known["preprocess"])
        found = {key: known[key] for key in (*_FIELDS, "task", "taps", "outputs")}
        return {**found, "crop": known.get("crop")}
    except (LookupError, ValueError) as error:
        raise TfkdError(
            f"network file {str(path)!r}: found something else in its {_METADATA} "
            f"({reason(error)}), wanted {', '.join(_FIELDS)}"
        ) from error


def listed_as(path: str | os.PathLike) -> str | None:
    """Returns the word by which ``network.json`` beside a file lists it; ``None`` where none does.

    Raises:
        TfkdError: When ``network.json`` is something else.
    """
    path = Path(path)
    if not (path.parent / DESCRIPTION).is_file():
        return None
    listed = load_description(path.parent)["files"]
    return next((which for which, name in listed.items() if name == path.name), None)


def description_of_file(path: str | os.PathLike) -> dict[str, Any] | None:
    """Returns what is known of a ``.keras`` file: what it says, or what is said of it beside it.

    Files of earlier versions say nothing themselves.

    Raises:
        TfkdError: When either is something else.
    """
    path = Path(path)
    known = description_in_file(path)
    if known is not None:
        return known
    which = listed_as(path)
    if which is not None:
        return load_description(path.parent, which)
    if path.name == TEACHER_FILE and (path.parent / DESCRIPTION).is_file():
        return {**load_description(path.parent), "name": path.stem, "taps": {}}
    return None


def described(network: Network) -> dict[str, Any]:
    """Returns the fields of a network's description."""
    outputs = output_sizes(network.model)
    return {
        "name": network.name,
        "task": network.task,
        "preprocess": network.preprocess.to_config(),
        "taps": dict(network.taps),
        "input_shape": list(network.model.input_shape[1:]),
        "outputs": outputs,
        "num_classes": class_width(outputs),
        "class_names": None if network.class_names is None else list(network.class_names),
        "crop": network.crop,
    }


def described_before(folder: Path) -> dict[str, dict[str, Any]]:
    """Returns the description of each network of a folder whose file is still there, by its word.

    Raises:
        TfkdError: When the folder holds a ``network.json`` that is something else.
    """
    if not (folder / DESCRIPTION).exists():
        return {}
    listed = load_description(folder)["files"]
    return {
        which: load_description(folder, which)
        for which, name in listed.items()
        if (folder / name).is_file()
    }


def write_description(
    folder: Path, before: dict[str, dict[str, Any]], which: str, file: str, network: Network
) -> None:
    """Writes ``network.json`` anew, with one network more.

    Its fields are those of the last network; ``differences`` holds what is unlike in another one.

    Args:
        folder: The folder.
        before: What :func:`described_before` returned.
        which: The word of the new network.
        file: Its file.
        network: The network.
    """
    new = described(network)
    listed = {each: known["files"][each] for each, known in before.items()} | {which: file}
    all_networks = {**before, which: new}
    usual = {key: all_networks.get("last", new)[key] for key in new}
    content = {**usual, "files": listed}
    differences = {
        each: {key: known[key] for key in usual if known[key] != usual[key]}
        for each, known in all_networks.items()
    }
    if any(differences.values()):
        content["differences"] = {each: found for each, found in differences.items() if found}
    files.write_json(folder / DESCRIPTION, content)


def _listed(folder: Path, listed: dict[str, str] | None) -> dict[str, str]:
    if listed is None:
        return {which: name for which, name in USUAL_FILES.items() if (folder / name).is_file()}
    names = {str(which): str(name) for which, name in listed.items()}
    if any(Path(name).name != name for name in names.values()):
        raise ValueError(f"files of another folder: {', '.join(names.values())}")
    return names
