"""One run, from a config to a finished run folder."""

from __future__ import annotations

import math
import os
import platform
import time
from collections.abc import Sequence
from typing import Any

import keras
import ml_collections
import numpy as np
import tensorflow as tf

from tfkd import data, evaluation, export, models
from tfkd.core import Distiller, Stage
from tfkd.errors import TfkdError
from tfkd.models.storage import load_network, save_network
from tfkd.training import build, optimizers, schedules, teachers
from tfkd.training import config as configs
from tfkd.training import strategy as strategies
from tfkd.training.progress import Progress, State
from tfkd.training.run_folder import RunFolder


def run(
    config: ml_collections.ConfigDict,
    workdir: str | os.PathLike,
    strategy: tf.distribute.Strategy | str = "auto",
) -> dict[str, Any]:
    """Trains what a config describes, or continues it, or finds it finished.

    The folder then holds ``config.json``, ``metrics.csv`` (a row an epoch), ``tensorboard/``,
    ``checkpoints/``, ``student.keras`` (after the last epoch) and ``student_best.keras`` (the epoch
    with the best accuracy on the validation images, or on the test images where none are held out),
    ``network.json`` and ``result.json``.

    Args:
        config: An experiment; see :mod:`tfkd.training.config`.
        workdir: The run folder.
        strategy: A strategy, or one of :data:`tfkd.training.strategy.NAMES`.

    Returns:
        The content of ``result.json``; empty on workers that write nothing.

    Raises:
        TfkdError: For a wrong config, folder, data set, network or file.
        NonFiniteLoss: When a loss becomes NaN or infinite.
    """
    configs.validate(config)
    if isinstance(strategy, str):
        strategy = strategies.create(strategy)
    folder = RunFolder(workdir)
    plain = configs.to_dict(config)
    folder.check(plain)
    finished = folder.result()
    if finished is not None:
        print(f"{folder.path} is finished: top-1 {finished['top1_last']:.2f} %", flush=True)
        return finished
    if not strategies.is_chief(strategy):
        _train(config, folder, strategy, writes=False)
        _wait_for_all(strategy)
        return {}
    _check_data_first(config)
    folder.create(plain)
    with folder.lock():
        finished = folder.result()
        result = finished or _train(config, folder, strategy, writes=True)
    _wait_for_all(strategy)
    return result


def _check_data_first(config: ml_collections.ConfigDict) -> None:
    """Loads the data before the folder is made, so that a wrong name leaves nothing behind."""
    build.data_set(config)


def _train(config, folder: RunFolder, strategy, *, writes: bool) -> dict[str, Any]:
    dataset = build.data_set(config)
    info = dataset.info
    teacher = teachers.obtain(
        config, info, lambda teacher_config, path: run(teacher_config, path, strategy)
    )
    say = print if writes else lambda *_: None
    teacher_top1 = None
    if teacher is not None and writes:
        teacher_top1 = evaluation.accuracy(evaluation.predictor(teacher), dataset.test())["top1"]
        say(f"teacher {teacher.name}: top-1 {teacher_top1:.2f} % on {info.name} test", flush=True)

    with build.precision(config.train.precision), strategy.scope():
        network = build.student(config, info)
        objectives = configs.objectives(config)
        distiller = Distiller(
            teacher,
            network,
            objectives,
            [float(entry["weight"]) for entry in config.distiller],
            config.student_loss_weight,
            train_size=info.train_size,
            batch_size=dataset.batch_size,
            seed=config.train.seed,
            teacher_dtype=_teacher_dtype(config),
            fold_teacher=config.teacher.fold,
            evaluate_distillation=False,
        )
        stages = _stages(config, objectives)

        def prepare(number: int) -> None:
            _compile(config, distiller, stages[number], dataset.steps_per_epoch)

        prepare(0)

    cost = models.cost(network.model)
    say(
        f"student {network.name}: {cost.params:,} parameters, {cost.macs:,} MACs; "
        f"{info.name}: {info.train_size:,} training images; "
        f"{strategy.num_replicas_in_sync} replica(s)",
        flush=True,
    )
    progress = Progress(
        folder,
        State(),
        steps_per_epoch=dataset.steps_per_epoch,
        evaluate_every=config.train.evaluate_every,
        checkpoint_seconds=config.train.checkpoint_seconds,
        writes=writes,
    )
    with strategy.scope():
        if progress.restore(distiller, prepare):
            state = progress.state
            say(f"continuing after step {state.step:,} (epoch {state.epoch + 1})", flush=True)
    rate = _fit(config, distiller, stages, prepare, dataset, strategy, progress)
    if not writes:
        return {}
    _save_students(distiller, network, objectives, folder, progress, info)
    scores = _scores(folder, dataset, teacher)
    result = _result(config, info, network, teacher, cost, progress, scores, teacher_top1, rate)
    if config.export.enabled:
        path = export.save(
            load_network(folder.path),
            folder.export,
            fold=config.export.fold,
            class_names=info.class_names,
        )
        say(f"exported the student to {path}", flush=True)
    folder.write_json("result.json", result)
    say(
        f"{folder.path}: top-1 {result['top1_last']:.2f} % (best {result['top1_best']:.2f} %)",
        flush=True,
    )
    return result


