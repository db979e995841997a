"""The fourteen pixel operations of RandAugment, on batches of images.

Every operation takes uint8 images (n, H, W, C) and levels, int32 (n,), one for each image, and
returns uint8 images of the same shape. A level is a magnitude bin, 0 .. 30, with a sign for
operations that have two directions. The bins have the strengths of Cubuk et al., "RandAugment",
2020, as torchvision tabulates them. The pixels are those of Pillow, with which the published runs
were made: nearest pixels and black corners for the geometric operations, a mixture with a
degenerate image for the color operations.

All arithmetic on pixel values is on whole numbers that float32 holds exactly, rounded only at the
end: an image is the same on every machine.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import tensorflow as tf

BINS = 31

Operation = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


def identity(images: tf.Tensor, level: tf.Tensor) -> tf.Tensor:
    """Returns the images unchanged."""
    del level
    return images


def shear_x(images: tf.Tensor, level: tf.Tensor) -> tf.Tensor:
    """Moves row y by 0.01 * level * y pixels to the left; the upper left corner stays."""
    shear = 0.01 * tf.cast(level, tf.float32)
    return _warped(images, [1.0, shear, shear / 2, 0.0, 1.0, 0.0])


def shear_y(images: tf.Tensor, level: tf.Tensor) -> tf.Tensor:
    """Moves column x by 0.01 * level * x pixels upwards; the upper left corner stays."""
    shear = 0.01 * tf.cast(level, tf.float32)
    return _warped(images, [1.0, 0.0, 0.0, shear, 1.0, shear / 2])


def translate_x(images: tf.Tensor, level: tf.Tensor) -> tf.Tensor:
    """Moves images right by width * (150 / 331) * level / 30 pixels, rounded towards zero."""
    return _warped(images, [1.0, 0.0, -_shift(level, images.shape[2]), 0.0, 1.0, 0.0])


def translate_y(images: tf.Tensor, level: tf.Tensor) -> tf.Tensor:
    """Moves images down by height * (150 / 331) * level / 30 pixels, rounded towards zero."""
    return _warped(images, [1.0, 0.0, 0.0, 0.0, 1.0, -_shift(level, images.shape[1])])


def rotate(images: tf.Tensor, level: tf.Tensor) -> tf.Tensor:
    """Turns images by ``level`` degrees counter-clockwise about their center."""
    angle = tf.cast(level, tf.float32) * (math.pi / 180)
    cosine, sine = tf.cos(angle), tf.sin(angle)
    middle_y, middle_x = ((size - 1) / 2 for size in images.shape[1:3])
    left = middle_x - cosine * middle_x + sine * middle_y
    top = middle_y - sine * middle_x - cosine * middle_y
    return _warped(images, [cosine, -sine, left, sine, cosine, top])


def brightness(images: tf.Tensor, level: tf.Tensor) -> tf.Tensor:
    """Mixes images with black (see ``_mixed``)."""
    pixels = tf.cast(images, tf.float32)
    return _mixed(tf.zeros_like(pixels), pixels, level)


def color(images: tf.Tensor, level: tf.Tensor) -> tf.Tensor:
    """Mixes images with their gray versions (see ``_mixed``)."""
    pixels = tf.cast(images, tf.float32)
    return _mixed(_gray(pixels), pixels, level)


def contrast(images: tf.Tensor, level: tf.Tensor) -> tf.Tensor:
    """Mixes images with their mean gray value, a whole number (see ``_mixed``)."""
    pixels = tf.cast(images, tf.float32)
    total = tf.reduce_sum(tf.cast(_gray(pixels), tf.int32), [1, 2, 3], keepdims=True)
    count = images.shape[1] * images.shape[2]
    return _mixed(tf.cast((2 * total + count) // (2 * count), tf.float32), pixels, level)


def sharpness(images: tf.Tensor, level: tf.Tensor) -> tf.Tensor:
    """Mixes images with smoothed ones (see ``_mixed``).

    A smoothed pixel is the rounded mean of its 3 x 3 neighborhood, in which it counts fivefold; the
    pixels at the border are not smoothed.
    """
    height, width, _ = images.shape[1:]
    if min(height, width) < 3:
        return images
    pixels = tf.cast(images, tf.float32)
    # Sums of slices: a convolution of an empty batch has the wrong shape under oneDNN.
    columns = pixels[:, :-2] + pixels[:, 1:-1] + pixels[:, 2:]
    squares = columns[:, :, :-2] + columns[:, :, 1:-1] + columns[:, :, 2:]
    means = tf.round((squares + 4 * pixels[:, 1:-1, 1:-1]) / 13)
    around = [[0, 0], [1, 1], [1, 1], [0, 0]]
    inside = tf.pad(tf.ones([1, height - 2, width - 2, 1], tf.bool), around)
    smoothed = tf.where(inside, tf.pad(means, around), pixels)
    return _mixed(smoothed, pixels, level)


def posterize(images: tf.Tensor, level: tf.Tensor) -> tf.Tensor:
    """Clears the lowest round(4 * level / 30) bits of every value."""
    cleared = (4 * level + BINS // 2) // (BINS - 1)
    mask = tf.bitwise.left_shift(tf.fill(tf.shape(level), 255), cleared) & 255
    return tf.bitwise.bitwise_and(images, tf.cast(_over_pixels(mask), tf.uint8))


def solarize(images: tf.Tensor, level: tf.Tensor) -> tf.Tensor:
    """Inverts the values from 255 * (1 - level / 30) on."""
    threshold = 255 - 8.5 * tf.cast(_over_pixels(level), tf.float32)
    return tf.where(tf.cast(images, tf.float32) >= threshold, 255 - images, images)


def autocontrast(images: tf.Tensor, level: tf.Tensor) -> tf.Tensor:
    """Stretches each channel so that its least value becomes 0 and its greatest 255."""
    del level
    pixels = tf.cast(images, tf.float32)
    least = tf.reduce_min(pixels, [1, 2], keepdims=True)
    span = tf.reduce_max(pixels, [1, 2], keepdims=True) - least
    # The half keeps a quotient that is a whole number from being cut to the one below it.
    stretched = (255 * (pixels - least) + 0.5) / tf.maximum(span, 1)
    return tf.where(span > 0, tf.cast(stretched, tf.uint8), images)


def equalize(images: tf.Tensor, level: tf.Tensor) -> tf.Tensor:
    """Spreads the values of each channel so that they occur about equally often.

    With h(v) pixels of value v and step = (pixels - h(greatest value)) // 255, v becomes
    (sum of h below v + step // 2) // step, at most 255; a channel whose step is 0 stays.
    """
    del level
    height, width, channels = images.shape[1:]
    pixels = tf.cast(images, tf.int32)
    # Every channel has 256 places of its own in one table an image.
    places = tf.reshape(pixels + 256 * tf.range(channels), [-1, height * width * channels])
    size = 256 * channels
    counts = tf.math.bincount(places, minlength=size, maxlength=size, axis=-1)
    counts = tf.reshape(counts, [-1, channels, 256])
    greatest = tf.gather(counts, tf.reduce_max(pixels, [1, 2]), batch_dims=2)
    step = ((height * width - greatest) // 255)[:, :, None]
    spread = (tf.cumsum(counts, axis=2, exclusive=True) + step // 2) // tf.maximum(step, 1)
    table = tf.where(step > 0, tf.minimum(spread, 255), tf.range(256))
    table = tf.reshape(tf.cast(table, tf.uint8), [-1, size])
    return tf.reshape(tf.gather(table, places, batch_dims=1), tf.shape(images))


OPERATIONS: tuple[Operation, ...] = (
    identity,
    shear_x,
    shear_y,
    translate_x,
    translate_y,
    rotate,
    brightness,
    color,
    contrast,
    sharpness,
    posterize,
    solarize,
    autocontrast,
    equalize,
)
"""All operations; a drawn number is a position in this order."""

SIGNED = (
    shear_x,
    shear_y,
    translate_x,
    translate_y,
    rotate,
    brightness,
    color,
    contrast,
    sharpness,
)
"""The operations that have two directions."""


def _over_pixels(values: tf.Tensor) -> tf.Tensor:
    """Returns one value per image in the shape (n, 1, 1, 1), which broadcasts over its pixels."""
    return values[:, None, None, None]


def _warped(images: tf.Tensor, matrix: list[tf.Tensor | float]) -> tf.Tensor:
    """Returns images whose pixels come from other positions; outside the image all is black.

    Args:
        images: uint8 (n, H, W, C).
        matrix: [a, b, c, d, e, f], each a number or (n,): the pixel at column x and row y comes
            from column a x + b y + c and row d x + e y + f, the nearest one.
    """
    count = tf.shape(images)[0]
    columns = [tf.broadcast_to(each, [count]) for each in [*matrix, 0.0, 0.0]]
    warped = tf.raw_ops.ImageProjectiveTransformV3(
        images=images,
        transforms=tf.stack(columns, 1),
        output_shape=images.shape[1:3],
        fill_value=0.0,
        interpolation="NEAREST",
        fill_mode="CONSTANT",
    )
    return tf.ensure_shape(warped, images.shape)


def _shift(level: tf.Tensor, size: int) -> tf.Tensor:
    """Returns the pixels to move by, float32 (n,), for images of ``size`` pixels along the axis."""
    pixels = 150 * size * tf.abs(level) // (331 * (BINS - 1))
    return tf.cast(tf.sign(level) * pixels, tf.float32)


def _gray(pixels: tf.Tensor) -> tf.Tensor:
    """Returns the gray values of float32 pixels of 1 or 3 channels, whole numbers (n, H, W, 1).

    0.299 red + 0.587 green + 0.114 blue in 65536ths, rounded.
    """
    if pixels.shape[3] == 1:
        return pixels
    return tf.floor((pixels @ [[19595.0], [38470.0], [7471.0]] + 32768) / 65536)


def _mixed(degenerate: tf.Tensor, pixels: tf.Tensor, level: tf.Tensor) -> tf.Tensor:
    """Returns degenerate + factor * (pixels - degenerate), cut to 0..255 and to whole numbers.

    The factor, 1 + 0.9 * level / 30, runs from 0.1 to 1.9. Arguments are float32 that hold whole
    numbers; the result is uint8.
    """
    weight = tf.cast(100 + 3 * _over_pixels(level), tf.float32)
    hundredfold = 100 * degenerate + weight * (pixels - degenerate)
    # The half keeps a whole number from being cut to the one below it.
    return tf.cast((tf.clip_by_value(hundredfold, 0, 25500) + 0.5) / 100, tf.uint8)
