"""A config: an experiment as nested fields, which a config file sets and flags change.

:mod:`tfkd.training.config_sections` declares the fields. A config file starts from
:func:`default`::

    config = default()
    config.student.name = "resnet8"
    config.methods = methods(kd=dict(weight=0.9, temperature=4.0))
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import ml_collections
from ml_collections import config_dict

from tfkd import value_types
from tfkd.core import Objective, registry
from tfkd.earlier_version import modernized
from tfkd.errors import TfkdError, did_you_mean, unknown
from tfkd.models.references import is_reference
from tfkd.settings import Field, Settings, fields_of
from tfkd.training.config_file import explain, load
from tfkd.training.config_sections import SECTIONS, OneTeacher

__all__ = ["explain", "load", "modernized"]

Config = TypeVar("Config", ml_collections.ConfigDict, dict[str, Any])

MEANINGS = {
    f"{path}.{name}".lstrip("."): field.meaning
    for path, section in SECTIONS.items()
    for name, field in fields_of(section).items()
}
"""What each field means; also the text of ``--helpfull``."""


def default() -> ml_collections.ConfigDict:
    """Returns a config with every field at its default; experiments change what is theirs.

    Fields without a value (``None``) keep their type: they are placeholders. The dict is locked, so
    that a misspelt field is an error.
    """
    inner = dict(SECTIONS)
    config = ml_collections.ConfigDict(_defaults(inner.pop("")))
    for path, section in inner.items():
        parent, _, name = path.rpartition(".")
        (config[parent] if parent else config)[name] = _defaults(section)
    return _locked(config)


def _defaults(section: type[Settings]) -> dict[str, Any]:
    return {name: _default(field) for name, field in fields_of(section).items()}


def _default(field: Field) -> Any:
    """Returns the default of a field; a new placeholder each time, because it would be shared."""
    if field.default is None:
        return config_dict.placeholder(value_types.kind(field.type))
    return field.default


def _locked(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """Locks a config and its sections, so that no field can be added to them.

    Open stay the arguments and taps of networks, which check their own, and the list of methods.
    """
    config.lock()
    for key, value in config.items():
        if not isinstance(value, ml_collections.ConfigDict):
            continue
        if key not in ("kwargs", "taps", "methods"):
            _locked(value)
            continue
        value.unlock()
        if key == "methods":
            _lock_entries(value)
    return config


def _lock_entries(methods: ml_collections.ConfigDict) -> None:
    for entry in methods.values():
        if isinstance(entry, ml_collections.ConfigDict):
            entry.lock()


def following(
    config: ml_collections.ConfigDict, field: str, kind: type, choose: Callable[[Any], Any]
) -> config_dict.FieldReference:
    """Returns a value for a field that follows another field, also after flags have changed that.

    ``config.data.image_size = following(config, "data.name", int, size_of)``; a flag that sets
    ``data.image_size`` itself ends that.

    Args:
        config: The config.
        field: The other field, which must have a value.
        kind: The type of the value.
        choose: Gives the value for that of the other field.
    """
    *path, key = field.split(".")
    section = config
    for each in path:
        section = section[each]
    chosen = _Operation(lambda _, other: choose(other), [section.get_ref(key)])
    return config_dict.FieldReference(kind(), field_type=kind, op=chosen)


class _Operation(NamedTuple):
    """What :class:`ml_collections.FieldReference` applies to its value when that is read."""

    fn: Callable[..., Any]
    args: list[Any]


def shrink(config: ml_collections.ConfigDict, image_size: int | None = None) -> None:
    """Makes an experiment small enough for a laptop without network: one epoch on 40 digits.

    Every shipped config does so where its argument has the word ``smoke``. Networks, methods and
    recipe stay; the data become scikit-learn's digits, which come with the installation.

    Args:
        config: The experiment.
        image_size: Side of the images, for networks that do not take their 8x8 pixels.
    """
    config.data = _locked(ml_collections.ConfigDict(_defaults(SECTIONS["data"])))
    config.data.train_size = 40
    if image_size is not None:
        config.data.image_size = image_size
    config.train.epochs = 1
    config.train.batch_size = 20
    config.train.schedule.warmup_epochs = 0.0


def teacher(**fields) -> ml_collections.ConfigDict:
    """Returns one entry of ``config.teachers``, for an ensemble of teachers.

    ``config.teachers = (teacher(config="configs/quickstart.py:teacher", seed=1),)`` adds a second
    teacher to that of ``config.teacher``; the student learns from the mean of their probabilities.

    Args:
        **fields: As in ``config.teacher``, but for ``dtype`` and ``fold``, which hold for all.

    Raises:
        TfkdError: For a field that is not there, or a value of another type.
    """
    entry = ml_collections.ConfigDict(_defaults(OneTeacher))
    for key, value in fields.items():
        if key not in entry:
            raise unknown("field of teacher()", key, entry)
        try:
            entry[key] = value
        except TypeError as error:
            raise TfkdError(f"field {key} of teacher(): {error}") from None
    return _locked(entry)


def with_one_teacher(config: ml_collections.ConfigDict) -> list[ml_collections.ConfigDict]:
    """Returns for each teacher of a config the same config with that teacher alone.

    The first is ``config.teacher``, whatever it holds; those of ``config.teachers`` follow.
    """
    found = [override(config, teachers=())]
    for entry in config.teachers:
        one = copy.deepcopy(found[0]).unlock()
        one.teacher = dict(
            {key: entry[key] for key in fields_of(OneTeacher)},
            dtype=config.teacher.dtype,
            fold=config.teacher.fold,
        )
        found.append(_locked(one))
    return found


def methods(**entries: Mapping[str, Any]) -> ml_collections.ConfigDict:
    """Returns what ``config.methods`` holds: each method with its weight and all its settings.

    ``methods(kd=dict(weight=0.9, temperature=4.0))`` is KD, whose temperature a flag then calls
    ``--config.methods.kd.temperature``. A method of another name, for instance the same one twice,
    says which it is: ``methods(kd={}, cold=dict(method="kd", temperature=1.0))``.

    Methods take effect in the order of their names, whatever the order here: neither the config nor
    its JSON keeps another one.

    Args:
        **entries: For each name the weight in the total loss (``weight``, 1 unless given) and
            hyper-parameters. Those that are not given take their defaults, so that each of them can
            be changed by a flag and stands in ``config.json``.

    Raises:
        TfkdError: For an unknown method, or an entry that is no dict.
    """
    made = ml_collections.ConfigDict({name: _method(name, each) for name, each in entries.items()})
    _lock_entries(made)
    return made


def _method(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Returns an entry of ``config.methods`` with all its settings."""
    if not hasattr(given, "items"):
        raise TfkdError(f"methods.{name}: found {given!r}, wanted a dict of weight and settings")
    declared = registry.settings(given.get("method", name))
    usual = {setting: _default(field) for setting, field in declared.items()}
    taken = [key for key in ("method", "weight") if key in usual]
    if taken:
        raise TfkdError(
            f"method {name}: found a setting {taken[0]!r}, which an entry of methods has for "
            "something else; wanted another name"
        )
    entry = {"weight": 1.0, **usual}
    for key, value in given.items():
        whole = isinstance(value, int) and not isinstance(value, bool)
        entry[key] = float(value) if whole and isinstance(entry.get(key), float) else value
    return entry


