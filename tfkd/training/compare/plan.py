"""What a comparison trains: the config and run folder of every role."""

from __future__ import annotations

import collections
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import ml_collections

from tfkd.errors import TfkdError, TfkdWarning
from tfkd.models.references import is_reference
from tfkd.training import arguments, teachers
from tfkd.training import config as configs
from tfkd.training.run_folder import comparable

TEACHER, ALONE, DISTILLED = "teacher", "alone", "distilled"


class Role(NamedTuple):
    """One run of a comparison.

    Attributes:
        config: Its config.
        folder: Its run folder.
        taught_by: The role that trains its teacher; ``None`` where the comparison trains none.
    """

    config: ml_collections.ConfigDict
    folder: Path
    taught_by: str | None = None


def roles(
    experiments: Mapping[str, ml_collections.ConfigDict],
    seed: int,
    workdir: Path,
    base: ml_collections.ConfigDict | None = None,
) -> dict[str, Role]:
    """Returns the roles of one seed, in the order of their runs.

    ``teacher`` is what ``teacher.config`` trains; without it in any experiment there is no such
    role. ``alone`` is the student without a method. The experiments follow as they are. One whose
    teacher is the student itself, trained alone (TF-KD), reads it from the run ``alone``.

    Args:
        experiments: Distillation experiments by name of their role.
        seed: Seed of all runs, unless ``teacher.seed`` sets that of the teacher.
        workdir: Folder that holds a folder for each role and seed.
        base: The config whose ``train`` section is the recipe of ``alone``; by default the first
            experiment whose ``train`` section most of the others share.

    Raises:
        TfkdError: When an experiment distils nothing, has several teachers or one that is not
            trained from a config, or they do not compare: two teachers, students or data sets.
    """
    _check_alike(experiments)
    seeded = {
        name: configs.override(
            config, train__seed=seed, teacher__workdir=str(workdir / TEACHER / "seed{seed}")
        )
        for name, config in experiments.items()
    }
    alone = Role(_alone(seeded, seed, base), workdir / ALONE / f"seed{seed}")
    planned = {ALONE: alone}
    found: dict[str, Role] = {}
    for name, config in seeded.items():
        taught_by, taught_in = None, None
        if config.teacher.config:
            teacher = Role(*teachers.reference(config))
            if _recipe(teacher.config) == _recipe(alone.config):
                taught_by, taught_in = ALONE, str(alone.folder)
            else:
                taught_by, taught_in = TEACHER, config.teacher.workdir
                found[config.teacher.config] = teacher
        if taught_by != TEACHER:
            config = configs.override(config, teacher__config=None, teacher__workdir=taught_in)
        planned[name] = Role(config, workdir / name / f"seed{seed}", taught_by)
    if len(found) > 1:
        raise TfkdError(
            f"compare: found {', '.join(found)} as teacher.config, wanted the same teacher for "
            "every experiment"
        )
    return {TEACHER: found.popitem()[1], **planned} if found else planned


def _alone(
    experiments: Mapping[str, ml_collections.ConfigDict],
    seed: int,
    base: ml_collections.ConfigDict | None,
) -> ml_collections.ConfigDict:
    """Returns the config of the student without a method."""
    usual = experiments[_usual_recipe(experiments)]
    recipe = usual if base is None else configs.override(base, train__seed=seed)
    name = usual.teacher.name
    return configs.override(
        usual,
        experiment=f"{usual.student.name}-alone",
        methods={},
        student_loss_weight=1.0,
        # A network of the registry is nobody's teacher, a function might be.
        teacher__name=None if name and is_reference(name) else name,
        teacher__config=None,
        teacher__workdir=None,
        teacher__weights=None,
        train=recipe.train,
    )


def _check_alike(experiments: Mapping[str, ml_collections.ConfigDict]) -> None:
    taken = [role for role in experiments if role in (TEACHER, ALONE)]
    if taken or not experiments:
        raise TfkdError(
            f"compare: found {', '.join(taken) or 'no methods'}, wanted methods other than "
            f"{TEACHER!r} and {ALONE!r}, which are there by themselves"
        )
    for role, config in experiments.items():
        if not config.methods:
            raise TfkdError(
                f"compare: found a config without methods ({role}), wanted a distillation "
                "experiment"
            )
        if config.teachers:
            raise TfkdError(
                f"compare: found {1 + len(config.teachers)} teachers ({role}), wanted one, which "
                "has a row of its own"
            )
        if _brings_teacher(config):
            raise TfkdError(
                f"compare: found no config as teacher.config ({role}), wanted a teacher that the "
                "comparison can train with each seed"
            )
    first, *others = experiments.items()
    for section in ("student", "data"):
        for role, config in others:
            lines = configs.differences(
                configs.to_dict(config[section]), configs.to_dict(first[1][section]), section
            )
            if lines:
                field, *_ = lines[0].split(" ")
                raise TfkdError(
                    f"compare: {field} differs between {first[0]} and {role}, wanted one student "
                    "and one data set"
                )


