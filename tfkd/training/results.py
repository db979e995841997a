"""What a run leaves behind when its training is over: the students, and what they are worth."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from typing import Any

import keras
import ml_collections
import numpy as np
import tensorflow as tf

from tfkd import data, evaluation, models
from tfkd.core import Distiller
from tfkd.evaluation.predictors import Predict
from tfkd.models.saving import load_model, load_network, save_model, save_network
from tfkd.training import config as configs
from tfkd.training.run_folder import RunFolder
from tfkd.training.run_state import Progress


def save_students(
    distiller: Distiller,
    network: models.Network,
    folder: RunFolder,
    progress: Progress,
    info: data.DataInfo,
) -> None:
    """Writes the student of the last epoch and that of the best one.

    Args:
        distiller: The distiller, whose methods may simplify the student.
        network: The trained student.
        folder: The run folder.
        progress: Keeps the variables of the best epoch.
        info: The data.
    """

    def save(stem: str) -> None:
        clean = network.with_model(distiller.clean_student())
        save_network(clean, folder.path, stem, class_names=info.class_names)

    save("student")
    if progress.best_student is None:
        save("student_best")
        return
    last = [np.asarray(variable) for variable in distiller.student_variables]
    _assign(distiller, progress.best_student)
    save("student_best")
    _assign(distiller, last)


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
    model = load_model(save_model(teacher.model, folder.path / "teacher.keras"))
    return models.Network(model, teacher.preprocess, teacher.name)


def scores(
    folder: RunFolder, dataset: data.DataSet, teacher: Predict | None
) -> evaluation.Evaluation:
    """Evaluates the saved students, and the teacher, on the test images in one pass.

    Returns:
        Scores of ``last``, ``best`` and, with a teacher, ``teacher``.
    """
    subjects = {
        "last": evaluation.predictor(load_network(folder.path, "last")),
        "best": evaluation.predictor(load_network(folder.path, "best")),
    }
    if teacher is not None:
        subjects["teacher"] = teacher
    try:
        return evaluation.evaluate(subjects, dataset.test())
    except tf.errors.InvalidArgumentError as error:
        raise data.explain(error) or error from None


def result(
    config: ml_collections.ConfigDict,
    info: data.DataInfo,
    cost: models.Cost,
    teacher: str | None,
    progress: Progress,
    found: evaluation.Evaluation,
) -> dict[str, Any]:
    """Returns the content of ``result.json``; percentages go from 0 to 100.

    Args:
        config: The experiment.
        info: Its data.
        cost: Of the student.
        teacher: Name of the teacher, or of all of them; ``None`` without one.
        progress: The finished training.
        found: See :func:`scores`.
    """
    last, best, state = found.scores["last"], found.scores["best"], progress.state
    content = {
        "experiment": config.experiment or config.student.name,
        "seed": config.train.seed,
        "dataset": info.name,
        "distiller": configs.method_names(config),
        "student": config.student.name,
        "teacher": teacher,
        "params": cost.params,
        "macs": cost.macs,
        "top1_last": last["top1"],
        "top1_best": best["top1"],
        "best_epoch": state.best_epoch,
        "best_selected_on": "validation" if info.validation_size else "test",
        "loss_last": last["loss"],
        "teacher_top1": None if teacher is None else found.scores["teacher"]["top1"],
        "agreement": None if teacher is None else found.agreement("last", "teacher"),
        "epochs": state.epoch,
        "images_per_second": round(state.images_per_second, 1),
        "seconds": round(progress.seconds, 2),
        "versions": {
            "python": platform.python_version(),
            "tensorflow": tf.__version__,
            "keras": keras.__version__,
            "numpy": np.__version__,
        },
    }
    if "top5" in last:
        content["top5_last"], content["top5_best"] = last["top5"], best["top5"]
    return content
