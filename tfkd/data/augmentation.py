"""Random crops and mirror images, drawn for a whole global batch."""

from __future__ import annotations

import dataclasses

import tensorflow as tf

from tfkd.data import randomness
from tfkd.errors import unknown


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """The random changes of a training image.

    Attributes:
        pad: Black pixels (value 0 before normalization, as in the published CIFAR recipes) added on
            every side before a random crop of the original size is cut.
        flip: Whether each image is mirrored left to right with probability 1/2.
        resized: Whether a random rectangle of the image is resized (see ``resizedcrop``), in place
            of a crop of the original size. Evaluation then uses the center of the whole image. The
            images must be encoded; they may have any size.
        fast: Whether such a rectangle is decoded by JPEG's fast transform and resized without
            antialiasing.
    """

    pad: int
    flip: bool
    resized: bool = False
    fast: bool = False

    @property
    def varies(self) -> bool:
        """Whether a training image may differ from the stored one."""
        return self.pad > 0 or self.flip or self.resized


AUGMENTATIONS = {
    "none": Augmentation(pad=0, flip=False),
    "crop_flip": Augmentation(pad=4, flip=True),
    "crop": Augmentation(pad=4, flip=False),
    "flip": Augmentation(pad=0, flip=True),
    "shift": Augmentation(pad=1, flip=False),
    "imagenet": Augmentation(pad=0, flip=True, resized=True),
    "imagenet_fast": Augmentation(pad=0, flip=True, resized=True, fast=True),
}


def named(name: str) -> Augmentation:
    """Returns the augmentation of that name; raises TfkdError for an unknown one."""
    if name not in AUGMENTATIONS:
        raise unknown("augmentation", name, AUGMENTATIONS)
    return AUGMENTATIONS[name]


@dataclasses.dataclass(frozen=True)
class Placement:
    """The position of each crop of a batch.

    Attributes:
        top: int32 (B,), first row of the crop in the padded image, 0 .. 2 * pad.
        left: int32 (B,), first column likewise.
        mirrored: int32 (B,), 1 where the crop is mirrored left to right.
    """

    top: tf.Tensor
    left: tf.Tensor
    mirrored: tf.Tensor

    def rows(self, order: tf.Tensor) -> Placement:
        """Returns the placements of the rows in ``order``."""
        return Placement(*(tf.gather(each, order) for each in (self.top, self.left, self.mirrored)))


def draw(
    augmentation: Augmentation,
    seed: int,
    stream: str,
    step: tf.Tensor,
    batch_size: int,
    first_row: tf.Tensor | int,
    rows: int,
) -> Placement:
    """Draws the placements of some rows of a global batch.

    The draw is made for all rows and then cut: a row gets the same crop however many replicas share
    the batch.

    Args:
        augmentation: The augmentation.
        seed: Seed of the data set.
        stream: Name of the view; views of one step are independent.
        step: Global step, integer scalar.
        batch_size: Rows of the global batch.
        first_row: First row wanted.
        rows: Number of rows wanted.
    """
    drawn = randomness.bits(seed, stream, step, [3, batch_size])
    top, left, mirrored = tf.unstack(tf.slice(drawn, [0, first_row], [3, rows]))
    offsets = 2 * augmentation.pad + 1
    return Placement(
        top=tf.math.floormod(top, offsets),
        left=tf.math.floormod(left, offsets),
        mirrored=tf.math.floormod(mirrored, 2) if augmentation.flip else tf.zeros_like(mirrored),
    )


def crop_pixels(images: tf.Tensor, placement: Placement, augmentation: Augmentation) -> tf.Tensor:
    """Cuts crops from decoded images; the padding is black.

    Args:
        images: uint8 (B, H, W, C).
        placement: One crop for each image.
        augmentation: The padding, and whether anything changes at all.

    Returns:
        uint8 (B, H, W, C).
    """
    if not augmentation.varies:
        return images
    batch, height, width, channels = images.shape
    pad = augmentation.pad
    padded = tf.pad(images, [[0, 0], [pad, pad], [pad, pad], [0, 0]])
    high, wide = height + 2 * pad, width + 2 * pad
    columns = tf.range(width)
    columns = tf.where(placement.mirrored[:, None] == 1, width - 1 - columns, columns)
    columns += placement.left[:, None]
    rows = tf.range(batch)[:, None] * high + placement.top[:, None] + tf.range(height)
    positions = rows[:, :, None] * wide + columns[:, None, :]
    return tf.gather(tf.reshape(padded, [-1, channels]), positions)
