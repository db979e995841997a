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
    tap: str = POOLED,
    cache: str | os.PathLike | None = None,
    batch_size: int = 64,
) -> Embeddings:
    """Returns the images of a set as a network sees them, in inference mode and un-augmented.

    They are resized to the input of the network as it was evaluated in its training: whole, or, but
    for digits, the center where that was cut out. Gray images become three equal channels where it
    takes RGB, RGB ones gray where it takes gray.

    Args:
        network: The network, whose last layers are not run.
        name: The set, as ``tfkd.data.load`` takes it.
        classes: Names of the classes to keep; ``None`` keeps all.
        directory: Where prepared sets lie.
        tap: The feature, a vector.
        cache: A folder that keeps the features, as :func:`tfkd.evaluation.features` does; ``None``
            keeps none.
        batch_size: Images in a batch.

    Raises:
        TfkdError: For a set that is missing, a tap that is not there or no vector, or features that
            are not finite.
    """
    # The augmentation is that of training images, which is not asked for; with ImageNet's, centers
    # are cut out of images of full size, which digits are not.
    center = network.crop == data.CENTER and name != "digits"
    dataset = data.load(
        name,
        classes=classes,
        image_size=_size(network),
        augment="imagenet" if center else "none",
        directory=None if directory is None else str(directory),
        batch_size=batch_size,
    )
    found = {}
    for part in ("train", "test"):
        values = features(network, [tap], dataset, cache, part, convert_channels=True)[tap]
        if values.ndim != 2:
            raise TfkdError(
                f"tap {tap!r} of {network.name!r}: found features of shape {values.shape[1:]}, "
                "wanted a vector"
            )
        found[part] = np.array(values)
        if not np.isfinite(found[part]).all():
            raise TfkdError(
                f"features of {network.name!r} on {name}: found values that are not finite, wanted "
                "finite ones"
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
