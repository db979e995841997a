"""What can be evaluated by a path: a run folder's student or a SavedModel, and on which images."""

from __future__ import annotations

import dataclasses
import inspect
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf

from tfkd import data, json_shapes, models
from tfkd.core import tasks
from tfkd.core.classes import order_of, tell_of_order
from tfkd.earlier_version import modernized
from tfkd.errors import TfkdError, TfkdWarning, unknown
from tfkd.evaluation.predictors import Predict, in_order, predictor, saved_model_predictor
from tfkd.export import describe
from tfkd.export.description import facts
from tfkd.models.class_names import are_same
from tfkd.models.graph.outputs import LOGITS
from tfkd.models.saving import load_network

_CROPS = (
    "--crop=center (the shorter side becomes 8/7 of the network's, then the middle is cut out) or "
    "--crop=whole (whatever the proportions)"
)


@dataclasses.dataclass(frozen=True)
class Subject:
    """One network to evaluate and what is known of it.

    Attributes:
        predict: Raw pixels (batch, height, width, channels) to outputs by name.
        task: What the outputs mean.
        task_name: The name that ``tfkd.tasks.find`` finds the task by.
        input_shape: ``(height, width, channels)``, None where any size does or it is unknown.
        num_classes: The width of the logits, or None if it is unknown.
        class_names: The names of the classes in the order of the logits, or None.
        takes_pixels: Whether it is known how pixels 0..255 reach the network.
        params: The number of parameters, or None.
        macs: The multiply-accumulate operations of one image, or None.
        exits: ``params`` and ``macs`` up to each exit, empty where they are unknown or there is
            one.
        crop: How images of other sizes become its input, as ``DataInfo.crop``; None if unknown.
        points: Thresholds for leaving early that are known, of which a budget chooses; None where
            the validation images of its run must tell.
    """

    predict: Predict
    task: tasks.Task
    task_name: str
    input_shape: tuple[int | None, ...] | None = None
    num_classes: int | None = None
    class_names: tuple[str, ...] | None = None
    takes_pixels: bool = True
    params: int | None = None
    macs: int | None = None
    exits: Mapping[str, Mapping[str, int]] = dataclasses.field(default_factory=dict)
    crop: str | None = None
    points: Sequence[Mapping[str, Any]] | None = None

    def data_settings(self, *, image_size: int | None, crop: str | None) -> dict[str, Any]:
        """Returns the arguments of ``tfkd.data.load`` by which images become the network's input.

        Args:
            image_size: Height and width; None for those that the network takes.
            crop: One of ``tfkd.data.CROPS``; None for that of the network. Where it is not known,
                images are not resized.

        Raises:
            TfkdError: When only one of both is known and the other one is given.
        """
        found = self.crop if crop is None else crop
        if found is None:
            if image_size is not None:
                raise TfkdError(f"--image_size={image_size}: found no --crop, wanted {_CROPS}")
            return {}
        sides = (self.input_shape or (None, None))[:2]
        if image_size is not None:
            sides = image_size, image_size
        if None in sides:
            raise TfkdError(
                f"--crop={found}: found a network of any image size, wanted --image_size as well"
            )
        # The augmentation is that of training images; with ImageNet's, centers are evaluated.
        return {"image_size": sides, "augment": "imagenet" if found == data.CENTER else "none"}

    def named(self, class_names: tuple[str, ...]) -> Subject:
        """Returns the network with names for its classes; raises TfkdError if it has others."""
        if self.class_names is not None and not are_same(self.class_names, class_names):
            raise TfkdError(
                "class names of the network to evaluate: found other names than it has itself, "
                "wanted none"
            )
        if self.num_classes not in (None, len(class_names)):
            raise TfkdError(
                f"class names of the network to evaluate: found {len(class_names)}, wanted "
                f"{self.num_classes}, one a class"
            )
        return dataclasses.replace(self, class_names=class_names)

    def for_data(
        self, info: data.DataInfo, *, by_number: bool = False, preprocess: str | None = None
    ) -> Subject:
        """Returns the network as it is tried on a data set: its classes in the order of the data.

        A warning tells of another order, and of pixels that reach it as they are for want of
        anything better.

        Args:
            info: The data.
            by_number: Whether the classes are taken by their numbers, whatever their names.
            preprocess: How pixels reach a network of which that is not known, as
                ``tfkd.models.Preprocess.of`` takes it.

        Raises:
            TfkdError: Unless images and classes of the data are those of the network.
        """
        self.check(info)
        subject = self._with_pixels(info, preprocess)
        if by_number or self.task.width(info) != len(info.class_names):
            # Without the names of its classes, which ``evaluate`` would compare.
            return dataclasses.replace(subject, predict=lambda images: subject.predict(images))
        who = "network to evaluate"
        found = self.class_names
        places = order_of(found, info.class_names, who, info.name, "--classes=by_number")
        if places is None:
            return subject
        if not self.task.class_outputs([LOGITS]):
            raise TfkdError(
                f"{who}: found the classes of {info.name} in another order, wanted the same order, "
                "or --classes=by_number"
            )
        tell_of_order(who, info.name)
        return dataclasses.replace(subject, predict=in_order(subject.predict, self.task, places))

    def _with_pixels(self, info: data.DataInfo, preprocess: str | None) -> Subject:
        if preprocess is None:
            if not self.takes_pixels:
                warnings.warn(
                    "network to evaluate: nothing says how pixels reach it; they are given as they "
                    "are, 0..255 (--preprocess=none says that, or dataset, tf, torch, caffe "
                    "another)",
                    TfkdWarning,
                    stacklevel=3,
                )
            return self
        if self.takes_pixels:
            raise TfkdError(
                f"--preprocess={preprocess}: found a network that itself says how pixels reach it, "
                "wanted the flag unset"
            )
        seen, predict = models.Preprocess.of(preprocess, info), self.predict
        return dataclasses.replace(self, predict=lambda images: predict(seen(images)))

    def check(self, info: data.DataInfo) -> None:
        """Raises TfkdError unless images and class count of some data are those of the network."""
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
                f"wanted {tuple(self.input_shape)} as the network takes (--crop resizes them)"
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
        class_names=network.class_names,
        params=known["params"],
        macs=known["macs"],
        exits=known["exits"] or {},
        crop=network.crop or _crop_of_run(run_folder),
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
        return Subject(
            predict,
            tasks.Classification(),
            tasks.Classification.name,
            input_shape=predict.input_shape,
            takes_pixels=predict.dtype == tf.uint8,
        )
    return Subject(
        predict=predict,
        task=tasks.find(known["task"])(),
        task_name=known["task"],
        input_shape=tuple(known["input_shape"]),
        num_classes=known["num_classes"],
        class_names=known["class_names"] and tuple(known["class_names"]),
        params=known["params"],
        macs=known["macs"],
        exits=known["exits"] or {},
        crop=known["crop"],
        points=(known["early_exit"] or {}).get("points"),
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
        recorded = modernized(json_shapes.read(path, {"*": object}))["data"]
        json_shapes.require(recorded, {"name": str, "*": object})
    except (OSError, *json_shapes.OTHER) as error:
        raise TfkdError(
            f"file {str(path)!r}: found no data.name ({type(error).__name__}), "
            "wanted the config.json that a run writes"
        ) from error
    training_alone = {"batch_size", "seed", "mixup", "cutmix", "download"}
    accepted = inspect.signature(data.load).parameters.keys() - training_alone
    return {key: value for key, value in recorded.items() if key in accepted}


def _crop_of_run(run_folder: str | os.PathLike) -> str | None:
    """Returns how a run whose network does not say so had its images resized."""
    try:
        found = run_data_settings(run_folder)
    except TfkdError:
        return None
    return data.crop_of(found["name"], found.get("augment"), found.get("image_size"))


def load_data(settings: Mapping[str, Any], batch_size: int) -> data.DataSet:
    """Returns the data to evaluate on.

    Args:
        settings: The arguments of ``tfkd.data.load``.
        batch_size: Images in a batch.

    Raises:
        TfkdError: As ``tfkd.data.load``; for images of several sizes where nothing says how they
            become images of one.
    """
    try:
        return data.load(**settings, batch_size=batch_size)
    except data.SeveralSizes:
        raise TfkdError(
            f"data {settings['name']!r} to evaluate on: found images of several sizes, and nothing "
            f"says how they reach the network; wanted {_CROPS}"
        ) from None


def best_selected_on(run_folder: str | os.PathLike) -> str | None:
    """Returns the part that chose the best epoch of a run: ``"validation"`` or ``"test"``.

    ``None`` where the run is not finished.
    """
    try:
        found = json_shapes.read(Path(run_folder) / "result.json", {"best_selected_on?": str})
    except (OSError, json_shapes.Misfit):
        return None
    return found.get("best_selected_on")


def check_part(run_folder: str | os.PathLike, dataset: data.DataSet, split: str) -> None:
    """Warns where a part of a run's own data is not the one that the run had.

    Images that a run validated on may have become training images since, and the reverse. Of a run
    that recorded nothing the held-out images follow the rule of an earlier version.

    Args:
        run_folder: The run folder.
        dataset: The data of its config as they are now.
        split: The part to evaluate on.
    """
    try:
        parts = {"inputs?": {"data?": {"parts?": {"*": (None, {"*": object})}}}}
        result = json_shapes.read(Path(run_folder) / "result.json", parts)
    except (OSError, json_shapes.Misfit):
        return
    recorded = result.get("inputs", {}).get("data", {}).get("parts")
    settings = run_data_settings(run_folder)
    held_out = settings.get("validation_size") or settings.get("validation_split")
    if recorded is None:
        if held_out and split != "test":
            warnings.warn(
                f"run folder {str(run_folder)!r} is of an earlier version, which held out other "
                f"validation images: the images of {split!r} are not those that it had",
                TfkdWarning,
                stacklevel=3,
            )
    elif not data.same_images(recorded.get(split), dataset.identity().get(split)):
        warnings.warn(
            f"run folder {str(run_folder)!r}: the images of {split!r} are others than in the run; "
            "some of them may have been trained on",
            TfkdWarning,
            stacklevel=3,
        )


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
