"""What can be told to be wrong in a config before anything is loaded."""

from __future__ import annotations

import warnings
from typing import Any

import ml_collections

from tfkd import models
from tfkd.core import registry
from tfkd.errors import TfkdError, TfkdWarning, unknown
from tfkd.models.references import is_reference
from tfkd.settings import NonNegative, Settings, checked, fields_of
from tfkd.training import config as configs
from tfkd.training import optimizers, schedules, start_weights
from tfkd.training.config_sections import SECTIONS, OneTeacher

_LONGEST_NAME = 100


def validate(config: ml_collections.ConfigDict) -> None:
    """Checks what can be checked before anything is loaded.

    Raises:
        TfkdError: Naming the field, what was found and what is wanted.
    """
    for path, section in SECTIONS.items():
        _check_section(path, _section(config, path), section)
    models.check_name(config.student.name, "network (student.name)")
    start_weights.check(config.student)
    check_recipe(config)
    for name, entry in config.methods.items():
        _check_method(name, entry)
    taught = [each.name for each in configs.objectives(config) if each.requires.needs_teacher]
    _check_source(config.teacher, "teacher")
    for position, entry in enumerate(config.teachers):
        _check_further_teacher(position, entry, config)
    if configs.trains_teacher(config):
        _check_trained_teacher(config)
    elif taught and not configs.has_teacher(config):
        raise TfkdError(
            f"method {taught[0]} needs a teacher: found none of teacher.config, teacher.workdir "
            "and teacher.weights, and no module:function in teacher.name; wanted one of them"
        )


def _section(config: ml_collections.ConfigDict, path: str) -> Any:
    for key in path.split(".") if path else ():
        config = config.get(key)
    return config


def _check_section(path: str, section: Any, declared: type[Settings]) -> None:
    """Refuses a section with unknown or missing fields, or values that do not fit.

    Args:
        path: The section as flags name it; empty for the config itself.
        section: The section.
        declared: Its fields.
    """
    if not isinstance(section, ml_collections.ConfigDict):
        raise TfkdError(f"config field {path}: found {section!r}, wanted a section of fields")
    where = f"{path}." if path else ""
    inner = [each.removeprefix(where) for each in SECTIONS if each and each.startswith(where)]
    known = [*fields_of(declared), *(each for each in inner if "." not in each)]
    for key in section:
        if key not in known:
            raise unknown("config field", where + key, [where + each for each in known])
    for key in known:
        if key not in section:
            raise TfkdError(
                f"config without {where}{key}; wanted one that starts from "
                "tfkd.training.config.default()"
            )
    declared.from_mapping({key: section[key] for key in fields_of(declared)}, where)
    taps = section.get("taps", {})
    if not all(isinstance(layer, str) for layer in taps.values()):
        raise TfkdError(
            f"{where}taps: found {configs.to_dict(taps)!r}, wanted a dict of the names of layers"
        )


def check_recipe(config: ml_collections.ConfigDict) -> None:
    """Makes optimizer and schedule of ``config.train`` once, to see that they can be made.

    Raises:
        TfkdError: When they cannot.
    """
    config = configs.in_own_epochs(config)
    with warnings.catch_warnings():
        # What the settings leave unused is told when the run makes its own.
        warnings.simplefilter("ignore", TfkdWarning)
        schedule = schedules.create(
            config.train.schedule,
            base_rate=config.train.learning_rate,
            steps_per_epoch=1,
            epochs=configs.epochs(config),
        )
        optimizers.create(config.train.optimizer, schedule)


def _check_method(name: str, entry: Any) -> None:
    """Refuses what is no entry of methods; its settings are checked by the method itself."""
    if not isinstance(entry, ml_collections.ConfigDict):
        raise TfkdError(f"methods.{name}: found {entry!r}, wanted its weight and settings")
    if len(name) > _LONGEST_NAME:
        raise TfkdError(
            f"methods: found a name of {len(name)} letters ({name[:40]}...), wanted "
            f"{_LONGEST_NAME} at most, for files that are called by it"
        )
    checked(f"methods.{name}.weight", NonNegative, entry.get("weight", 1.0))
    method = entry.get("method", name)
    if method not in registry.names():
        raise unknown(f"method (methods.{name})", method, registry.names())


def _check_trained_teacher(config: ml_collections.ConfigDict) -> None:
    source = [key for key in ("config", "workdir", "weights") if config.teacher[key]]
    if source or not config.teacher.name:
        raise TfkdError(
            "a method trains its teacher beside the student: found "
            f"{f'teacher.{source[0]}' if source else 'no teacher.name'}, wanted the network of a "
            "fresh teacher in teacher.name, and no other source"
        )
    models.check_name(config.teacher.name, "network (teacher.name)")
    if config.teacher.preprocess is not None:
        raise TfkdError(
            f"teacher.preprocess: found {config.teacher.preprocess!r}, wanted it unset: pixels "
            "reach a teacher that trains beside the student as they reach the student"
        )
    if config.teacher.class_names is not None:
        raise TfkdError(
            f"teacher.class_names: found {config.teacher.class_names!r}, wanted it unset: a "
            "teacher that trains beside the student has the classes of the data"
        )


def _check_further_teacher(position: int, entry: Any, config: ml_collections.ConfigDict) -> None:
    """Refuses what is no teacher, and one beside a teacher that is none or trains."""
    where = f"teachers[{position}]"
    if not isinstance(entry, ml_collections.ConfigDict):
        raise TfkdError(
            f"{where}: found {entry!r}, wanted what tfkd.training.config.teacher() gives"
        )
    _check_section(where, entry, OneTeacher)
    _check_source(entry, where)
    first, alone = configs.with_one_teacher(configs.override(config, teachers=(entry,)))
    if not configs.has_teacher(first):
        raise TfkdError(f"{where}: found it without a trained teacher in teacher, wanted both")
    if not configs.has_teacher(alone):
        raise TfkdError(
            f"{where}: found none of config, workdir and weights, and no module:function in name; "
            "wanted one of them"
        )


def _check_source(teacher: ml_collections.ConfigDict, where: str) -> None:
    """Refuses two sources of a teacher, and what belongs to another source."""
    folder = next((key for key in ("config", "workdir") if teacher[key]), None)
    if folder is None:
        return
    if teacher.weights or (teacher.name and is_reference(teacher.name)):
        other = "weights" if teacher.weights else "name"
        raise TfkdError(
            f"{where}: found {where}.{other} besides {where}.{folder}, wanted one source of the "
            "teacher"
        )
    if teacher.preprocess is not None:
        raise TfkdError(
            f"{where}.preprocess: found {teacher.preprocess!r} besides {where}.{folder}, wanted it "
            "unset: the run folder tells how pixels reach its network"
        )
    if teacher.class_names is not None and teacher.config:
        raise TfkdError(
            f"{where}.class_names: found {teacher.class_names!r} besides {where}.config, wanted it "
            "unset: a teacher that is trained on demand has the classes of the data"
        )
