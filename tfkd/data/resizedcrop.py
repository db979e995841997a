"""ImageNet's random crops: a random rectangle of an image, resized.

A rectangle of 8 to 100 % of the image's area (uniform) and of a width that is 3/4 to 4/3 of its
height (uniform in the logarithm), anywhere inside the image, is resized to the size of the crop
and mirrored with probability 1/2. Christian Szegedy et al., "Going Deeper with Convolutions", CVPR
2015, section 6, arXiv 1409.4842; the mirror image as in Krizhevsky et al., NIPS 2012.

A rectangle that does not fit is drawn again, ten times in all; then the largest one of an allowed
shape in the middle is taken. The draw depends on (seed, view, epoch, index) alone. Of a JPEG, only
the rectangle is decoded.
"""

from __future__ import annotations

import math

import tensorflow as tf

from tfkd.data import randomness
from tfkd.data.decoding import Form, decode_whole, resized, stored_window, uncut, upright

SMALLEST_AREA = 0.08
ASPECTS = (3 / 4, 4 / 3)
ATTEMPTS = 10


def draw(seed: int, stream: str, epoch: tf.Tensor | int, index: tf.Tensor) -> tf.Tensor:
    """Draws the random numbers of the crops of some examples in one epoch.

    Args:
        seed: Seed of the data set.
        stream: Name of the view; views of other names are independent.
        epoch: Integer scalar.
        index: int32 (b,), positions in the un-shuffled training set.

    Returns:
        float32 (b, 1 + 4 * ATTEMPTS), uniform in [0, 1): whether to mirror; then for each attempt
        area, shape, row and column.
    """
    bits = randomness.example_bits(seed, f"{stream} resized", epoch, index, 1 + 4 * ATTEMPTS)
    # A float32 holds 24 bits exactly: nothing is rounded up to 1.
    whole = tf.bitwise.right_shift(tf.bitcast(bits, tf.uint32), tf.constant(8, tf.uint32))
    return tf.cast(whole, tf.float32) * 2.0**-24


def window(draws: tf.Tensor, height: tf.Tensor, width: tf.Tensor) -> tf.Tensor:
    """Returns the rectangle to cut from one image.

    Args:
        draws: float32 (1 + 4 * ATTEMPTS,), one row of ``draw``.
        height: Rows of the image, int32 scalar.
        width: Columns of the image.

    Returns:
        int32 (4,): first row, first column, rows, columns.
    """
    area, shape, row, column = tf.unstack(tf.reshape(draws[1:], [ATTEMPTS, 4]), axis=1)
    high, wide = tf.cast(height, tf.float32), tf.cast(width, tf.float32)
    area = high * wide * (SMALLEST_AREA + (1 - SMALLEST_AREA) * area)
    least, most = ASPECTS
    aspect = tf.exp(math.log(least) + math.log(most / least) * shape)
    rows, columns = tf.round(tf.sqrt(area / aspect)), tf.round(tf.sqrt(area * aspect))
    fits = (rows >= 1) & (rows <= high) & (columns >= 1) & (columns <= wide)
    first = tf.argmax(fits, output_type=tf.int32)

    def drawn() -> tf.Tensor:
        size = tf.stack([rows[first], columns[first]])
        room = tf.stack([high, wide]) - size
        offset = tf.floor(tf.stack([row[first], column[first]]) * (room + 1))
        return tf.concat([tf.minimum(offset, room), size], 0)

    def middle() -> tf.Tensor:
        size = tf.stack(
            [tf.minimum(high, tf.round(wide / least)), tf.minimum(wide, tf.round(high * most))]
        )
        return tf.concat([tf.floor((tf.stack([high, wide]) - size) / 2), size], 0)

    return tf.cast(tf.cond(tf.reduce_any(fits), drawn, middle), tf.int32)


def decode(
    contents: tf.Tensor, draws: tf.Tensor, form: Form, orientation: tf.Tensor | None = None
) -> tf.Tensor:
    """Returns the crop of one encoded image.

    Args:
        contents: An image file.
        draws: One row of ``draw``.
        form: Size and channels of the crop.
        orientation: int32 scalar, see ``decoding.upright``; None for an upright image. The
            rectangle lies in the upright image.

    Returns:
        uint8 (H, W, C).

    Raises (when it runs):
        tf.errors.InvalidArgumentError: The file cannot be decoded.
    """

    def stored(height: tf.Tensor, width: tf.Tensor) -> tf.Tensor:
        """Returns the rectangle in a stored image of that size."""
        if orientation is None:
            return window(draws, height, width)
        high = tf.where(orientation > 4, width, height)
        wide = tf.where(orientation > 4, height, width)
        return stored_window(window(draws, high, wide), orientation, high, wide)

    def part_of_jpeg() -> tf.Tensor:
        sound = uncut(contents)
        shape = tf.image.extract_jpeg_shape(sound)
        return tf.image.decode_and_crop_jpeg(
            sound,
            stored(shape[0], shape[1]),
            channels=form.channels,
            dct_method="INTEGER_ACCURATE",
        )

    def part_of_another() -> tf.Tensor:
        image = decode_whole(contents, form.channels)
        top, left, rows, columns = tf.unstack(stored(tf.shape(image)[0], tf.shape(image)[1]))
        return image[top : top + rows, left : left + columns]

    part = tf.cond(tf.io.is_jpeg(contents), part_of_jpeg, part_of_another)
    if orientation is not None:
        part = upright(part, orientation)
    crop = resized(part, form.shape[:2])
    crop = tf.cond(draws[0] < 0.5, lambda: crop[:, ::-1], lambda: crop)
    return tf.ensure_shape(crop, form.shape)
