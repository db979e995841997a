"""What can be evaluated by a path: a run folder's student or a SavedModel, and on which images."""

from __future__ import annotations

import dataclasses
import inspect
import json
import os
from pathlib import Path

import tensorflow as tf

from tfkd import data, models
from tfkd.earlier_version import modernized
from tfkd.errors import TfkdError, unknown
from tfkd.evaluation.predictors import Predict, predictor, saved_model_predictor
from tfkd.export import describe
from tfkd.models.saving import load_network


@dataclasses.dataclass(frozen=True)
class Subject:
    """One network to evaluate and what is known of it.

    Attributes:
        predict: Raw pixels (batch, height, width, channels) to logits (batch, classes).
        input_shape: ``(height, width, channels)``, None where any size does or it is unknown.
        num_classes: The number of classes, or None if it is unknown.
        params: The number of parameters, or None.
        macs: The multiply-accumulate operations of one image, or None.
    """

    predict: Predict
    input_shape: tuple[int | None, ...] | None = None
    num_classes: int | None = None
    params: int | None = None
    macs: int | None = None

    def check(self, info: data.DataInfo) -> None:
        """Raises TfkdError unless images and classes of a data set are those of the network."""
        if self.num_classes not in (None, info.num_classes):
            raise TfkdError(
                f"data {info.name!r} to evaluate on: found {info.num_classes} classes, "
                f"wanted {self.num_classes} as the network has"
            )
        sides = zip(self.input_shape or (), info.image_shape)
        if any(None not in side and side[0] != side[1] for side in sides):
            raise TfkdError(
                f"data {info.name!r} to evaluate on: found images {tuple(info.image_shape)}, "
                f"wanted {tuple(self.input_shape)} as the network takes"
            )


def run_subject(run_folder: str | os.PathLike, which: str = "last") -> Subject:
    """Returns the student of a run folder; arguments and errors as in ``load_network``."""
    network = load_network(run_folder, which)
    input_shape = tuple(network.model.input_shape[1:])
    cost = None if None in input_shape else models.cost(network.model)
    return Subject(
        predict=predictor(network),
        input_shape=input_shape,
        num_classes=network.model.output_shape[-1],
        params=cost and cost.params,
        macs=cost and cost.macs,
    )


def saved_model_subject(path: str | os.PathLike) -> Subject:
    """Returns a SavedModel; sizes are known if tfkd exported it.

    Raises:
        TfkdError: As ``saved_model_predictor`` does.
    """
    predict = saved_model_predictor(path)
    try:
        known = describe(path)
    except TfkdError:
        return Subject(predict)
    return Subject(
        predict=predict,
        input_shape=tuple(known["input_shape"]),
        num_classes=known["num_classes"],
        params=known["params"],
        macs=known["macs"],
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