def _methods(config: ml_collections.ConfigDict) -> Iterator[tuple[str, str, float, dict[str, Any]]]:
    """Yields name, registered method, weight and settings of each entry, in the order of names."""
    for name, entry in sorted(to_dict(config.methods).items()):
        method, weight = entry.pop("method", name), entry.pop("weight", 1.0)
        yield name, method, weight, entry


def objectives(config: ml_collections.ConfigDict) -> list[Objective]:
    """Returns fresh objectives of the config's methods, in the order of their names.

    Raises:
        TfkdError: For an unknown method, or a wrong setting of one.
    """
    return [
        registry.create(method, **settings, **({} if name == method else {"name": name}))
        for name, method, _, settings in _methods(config)
    ]


def method_weights(config: ml_collections.ConfigDict) -> list[float]:
    """Returns the weight of each of :func:`objectives` in the total loss."""
    return [float(weight) for _, _, weight, _ in _methods(config)]


def method_names(config: ml_collections.ConfigDict) -> list[str]:
    """Returns the registered method of each of :func:`objectives`."""
    return [method for _, method, _, _ in _methods(config)]


def epochs(config: ml_collections.ConfigDict) -> int:
    """Returns the passes over the training set, where no method has stages of its own."""
    return 1 if config.train.epochs is None else config.train.epochs


def in_own_epochs(config: Config) -> Config:
    """Returns a config whose times are those of its own run instead of the published one.

    Where ``train.published_epochs`` is set and the run has another length, milestones and warm-up
    of the schedule and every setting of a method that is called ``..._epochs`` keep their share:
    they are multiplied by ``train.epochs / train.published_epochs``.

    Args:
        config: A config, or one as plain dicts, whose sections may be missing.
    """
    train = config.get("train", {})
    published, epochs = train.get("published_epochs"), train.get("epochs")
    if published is None or epochs is None:
        return config

    def own(time: Any) -> Any:
        if isinstance(time, (tuple, list)):
            return tuple(map(own, time))
        return None if time is None else time * epochs / published

    changed = copy.deepcopy(config)
    changed["train"]["published_epochs"] = None
    if published == epochs:
        return changed
    schedule = changed["train"].get("schedule", {})
    for key in {"milestones", "warmup_epochs"} & set(schedule):
        schedule[key] = own(schedule[key])
    for entry in changed.get("methods", {}).values():
        for key in entry:
            if key.endswith("_epochs"):
                entry[key] = own(entry[key])
    return changed