def _teacher_dtype(config) -> str | None:
    return "bfloat16" if config.teacher.dtype == "bfloat16" else None


def _stages(config, objectives) -> list[Stage]:
    """Returns the stages of the run: those of the one method that has any, or a single one."""
    staged = {each.name: list(each.stages()) for each in objectives if each.stages() is not None}
    if len(staged) > 1:
        raise TfkdError(
            f"several methods with stages of their own: {', '.join(staged)}; wanted one"
        )
    if staged:
        return next(iter(staged.values()))
    return [Stage("train", config.train.epochs)]


def _compile(config, distiller: Distiller, stage: Stage, steps_per_epoch: int) -> None:
    distiller.enter_stage(stage)
    if stage.optimizer is not None:
        optimizer = stage.optimizer(steps_per_epoch)
    else:
        schedule = schedules.create(
            configs.settings(config.train.schedule),
            base_rate=config.train.learning_rate,
            steps_per_epoch=steps_per_epoch,
            epochs=stage.epochs,
        )
        optimizer = optimizers.create(configs.settings(config.train.optimizer), schedule)
    distiller.compile(
        optimizer=optimizer,
        steps_per_execution=config.train.steps_per_execution,
        jit_compile=config.train.jit_compile,
    )


def _fit(config, distiller, stages: Sequence[Stage], prepare, dataset, strategy, progress) -> float:
    """Trains all stages from where the run stands; returns images per second, first epoch aside."""
    per_epoch = dataset.steps_per_epoch
    total = per_epoch * sum(stage.epochs for stage in stages)
    extras = sorted({key for each in distiller.objectives for key in each.requires.keys})
    clock = _Throughput(dataset.batch_size)
    progress.start_clock()
    first_step = 0
    for number, stage in enumerate(stages):
        last_step = first_step + per_epoch * stage.epochs
        done = progress.state.step
        if done < last_step:
            if number != progress.state.stage:
                with strategy.scope():
                    prepare(number)
                progress.state.stage = number
            distiller.fit(
                _distributed(
                    strategy,
                    lambda context, done=done: dataset.train(
                        done, total, extras=extras, input_context=context
                    ),
                ),
                initial_epoch=(done - first_step) // per_epoch,
                epochs=stage.epochs,
                steps_per_epoch=per_epoch,
                validation_data=_validation(dataset, strategy),
                validation_steps=_validation_steps(dataset),
                validation_freq=_evaluated_epochs(stage.epochs, config.train.evaluate_every),
                callbacks=[_StepLimit(first_step, per_epoch), progress, clock],
                verbose=config.train.verbose,
                shuffle=False,
            )
            progress.state.step = distiller.step
        first_step = last_step
    distiller.limit_steps(None)
    if progress.state.step:
        progress.save()
    progress.close()
    return clock.images_per_second


def _distributed(strategy, make):
    """Returns the data set of one process, or that of each replica."""
    if strategy.num_replicas_in_sync == 1 and strategy.cluster_resolver is None:
        return make(None)
    return strategy.distribute_datasets_from_function(make)


def _evaluation_set(dataset: data.DataSet):
    return dataset.validation if dataset.info.validation_size else dataset.test


def _validation(dataset, strategy):
    return _distributed(strategy, lambda context: _evaluation_set(dataset)(input_context=context))


def _validation_steps(dataset) -> int:
    info = dataset.info
    return math.ceil((info.validation_size or info.test_size) / dataset.batch_size)


