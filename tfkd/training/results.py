"""What a run leaves behind when its training is over: the students, and what they are worth."""

from __future__ import annotations

import dataclasses
import numbers
import platform
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfkd import data, evaluation, models
from tfkd.core import Distiller, Task, tasks
from tfkd.evaluation.predictors import Predict
from tfkd.models.description import TEACHER_FILE
from tfkd.models.saving import load_model, load_network, save_alone, save_network
from tfkd.training import config as configs
from tfkd.training.experiment import Experiment
from tfkd.training.run_folder import RunFolder
from tfkd.training.run_state import Progress

LAST, BEST, TEACHER = "last", "best", "teacher"

CHOSEN_ON_TEST = "the best epoch was chosen on the test images"
"""What is said beside the score of a best epoch where no images are held out."""


def save_students(
    distiller: Distiller, folder: RunFolder, progress: Progress, dataset: data.DataSet
) -> tuple[models.Network, list[str]]:
    """Writes the student of the last epoch, that of the best one, and the variants of the last.

    Args:
        distiller: The distiller, whose methods may simplify the student or make variants of it.
        folder: The run folder.
        progress: Keeps the variables of the best epoch.
        dataset: The data.

    Returns:
        The student of the last epoch as it is saved, and the words of the variants.
    """
    finish = distiller.finish(dataset)
    student = distiller.clean_student(finish)
    save_network(student, folder.path, LAST)
    variants = distiller.variants(student, finish)
    for word, variant in variants.items():
        save_network(variant, folder.path, word)
    if progress.best_student is None:
        save_network(student, folder.path, BEST)
        return student, list(variants)
    last = [np.asarray(variable) for variable in distiller.student_variables]
    _assign(distiller, progress.best_student)
    save_network(distiller.clean_student(finish), folder.path, BEST)
    _assign(distiller, last)
    return student, list(variants)


def _assign(distiller: Distiller, values: Sequence[np.ndarray]) -> None:
    for variable, value in zip(distiller.student_variables, values):
        variable.assign(value)


def save_teacher(teacher: models.Network, folder: RunFolder) -> models.Network:
    """Writes a teacher that was trained beside the student to ``teacher.keras``.

    Args:
        teacher: The trained teacher, which pixels reach as they reach the student.
        folder: The run folder.

    Returns:
        The teacher as it was written.
    """
    model = load_model(save_alone(teacher, folder.path / TEACHER_FILE))
    return dataclasses.replace(teacher, model=model, taps={})


def saved_students(folder: RunFolder, variants: Sequence[str]) -> dict[str, models.Network]:
    """Returns the students as they are saved: ``last``, ``best`` and each variant."""
    return {which: load_network(folder.path, which) for which in (LAST, BEST, *variants)}


def scores(
    predictors: Mapping[str, Predict], dataset: data.DataSet, task: Task
) -> evaluation.Evaluation:
    """Evaluates the saved students, and the teacher, on the test images in one pass.

    Args:
        predictors: Functions of raw pixels by ``last``, ``best``, the word of each variant and,
            where there is a teacher, ``teacher``.
        dataset: The data.
        task: What the outputs mean.
    """
    try:
        return evaluation.evaluate(predictors, dataset.test(), task)
    except tf.errors.InvalidArgumentError as error:
        raise data.explain(error) or error from None


def result(
    experiment: Experiment,
    distiller: Distiller,
    student: models.Network,
    progress: Progress,
    found: evaluation.Evaluation,
    variants: Mapping[str, models.Network],
    teacher: str | None,
) -> dict[str, Any]:
    """Returns the content of ``result.json``.

    Args:
        experiment: The experiment.
        distiller: Its distiller.
        student: The student of the last epoch as it was saved.
        progress: The finished training.
        found: See :func:`scores`.
        variants: The variants as they are saved, by their words.
        teacher: Name of the teacher, or of all of them; ``None`` without one.
    """
    config, info = experiment.config, experiment.dataset.info
    task, score, state = distiller.task, distiller.task.score, progress.state
    cost = models.cost(student.model)
    last, best = found.scores[LAST], found.scores[BEST]
    content = {
        "experiment": config.experiment or config.student.name,
        "seed": config.train.seed,
        "dataset": info.name,
        "task": tasks.name_of(student),
        "methods": configs.method_names(config),
        "student": config.student.name,
        "teacher": teacher,
        "params": cost.params,
        "macs": cost.macs,
        "score": score.key,
        "score_label": score.label,
        "score_metric": score.metric,
        "score_scale": score.scale,
        "best_score": state.best_score,
        "best_epoch": state.best_epoch,
        "best_selected_on": "validation" if info.validation_size else "test",
        f"teacher_{score.key}": None
        if teacher is None
        else float(found.scores[TEACHER][score.key]),
        "agreement": None,
        "stages": progress.stage_rows(),
        "epochs": state.epoch,
        "steps": state.step,
        "images_per_second": round(state.images_per_second, 1),
        "seconds": round(progress.seconds, 2),
        "extended_from": list(config.train.extended_from),
        "summary": task.summary(last, best)
        + ("" if info.validation_size else f"; {CHOSEN_ON_TEST}")
        + _extension(config.train.extended_from, state.epoch),
        "inputs": state.inputs,
        "accepted_changes": state.accepted_changes,
        "versions": {
            "python": platform.python_version(),
            "tensorflow": tf.__version__,
            "keras": keras.__version__,
            "numpy": np.__version__,
        },
    }
    for which, scored in ((LAST, last), (BEST, best)):
        content |= {f"{key}_{which}": value for key, value in _numbers(scored).items()}
    if teacher is not None and found.agreements:
        content["agreement"] = float(found.agreement(LAST, TEACHER))
    if variants:
        content["variants"] = {
            word: {**_numbers(found.scores[word]), **_size(network.model)}
            for word, network in variants.items()
        }
    if "exits" in last:
        content["exits"] = _exits(student.model, last["exits"])
    return content


def _extension(earlier: Sequence[int], epochs: int) -> str:
    if not earlier:
        return ""
    ends = ", ".join(map(str, earlier))
    return f"; extended from {ends} epochs, which is not a run of {epochs}"


def _size(model: keras.Model) -> dict[str, int]:
    cost = models.cost(model)
    return {"params": cost.params, "macs": cost.macs}


def _numbers(scores: Mapping[str, Any]) -> dict[str, float]:
    """Returns the numbers of an evaluation without the count of its images."""
    return {
        key: float(value)
        for key, value in scores.items()
        if isinstance(value, numbers.Real) and key != "count"
    }


def _exits(student: keras.Model, exits: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Returns the scores of each exit with what it costs to get there."""
    costs = models.exit_costs(student)
    return [
        {
            "name": each["name"],
            **_numbers(each),
            "macs": costs[each["name"]].macs,
            "params": costs[each["name"]].params,
        }
        for each in exits
    ]
