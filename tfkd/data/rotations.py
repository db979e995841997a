"""Rotations of every image of a batch by 0, 90, 180 and 270 degrees, for SSKD."""

from __future__ import annotations

import dataclasses

import numpy as np
import tensorflow as tf

from tfkd.data import augmentation as augmentations
from tfkd.data.augmentation import Augmentation
from tfkd.errors import TfkdError

TURNS = 4


def check_shape(image_shape: tuple[int, int, int]) -> None:
    """Raises TfkdError unless images (height, width, channels) are square."""
    height, width, _ = image_shape
    if height != width:
        raise TfkdError(
            f"image_rotations: found images of {height} x {width} pixels, wanted square ones, "
            f"which keep their shape when turned; set image_size"
        )


def views(
    images: tf.Tensor,
    augmentation: Augmentation,
    seed: int,
    step: tf.Tensor,
    batch_size: int,
    first_row: tf.Tensor | int,
) -> tf.Tensor:
    """Returns the augmented rotations of some rows of a global batch.

    Each image is mirrored or not, once, and turned; then each of the four is padded and cropped on
    its own. A crop of a turned and mirrored image reads the padded one with two fixed strides: one
    gather makes all crops.

    Args:
        images: The un-augmented images, uint8 (b, S, S, C).
        augmentation: The augmentation of the training images.
        seed: Seed of the data set.
        step: Global step, integer scalar.
        batch_size: Rows of the global batch.
        first_row: Position of the first of these rows in it.

    Returns:
        uint8 (4b, S, S, C); row 4 i + r is image i turned counter-clockwise by r * 90 degrees.
    """
    rows, size, _, channels = images.shape
    pad = augmentation.pad
    wide = size + 2 * pad
    mirrored = augmentations.draw(
        dataclasses.replace(augmentation, pad=0),
        seed,
        "image_rotations mirrored",
        step,
        batch_size,
        first_row,
        rows,
    ).mirrored
    placement = augmentations.draw(
        dataclasses.replace(augmentation, flip=False),
        seed,
        "image_rotations",
        step,
        TURNS * batch_size,
        TURNS * first_row,
        TURNS * rows,
    )
    # One row for each of the (4b) views: its first pixel, and its strides down and right.
    strides = tf.reshape(tf.gather(_strides(wide), mirrored), [-1, 3])
    first, down, right = tf.unstack(strides, axis=1)
    first += wide * wide * tf.repeat(tf.range(rows), TURNS)
    vertical = down[:, None] * (placement.top[:, None] + tf.range(size))
    horizontal = right[:, None] * (placement.left[:, None] + tf.range(size))
    positions = first[:, None, None] + vertical[:, :, None] + horizontal[:, None, :]
    padded = tf.pad(images, [[0, 0], [pad, pad], [pad, pad], [0, 0]])
    return tf.gather(tf.reshape(padded, [-1, channels]), positions)


def turned(images: tf.Tensor) -> tf.Tensor:
    """Returns square images (b, S, S, C) in their four rotations, in the order of ``views``."""
    each = [tf.image.rot90(images, turn) for turn in range(TURNS)]
    return tf.reshape(tf.stack(each, axis=1), [-1, *images.shape[1:]])


def _strides(wide: int) -> np.ndarray:
    """Returns the strides that read a square image as if it were mirrored and turned.

    Args:
        wide: Rows and columns of the image.

    Returns:
        int32 (2, 4, 3): for plain and mirrored, and for each turn, the position of the first pixel
        in the unchanged image, and the steps to the pixel below and to the one on the right.
    """
    plain = np.arange(wide * wide, dtype=np.int32).reshape(wide, wide)
    turned = [[np.rot90(image, turn) for turn in range(TURNS)] for image in (plain, plain[:, ::-1])]
    # These are views of one array, so NumPy knows their strides.
    return np.array(
        [[(each[0, 0], *np.divide(each.strides, 4)) for each in row] for row in turned], np.int32
    )
