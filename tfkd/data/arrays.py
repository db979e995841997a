"""Data sets from NumPy arrays, the embedded digits among them."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from tfkd.data.class_choice import ClassChoice, of_classes
from tfkd.data.dataset import DataSet
from tfkd.data.decoding import WHOLE, resized
from tfkd.data.histogram import mean_and_std
from tfkd.data.holdout import Holdout, held_out, stratified
from tfkd.data.mixing import Mixing
from tfkd.data.source import MemoryImages
from tfkd.data.splits import Splits
from tfkd.data.statistics import Statistics
from tfkd.errors import TfkdError, TfkdWarning

Arrays = tuple[np.ndarray, np.ndarray]

_DIGITS_HELD_OUT = 360
_MOST_BYTES = 2**30


def from_arrays(
    train: Arrays,
    test: Arrays,
    *,
    validation: Arrays | None = None,
    validation_split: float | None = None,
    validation_size: int | None = None,
    num_classes: int | None = None,
    class_names: Sequence[str] | None = None,
    name: str = "arrays",
    task: str = "classification",
    augment: str | None = None,
    mixup: float = 0.0,
    cutmix: float = 0.0,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    batch_size: int = 64,
    seed: int = 0,
) -> DataSet:
    """Makes a data set of images in memory.

    Args:
        train: (images, labels): uint8 (N, H, W, C) pixels 0..255 and integers (N,).
        test: Likewise; images of the same shape.
        validation: Likewise.
        validation_split: Fraction of the training images to set apart for validation, evenly over
            the classes and the same ones whatever the seed; at most one of the three is given.
        validation_size: Number of them.
        num_classes: Number of classes; by default the greatest label of all parts, plus 1, with a
            warning where that leaves a class without a training image.
        class_names: Names of the classes, by default the labels as text.
        name: Name in messages and results.
        task: Name of the task that the labels are for.
        augment: "none" (default), "crop_flip", "crop", "flip" or "shift".
        mixup: Alpha of mixup for the training batches, whose labels are then dense; 0 for none.
        cutmix: Alpha of cutmix likewise; with both, each step draws one of them.
        mean: Mean of each channel in pixel units 0..255, by default measured on ``train``.
        std: Standard deviation likewise.
        batch_size: Rows of a global batch.
        seed: Seed of order and augmentation.

    Raises:
        TfkdError: Arrays of the wrong type, shape or length, labels out of range, or settings that
            do not fit the arrays.
    """
    holdout = Holdout(validation_split, validation_size)
    splits = _splits(train, test, validation, holdout, num_classes, class_names, name, mean, std)
    splits = dataclasses.replace(splits, task=task)
    augment = "none" if augment is None else augment
    return splits.data_set(name, augment, batch_size, seed, Mixing(mixup, cutmix))


def digits(
    holdout: Holdout, image_size: tuple[int, int] | None, classes: ClassChoice = ClassChoice()
) -> Splits:
    """Returns scikit-learn's handwritten digits.

    1,797 gray images of 8 x 8 pixels; the values 0..16 become 0..255. The set has no official
    split: 360 test images, and by default 360 validation images, are set apart evenly over the
    classes, whatever the seed.

    Args:
        holdout: How many of the 1,437 images that are no test images are for validation.
        image_size: (height, width) to resize to, or None.
        classes: The digits that are kept; which images are for testing does not depend on them.
    """
    from sklearn.datasets import load_digits  # costs half a second, wanted here only

    bunch = load_digits()
    images = np.round(bunch.images[..., None] * (255 / 16)).astype(np.uint8)
    if image_size is not None:
        wanted = len(images) * image_size[0] * image_size[1]
        if wanted > _MOST_BYTES:
            raise TfkdError(
                f"image_size: found {image_size[0]} x {image_size[1]} pixels, with which digits "
                f"has {wanted:,} bytes, wanted {_MOST_BYTES:,} at most"
            )
        images = resized(tf.constant(images), image_size).numpy()
    labels = bunch.target.astype(np.int32)
    rest, test = stratified(labels, _DIGITS_HELD_OUT)
    train, validation = (images[rest], labels[rest]), None
    if not holdout.given:
        # The division of its own, which never changes.
        kept, apart = stratified(labels[rest], _DIGITS_HELD_OUT)
        validation = train[0][apart], train[1][apart]
        train = train[0][kept], train[1][kept]
    names = tuple(map(str, range(10)))
    numbers = classes.kept(names, "digits")

    def of_kept(part: Arrays) -> Arrays:
        places, found = of_classes(part[1], numbers, "digits")
        return part[0][places], found

    splits = _splits(
        train=of_kept(train),
        test=of_kept((images[test], labels[test])),
        validation=validation and of_kept(validation),
        holdout=holdout,
        num_classes=len(numbers),
        class_names=[names[number] for number in numbers],
        name="digits",
        mean=None,
        std=None,
    )
    return splits if image_size is None else dataclasses.replace(splits, crop=WHOLE)


def _splits(train, test, validation, holdout, num_classes, class_names, name, mean, std) -> Splits:
    """Returns the splits of a set of arrays; arguments as for ``from_arrays``."""
    train_images, train_labels = _checked(name, "train", train)
    shape = train_images.shape[1:]
    parts = {"test": _checked(name, "test", test, shape)}
    if validation is not None and holdout.given:
        raise TfkdError(f"{name}: found validation arrays and {holdout}, wanted one of them")
    if validation is not None:
        parts["validation"] = _checked(name, "validation", validation, shape)
    elif holdout:
        kept, apart = held_out(train_labels, holdout.count(len(train_labels)))
        parts["validation"] = (train_images[apart], train_labels[apart])
        train_images, train_labels = train_images[kept], train_labels[kept]
    parts["train"] = (train_images, train_labels)

    greatest = max(int(labels.max()) for _, labels in parts.values())
    if num_classes is None:
        num_classes = len(class_names) if class_names else greatest + 1
        if not class_names:
            _tell_of_empty_classes(name, parts["train"][1], num_classes)
    if greatest >= num_classes:
        raise TfkdError(
            f"{name}: found label {greatest}, wanted labels from 0 to {num_classes - 1} "
            f"for {num_classes} classes"
        )
    names = tuple(class_names) if class_names else tuple(map(str, range(num_classes)))
    if len(names) != num_classes:
        raise TfkdError(f"{name}: found {len(names)} class names, wanted {num_classes}")
    if mean is None or std is None:
        measured = mean_and_std([train_images])
        mean = measured[0] if mean is None else mean
        std = measured[1] if std is None else std
    for what, values in (("mean", mean), ("std", std)):
        if len(values) != shape[2]:
            raise TfkdError(
                f"{name}: found {len(values)} values of {what}, wanted {shape[2]}, one a channel"
            )

    sources = {key: MemoryImages(images, labels) for key, (images, labels) in parts.items()}
    return Splits(
        train=sources["train"],
        test=sources["test"],
        validation=sources.get("validation"),
        statistics=Statistics.of((mean, std)),
        class_names=names,
    )


def _tell_of_empty_classes(name: str, labels: np.ndarray, num_classes: int) -> None:
    """Warns where a number of classes that follows from the labels has some without an image."""
    empty = np.setdiff1d(np.arange(num_classes), labels)
    if len(empty):
        warnings.warn(
            f"{name}: found labels from {labels.min()} to {num_classes - 1}, which make "
            f"{num_classes} classes, {len(empty)} of them without a training image (the first: "
            f"{empty[0]}); wanted labels from 0 on, or num_classes={num_classes} to say so",
            TfkdWarning,
            stacklevel=4,
        )


def _checked(name: str, part: str, arrays: Arrays, shape: tuple | None = None) -> Arrays:
    """Returns (images, labels) of one part as arrays, or raises TfkdError."""
    where = f"{name}, {part}"
    if not isinstance(arrays, (tuple, list)) or len(arrays) != 2:
        raise TfkdError(f"{where}: found {type(arrays).__name__}, wanted a pair (images, labels)")
    images, labels = np.asarray(arrays[0]), np.asarray(arrays[1])
    if images.ndim != 4 or images.dtype != np.uint8:
        raise TfkdError(
            f"{where}: found images {images.dtype} {images.shape}, wanted pixels 0..255 as uint8 "
            f"(count, height, width, channels)"
        )
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise TfkdError(
            f"{where}: found labels {labels.dtype} {labels.shape}, wanted integers (count,)"
        )
    if len(images) != len(labels) or not len(images):
        raise TfkdError(
            f"{where}: found {len(images)} images and {len(labels)} labels, "
            f"wanted one label an image and at least one image"
        )
    if labels.min() < 0:
        raise TfkdError(f"{where}: found label {labels.min()}, wanted labels from 0 on")
    if shape is not None and images.shape[1:] != shape:
        raise TfkdError(
            f"{where}: found images of shape {images.shape[1:]}, wanted {shape}, "
            f"the shape of the training images"
        )
    return images, labels.astype(np.int32)
