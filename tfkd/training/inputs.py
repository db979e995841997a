"""What a config points at: data, teachers, files and code, as a record that a run keeps.

Two calls of one config are the same run only where these are the same as well. The record is in
every checkpoint and in ``result.json``, under ``inputs``:

``data``
    Each part by the number of its images and a digest (:meth:`tfkd.data.DataSet.identity`), the
    names of the classes, and ``listing``, the names and sizes of all files, which a finished run is
    compared by first.
``teachers``
    Of each teacher the fields of its own config as they are read, and a digest of its weights.
``files``
    A digest of each file that an argument of a network names, or ``class_names`` of a teacher.
``code``
    A digest of each file outside tfkd that defines a network, task or method of the config. The
    function ``get_config`` does not count, whose fields are compared themselves, nor do further
    files that this one imports.

Names are relative, and nothing depends on times, so that a folder that was copied or moved is the
same. Each digest says what it covers (``by``).
"""

from __future__ import annotations

import ast
import functools
import hashlib
import inspect
import io
import json
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import ml_collections

from tfkd import data, models
from tfkd.core import registry, tasks
from tfkd.errors import TfkdError
from tfkd.models.families import multi_exit
from tfkd.models.registry import builder
from tfkd.models.saving import USUAL_FILES, load_description
from tfkd.training import build, teachers
from tfkd.training import config as configs
from tfkd.training.run_folder import RunFolder, comparable

Record = dict[str, Any]

RECORD, ACCEPTED = "inputs", "accepted_changes"
"""The keys of the record and of the changes that were accepted, in checkpoints and results."""

_OWN = Path(models.__file__).resolve().parents[1]
_WEIGHTS = "model.weights.h5"  # In a .keras archive.
_ACCEPT = "--config.accept_changes=True"
_UNRECORDED = (
    "written before tfkd recorded what a config points at; its data, teachers and code could not "
    "be compared, only the fields of the config"
)


def record(config: ml_collections.ConfigDict, dataset: data.DataSet | None = None) -> Record:
    """Returns what a config points at.

    Args:
        config: The config.
        dataset: Its data; None leaves the parts out, and no image is read.

    Raises:
        TfkdError: When a config file or code cannot be read.
    """
    if dataset is None:
        of_data = {"listing": data.files(config.data.name, config.data.directory)}
    else:
        of_data = {"listing": dataset.files, **_images(dataset)}
    found: Record = {
        "data": of_data,
        "teachers": _teachers(config),
        "files": dict(_files(config)),
        "code": dict(_code(config)),
    }
    return _plain(found)


def _plain(found: Record) -> Record:
    """Returns a record as JSON gives it back."""
    return json.loads(json.dumps(found))


def _images(dataset: data.DataSet) -> Record:
    return {"parts": dataset.identity(), "classes": list(dataset.info.class_names)}


def _teachers(config: ml_collections.ConfigDict) -> Record:
    return {where: _teacher(one) for where, one in _taught_by(config)}


def changes(there: Record, here: Record) -> list[str]:
    """Returns in words what differs between two records, as far as both hold it.

    Args:
        there: Of the run folder.
        here: Of now.
    """
    lines = []
    for part, found in _both(there["data"].get("parts"), here["data"].get("parts")):
        lines += _changed_part(part, *found)
    names = [each["data"].get("classes") for each in (there, here)]
    if None not in names and names[0] != names[1]:
        lines.append(f"classes: {_listed(names[0])} there and {_listed(names[1])} here")
    for where, (before, now) in _both(there["teachers"], here["teachers"]):
        if before["config"] is not None and now["config"] is not None:
            fields = configs.differences(before["config"], now["config"])
            lines += [f"{where}.config: {line}" for line in fields]
        if not _same(before["weights"], now["weights"]):
            lines.append(f"the weights of {where} ({now['weights']['file']}) are others")
    for section, verb in (("files", "has other contents"), ("code", "was edited")):
        for what, (before, now) in _both(there[section], here[section]):
            if not _same(before, now):
                lines.append(f"{what}: {now['file']} {verb}")
    return lines


def _listed(names: list[str]) -> str:
    return ", ".join(names[:5]) + (" ..." if len(names) > 5 else "")


