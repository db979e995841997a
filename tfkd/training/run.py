"""One run, from a config to a finished run folder."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable
from typing import Any

import ml_collections
import numpy as np
import tensorflow as tf

from tfkd import data, evaluation, export, interruption, models
from tfkd.core import Distiller
from tfkd.errors import TfkdError, TfkdWarning
from tfkd.training import (
    build,
    config_checks,
    early_exit,
    extension,
    graph_memory,
    inputs,
    repair,
    results,
)
from tfkd.training import config as configs
from tfkd.training import strategy as strategies
from tfkd.training import teaching as teachings
from tfkd.training.experiment import Experiment
from tfkd.training.run_folder import RunFolder
from tfkd.training.run_state import Progress, State
from tfkd.training.train_loop import TrainLoop


def run(
    config: ml_collections.ConfigDict,
    workdir: str | os.PathLike,
    strategy: tf.distribute.Strategy | str = "auto",
    *,
    extend: bool = False,
) -> dict[str, Any]:
    """Trains what a config describes, or continues it, or finds it finished.

    A finished run whose networks are gone or damaged writes them anew from its last checkpoint.

    The folder then holds ``config.json``, ``metrics.csv`` (a row an epoch), ``tensorboard/``,
    ``checkpoints/``, ``student.keras`` (after the last epoch), ``student_best.keras`` (the epoch
    with the best score on the validation images, or on the test images where none are held out), a
    ``student_<word>.keras`` for each variant that a method makes, ``network.json`` and
    ``result.json``; where the teacher trains beside the student, also ``teacher.keras``, and where
    a method keeps records, ``records.npz`` and perhaps pictures of them, and where the student has
    several exits, ``early_exit.json`` with pictures. Whatever is wrong before the first step leaves
    nothing there, and no teacher is trained.

    Args:
        config: An experiment; see :mod:`tfkd.training.config`.
        workdir: The run folder. Several workers share it, and that of the teacher.
        strategy: A strategy, or one of :data:`tfkd.training.strategy.NAMES`.
        extend: Whether the finished run of this config in the folder goes on to more epochs, from
            its last state. From there on schedule and methods are those of a run of that length,
            which the whole is not: the result says so (``extended_from``). One process only.

    Returns:
        The content of ``result.json``; empty on workers that write nothing.

    Raises:
        TfkdError: For a wrong config, folder, data set, network or file.
        NonFiniteLoss: When a loss becomes NaN or infinite.
    """
    if isinstance(strategy, str):
        # First of all: several workers must meet before TensorFlow does anything else.
        strategy = strategies.create(strategy)
    folder = RunFolder(workdir)
    try:
        with graph_memory.released():
            return _run(config, folder, strategy, extend)
    except interruption.Interrupted as stop:
        stop.continues(folder.path, (folder.begun() or {}).get("step", 0))
        raise


def _run(
    config: ml_collections.ConfigDict,
    folder: RunFolder,
    strategy: tf.distribute.Strategy,
    extend: bool,
) -> dict[str, Any]:
    config_checks.validate(config)
    if extend:
        if not strategies.is_single(strategy):
            raise TfkdError("extend: found several workers, wanted one process")
        config = extension.begin(config, folder)
    plain = configs.to_dict(config)
    folder.check(plain)
    if config.train.extended_from and folder.config() is None:
        raise TfkdError(
            f"train.extended_from: found {config.train.extended_from} for a new run, wanted it "
            "unset, as only an extension sets it"
        )
    finished = repair.finished(folder, print if strategies.is_chief(strategy) else _silent)
    if finished is not None:
        inputs.check_finished(config, folder, finished)
        return _report(folder, finished, strategy)
    strategies.check(strategy, config.train.batch_size, config.train.jit_compile)
    experiment = Experiment.of(config)
    made_of = inputs.Inputs(config, folder, experiment.dataset)
    made_of.check_agreed(strategy)
    made_of.check()
    experiment.check(folder.path)
    if not strategies.is_chief(strategy):
        _train(experiment, folder, strategy, made_of, writes=False)
        strategies.part(strategy, lambda: folder.result() is not None)
        return {}
    with folder.hold():
        # Another process may have come first and be done by now.
        folder.check(plain)
        finished = repair.finished(folder, _silent)
        if finished is not None:
            inputs.check_finished(config, folder, finished)
            _report(folder, finished, strategy)
        result = finished or _train(experiment, folder, strategy, made_of, writes=True)
    strategies.part(strategy, lambda: True)
    return result


def _silent(*_: Any, **__: Any) -> None:
    """Says nothing, on workers that write nothing."""


def _report(
    folder: RunFolder, result: dict[str, Any], strategy: tf.distribute.Strategy
) -> dict[str, Any]:
    if strategies.is_chief(strategy):
        print(f"{folder.path} is finished: {result['summary']}", flush=True)
    return result


def _train(
    experiment: Experiment,
    folder: RunFolder,
    strategy: tf.distribute.Strategy,
    made_of: inputs.Inputs,
    *,
    writes: bool,
) -> dict[str, Any]:
    config, dataset = experiment.config, experiment.dataset
    say = print if writes else _silent

    # The teachers.
    teaching = teachings.of(experiment)
    networks = teaching.obtain(lambda teacher_config, path: run(teacher_config, path, strategy))
    made_of.check_taught(networks, strategy)
    worth = {}
    if writes:
        before = (folder.begun() or {}).get("teachers_worth", {})
        worth = teaching.tell(say, inputs.digest(made_of.record), before)

    # The student and what trains it, brought to where the run stands.
    with build.precision(config.train.precision), strategy.scope():
        student, taught_by = experiment.student(say), teaching.networks()
        distiller = experiment.distiller(student, taught_by)
        loop = TrainLoop(experiment, distiller, strategy, say)
        progress = Progress(
            folder,
            State(inputs=made_of.record, accepted_changes=made_of.accepted, teachers_worth=worth),
            stages=loop.stages,
            timeline=loop.timeline,
            score=distiller.task.score,
            checkpoint_seconds=config.train.checkpoint_seconds,
            strategy=strategy,
        )
        continued = progress.restore(distiller, loop.prepare)
    strategies.check_agreed(strategy, progress.state.step, folder.path)
    if writes:
        _tell_of_student(student, config, dataset.info, strategy)
    tell_of_methods(distiller, config.train.batch_size, say)
    if continued:
        state = progress.state
        say(f"continuing after step {state.step:,} (epoch {state.epoch + 1})", flush=True)
        if state.epoch in config.train.extended_from:
            rate = float(np.asarray(distiller.optimizer.learning_rate))
            say(
                f"extending from {state.epoch} to {experiment.epochs} epochs: schedule and methods "
                f"are those of {experiment.epochs} from here on; the learning rate, "
                f"{state.learning_rate:.3g} in the last epoch, is {rate:.3g}",
                flush=True,
            )
    if not dataset.info.validation_size:
        say(
            f"no validation images: {dataset.info.name} test chooses the best epoch "
            "(data.validation_size or data.validation_split holds some out)",
            flush=True,
        )

    # The training.
    if writes:
        folder.write_config(configs.to_dict(config))
    loop.run(progress)
    if not writes:
        return {}

    # What it leaves behind.
    shown = f"{student.name} on {dataset.info.name}, seed {config.train.seed}"
    if taught_by:
        shown = f"{' + '.join(each.name for each in taught_by)} teaches {shown}"
    progress.draw_records(shown)
    progress.draw_stages(shown)
    repair.make_room(folder)
    saved, variants = results.save_students(distiller, folder, progress, dataset)
    teacher = teaching.finished(folder)
    students = results.saved_students(folder, variants)
    predictors = {which: evaluation.predictor(each) for which, each in students.items()}
    judged = predictors if teacher is None else {**predictors, results.TEACHER: teacher}
    found = results.scores(judged, dataset, distiller.task)
    early_exit.evaluate(folder, dataset, distiller.task, students, predictors, say)
    if teacher is not None:
        teaching.tell_in_the_end(found.scores[results.TEACHER], distiller.task, say)
    if config.export.enabled:
        path = export.save_run(folder.path, folder.export, **configs.to_dict(config.export))
        say(f"exported the student to {path}", flush=True)
    names = " + ".join(each.name for each in taught_by) or None
    further = {word: students[word] for word in variants}
    result = results.result(experiment, distiller, saved, progress, found, further, names)
    folder.write_json("result.json", result)
    say(f"{folder.path}: {result['summary']}", flush=True)
    return result


def _tell_of_student(
    student: models.Network,
    config: ml_collections.ConfigDict,
    info: data.DataInfo,
    strategy: tf.distribute.Strategy,
) -> None:
    cost = models.cost(student.model)
    print(
        f"student {student.name}: {cost.params:,} parameters, {cost.macs:,} MACs; "
        f"{info.name}: {info.train_size:,} training images; "
        f"{strategy.num_replicas_in_sync} replica(s)",
        flush=True,
    )
    who = f"student {student.name}"
    build.tell_of_pixels(who, student, print)
    itself = models.own_normalization(student.model)
    if itself is not None and student.preprocess != models.Preprocess.none():
        field = f"student.preprocess={config.student.preprocess}"
        warnings.warn(build.normalized_twice(who, itself, field), TfkdWarning, stacklevel=2)


def tell_of_methods(distiller: Distiller, batch_size: int, say: Callable[..., None]) -> None:
    """Says what memory each method takes beside the networks.

    That is what it holds, such as connectors, memory banks and networks of its own, and the tables
    of a step.
    """
    of_student = {id(each) for each in distiller.student.variables}
    for objective in distiller.objectives:
        listed = [*objective.variables]
        for companion in objective.companions.values():
            listed += companion.model.variables
        own = {id(each): each for each in listed if id(each) not in of_student}
        held = sum(math.prod(v.shape) * tf.as_dtype(v.dtype).size for v in own.values())
        tables = objective.step_bytes(batch_size)
        more = f", and about {tables:,} for the tables of a step" if tables else ""
        if held or tables:
            say(
                f"method {objective.name}: {held:,} bytes of its own on each replica{more}",
                flush=True,
            )
