"""One run, from a config to a finished run folder."""

from __future__ import annotations

import os
from typing import Any

import ml_collections
import tensorflow as tf

from tfkd import data, evaluation, export, models
from tfkd.core import Distiller, Objective
from tfkd.errors import TfkdError
from tfkd.models.saving import load_network
from tfkd.training import build, config_checks, results, teachers, train_loop
from tfkd.training import config as configs
from tfkd.training import strategy as strategies
from tfkd.training.run_folder import RunFolder
from tfkd.training.run_state import Progress, State


def run(
    config: ml_collections.ConfigDict,
    workdir: str | os.PathLike,
    strategy: tf.distribute.Strategy | str = "auto",
) -> dict[str, Any]:
    """Trains what a config describes, or continues it, or finds it finished.

    The folder then holds ``config.json``, ``metrics.csv`` (a row an epoch), ``tensorboard/``,
    ``checkpoints/``, ``student.keras`` (after the last epoch) and ``student_best.keras`` (the epoch
    with the best accuracy on the validation images, or on the test images where none are held out),
    ``network.json`` and ``result.json``; where the teacher trains beside the student, also
    ``teacher.keras``. Whatever is wrong before the first step leaves nothing there.

    Args:
        config: An experiment; see :mod:`tfkd.training.config`.
        workdir: The run folder. Several workers share it, and that of the teacher.
        strategy: A strategy, or one of :data:`tfkd.training.strategy.NAMES`.

    Returns:
        The content of ``result.json``; empty on workers that write nothing.

    Raises:
        TfkdError: For a wrong config, folder, data set, network or file.
        NonFiniteLoss: When a loss becomes NaN or infinite.
    """
    if isinstance(strategy, str):
        # First of all: several workers must meet before TensorFlow does anything else.
        strategy = strategies.create(strategy)
    config_checks.validate(config)
    folder = RunFolder(workdir)
    plain = configs.to_dict(config)
    folder.check(plain)
    finished = folder.result()
    if finished is not None:
        return _report(folder, finished)
    dataset = _check_before(config, folder, strategy)
    if not strategies.is_chief(strategy):
        _train(config, folder, strategy, dataset, writes=False)
        strategies.wait_for_all(strategy)
        return {}
    with folder.hold():
        # Another process may have come first and be done by now.
        folder.check(plain)
        finished = folder.result()
        if finished is not None:
            _report(folder, finished)
        result = finished or _train(config, folder, strategy, dataset, writes=True)
    strategies.wait_for_all(strategy)
    return result


def _report(folder: RunFolder, result: dict[str, Any]) -> dict[str, Any]:
    print(f"{folder.path} is finished: top-1 {result['top1_last']:.2f} %", flush=True)
    return result


def _check_before(
    config: ml_collections.ConfigDict, folder: RunFolder, strategy: tf.distribute.Strategy
) -> data.DataSet:
    """Returns the data, after a look at all that can be known before a teacher is trained.

    Raises:
        TfkdError: When something is wrong.
    """
    strategies.check(strategy, config.train.batch_size, config.train.jit_compile)
    dataset = build.data_set(config)
    dataset.check_training()
    build.student(config, dataset.info)
    if configs.trains_teacher(config):
        build.trained_teacher(config, dataset.info)
    teachers.check(config, folder.path)
    return dataset


def _train(
    config: ml_collections.ConfigDict,
    folder: RunFolder,
    strategy: tf.distribute.Strategy,
    dataset: data.DataSet,
    *,
    writes: bool,
) -> dict[str, Any]:
    info = dataset.info
    say = print if writes else lambda *_, **__: None
    trains_teacher = configs.trains_teacher(config)
    taught_by = teachers.obtain(
        config, info, lambda teacher_config, path: run(teacher_config, path, strategy)
    )
    predict_teacher = evaluation.ensemble(taught_by) if taught_by else None

    def tell_of_teacher(top1: float, who: str) -> None:
        say(f"{who}: top-1 {top1:.2f} % on {info.name} test", flush=True)

    if taught_by and writes:
        for each in taught_by if len(taught_by) > 1 else ():
            found = evaluation.accuracy(evaluation.predictor(each), dataset.test())
            tell_of_teacher(found["top1"], f"teacher {each.name}")
        who = f"mean of {len(taught_by)} teachers"
        if len(taught_by) == 1:
            who = f"teacher {taught_by[0].name}"
        tell_of_teacher(evaluation.accuracy(predict_teacher, dataset.test())["top1"], who)

    with build.precision(config.train.precision), strategy.scope():
        network = build.student(config, info)
        if trains_teacher:
            taught_by = [build.trained_teacher(config, info)]
        objectives = configs.objectives(config)
        distiller = _distiller(config, dataset, taught_by, network, objectives)
        stages = train_loop.stages(config, objectives)

        def prepare(number: int) -> None:
            train_loop.prepare(config, distiller, stages[number], dataset)

        prepare(0)
        progress = Progress(
            folder,
            State(),
            steps_per_epoch=dataset.steps_per_epoch,
            checkpoint_seconds=config.train.checkpoint_seconds,
            strategy=strategy,
        )
        continued = progress.restore(distiller, prepare)
    strategies.check_agreed(strategy, progress.state.step, folder.path)

    cost = models.cost(network.model)
    say(
        f"student {network.name}: {cost.params:,} parameters, {cost.macs:,} MACs; "
        f"{info.name}: {info.train_size:,} training images; "
        f"{strategy.num_replicas_in_sync} replica(s)",
        flush=True,
    )
    if continued:
        state = progress.state
        say(f"continuing after step {state.step:,} (epoch {state.epoch + 1})", flush=True)
    if writes:
        folder.write_config(configs.to_dict(config))
    train_loop.fit(config, distiller, stages, prepare, dataset, strategy, progress)
    if not writes:
        return {}
    results.save_students(distiller, network, folder, progress, info)
    if trains_teacher:
        predict_teacher = evaluation.predictor(results.save_teacher(taught_by[0], folder))
    scores = results.scores(folder, dataset, predict_teacher)
    if trains_teacher:
        tell_of_teacher(scores.scores["teacher"]["top1"], f"teacher {taught_by[0].name}")
    if config.export.enabled:
        path = export.save(
            load_network(folder.path),
            folder.export,
            fold=config.export.fold,
            class_names=info.class_names,
        )
        say(f"exported the student to {path}", flush=True)
    names = " + ".join(each.name for each in taught_by) or None
    result = results.result(config, info, cost, names, progress, scores)
    folder.write_json("result.json", result)
    say(
        f"{folder.path}: top-1 {result['top1_last']:.2f} % (best {result['top1_best']:.2f} %)",
        flush=True,
    )
    return result


def _distiller(
    config: ml_collections.ConfigDict,
    dataset: data.DataSet,
    taught_by: list[models.Network],
    network: models.Network,
    objectives: list[Objective],
) -> Distiller:
    own = [each for each in objectives if each.distiller_class is not None]
    if len(own) > 1:
        names = ", ".join(each.name for each in own)
        raise TfkdError(f"several methods with a training step of their own: {names}; wanted one")
    kind = own[0].distiller_class if own else Distiller
    return kind(
        taught_by or None,
        network,
        objectives,
        configs.method_weights(config),
        config.student_loss_weight,
        train_size=dataset.info.train_size,
        batch_size=dataset.batch_size,
        seed=config.train.seed,
        teacher_dtype="bfloat16" if config.teacher.dtype == "bfloat16" else None,
        fold_teacher=config.teacher.fold,
        evaluate_distillation=False,
    )