def _same(there: Record | None, here: Record | None) -> bool:
    """Returns whether two files are equal, whatever they are called, or one is unknown."""
    if there is None or here is None:
        return True
    return {**there, "file": None} == {**here, "file": None}


def _both(there: dict | None, here: dict | None) -> Iterator[tuple[str, tuple[Any, Any]]]:
    """Yields each key of two dicts with both values; nothing where one dict is unknown."""
    if there is None or here is None:
        return
    for key in dict.fromkeys([*there, *here]):
        found = there.get(key), here.get(key)
        # The names of teachers and files are fields of the config, which is compared before.
        if None not in found or key in ("train", "validation", "test"):
            yield key, found


def _changed_part(part: str, there: dict | None, here: dict | None) -> list[str]:
    if there == here:
        return []
    before, now = (0 if each is None else each["images"] for each in (there, here))
    if before != now:
        return [f"{part} images: {before:,} there and {now:,} here"]
    return [f"{part} images: {now:,} there and here, but others or in another order"]


def check_finished(
    config: ml_collections.ConfigDict,
    folder: RunFolder,
    result: Record,
    say: Callable[..., None] = print,
) -> None:
    """Compares what a config points at with what a finished run was made of.

    Files of the data are compared by names and sizes; only where these differ are images read. What
    is not there any more is not compared, which is said.

    Args:
        config: The config.
        folder: The run folder.
        result: Its ``result.json``.
        say: Prints a line.

    Raises:
        TfkdError: When something is another one, and ``accept_changes`` is not set.
    """
    there = result.get(RECORD)
    if there is None:
        say(f"{folder.path}: {_UNRECORDED}", flush=True)
        return
    try:
        here = record(config)
    except TfkdError as error:
        say(f"{folder.path}: what its config points at could not be compared: {error}", flush=True)
        return
    before, now = there["data"]["listing"], here["data"]["listing"]
    if before is not None and now is None:
        say(f"{folder.path}: its data {config.data.name} are not there to compare", flush=True)
    elif before != now:
        here["data"] |= _plain(_images(build.data_set(config)))
    _refuse(config, folder, changes(there, here), say)


class Inputs:
    """What a run that begins or goes on is made of.

    Attributes:
        record: See :func:`record`.
        accepted: The changes that were accepted since the run began, in words.

    Args:
        config: The config.
        folder: The run folder.
        dataset: The data.
        say: Prints a line.
    """

    def __init__(
        self,
        config: ml_collections.ConfigDict,
        folder: RunFolder,
        dataset: data.DataSet,
        say: Callable[..., None] = print,
    ) -> None:
        self.record = record(config, dataset)
        self.accepted: list[str] = []
        self._config, self._folder, self._say = config, folder, say
        self._told: list[str] = []
        self._said = False

    def check(self) -> None:
        """Compares all this with the newest checkpoint, if there is one.

        Raises:
            TfkdError: When something is another one, and ``accept_changes`` is not set; or, in
                spite of it, when the training images are others and their number of steps an epoch
                changes or a method remembers something of each.
        """
        meta = self._folder.begun()
        if meta is None:
            return
        there = meta.get(RECORD)
        if there is not None:
            lines = changes(there, self.record)
            _check_trainable(self._config, self._folder, there, self.record)
        else:
            lines = self._unknown()
        new = [line for line in lines if line not in self._told]
        self._told += new
        _refuse(self._config, self._folder, new, self._say)
        self.accepted = list(dict.fromkeys([*meta.get(ACCEPTED, ()), *self._told]))

    def check_taught(self) -> None:
        """Compares once more when all teachers are there, some of which were just trained.

        Raises:
            TfkdError: As :meth:`check`.
        """
        self.record["teachers"] = _plain(_teachers(self._config))
        self.check()

    def _unknown(self) -> list[str]:
        """Says that a run has no record, and returns what has certainly changed since."""
        if not self._said:
            self._say(f"{self._folder.path}: {_UNRECORDED}", flush=True)
            self._said = True
        if not (self._config.data.validation_split or self._config.data.validation_size):
            return []
        change = "validation images: they were held out by the rule of an earlier version"
        _check_memories(self._config, self._folder, change)
        return [change]