def _brings_teacher(config: ml_collections.ConfigDict) -> bool:
    """Whether a method has a teacher from files, which has no run of its own in a comparison."""
    if config.teacher.config or not configs.has_teacher(config):
        return False
    return configs.needs_teacher(config)


def _usual_recipe(experiments: Mapping[str, ml_collections.ConfigDict]) -> str:
    """Returns the first role whose ``train`` section most of the others share."""
    recipes = {role: config.train.to_json(sort_keys=True) for role, config in experiments.items()}
    (usual, _), *_ = collections.Counter(recipes.values()).most_common(1)
    return next(role for role, recipe in recipes.items() if recipe == usual)


def _recipe(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """Returns what makes a run what it is, whatever it is called."""
    return comparable(configs.to_dict(configs.override(config, experiment="")))


def tell_recipes(
    experiments: Mapping[str, ml_collections.ConfigDict],
    base: ml_collections.ConfigDict | None,
) -> None:
    """Warns of experiments that train by another recipe than ``alone``.

    Args:
        experiments: As for :func:`roles`.
        base: As for :func:`roles`.
    """
    usual = _usual_recipe(experiments)
    recipe, whose = (experiments[usual], usual) if base is None else (base, "the config as given")
    for role, config in experiments.items():
        lines = configs.differences(
            configs.to_dict(config.train), configs.to_dict(recipe.train), "train"
        )
        if lines:
            fields = ", ".join(line.split(" ")[0] for line in lines)
            warnings.warn(
                f"{role} trains by a recipe of its own ({fields}); 'over alone' compares it with "
                f"the recipe of {whose}",
                TfkdWarning,
                stacklevel=3,
            )


def holds_for(
    experiments: Mapping[str, ml_collections.ConfigDict] | ml_collections.ConfigDict,
    changes: Mapping[str, Any],
) -> list[str]:
    """Returns in words which roles the changes of a config do not reach, a line for each case.

    Args:
        experiments: As for :func:`tfkd.training.compare.compare`, with the changes.
        changes: The changed fields and their values, as :func:`of_methods` takes them.
    """
    if isinstance(experiments, ml_collections.ConfigDict):
        experiments = {DISTILLED: experiments}
    teachers_of = dict.fromkeys(each.teacher.config for each in experiments.values())
    teachers_of.pop(None, None)
    taught = ", ".join(experiments)
    found = []
    for sections, holding, others in (
        (("train", "student", "task"), f"{ALONE}, {taught}", []),
        (("methods", "student_loss_weight"), taught, [f"not for {ALONE}"]),
    ):
        given = [
            f"--config.{field}={'none' if value is None else value}"
            for field, value in changes.items()
            if field.split(".")[0] in sections
        ]
        told = [*others, *(f"the {TEACHER} is that of {each}" for each in teachers_of)]
        if given and told:
            found.append(f"{' '.join(given)}: for {holding}; {', '.join(told)}")
    return found


def of_methods(
    reference: str, methods: Sequence[str], changes: Mapping[str, Any] | None = None
) -> dict[str, ml_collections.ConfigDict]:
    """Reads a config once for each method, with the method as first word of its argument.

    Args:
        reference: ``PATH`` or ``PATH:WORD,WORD,...``; the first word is replaced.
        methods: The methods, each once.
        changes: Fields to change in all of them, by their dotted names.

    Returns:
        The configs by method, for :func:`tfkd.training.compare.compare`.

    Raises:
        TfkdError: For a method that the config does not know, a method twice, or a change of
            ``methods``, which differ.
    """
    path, _, argument = reference.partition(":")
    found = {}
    for method in methods:
        if method in found:
            raise TfkdError(f"--methods: found {method!r} twice, wanted each method once")
        try:
            config = configs.load(f"{path}:{arguments.with_first(argument, method)}")
        except TfkdError as error:
            raise TfkdError(f"--methods, {method}: {error}") from None
        for field in changes or {}:
            if field.partition(".")[0] == "methods":
                raise TfkdError(
                    f"--config.{field}: found it beside --methods, wanted only one of them"
                )
        fields = {key.replace(".", "__"): value for key, value in (changes or {}).items()}
        found[method] = configs.override(config, **fields)
    return found
