"""Runs of several roles over several seeds, side by side in one table."""

from __future__ import annotations

import collections
import csv
import io
import os
import statistics
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ml_collections
import tensorflow as tf

from tfkd import evaluation, export
from tfkd.errors import TfkdError, TfkdWarning
from tfkd.models.saving import load_network
from tfkd.training import arguments, build, config_checks, curves, teachers
from tfkd.training import config as configs
from tfkd.training import strategy as strategies
from tfkd.training.run import run
from tfkd.training.run_folder import RunFolder, comparable

TEACHER, ALONE, DISTILLED = "teacher", "alone", "distilled"
COLUMNS = ("role", "seed", "top1", "agreement", "params", "macs", "seconds")

Roles = dict[str, tuple[ml_collections.ConfigDict, Path]]


def roles(experiments: Mapping[str, ml_collections.ConfigDict], seed: int, workdir: Path) -> Roles:
    """Returns the config and run folder of each role for one seed, in the order of their runs.

    ``teacher`` is what ``teacher.config`` trains, ``alone`` the student with the recipe (``train``)
    of most experiments and no method; the experiments follow as they are. One whose teacher is
    the student itself, trained alone (TF-KD), reads it from the run ``alone``.

    Args:
        experiments: Distillation experiments by name of their role.
        seed: Seed of all runs, unless ``teacher.seed`` sets that of the teacher.
        workdir: Folder that holds a folder for each role and seed.

    Raises:
        TfkdError: When an experiment distils nothing or has several teachers, none of them has a
            teacher that is trained from a config, or they do not compare: two teachers, students or
            data sets.
    """
    seeded = {
        role: configs.override(
            config, train__seed=seed, teacher__workdir=str(workdir / TEACHER / "seed{seed}")
        )
        for role, config in experiments.items()
    }
    _check_alike(seeded)
    usual = seeded[_usual_recipe(seeded)]
    alone = configs.override(
        usual,
        experiment=f"{usual.student.name}-alone",
        methods={},
        student_loss_weight=1.0,
        teacher__config=None,
        teacher__workdir=None,
    )
    alone_folder = workdir / ALONE / f"seed{seed}"
    planned: Roles = {ALONE: (alone, alone_folder)}
    found: dict[str, tuple[ml_collections.ConfigDict, Path]] = {}
    for role, config in seeded.items():
        if config.teacher.config:
            teacher, folder = teachers.reference(config)
            if _recipe(teacher) == _recipe(alone):
                config = configs.override(
                    config, teacher__config=None, teacher__workdir=str(alone_folder)
                )
            else:
                found[config.teacher.config] = (teacher, folder)
        else:
            config = configs.override(config, teacher__workdir=None)
        planned[role] = (config, workdir / role / f"seed{seed}")
    if len(found) != 1:
        raise TfkdError(
            f"compare: found {', '.join(found) or 'no config'} as teacher.config, wanted the same "
            "teacher for every experiment, trained from a config"
        )
    return {TEACHER: found.popitem()[1], **planned}


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
                f"compare: found {1 + len(config.teachers)} teachers ({role}), wanted one, which has "
                "a row of its own"
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


def _usual_recipe(experiments: Mapping[str, ml_collections.ConfigDict]) -> str:
    """Returns the first role whose ``train`` section most of the others share."""
    recipes = {role: config.train.to_json(sort_keys=True) for role, config in experiments.items()}
    (usual, _), *_ = collections.Counter(recipes.values()).most_common(1)
    return next(role for role, recipe in recipes.items() if recipe == usual)


