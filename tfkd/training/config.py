"""The fields of an experiment: their types, defaults and meaning, and how a config file is read."""

from __future__ import annotations

import copy
import importlib.util
import json
import re
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ml_collections
from ml_collections import config_dict

from tfkd.core import registry
from tfkd.errors import TfkdError, did_you_mean, unknown
from tfkd.models.references import is_reference

_REPOSITORY = Path(__file__).resolve().parents[2]

MEANINGS = {
    "experiment": "name of the experiment in results and tables",
    "data.name": "digits | a tensorflow-datasets name such as cifar10 | tiny_imagenet | folder:PATH",
    "data.directory": "where prepared sets are kept; none: tensorflow-datasets' own default",
    "data.download": "whether the data set may be downloaded",
    "data.validation": "part (below 1) or number of training images held out; none: the set's own",
    "data.train_size": "number of training images to keep, alike in every class; none: all",
    "data.image_size": "side to which images are resized; none: as they are (imagenet crops: 224)",
    "data.augment": "none | shift | crop | flip | crop_flip | imagenet; unset: the set's own",
    "data.mixup": "alpha of mixup, whose labels are dense; 0: none",
    "data.cutmix": "alpha of cutmix likewise; with both, each step draws one of them; 0: none",
    "data.skip_corrupt": "whether unreadable images of a folder are skipped",
    "student.name": "network that is trained: its name, module:function or FILE.py:function",
    "student.kwargs": "further arguments of the network",
    "student.preprocess": "dataset (its mean and deviation) | none | tf | torch | caffe (as in Keras)",
    "student.taps": "names of features as methods know them, and the layers that make them",
    "teacher.name": "network of the teacher where only its weights are given, or where it trains too",
    "teacher.kwargs": "further arguments of the network",
    "teacher.config": "config that trains the teacher on demand, such as configs/quickstart.py:teacher",
    "teacher.workdir": "run folder of the teacher, {seed} filled in; trained there if it is missing",
    "teacher.weights": "a .keras file of the teacher, or weights of teacher.name; no config or workdir",
    "teacher.preprocess": "as student.preprocess, for a teacher without a run folder; none: dataset",
    "teacher.taps": "as student.taps",
    "teacher.which": "last | best: which of the teacher's students teaches",
    "teacher.seed": "seed of the teacher's run, or of its first weights; none: from train.seed",
    "teacher.dtype": "bfloat16 runs the frozen teacher in that precision; none: as it is",
    "teacher.fold": "whether the teacher's batch normalisation is folded into its layers",
    "teachers": "further teachers, each made by teacher(): the probabilities of all are averaged",
    "distiller": "list of (name, weight, settings); empty: plain training",
    "student_loss_weight": "weight of the label loss",
    "train.epochs": "passes over the training set",
    "train.batch_size": "images of one step over all replicas",
    "train.seed": "seed of initialisation, order, augmentation and everything drawn",
    "train.learning_rate": "base learning rate",
    "train.optimizer.name": "sgd | adam | adamw | rmsprop",
    "train.optimizer.momentum": "momentum of sgd and rmsprop; none: 0.9 of sgd, 0 of rmsprop",
    "train.optimizer.nesterov": "Nesterov momentum of sgd",
    "train.optimizer.form": "torch (learning rate outside the buffer) | keras (inside, as Caffe)",
    "train.optimizer.weight_decay": "weight decay",
    "train.optimizer.beta_1": "decay of the mean of gradients of adam and adamw",
    "train.optimizer.beta_2": "decay of the mean of squares of adam and adamw",
    "train.optimizer.rho": "decay of the mean of squares of rmsprop",
    "train.optimizer.epsilon": "added to the root of adam, adamw and rmsprop",
    "train.optimizer.decay": "coupled (L2, added to the gradient) | decoupled; none: the usual one",
    "train.optimizer.decay_exclude": "what does not decay: bias, batch_normalization, path patterns",
    "train.optimizer.clip_norm": "largest norm of the whole gradient; none: no clipping",
    "train.schedule.name": "constant | step | cosine",
    "train.schedule.milestones": "epochs at which step multiplies the rate",
    "train.schedule.factor": "factor of step at each milestone",
    "train.schedule.per_step": "whether cosine moves with every step instead of every epoch",
    "train.schedule.final_rate": "last rate of cosine",
    "train.schedule.warmup_epochs": "length of the linear warm-up",
    "train.schedule.warmup_factor": "first rate of the warm-up as a part of the base rate",
    "train.steps_per_execution": "steps of one compiled call",
    "train.batch_norm": "synchronized (1 and 2 replicas agree) | local (faster): under replicas",
    "train.precision": "float32 | mixed_bfloat16 | mixed_float16",
    "train.jit_compile": "XLA; one replica only, and slower on CPUs",
    "train.evaluate_every": "epochs between two evaluations on the validation images",
    "train.checkpoint_seconds": "least time between two checkpoints",
    "train.verbose": "1: progress bar, 2: one line an epoch, 0: silent",
    "export.enabled": "whether the run ends with a SavedModel in its folder",
    "export.fold": "whether batch normalisation is folded into the exported layers",
    "compare.seeds": "seeds of tools/compare.py",
    "search_space": "list of (fields, choices) that tools/tune.py tries, each made by vary()",
}
"""What each field means; also the text of ``--help``."""