def _refuse(
    config: ml_collections.ConfigDict,
    folder: RunFolder,
    lines: list[str],
    say: Callable[..., None],
) -> None:
    if not lines:
        return
    told = "; ".join(lines[:3]) + (f" and {len(lines) - 3} more" if len(lines) > 3 else "")
    if not config.accept_changes:
        raise TfkdError(
            f"workdir {str(folder.path)!r} holds a run of this config with something else behind "
            f"it: {told}; wanted what it began with, a new --workdir, or {_ACCEPT}"
        )
    say(f"{folder.path}: accepted changes: {told}", flush=True)


def _check_trainable(
    config: ml_collections.ConfigDict, folder: RunFolder, there: Record, here: Record
) -> None:
    """Refuses other training images where no acceptance could make sense of them."""
    before, now = (each["data"]["parts"]["train"] for each in (there, here))
    if before == now:
        return
    (change,) = _changed_part("train", before, now)
    steps = [each["images"] // config.train.batch_size for each in (before, now)]
    if steps[0] != steps[1]:
        raise TfkdError(
            f"workdir {str(folder.path)!r} holds a run of this config on other data: {change}; its "
            f"epochs of {steps[0]} steps cannot go on with {steps[1]}; wanted the images it began "
            "with or a new --workdir"
        )
    _check_memories(config, folder, change)


def _check_memories(config: ml_collections.ConfigDict, folder: RunFolder, change: str) -> None:
    """Refuses other training images where a method holds a row for each by its position."""
    for objective in configs.objectives(config):
        if objective.requires.index:
            raise TfkdError(
                f"workdir {str(folder.path)!r} holds a run of this config on other data: {change}; "
                f"method {objective.name} remembers something of each training image and would "
                "give it to another; wanted the images it began with or a new --workdir"
            )


def _taught_by(
    config: ml_collections.ConfigDict,
) -> Iterator[tuple[str, ml_collections.ConfigDict]]:
    """Yields what each teacher's section is called, and the config with that teacher alone."""
    if not configs.has_teacher(config):
        return
    for position, one in enumerate(configs.with_one_teacher(config)):
        yield f"teachers[{position - 1}]" if position else "teacher", one


def _teacher(config: ml_collections.ConfigDict) -> Record:
    """Returns what one teacher is; its weights are None as long as it is not trained."""
    fields = config.teacher
    plain, folder, path, description = None, None, None, None
    if fields.weights:
        path = Path(fields.weights)
    elif fields.config:
        teacher, folder = teachers.reference(config)
        plain = comparable(configs.to_dict(teacher))
        # They are the student's, and where they lie does not matter.
        plain.pop("data")
    elif fields.workdir:
        seed = config.train.seed if fields.seed is None else fields.seed
        folder = Path(fields.workdir.replace("{seed}", str(seed)))
    if path is None and folder is not None:
        path, description = _student_file(folder, fields.which)
    weights = file_digest(path) if path is not None and path.is_file() else None
    if weights is not None and description is not None:
        weights["preprocess"] = description.get("preprocess")
    return {"config": plain, "weights": weights}


def _student_file(folder: Path, which: str) -> tuple[Path | None, Record | None]:
    """Returns the file of a student of a run folder and ``network.json``, if they are there."""
    try:
        description = load_description(folder, which)
        return folder / {**USUAL_FILES, **description["files"]}[which], description
    except (TfkdError, KeyError):
        return None, None


def file_digest(path: Path) -> Record:
    """Returns a digest of a file; of weights as Keras writes them by their arrays.

    The other content of a ``.keras`` or ``.h5`` file depends on its date and on what the process
    made before: networks of equal weights are equal whenever they were written.

    Args:
        path: The file.
    """
    facts = path.stat()
    digest, by = _digest(path.resolve(), facts.st_size, facts.st_mtime_ns)
    return {"file": path.name, "digest": digest, "by": by}


@functools.lru_cache(maxsize=32)
def _digest(path: Path, size: int, time: int) -> tuple[str, str]:
    """Returns a digest of a file, and what it covers; a file that stays as it is is read once."""
    del size, time
    digest = hashlib.sha256()
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                weights = io.BytesIO(archive.read(_WEIGHTS))
            _add_arrays(digest, weights)
        else:
            _add_arrays(digest, path)
        return digest.hexdigest(), "weights"
    except (OSError, KeyError, zipfile.BadZipFile):  # No file of Keras.
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest(), "contents"


def _add_arrays(digest: Any, file: Path | io.BytesIO) -> None:
    """Adds every array of an HDF5 file to a digest; their places bear no names of layers."""

    def add(name: str, item: h5py.Group | h5py.Dataset) -> None:
        if isinstance(item, h5py.Dataset):
            digest.update(f"{name} {item.shape} {item.dtype}\0".encode())
            digest.update(item[()].tobytes())

    with h5py.File(file, "r") as opened:
        opened.visititems(add)


def _files(config: ml_collections.ConfigDict) -> Iterator[tuple[str, Record]]:
    """Yields the files that networks are given, such as pretrained weights or names of classes."""
    for section, fields in _networks(config).items():
        given = {f"kwargs.{key}": value for key, value in fields.kwargs.items()}
        # Those of the network that exits are put on.
        inner = given.pop("kwargs.of_kwargs", None) or {}
        given |= {f"kwargs.of_kwargs.{key}": value for key, value in inner.items()}
        given["class_names"] = fields.get("class_names")
        for key, value in given.items():
            if isinstance(value, str) and Path(value).is_file():
                yield f"{section}.{key}", file_digest(Path(value))


def _code(config: ml_collections.ConfigDict) -> Iterator[tuple[str, Record]]:
    """Yields the digest of each file outside tfkd that defines something of a config."""
    for what, definition in _definitions(config):
        path = _source_file(definition)
        if path is not None:
            digest = hashlib.sha256(_text(path).encode()).hexdigest()
            yield what, {"file": path.name, "digest": digest, "by": "contents of this file alone"}


def _networks(config: ml_collections.ConfigDict) -> dict[str, ml_collections.ConfigDict]:
    """Returns the sections of a config that describe networks."""
    several = {f"teachers[{at}]": each for at, each in enumerate(config.teachers)}
    return {"student": config.student, "teacher": config.teacher, **several}


def _definitions(config: ml_collections.ConfigDict) -> Iterator[tuple[str, Callable]]:
    for section, fields in _networks(config).items():
        if fields.name:
            yield f"{section}.name {fields.name}", builder(fields.name)
        if fields.name == multi_exit.NAME:
            for key, definition in multi_exit.definitions(fields.kwargs).items():
                yield f"{section}.kwargs.{key} {fields.kwargs[key]}", definition
    if config.task is not None:
        yield f"task {config.task}", tasks.find(config.task)
    for method in configs.method_names(config):
        yield f"method {method}", registry.maker(method)
    for where, one in _taught_by(config):
        if one.teacher.config:
            teacher, _ = teachers.reference(one)
            try:
                taught_by = list(_definitions(teacher))
            except TfkdError as error:
                raise TfkdError(f"{where}.config {one.teacher.config}: {error}") from None
            for what, definition in taught_by:
                yield f"{where}.config: {what}", definition


def _source_file(definition: Callable) -> Path | None:
    """Returns the file that defines a function or class, unless it is tfkd or an installed one."""
    # Python does not find the file of a class whose module, a config file, is in no list of it.
    inside = vars(definition).values() if isinstance(definition, type) else [definition]
    for each in inside:
        code = getattr(inspect.unwrap(each), "__code__", None) if callable(each) else None
        path = Path(code.co_filename) if code is not None else None
        if path is not None and path.is_file():
            whole = path.resolve()
            if _OWN in whole.parents or "site-packages" in whole.parts:
                return None
            return path
    return None


def _text(path: Path) -> str:
    """Returns the statements of a Python file but for the function ``get_config``."""
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines()
    kept = [
        "\n".join(lines[_first_line(each) - 1 : each.end_lineno])
        for each in ast.parse(text).body
        if getattr(each, "name", None) != "get_config"
    ]
    return "\n".join(kept)


def _first_line(statement: ast.stmt) -> int:
    decorators = getattr(statement, "decorator_list", ())
    return min(each.lineno for each in (statement, *decorators))


def check_before(config: ml_collections.ConfigDict, folder: RunFolder) -> None:
    """Compares a run that is finished or begun, before others of the same call are trained.

    Args:
        config: The config of the run.
        folder: Its folder.

    Raises:
        TfkdError: As :func:`check_finished`.
    """
    found = folder.result() or folder.begun()
    if found is not None and RECORD in found:
        check_finished(config, folder, found, lambda *_, **__: None)