def of_methods(
    reference: str, methods: Sequence[str], changes: Mapping[str, Any] | None = None
) -> dict[str, ml_collections.ConfigDict]:
    """Reads a config once for each method, with the method as first word of its argument.

    Args:
        reference: ``PATH`` or ``PATH:WORD,WORD,...``; the first word is replaced.
        methods: The methods, each once.
        changes: Fields to change in all of them, by their dotted names.

    Returns:
        The configs by method, for :func:`compare`.

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


def _recipe(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """Returns what makes a run what it is, whatever it is called."""
    return comparable(configs.to_dict(configs.override(config, experiment="")))


def compare(
    experiments: Mapping[str, ml_collections.ConfigDict] | ml_collections.ConfigDict,
    workdir: str | os.PathLike,
    seeds: Sequence[int],
    strategy: tf.distribute.Strategy | str = "auto",
) -> list[dict[str, Any]]:
    """Trains every role with every seed and writes ``summary.json``, ``summary.csv`` and ``curves.png``.

    Finished runs are not repeated, and an interrupted one goes on. The files hold what is known
    after each seed. With ``export.enabled`` the student of the first experiment and seed is
    exported to ``export/`` in the folder.

    Args:
        experiments: Distillation experiments by role, or one, whose role is ``distilled``; see
            :func:`roles`.
        workdir: Folder of the comparison.
        seeds: Seeds, at least one.
        strategy: See :func:`tfkd.training.run`.

    Returns:
        The rows of ``summary.json``: a dict with :data:`COLUMNS` for each run; percentages go from
        0 to 100. Empty on workers that write nothing.

    Raises:
        TfkdError: For a wrong config or folder.
    """
    if not seeds:
        raise TfkdError("compare: found no seeds, wanted one or more")
    if isinstance(experiments, ml_collections.ConfigDict):
        experiments = {DISTILLED: experiments}
    workdir = Path(workdir)
    if isinstance(strategy, str):
        strategy = strategies.create(strategy)
    for config in experiments.values():
        config_checks.validate(config)
    _tell_recipes(experiments)
    writes = strategies.is_chief(strategy)
    wanted = dict(experiments)
    experiments = {
        role: configs.override(config, export__enabled=False) for role, config in wanted.items()
    }
    rows: list[dict[str, Any]] = []
    runs: dict[str, list[Path]] = {}
    for seed in dict.fromkeys(seeds):
        planned = roles(experiments, seed, workdir)
        for role, (settings, folder) in planned.items():
            print(f"\n{role}, seed {seed}: {folder}", flush=True)
            result = run(settings, folder, strategy)
            if writes:
                runs.setdefault(role, []).append(folder)
                rows.append(_row(role, seed, result, planned))
        if writes:
            _write(next(iter(experiments.values())), workdir, rows, runs)
    role, config = next(iter(wanted.items()))
    if writes and config.export.enabled:
        _export(config, workdir, role, seeds[0])
    strategies.wait_for_all(strategy)
    return rows


def _tell_recipes(experiments: Mapping[str, ml_collections.ConfigDict]) -> None:
    """Warns of experiments that train by another recipe than most."""
    usual = _usual_recipe(experiments)
    for role, config in experiments.items():
        lines = configs.differences(
            configs.to_dict(config.train), configs.to_dict(experiments[usual].train), "train"
        )
        if lines:
            fields = ", ".join(line.split(" ")[0] for line in lines)
            warnings.warn(
                f"{role} trains by a recipe of its own ({fields}); 'over alone' compares it with "
                f"the recipe of {usual}",
                TfkdWarning,
                stacklevel=3,
            )


def _write(config, workdir: Path, rows: list[dict[str, Any]], runs: dict[str, list[Path]]) -> None:
    """Writes the numbers of the comparison and their picture."""
    overview = RunFolder(workdir)
    overview.write_json("summary.json", {"experiment": config.experiment, "rows": rows})
    overview.write_text("summary.csv", _as_csv(rows))
    name = config.experiment or config.student.name
    title = f"{name}: " if list(runs)[2:] == [DISTILLED] else ""
    curves.draw(runs, rows, workdir / "curves.png", f"{title}{len(runs[ALONE])} seed(s)")


def _row(role: str, seed: int, result: dict[str, Any], planned: Roles) -> dict[str, Any]:
    settings, folder = planned[role]
    agreement = None
    if role != TEACHER:
        common = str(planned[TEACHER][1])
        knows_it = settings.teacher.config and teachers.reference(settings)[1] == Path(common)
        agreement = result["agreement"] if knows_it else _agreement(settings, folder, common)
    return {
        "role": role,
        "seed": seed,
        "top1": result["top1_last"],
        "agreement": agreement,
        "params": result["params"],
        "macs": result["macs"],
        "seconds": result["seconds"],
    }


def _agreement(config, student: Path, teacher: str) -> float:
    """Returns how often two finished runs name the same class on the test images, in percent."""
    dataset = build.data_set(config)
    return evaluation.agreement(
        evaluation.predictor(load_network(student)),
        evaluation.predictor(load_network(teacher, config.teacher.which)),
        dataset.test(),
    )


def _export(config, workdir: Path, role: str, seed: int) -> None:
    info = build.data_set(config).info
    path = export.save(
        load_network(workdir / role / f"seed{seed}"),
        workdir / "export",
        fold=config.export.fold,
        class_names=info.class_names,
    )
    print(f"\nexported the student of {role}, seed {seed}, to {path}", flush=True)


def _as_csv(rows: Sequence[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Returns the rows as a table for the screen, one line for each role.

    Means over the seeds, with the standard deviation (of a sample) where there are several. ``over
    alone`` is the mean and deviation of what a method's top-1 is above that of ``alone`` with the
    same seed.
    """
    by_role = {
        role: [row for row in rows if row["role"] == role]
        for role in dict.fromkeys(row["role"] for row in rows)
    }
    alone = {row["seed"]: row["top1"] for row in by_role.get(ALONE, ())}
    width = max(10, *map(len, by_role))
    header = (
        f"{'role':<{width}} {'top-1 %':>14} {'over alone':>14} {'agreement %':>14} {'params':>11} "
        f"{'MACs':>14} {'seconds':>8}"
    )
    lines = [header, "-" * len(header)]
    for role, own in by_role.items():
        gains = [
            row["top1"] - alone[row["seed"]]
            for row in own
            if role not in (TEACHER, ALONE) and row["seed"] in alone
        ]
        lines.append(
            f"{role:<{width}} {_spread([row['top1'] for row in own]):>14} "
            f"{_spread(gains, sign='+'):>14} "
            f"{_spread([row['agreement'] for row in own]):>14} "
            f"{own[0]['params']:>11,} {own[0]['macs']:>14,} "
            f"{statistics.mean(row['seconds'] for row in own):>8.1f}"
        )
    return "\n".join(lines)


def _spread(values: Sequence[float | None], sign: str = "") -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    mean = f"{statistics.mean(known):{sign}.2f}"
    return f"{mean} ± {statistics.stdev(known):.2f}" if len(known) > 1 else mean
