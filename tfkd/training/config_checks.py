"""What can be told to be wrong in a config before anything is loaded."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import ml_collections

from tfkd import models
from tfkd.core import registry
from tfkd.errors import TfkdError, TfkdWarning, unknown
from tfkd.models.preprocess import PUBLISHED
from tfkd.models.references import is_reference
from tfkd.training import config as configs
from tfkd.training import optimizers, schedules

_PREPROCESS = ("dataset", "none", *PUBLISHED)


def validate(config: ml_collections.ConfigDict) -> None:
    """Checks what can be checked before anything is loaded.

    Raises:
        TfkdError: Naming the field, what was found and what is wanted.
    """
    _check_fields(config, configs.default())
    models.check_name(config.student.name, "network (student.name)")
    train = config.train
    _at_least("train.epochs", train.epochs, 1)
    _at_least("train.batch_size", train.batch_size, 1)
    _at_least("train.steps_per_execution", train.steps_per_execution, 1)
    _at_least("train.evaluate_every", train.evaluate_every, 1)
    _at_least("train.checkpoint_seconds", train.checkpoint_seconds, 0)
    _at_least("student_loss_weight", config.student_loss_weight, 0)
    _check_recipe(config)
    _one_of("train.batch_norm", train.batch_norm, ("synchronized", "local"))
    _one_of("train.precision", train.precision, ("float32", "mixed_bfloat16", "mixed_float16"))
    _one_of("student.preprocess", config.student.preprocess, _PREPROCESS)
    if config.teacher.dtype is not None:
        _one_of("teacher.dtype", config.teacher.dtype, ("float32", "bfloat16"))
    for position, entry in enumerate(config.distiller):
        _check_method(position, entry)
    _check_source(config.teacher, "teacher")
    for position, entry in enumerate(config.teachers):
        _check_further_teacher(position, entry, config)
    if configs.trains_teacher(config):
        _check_trained_teacher(config)
    elif configs.needs_teacher(config) and not configs.has_teacher(config):
        raise TfkdError(
            "the distiller needs a teacher: found none of teacher.config, teacher.workdir and "
            "teacher.weights, and no module:function in teacher.name; wanted one of them"
        )


def _check_fields(section: Any, known: ml_collections.ConfigDict, path: str = "") -> None:
    """Refuses fields that no config has, fields that lack and values of another type.

    Those of networks and methods are checked by them.
    """
    if not isinstance(section, ml_collections.ConfigDict):
        raise TfkdError(f"config field {path[:-1]}: found {section!r}, wanted a section of fields")
    for key in section:
        if key not in known:
            raise unknown("config field", path + key, [path + each for each in known])
    for key in known:
        if key not in section:
            raise TfkdError(
                f"config without {path}{key}; wanted one that starts from "
                "tfkd.training.config.default()"
            )
        if key == "kwargs":
            continue
        if key == "taps":
            _check_taps(path + key, section[key])
        elif isinstance(known[key], ml_collections.ConfigDict):
            _check_fields(section[key], known[key], f"{path}{key}.")
        else:
            _check_type(path + key, section[key], known[key], known.get_type(key))


def _check_taps(field: str, taps: Any) -> None:
    if not isinstance(taps, ml_collections.ConfigDict) or not all(
        isinstance(layer, str) for layer in taps.values()
    ):
        raise TfkdError(
            f"config field {field}: found {configs.to_dict(taps)!r}, wanted a dict of the names of layers"
        )


def _check_type(field: str, value: Any, usual: Any, kind: type) -> None:
    if value is None and usual is None:
        return
    allowed = {float: (float, int), tuple: (tuple, list)}.get(kind, (kind,))
    if not isinstance(value, allowed) or (isinstance(value, bool) and kind is not bool):
        raise TfkdError(f"config field {field}: found {value!r}, wanted {kind.__name__}")


def _check_recipe(config: ml_collections.ConfigDict) -> None:
    """Makes optimizer and schedule once, to see that their settings are right."""
    with warnings.catch_warnings():
        # What the settings leave unused is told when the run makes its own.
        warnings.simplefilter("ignore", TfkdWarning)
        schedule = schedules.create(
            configs.settings(config.train.schedule),
            base_rate=config.train.learning_rate,
            steps_per_epoch=1,
            epochs=config.train.epochs,
        )
        optimizers.create(configs.optimizer_settings(config), schedule)


def _check_method(position: int, entry) -> None:
    where = f"distiller[{position}]"
    if not isinstance(entry, (Mapping, ml_collections.ConfigDict)) or "name" not in entry:
        raise TfkdError(f"{where}: found {entry!r}, wanted name, weight and settings")
    extra = [key for key in entry if key not in ("name", "weight", "settings")]
    if extra:
        raise unknown(f"field of {where}", extra[0], ("name", "weight", "settings"))
    _at_least(f"{where}.weight", entry.get("weight", 1.0), 0)
    registry.create(entry["name"], **configs.to_dict(entry.get("settings", {})))


def _check_trained_teacher(config: ml_collections.ConfigDict) -> None:
    source = [key for key in ("config", "workdir", "weights") if config.teacher[key]]
    if source or not config.teacher.name:
        raise TfkdError(
            "the distiller trains its teacher beside the student: found "
            f"{f'teacher.{source[0]}' if source else 'no teacher.name'}, wanted the network of a "
            "fresh teacher in teacher.name, and no other source"
        )
    models.check_name(config.teacher.name, "network (teacher.name)")
    if config.teacher.preprocess is not None:
        raise TfkdError(
            f"teacher.preprocess: found {config.teacher.preprocess!r}, wanted it unset: pixels reach a "
            "teacher that trains beside the student as they reach the student"
        )


def _check_further_teacher(position: int, entry: Any, config: ml_collections.ConfigDict) -> None:
    """Refuses what is no teacher, and one beside a teacher that is none or trains."""
    where = f"teachers[{position}]"
    if not isinstance(entry, ml_collections.ConfigDict):
        raise TfkdError(
            f"{where}: found {entry!r}, wanted what tfkd.training.config.teacher() gives"
        )
    _check_fields(entry, configs.teacher(), f"{where}.")
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
    _one_of(f"{where}.which", teacher.which, ("last", "best"))
    if teacher.preprocess is not None:
        _one_of(f"{where}.preprocess", teacher.preprocess, _PREPROCESS)
    folder = next((key for key in ("config", "workdir") if teacher[key]), None)
    if folder is None:
        return
    if teacher.weights or (teacher.name and is_reference(teacher.name)):
        other = "weights" if teacher.weights else "name"
        raise TfkdError(
            f"{where}: found {where}.{other} besides {where}.{folder}, wanted one source of the teacher"
        )
    if teacher.preprocess is not None:
        raise TfkdError(
            f"{where}.preprocess: found {teacher.preprocess!r} besides {where}.{folder}, wanted it "
            "unset: the run folder tells how pixels reach its network"
        )


def _at_least(name: str, value, low) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= low:
        raise TfkdError(f"{name}: found {value!r}, wanted a number >= {low}")


def _one_of(name: str, value, allowed) -> None:
    if value not in allowed:
        raise unknown(name, value, allowed)
