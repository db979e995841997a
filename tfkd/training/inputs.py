"""What a config points at: data, teachers, files and code, as a record that a run keeps.

Two calls of one config are the same run only where these are the same as well. The record is in
every checkpoint and in ``result.json``, under ``inputs``:

``data``
    Each part by the number of its images and a digest (:meth:`tfkd.data.DataSet.identity`), the
    names of the classes, and ``listing``, the names and sizes of all files, which a finished run is
    compared by first. ``statistics``, where the run has asked for them, are the mean and deviation
    that it goes on with.
``teachers``
    Of each teacher the fields of its own config as they are read; of its file the weights, layers,
    pixels and class names; and ``obtained``, the same of the network that taught in the end,
    wherever its weights came from.
``files``
    A digest of each file that an argument of a network or method names, however deep inside it, or
    ``class_names`` of a teacher.
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
import json
import os
import tokenize
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import ml_collections
import tensorflow as tf

from tfkd import data, models
from tfkd.core import registry, tasks
from tfkd.errors import TfkdError
from tfkd.models import digests, references
from tfkd.models.registry import builder, definitions
from tfkd.models.saving import USUAL_FILES, load_description
from tfkd.training import build, teachers
from tfkd.training import config as configs
from tfkd.training import strategy as strategies
from tfkd.training.run_folder import RunFolder, comparable

Record = dict[str, Any]

RECORD, ACCEPTED = "inputs", "accepted_changes"
"""The keys of the record and of the changes that were accepted, in checkpoints and results."""

_OWN = Path(models.__file__).resolve().parents[1]
_OBTAINED = "obtained"
_WORDS = {
    "digest": "weights",
    "architecture": "layers",
    "preprocess": "pixels",
    "class_names": "class names",
    "taps": "taps",
}
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


def digest(found: Record) -> str:
    """Returns a digest of what a record says, but for where it lies and what follows from it."""
    of_data = {key: found["data"].get(key) for key in ("parts", "classes")}
    text = json.dumps({**found, "data": of_data}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _images(dataset: data.DataSet) -> Record:
    return {"parts": dataset.identity(), "classes": list(dataset.info.class_names)}


def _teachers(config: ml_collections.ConfigDict) -> Record:
    return {where: _teacher(one) for where, one in _taught_by(config)}


def changes(there: Record, here: Record, trained: bool = False) -> list[str]:
    """Returns in words what differs between two records, as far as both hold it.

    Args:
        there: Of the run folder.
        here: Of now.
        trained: Whether the run is finished: how images would be shuffled does not count any more.
    """
    lines = []
    for part, found in _both(there["data"].get("parts"), here["data"].get("parts")):
        if not (trained and data.same_images(*found)):
            lines += _changed_part(part, *found)
    names = [each["data"].get("classes") for each in (there, here)]
    if None not in names and names[0] != names[1]:
        lines.append(f"classes: {_listed(names[0])} there and {_listed(names[1])} here")
    for where, (before, now) in _both(there["teachers"], here["teachers"]):
        if before["config"] is not None and now["config"] is not None:
            fields = configs.differences(before["config"], now["config"])
            lines += [f"{where}.config: {line}" for line in fields]
        lines += _changed_network(where, before["weights"], now["weights"]) or _changed_network(
            where, before.get(_OBTAINED), now.get(_OBTAINED)
        )
    for section, verb in (("files", "has other contents"), ("code", "was edited")):
        for what, (before, now) in _both(there[section], here[section]):
            if not _same(before, now):
                lines.append(f"{what}: {now['file']} {verb}")
    return lines


def _listed(names: list[str]) -> str:
    return ", ".join(names[:5]) + (" ..." if len(names) > 5 else "")


def _same(there: Record | None, here: Record | None) -> bool:
    """Returns whether two files are equal, whatever they are called, or one is unknown."""
    return not _differing(there, here)


def _differing(there: Record | None, here: Record | None) -> list[str]:
    """Returns what differs between the digests of a file or network, as far as both hold it."""
    if there is None or here is None:
        return []
    left_out = {"file"}
    if there.get("keras") != here.get("keras"):
        left_out |= {"keras", "architecture"}
    return [key for key in there if key in here and key not in left_out and there[key] != here[key]]


def _changed_network(where: str, there: Record | None, here: Record | None) -> list[str]:
    differing = _differing(there, here)
    words = [word for key, word in _WORDS.items() if key in differing]
    if not words:
        return []
    return [f"the {' and '.join(words)} of {where} ({here['file']}) are others"]


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
    if data.same_images(there, here):
        return [f"{part} images: {now:,} there and here, which this version of tfkd shuffles anew"]
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
    try:
        _add_made_by_code(config, there, here)
    except TfkdError as error:
        say(f"{folder.path}: its teacher could not be compared: {error}", flush=True)
    _refuse(config, folder, changes(there, here, trained=True), say)


def _add_made_by_code(config: ml_collections.ConfigDict, there: Record, here: Record) -> None:
    """Makes the teachers again that a function outside tfkd makes, whatever files it reads."""
    for where, one in _taught_by(config):
        known, fields = there["teachers"].get(where) or {}, one.teacher
        if _OBTAINED not in known or fields.weights or fields.config or fields.workdir:
            continue
        if any(what.startswith("teacher.name ") for what, _ in _code(one)):
            info = build.data_set(config).info
            (network,) = teachers.sketch(one, info, info.task if one.task is None else one.task)
            here["teachers"][where][_OBTAINED] = _plain(digests.of_network(network))


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
        self._config, self._folder, self._dataset, self._say = config, folder, dataset, say
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
        self._recall_statistics(there)
        if there is not None:
            lines = changes(there, self.record)
            _check_trainable(self._config, self._folder, there, self.record)
        else:
            lines = self._unknown()
        new = [line for line in lines if line not in self._told]
        self._told += new
        _refuse(self._config, self._folder, new, self._say)
        self.accepted = list(dict.fromkeys([*meta.get(ACCEPTED, ()), *self._told]))

    def check_agreed(self, strategy: tf.distribute.Strategy) -> None:
        """Checks that all workers have the same config, data, files and code.

        Args:
            strategy: The strategy; every worker has to ask.

        Raises:
            TfkdError: On every worker, when one has something else.
        """
        plain = comparable(configs.to_dict(self._config))
        if str(plain["data"]["name"]).startswith("folder:"):
            plain["data"].pop("name")  # Its images are compared, wherever they lie.
        parts = self.record["data"]["parts"]
        found = {f"{part} images": parts.get(part) for part in ("train", "validation", "test")}
        found |= {
            "class names": self.record["data"]["classes"],
            "configs": plain,
            "files": self.record["files"],
            "code": self.record["code"],
            "configs of the teachers": [
                each["config"] for each in self.record["teachers"].values()
            ],
        }
        self._refuse_differing(strategy, found)

    def check_taught(
        self, networks: Sequence[models.Network], strategy: tf.distribute.Strategy
    ) -> None:
        """Compares once more when all teachers are there, some of which were just trained.

        Args:
            networks: The teachers as they were obtained; none where one trains beside the student.
            strategy: The strategy, all of whose workers are to have the same teachers.

        Raises:
            TfkdError: As :meth:`check` and :meth:`check_agreed`.
        """
        self.record["teachers"] = _plain(_teachers(self._config))
        for found, network in zip(self.record["teachers"].values(), networks):
            found[_OBTAINED] = _plain(digests.of_network(network))
        measured = self._dataset.info.statistics.known
        if measured is not None:
            self.record["data"]["statistics"] = _plain(measured)
        taught_by = [each.get(_OBTAINED) for each in self.record["teachers"].values()]
        self._refuse_differing(strategy, {"teachers": taught_by})
        self.check()

    def _recall_statistics(self, there: Record | None) -> None:
        """Takes mean and deviation from the record where it has them of the same images."""
        of_data = {} if there is None else there["data"]
        found = of_data.get("parts", {}).get("train")
        if (
            data.same_images(found, self.record["data"]["parts"]["train"])
            and "statistics" in of_data
        ):
            self._dataset.info.statistics.recall(of_data["statistics"])

    def _refuse_differing(self, strategy: tf.distribute.Strategy, found: Record) -> None:
        differing = strategies.differing(strategy, found)
        if differing:
            strategies.part(strategy, lambda: True)  # All know it before one of them ends.
            raise TfkdError(
                f"workers of {str(self._folder.path)!r}: found other {', '.join(differing)} on "
                "some than on others, wanted the same on all"
            )

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
    if not data.same_images(before, now):
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
    weights = None
    if path is not None and path.is_file():
        weights = digests.of_network_file(path, description)
    return {"config": plain, "weights": weights}


def _student_file(folder: Path, which: str) -> tuple[Path | None, Record | None]:
    """Returns the file of a student of a run folder and ``network.json``, if they are there."""
    try:
        description = load_description(folder, which)
        return folder / {**USUAL_FILES, **description["files"]}[which], description
    except (TfkdError, KeyError):
        return None, None


def _files(config: ml_collections.ConfigDict) -> Iterator[tuple[str, Record]]:
    """Yields the files that arguments name, such as pretrained weights or names of classes."""
    given = {}
    for section, fields in _networks(config).items():
        given[f"{section}.kwargs"] = configs.to_dict(fields.kwargs)
        given[f"{section}.class_names"] = fields.get("class_names")
    given["student.weights"] = config.student.weights
    given["methods"] = configs.to_dict(config.methods)
    for what, value in given.items():
        for where, text in _texts(what, value):
            if os.path.isfile(text):
                yield where, digests.of_file(Path(text))


def _texts(where: str, value: Any) -> Iterator[tuple[str, str]]:
    """Yields every text inside a value, and where it is."""
    if isinstance(value, str):
        yield where, value
    elif isinstance(value, dict):
        for key, each in value.items():
            yield from _texts(f"{where}.{key}", each)
    elif isinstance(value, (list, tuple)):
        for number, each in enumerate(value):
            yield from _texts(f"{where}[{number}]", each)


def _code(config: ml_collections.ConfigDict) -> Iterator[tuple[str, Record]]:
    """Yields the digest of each file outside tfkd that defines something of a config."""
    for what, name, definition in _definitions(config):
        path, named = _source_file(definition), references.file(name)
        if path is not None:
            yield what, _code_digest(path)
        # It may import what the config names, or make it of something else.
        if named is not None and not _is_installed(named) and named.resolve() != _resolved(path):
            yield f"{what} ({named.name})", _code_digest(named)


def _resolved(path: Path | None) -> Path | None:
    return None if path is None else path.resolve()


def _code_digest(path: Path) -> Record:
    digest = hashlib.sha256(_text(path).encode()).hexdigest()
    return {"file": path.name, "digest": digest, "by": "contents of this file alone"}


def _networks(config: ml_collections.ConfigDict) -> dict[str, ml_collections.ConfigDict]:
    """Returns the sections of a config that describe networks."""
    several = {f"teachers[{at}]": each for at, each in enumerate(config.teachers)}
    return {"student": config.student, "teacher": config.teacher, **several}


def _definitions(config: ml_collections.ConfigDict) -> Iterator[tuple[str, str, Callable]]:
    """Yields where a config names something of its own, that name, and what it stands for."""
    for section, fields in _networks(config).items():
        if fields.name:
            yield f"{section}.name {fields.name}", fields.name, builder(fields.name)
            for key, definition in definitions(fields.name, fields.kwargs).items():
                name = fields.kwargs[key]
                yield f"{section}.kwargs.{key} {name}", name, definition
    if config.task is not None:
        yield f"task {config.task}", config.task, tasks.find(config.task)
    for method in configs.method_names(config):
        yield f"method {method}", method, registry.maker(method)
    for where, one in _taught_by(config):
        if one.teacher.config:
            teacher, _ = teachers.reference(one)
            try:
                taught_by = list(_definitions(teacher))
            except TfkdError as error:
                raise TfkdError(f"{where}.config {one.teacher.config}: {error}") from None
            for what, name, definition in taught_by:
                yield f"{where}.config: {what}", name, definition


def _source_file(definition: Callable) -> Path | None:
    """Returns the file that defines a function or class, unless it is tfkd or an installed one."""
    while isinstance(definition, functools.partial):
        definition = definition.func
    if not isinstance(definition, type) and not hasattr(inspect.unwrap(definition), "__code__"):
        definition = type(definition)  # An object that can be called.
    # Python does not find the file of a class whose module, a config file, is in no list of it.
    inside = vars(definition).values() if isinstance(definition, type) else [definition]
    for each in inside:
        code = getattr(inspect.unwrap(each), "__code__", None) if callable(each) else None
        path = Path(code.co_filename) if code is not None else None
        if path is not None and path.is_file():
            return None if _is_installed(path) else path
    return None


def _is_installed(path: Path) -> bool:
    whole = path.resolve()
    return _OWN in whole.parents or "site-packages" in whole.parts


def _text(path: Path) -> str:
    """Returns the statements of a Python file but for the function ``get_config``."""
    with tokenize.open(path) as file:  # It heeds the encoding that a file says it has.
        text = file.read()
    lines = text.split("\n")
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