def _evaluated_epochs(epochs: int, every: int) -> list[int]:
    """Returns the epochs, counted from 1, that end with an evaluation; the last always does."""
    return sorted({*range(every, epochs + 1, every), epochs})


class _StepLimit(keras.callbacks.Callback):
    """Ends each epoch at its own last step, also after a continuation in the middle of it."""

    def __init__(self, first_step: int, steps_per_epoch: int) -> None:
        super().__init__()
        self._first_step = first_step
        self._steps_per_epoch = steps_per_epoch

    def on_epoch_begin(self, epoch, logs=None) -> None:
        self.model.limit_steps(self._first_step + (epoch + 1) * self._steps_per_epoch)


class _Throughput(keras.callbacks.Callback):
    """Measures training images per second; the first epoch, which compiles, counts only if alone."""

    def __init__(self, batch_size: int) -> None:
        super().__init__()
        self._batch_size = batch_size
        self._epochs: list[tuple[int, float]] = []

    def on_epoch_begin(self, epoch, logs=None) -> None:
        self._begin, self._first = time.perf_counter(), self.model.step

    def on_test_begin(self, logs=None) -> None:
        self._note()

    def on_epoch_end(self, epoch, logs=None) -> None:
        self._note()

    def _note(self) -> None:
        if self._begin is not None:
            images = (self.model.step - self._first) * self._batch_size
            self._epochs.append((images, time.perf_counter() - self._begin))
            self._begin = None

    @property
    def images_per_second(self) -> float:
        """The rate so far; 0 when nothing ran."""
        counted = self._epochs[1:] or self._epochs
        return sum(images for images, _ in counted) / max(sum(s for _, s in counted), 1e-9)


def _save_students(distiller, network, objectives, folder, progress, info) -> None:
    """Writes the student of the last epoch and that of the best one."""

    def save(stem: str) -> None:
        model = network.model
        for objective in objectives:
            model = objective.finalize(model)
        clean = models.Network(model, network.preprocess, network.name)
        save_network(clean, folder.path, stem, class_names=info.class_names)

    save("student")
    if progress.best_student is None:
        save("student_best")
        return
    last = [np.asarray(variable) for variable in distiller.student.variables]
    _assign(distiller.student, progress.best_student)
    save("student_best")
    _assign(distiller.student, last)


def _assign(model: keras.Model, values: Sequence[np.ndarray]) -> None:
    for variable, value in zip(model.variables, values):
        variable.assign(value)


def _scores(folder: RunFolder, dataset: data.DataSet, teacher) -> evaluation.Evaluation:
    """Evaluates the saved students, and the teacher, on the test images in one pass."""
    subjects = {
        "last": evaluation.predictor(load_network(folder.path, "last")),
        "best": evaluation.predictor(load_network(folder.path, "best")),
    }
    if teacher is not None:
        subjects["teacher"] = evaluation.predictor(teacher)
    return evaluation.evaluate(subjects, dataset.test())


def _result(config, info, network, teacher, cost, progress, scores, teacher_top1, rate) -> dict:
    last, best = scores.scores["last"], scores.scores["best"]
    result = {
        "experiment": config.experiment or network.name,
        "seed": config.train.seed,
        "dataset": info.name,
        "distiller": [entry["name"] for entry in config.distiller],
        "student": network.name,
        "teacher": None if teacher is None else teacher.name,
        "params": cost.params,
        "macs": cost.macs,
        "top1_last": last["top1"],
        "top1_best": best["top1"],
        "best_epoch": progress.state.best_epoch,
        "best_selected_on": "validation" if info.validation_size else "test",
        "loss_last": last["loss"],
        "teacher_top1": teacher_top1,
        "agreement": None if teacher is None else scores.agreement("last", "teacher"),
        "epochs": progress.state.epoch,
        "images_per_second": round(rate, 1),
        "seconds": round(progress.seconds, 2),
        "versions": {
            "python": platform.python_version(),
            "tensorflow": tf.__version__,
            "keras": keras.__version__,
            "numpy": np.__version__,
        },
    }
    if "top5" in last:
        result["top5_last"], result["top5_best"] = last["top5"], best["top5"]
    return result


def _wait_for_all(strategy: tf.distribute.Strategy) -> None:
    """Lets every worker reach this point, so that files of the chief are there for all."""
    if strategy.cluster_resolver is not None:
        values = strategy.run(lambda: tf.constant(1.0))
        strategy.reduce(tf.distribute.ReduceOp.SUM, values, axis=None)