def default() -> ml_collections.ConfigDict:
    """Returns a config with every field at its default; experiments change what is theirs.

    Fields without a value (``None``) keep their type: they are placeholders. The dict is locked, so
    that a misspelt field is an error.
    """
    config = ml_collections.ConfigDict()
    config.experiment = _unset(str)
    config.data = dict(
        name="digits", directory=_unset(str), download=False, validation=_unset(float), train_size=_unset(int), image_size=_unset(int),
        augment=_unset(str), mixup=0.0, cutmix=0.0, skip_corrupt=False,
    )  # fmt: skip
    config.student = dict(name="resnet8", kwargs={}, preprocess="dataset", taps={})
    config.teacher = dict(_one_teacher(), dtype=_unset(str), fold=True)
    config.teachers = ()
    config.distiller = ()
    config.student_loss_weight = 1.0
    config.train = dict(
        epochs=1,
        batch_size=64,
        seed=0,
        learning_rate=0.05,
        optimizer=dict(
            name="sgd", momentum=_unset(float), nesterov=False, form="torch", weight_decay=5e-4,
            decay=_unset(str), decay_exclude=(), clip_norm=_unset(float),
            beta_1=_unset(float), beta_2=_unset(float), rho=_unset(float), epsilon=_unset(float),
        ),
        schedule=dict(
            name="step", milestones=(), factor=0.1, per_step=False, final_rate=0.0,
            warmup_epochs=0.0, warmup_factor=0.1,
        ),
        steps_per_execution=1,
        batch_norm="synchronized",
        precision="float32",
        jit_compile=False,
        evaluate_every=1,
        checkpoint_seconds=30.0,
        verbose=1,
    )  # fmt: skip
    config.export = dict(enabled=False, fold=True)
    config.compare = dict(seeds=(0, 1, 2))
    config.search_space = ()
    config.lock()
    for network in (config.student, config.teacher):
        network.kwargs.unlock()  # They are the network's own, which it checks itself.
        network.taps.unlock()
    return config


def _one_teacher() -> dict[str, Any]:
    """Returns what a config says of each teacher."""
    return dict(
        name=_unset(str), kwargs={}, config=_unset(str), workdir=_unset(str), weights=_unset(str), which="last", seed=_unset(int),
        preprocess=_unset(str), taps={},
    )  # fmt: skip


def teacher(**fields) -> ml_collections.ConfigDict:
    """Returns one entry of ``config.teachers``, for an ensemble of teachers.

    ``config.teachers = (teacher(config="configs/quickstart.py:teacher", seed=1),)`` adds a second
    teacher to that of ``config.teacher``; the student learns from the mean of their probabilities.

    Args:
        **fields: As in ``config.teacher``, but for ``dtype`` and ``fold``, which hold for all.

    Raises:
        TfkdError: For a field that is not there, or a value of another type.
    """
    entry = ml_collections.ConfigDict(_one_teacher())
    for key, value in fields.items():
        if key not in entry:
            raise unknown("field of teacher()", key, entry)
        try:
            entry[key] = value
        except TypeError as error:
            raise TfkdError(f"field {key} of teacher(): {error}") from None
    entry.lock()
    entry.kwargs.unlock()  # They are the network's own, which it checks itself.
    entry.taps.unlock()
    return entry


def with_one_teacher(config: ml_collections.ConfigDict) -> list[ml_collections.ConfigDict]:
    """Returns for each teacher of a config the same config with that teacher alone.

    The first is ``config.teacher``, whatever it holds; those of ``config.teachers`` follow.
    """
    found = [override(config, teachers=())]
    for entry in config.teachers:
        one = copy.deepcopy(found[0]).unlock()
        one.teacher = dict(
            {key: entry[key] for key in _one_teacher()},
            dtype=config.teacher.dtype,
            fold=config.teacher.fold,
        )
        found.append(one.lock())
    return found