def vary(*fields: str, choices: Sequence[Any]) -> ml_collections.ConfigDict:
    """Returns one entry of ``config.search_space``: what :mod:`tfkd.tuning` tries.

    ``vary("train.learning_rate", choices=(0.01, 0.1))`` tries two rates. Several fields in one
    entry are tied, each value going to all of them; several entries make a grid.

    Args:
        *fields: Fields by the names that flags give them, such as ``methods.kd.weight``.
        choices: The values to try, of the fields' type.
    """
    return ml_collections.ConfigDict(dict(fields=tuple(fields), choices=tuple(choices)))


def to_dict(value: Any) -> Any:
    """Returns a config as plain dicts, lists and values, as ``config.json`` holds it."""
    if isinstance(value, (ml_collections.ConfigDict, Mapping)):
        return {key: to_dict(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_dict(each) for each in value]
    return value


def fields(config: ml_collections.ConfigDict) -> dict[str, type]:
    """Returns every field of a config and its type, by the name that a flag gives it.

    Those of methods are among them, as ``methods.kd.temperature``.
    """
    found: dict[str, type] = {}

    def walk(section: ml_collections.ConfigDict, path: str) -> None:
        for key in section:
            value, kind = section[key], section.get_type(key)
            if isinstance(value, ml_collections.ConfigDict):
                walk(value, f"{path}{key}.")
                continue
            found[path + key] = kind
            # A tuple that is not set is None, and of the type tuple all the same.
            for position, each in enumerate(value or () if kind is tuple else ()):
                if isinstance(each, ml_collections.ConfigDict):
                    walk(each, f"{path}{key}[{position}].")

    walk(config, "")
    return found


def is_optional(config: ml_collections.ConfigDict, field: str, word: str = "none") -> bool:
    """Returns whether a field may be unset, and a word does so because it is no value of it.

    Args:
        config: The config.
        field: The field by the name that a flag gives it.
        word: ``none``, which some fields take for a value, or ``unset``.
    """
    section, _, name = field.rpartition(".")
    section = re.sub(r"^teachers\[\d+\]$", "teacher", section)
    _, _, method = section.partition("methods.")
    if section in SECTIONS:
        known = fields_of(SECTIONS[section])
    elif method in config.methods:
        known = registry.settings(config.methods[method].get("method", method))
    else:
        return False
    if name not in known or word in value_types.choices(known[name].type):
        return False
    try:
        return value_types.fit(known[name].type, None) is None
    except value_types.Misfit:
        return False


def unknown_field(config: ml_collections.ConfigDict, field: str) -> TfkdError:
    """Returns the error for a field that a config does not have."""
    section, _, rest = field.partition(".")
    name = rest.partition(".")[0]
    if section == "methods" and name not in config.methods:
        found = ", ".join(config.methods) or "none"
        return TfkdError(
            f"config field {field!r}: found no method {name!r} in this config, wanted one of those "
            f"that it has ({found})"
        )
    known = [each for each in fields(config) if not each.startswith("search_space")]
    hint = did_you_mean(field, known)
    return TfkdError(f"unknown config field {field!r}{hint} (--helpfull lists the fields)")


def has_teacher(config: ml_collections.ConfigDict) -> bool:
    """Returns whether the config names a trained teacher."""
    teacher = config.teacher
    if any(teacher[key] for key in ("config", "workdir", "weights")):
        return True
    # A function may load weights by itself; a network of the registry is always fresh.
    return bool(teacher.name) and is_reference(teacher.name) and not trains_teacher(config)


def needs_teacher(config: ml_collections.ConfigDict) -> bool:
    """Returns whether some method of the config has a teacher."""
    return any(objective.requires.needs_teacher for objective in objectives(config))


def trains_teacher(config: ml_collections.ConfigDict) -> bool:
    """Returns whether some method of the config trains a fresh teacher beside the student."""
    kinds = [objective.distiller_class for objective in objectives(config)]
    return any(kind is not None and kind.trainable_teacher for kind in kinds)


def override(config: ml_collections.ConfigDict, **changes) -> ml_collections.ConfigDict:
    """Returns a copy with some fields changed, named by their dotted path with ``__`` for dots.

    Raises:
        TfkdError: For a field that is not there, or a value of another type.
    """
    changed = copy.deepcopy(config)
    for name, value in changes.items():
        *path, last = name.split("__")
        section = changed
        for key in path:
            section = section.get(key, ml_collections.ConfigDict())
        field = ".".join((*path, last))
        if last not in section:
            raise unknown_field(config, field)
        try:
            section[last] = value
        except TypeError as error:
            raise TfkdError(f"config field {field}: {error}") from None
    return _locked(changed)


def differences(found: Any, wanted: Any, path: str = "") -> list[str]:
    """Returns the dotted fields in which two plain configs differ, with both values."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        keys = sorted(set(found) | set(wanted))
        return [
            line
            for key in keys
            for line in differences(
                found.get(key), wanted.get(key), f"{path}.{key}" if path else str(key)
            )
        ]
    if json.dumps(found, sort_keys=True) == json.dumps(wanted, sort_keys=True):
        return []
    return [f"{path} is {found!r} there and {wanted!r} here"]
