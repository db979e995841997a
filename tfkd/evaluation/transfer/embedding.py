"""Images of another data set as a frozen backbone sees them."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence

import numpy as np

from tfkd import data, models
from tfkd.errors import TfkdError
from tfkd.evaluation.extraction import features

POOLED = "pooled"


@dataclasses.dataclass(frozen=True)
class Embeddings:
    """Features and labels of the training and test images of a set.

    Attributes:
        train: Features of the training images, float32 ``(images, width)``.
        train_labels: Their labels, int32 ``(images,)``.
        test: The same of the test images.
        test_labels: Their labels.
        class_names: Names of the classes, in the order of the labels.
    """

    train: np.ndarray
    train_labels: np.ndarray
    test: np.ndarray
    test_labels: np.ndarray
    class_names: tuple[str, ...]


def embeddings(
    network: models.Network,
    name: str,
    *,
    classes: Sequence[str] | None = None,
    directory: str | os.PathLike | None = None,
    image_size: int | None = None,
    crop: str | None = None,
    tap: str = POOLED,
    cache: str | os.PathLike | None = None,
    batch_size: int = 64,
) -> Embeddings:
    """Returns the images of a set as a network sees them, in inference mode and un-augmented.

    Args:
        network: The network, whose last layers are not run.
        name, classes, directory, image_size, crop, batch_size: As for :func:`images_for`.
        tap: The feature, a vector.
        cache: A folder that keeps the features, as :func:`tfkd.evaluation.features` does; ``None``
            keeps none.

    Raises:
        TfkdError: As :func:`images_for`, :func:`check_tap` and :func:`embedded`.
    """
    check_tap(network, tap)
    dataset = images_for(
        network,
        name,
        classes=classes,
        directory=directory,
        image_size=image_size,
        crop=crop,
        batch_size=batch_size,
    )
    return embedded(network, dataset, tap, cache)


def images_for(
    network: models.Network,
    name: str,
    *,
    classes: Sequence[str] | None = None,
    directory: str | os.PathLike | None = None,
    image_size: int | None = None,
    crop: str | None = None,
    batch_size: int = 64,
) -> data.DataSet:
    """Returns a set whose images have the size that a network takes.

    They are resized as the network was evaluated in its training: whole, or, but for digits, the
    center where that was cut out.

    Args:
        network: The network.
        name: The set, as ``tfkd.data.load`` takes it.
        classes: Names of the classes to keep; ``None`` keeps all.
        directory: Where prepared sets lie.
        image_size: Height and width; ``None`` for those that the network takes.
        crop: One of ``tfkd.data.CROPS``; ``None`` for that of the network.
        batch_size: Images in a batch.

    Raises:
        TfkdError: For a set that is missing, a network of any image size and none given, or one of
            another size.
    """
    # The augmentation is that of training images, which is not asked for; with ImageNet's, centers
    # are cut out of images of full size, which digits are not.
    center = (crop or network.crop) == data.CENTER and (crop is not None or name != "digits")
    takes = _size(network)
    size = takes if image_size is None else (image_size, image_size)
    if size is None:
        raise TfkdError(
            f"images of {name} for {network.name!r}: found a network of any image size, wanted "
            "image_size"
        )
    if takes not in (None, size):
        raise TfkdError(
            f"images of {name} for {network.name!r}: found image_size={image_size}, wanted "
            f"{takes[0]} x {takes[1]} as the network takes"
        )
    return data.load(
        name,
        classes=classes,
        image_size=size,
        augment="imagenet" if center else "none",
        directory=None if directory is None else str(directory),
        batch_size=batch_size,
    )


def check_tap(network: models.Network, tap: str) -> None:
    """Raises TfkdError for a tap that is not there or no vector."""
    shape = models.tap_shapes(network.model, network.paths([tap]))[tap]
    if len(shape) != 1:
        raise TfkdError(
            f"tap {tap!r} of {network.name!r}: found features of shape {shape}, wanted a vector"
        )


def embedded(
    network: models.Network,
    dataset: data.DataSet,
    tap: str = POOLED,
    cache: str | os.PathLike | None = None,
) -> Embeddings:
    """Returns training and test images of a set as a network sees them.

    Gray images become three equal channels where it takes RGB, RGB ones gray where it takes gray.

    Args:
        network, tap, cache: As for :func:`embeddings`.
        dataset: The images, of the size that the network takes.

    Raises:
        TfkdError: For images of another size, or features that are not finite.
    """
    found = {}
    for part in ("train", "test"):
        values = features(network, [tap], dataset, cache, part, convert_channels=True)[tap]
        found[part] = np.array(values)
        if not np.isfinite(found[part]).all():
            raise TfkdError(
                f"features of {network.name!r} on {dataset.info.name}: found values that are not "
                "finite, wanted finite ones"
            )
    return Embeddings(
        found["train"],
        dataset.labels("train"),
        found["test"],
        dataset.labels("test"),
        dataset.info.class_names,
    )


def _size(network: models.Network) -> tuple[int, int] | None:
    """Returns height and width that a network takes; ``None`` where it takes any."""
    shape = getattr(network.model, "input_shape", None)
    if not shape or None in shape[1:3]:
        return None
    return int(shape[1]), int(shape[2])
