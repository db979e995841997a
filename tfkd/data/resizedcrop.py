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

_REGISTER = 16
"""Numbers in the widest register of a processor, of which narrower ones hold a whole fraction."""


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


def windows(draws: tf.Tensor, height: tf.Tensor, width: tf.Tensor) -> tf.Tensor:
    """Returns the rectangles to cut from some images.

    Args:
        draws: float32 (b, 1 + 4 * ATTEMPTS), as ``draw`` gives them.
        height: Rows of each image, int32 (b,).
        width: Columns of each image.

    Returns:
        int32 (b, 4): first row, first column, rows, columns.
    """
    # Processors compute several numbers at once and what is left over one by one, which may round
    # otherwise: a whole register for each image, so that its rectangle does not depend on others.
    attempts = tf.reshape(draws[:, 1:], [-1, ATTEMPTS, 4])
    attempts = tf.pad(attempts, [[0, 0], [0, _REGISTER - ATTEMPTS], [0, 0]])
    area, shape, row, column = tf.unstack(attempts, axis=2)
    high, wide = tf.cast(height, tf.float32), tf.cast(width, tf.float32)
    area = (high * wide)[:, None] * (SMALLEST_AREA + (1 - SMALLEST_AREA) * area)
    least, most = ASPECTS
    aspect = tf.exp(math.log(least) + math.log(most / least) * shape)
    rows, columns = tf.round(tf.sqrt(area / aspect)), tf.round(tf.sqrt(area * aspect))
    fits = (rows >= 1) & (rows <= high[:, None]) & (columns >= 1) & (columns <= wide[:, None])
    fits &= tf.range(_REGISTER) < ATTEMPTS
    first = tf.argmax(fits, axis=1, output_type=tf.int32)
    row, column, rows, columns = (
        tf.gather(each, first, batch_dims=1) for each in (row, column, rows, columns)
    )
    whole, size = tf.stack([high, wide], 1), tf.stack([rows, columns], 1)
    offset = tf.floor(tf.stack([row, column], 1) * (whole - size + 1))
    drawn = tf.concat([tf.minimum(offset, whole - size), size], 1)
    size = tf.stack(
        [tf.minimum(high, tf.round(wide / least)), tf.minimum(wide, tf.round(high * most))], 1
    )
    middle = tf.concat([tf.floor((whole - size) / 2), size], 1)
    return tf.cast(tf.where(tf.reduce_any(fits, 1)[:, None], drawn, middle), tf.int32)


def stored_windows(
    draws: tf.Tensor, height: tf.Tensor, width: tf.Tensor, orientation: tf.Tensor | None
) -> tf.Tensor:
    """Returns where the rectangles lie in the images as they are stored; else as ``windows``.

    Args:
        draws: Likewise.
        height: Rows of each upright image.
        width: Columns of each upright image.
        orientation: int32 (b,), see ``decoding.upright``; None if all are upright.
    """
    found = windows(draws, height, width)
    return found if orientation is None else stored_window(found, orientation, height, width)


def jpeg_size(contents: tf.Tensor) -> tf.Tensor:
    """Returns height and width of an encoded image, int32 (2,), of one that is no JPEG zeros."""
    return tf.cond(
        tf.io.is_jpeg(contents),
        lambda: tf.image.extract_jpeg_shape(contents)[:2],
        lambda: tf.zeros([2], tf.int32),
    )


def decode(
    contents: tf.Tensor,
    draws: tf.Tensor,
    form: Form,
    *,
    fast: bool = False,
    orientation: tf.Tensor | None = None,
    jpeg_window: tf.Tensor | None = None,
) -> tf.Tensor:
    """Returns the crop of one encoded image.

    Args:
        contents: An image file.
        draws: One row of ``draw``.
        form: Size and channels of the crop.
        fast: Whether JPEG is decoded by the fast transform, and resized without antialiasing.
        orientation: int32 scalar, see ``decoding.upright``; None for an upright image. The
            rectangle lies in the upright image.
        jpeg_window: One row of ``stored_windows``, if the size of the image is known and if it is a
            JPEG; otherwise it does not count.

    Returns:
        uint8 (H, W, C).

    Raises (when it runs):
        tf.errors.InvalidArgumentError: The file cannot be decoded.
    """

    def window(height: tf.Tensor, width: tf.Tensor) -> tf.Tensor:
        """Returns the rectangle in a stored image of that size."""
        if orientation is None:
            return windows(draws[None], height[None], width[None])[0]
        high = tf.where(orientation > 4, width, height)
        wide = tf.where(orientation > 4, height, width)
        return stored_windows(draws[None], high[None], wide[None], orientation[None])[0]

    def part_of_jpeg() -> tf.Tensor:
        sound = uncut(contents)
        return tf.image.decode_and_crop_jpeg(
            sound,
            window(*tf.unstack(tf.image.extract_jpeg_shape(sound)[:2]))
            if jpeg_window is None
            else jpeg_window,
            channels=form.channels,
            dct_method="INTEGER_FAST" if fast else "INTEGER_ACCURATE",
        )

    def part_of_another() -> tf.Tensor:
        image = decode_whole(contents, form.channels)
        top, left, rows, columns = tf.unstack(window(tf.shape(image)[0], tf.shape(image)[1]))
        return image[top : top + rows, left : left + columns]

    part = tf.cond(tf.io.is_jpeg(contents), part_of_jpeg, part_of_another)
    if orientation is not None:
        part = upright(part, orientation)
    crop = resized(part, form.shape[:2], antialias=not fast)
    # Reversing is many times as fast as a slice with a step of -1.
    crop = tf.cond(draws[0] < 0.5, lambda: tf.reverse(crop, [1]), lambda: crop)
    return tf.ensure_shape(crop, form.shape)
