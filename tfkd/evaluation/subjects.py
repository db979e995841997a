"""What can be evaluated by a path: a run folder's student or a SavedModel, and on which images."""

from __future__ import annotations

import dataclasses
import inspect
import json
import os
from collections.abc import Mapping
from pathlib import Path

import tensorflow as tf

from tfkd import data
from tfkd.core import tasks
from tfkd.earlier_version import modernized
from tfkd.errors import TfkdError, unknown
from tfkd.evaluation.predictors import Predict, predictor, saved_model_predictor
from tfkd.export import describe
from tfkd.export.description import facts
from tfkd.models.saving import load_network


@dataclasses.dataclass(frozen=True)
class Subject:
    """One network to evaluate and what is known of it.

    Attributes:
        predict: Raw pixels (batch, height, width, channels) to outputs by name.
        task: What the outputs mean.
        task_name: The name that ``tfkd.tasks.find`` finds the task by.
        input_shape: ``(height, width, channels)``, None where any size does or it is unknown.
        num_classes: The width of the logits, or None if it is unknown.
        params: The number of parameters, or None.
        macs: The multiply-accumulate operations of one image, or None.
        exits: ``params`` and ``macs`` up to each exit, empty where they are unknown or there is
            one.
    """

    predict: Predict
    task: tasks.Task
    task_name: str
    input_shape: tuple[int | None, ...] | None = None
    num_classes: int | None = None
    params: int | None = None
    macs: int | None = None
    exits: Mapping[str, Mapping[str, int]] = dataclasses.field(default_factory=dict)

    def check(self, info: data.DataInfo) -> None:
        """Raises TfkdError unless images and classes of a data set are those of the network."""
        width = self.task.width(info)
        if self.num_classes not in (None, width):
            raise TfkdError(
                f"data {info.name!r} to evaluate on: found {width} classes, "
                f"wanted {self.num_classes} as the network has"
            )
        sides = zip(self.input_shape or (), info.image_shape)
        if any(None not in side and side[0] != side[1] for side in sides):
            raise TfkdError(
                f"data {info.name!r} to evaluate on: found images {tuple(info.image_shape)}, "
                f"wanted {tuple(self.input_shape)} as the network takes"
            )


def run_subject(run_folder: str | os.PathLike, which: str = "last") -> Subject:
    """Returns a student of a run folder; arguments and errors as in ``load_network``."""
    network = load_network(run_folder, which)
    known = facts(network)
    return Subject(
        predict=predictor(network),
        task=tasks.create(network.task, network),
        task_name=known["task"],
        input_shape=tuple(known["input_shape"]),
        num_classes=known["num_classes"],
        params=known["params"],
        macs=known["macs"],
        exits=known["exits"] or {},
    )


def saved_model_subject(path: str | os.PathLike) -> Subject:
    """Returns a SavedModel; sizes and task are known if tfkd exported it.

    Raises:
        TfkdError: As ``saved_model_predictor`` does.
    """
    predict = saved_model_predictor(path)
    try:
        known = describe(path)
    except TfkdError:
        return Subject(predict, tasks.Classification(), tasks.Classification.name)
    return Subject(
        predict=predict,
        task=tasks.find(known["task"])(),
        task_name=known["task"],
        input_shape=tuple(known["input_shape"]),
        num_classes=known["num_classes"],
        params=known["params"],
        macs=known["macs"],
        exits=known["exits"] or {},
    )


def run_data_settings(run_folder: str | os.PathLike) -> dict:
    """Returns the arguments of ``tfkd.data.load`` that a run's ``config.json`` records.

    Those of training alone (batch size, seed, mixing, downloading) are left out. The augmentation
    is not: with that of ImageNet, the center of an image is evaluated.

    Raises:
        TfkdError: When there is no readable config with a ``data.name``.
    """
    path = Path(run_folder) / "config.json"
    try:
        recorded = modernized(json.loads(path.read_text(encoding="utf-8")))["data"]
        recorded["name"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TfkdError(
            f"file {str(path)!r}: found no data.name ({type(error).__name__}), "
            "wanted the config.json that a run writes"
        ) from error
    training_alone = {"batch_size", "seed", "mixup", "cutmix", "download"}
    accepted = inspect.signature(data.load).parameters.keys() - training_alone
    return {key: value for key, value in recorded.items() if key in accepted}


def best_selected_on(run_folder: str | os.PathLike) -> str | None:
    """Returns the part that chose the best epoch of a run: ``"validation"`` or ``"test"``.

    ``None`` where the run is not finished.
    """
    try:
        found = json.loads((Path(run_folder) / "result.json").read_text(encoding="utf-8"))
        return found.get("best_selected_on")
    except (OSError, ValueError, AttributeError):
        return None


def split_of(dataset: data.DataSet, split: str) -> tf.data.Dataset:
    """Returns a part of a data set as un-augmented batches in order.

    Args:
        dataset: The data set.
        split: ``"test"``, ``"validation"`` or ``"train"``.

    Raises:
        TfkdError: For another name, or if the data set has no such part.
    """
    parts = {
        "test": dataset.test,
        "validation": dataset.validation,
        "train": dataset.train_evaluation,
    }
    if split not in parts:
        raise unknown("split", split, parts)
    return parts[split]()