def method(name: str, weight: float = 1.0, **settings) -> ml_collections.ConfigDict:
    """Returns one entry of ``config.distiller``.

    Args:
        name: A registered distiller.
        weight: Its weight in the total loss.
        **settings: Its hyper-parameters. The others take their defaults, so that each of them can be
            changed by a flag and stands in ``config.json``.

    Raises:
        TfkdError: For an unknown name.
    """
    usual = registry.defaults(name)
    for key, value in settings.items():
        whole = isinstance(value, int) and not isinstance(value, bool)
        usual[key] = float(value) if whole and isinstance(usual.get(key), float) else value
    return ml_collections.ConfigDict(dict(name=name, weight=float(weight), settings=usual))


def vary(*fields: str, choices: Sequence[Any]) -> ml_collections.ConfigDict:
    """Returns one entry of ``config.search_space``: what :mod:`tfkd.tuning` tries.

    ``vary("train.learning_rate", choices=(0.01, 0.1))`` tries two rates. Several fields in one entry
    are tied, each value going to all of them; several entries make a grid.

    Args:
        *fields: Fields by the names that flags give them, such as ``distiller[0].weight``.
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

    Those of methods are among them, as ``distiller[0].settings.temperature``.
    """
    found: dict[str, type] = {}

    def walk(section: ml_collections.ConfigDict, path: str) -> None:
        for key in section:
            value, kind = section[key], section.get_type(key)
            if isinstance(value, ml_collections.ConfigDict):
                walk(value, f"{path}{key}.")
                continue
            found[path + key] = kind
            for position, each in enumerate(value if kind is tuple else ()):
                if isinstance(each, ml_collections.ConfigDict):
                    walk(each, f"{path}{key}[{position}].")

    walk(config, "")
    return found


def settings(section: ml_collections.ConfigDict) -> dict[str, Any]:
    """Returns one section of a config as plain keyword arguments, with tuples for its lists."""
    return {key: tuple(v) if isinstance(v, list) else v for key, v in to_dict(section).items()}


def optimizer_settings(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """Returns ``train.optimizer`` as keyword arguments, with the usual momentum of sgd."""
    chosen = settings(config.train.optimizer)
    if chosen["name"] == "sgd" and chosen["momentum"] is None:
        chosen["momentum"] = 0.9
    return chosen


def load(reference: str) -> ml_collections.ConfigDict:
    """Reads a config file.

    Args:
        reference: ``PATH`` or ``PATH:ARGUMENT``; the path is looked for from the working folder and
            then from the repository.

    Raises:
        TfkdError: When there is no such file, or it has no ``get_config``.
    """
    path, _, argument = reference.partition(":")
    places = [Path(path), _REPOSITORY / path]
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        raise TfkdError(f"config {path!r}: no such file, wanted a Python file with get_config")
    spec = importlib.util.spec_from_file_location(f"tfkd_config_{found.stem}", found)
    if spec is None:
        raise TfkdError(
            f"config {path!r}: found a file that is not Python, wanted get_config in a .py"
        )
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        if not hasattr(module, "get_config"):
            raise TfkdError("found no function get_config")
        config = module.get_config(argument) if argument else module.get_config()
    # Whatever a config file does wrong is told in one line.
    except Exception as error:
        raise TfkdError(f"config {reference!r}: {explain(error)}") from error
    if not isinstance(config, ml_collections.ConfigDict):
        raise TfkdError(
            f"config {reference!r}: get_config returned {type(config).__name__}, wanted the "
            "ConfigDict of tfkd.training.config.default()"
        )
    return config


def explain(error: Exception) -> str:
    """Returns in one line what went wrong in a config file, with the line of the file.

    Args:
        error: What reading it raised.
    """
    text = " ".join(str(error).split())
    if isinstance(error, TfkdError):
        return text
    field = re.search(r'Key "(\w+)" does not exist', text)
    if field:
        near = re.findall(r'Did you mean "(\w+)"', text)
        text = f"unknown config field {field.group(1)!r}{did_you_mean(field.group(1), near)}"
    else:
        text = f"{type(error).__name__}: {text}"
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "get_config" in frame.name or frame.name == "<module>"]
    return f"line {own[-1].lineno}: {text}" if own else text


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


def objectives(config: ml_collections.ConfigDict) -> list:
    """Returns fresh objectives of the config's methods."""
    return [
        registry.create(entry["name"], **to_dict(entry.get("settings", {})))
        for entry in config.distiller
    ]


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
            raise unknown("config field", field, fields(config))
        try:
            section[last] = value
        except TypeError as error:
            raise TfkdError(f"config field {field}: {error}") from None
    return changed.lock()


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


def _unset(kind: type) -> ml_collections.FieldReference:
    """Returns an empty field of a type; a new one each time, because a placeholder is shared."""
    return config_dict.placeholder(kind)
