"""Decoding of image files.

The kind of a file is decided by its content. JPEG and PNG are decoded as ever by TensorFlow's
``decode_jpeg`` with the accurate transform; of 16 bits a channel the upper 8 are kept. WebP, BMP
and GIF (the first frame) have three channels; animated WebP is refused. Transparency is left out:
the colors beneath show, and in a GIF black. Images that are stored turned or mirrored are made
upright where their orientation is given.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import tensorflow as tf
from tqdm import tqdm

CROPS = CENTER, WHOLE = "center", "whole"
"""How images of any size become images of one: the middle of the resized image, or the whole image
whatever its proportions."""

_CHUNK = 256


@dataclasses.dataclass(frozen=True)
class Form:
    """Size and channels of every decoded image.

    Attributes:
        height: Rows.
        width: Columns.
        channels: 1 (gray) or 3 (RGB).
        resize: Whether images of another size are resized (bilinear, antialiased, the whole image
            whatever its proportions); otherwise they are refused.
        center: Whether images are resized to a shorter side of 8/7 of the height instead, and the
            center is cropped: 224 of 256, as ImageNet networks are evaluated.
    """

    height: int
    width: int
    channels: int
    resize: bool
    center: bool = False

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.height, self.width, self.channels

    @property
    def crop(self) -> str | None:
        """One of ``CROPS``; None for images that are not resized."""
        return CENTER if self.center else WHOLE if self.resize else None

    @property
    def bytes(self) -> int:
        """Size of one decoded image."""
        return self.height * self.width * self.channels


def resized(images: tf.Tensor, size: tuple[int, int], antialias: bool = True) -> tf.Tensor:
    """Returns uint8 images, (h, w, C) or (B, h, w, C), in the size (height, width); bilinear."""
    scaled = tf.image.resize(images, size, antialias=antialias)
    # In one pass: cut to 0..255, rounded half to even, and cast.
    whole = tf.raw_ops.QuantizeV2(
        input=scaled,
        min_range=0.0,
        max_range=255.0,
        T=tf.quint8,
        mode="SCALED",
        round_mode="HALF_TO_EVEN",
    )
    return tf.bitcast(whole.output, tf.uint8)


def fit(image: tf.Tensor, form: Form) -> tf.Tensor:
    """Returns a decoded image in a form.

    Args:
        image: uint8 (h, w, C).
        form: The form.

    Raises (when it runs):
        tf.errors.InvalidArgumentError: It has another size and may not be resized.
    """
    if form.center:
        return tf.ensure_shape(_center(image, form.height), form.shape)
    same = tf.reduce_all(tf.shape(image)[:2] == form.shape[:2])
    if form.resize:
        image = tf.cond(same, lambda: image, lambda: resized(image, form.shape[:2]))
    else:
        with tf.control_dependencies([tf.debugging.Assert(same, [tf.shape(image)])]):
            image = tf.identity(image)
    return tf.ensure_shape(image, form.shape)


def _center(image: tf.Tensor, side: int) -> tf.Tensor:
    """Returns the center of an image, (side, side, C); the longer side is rounded down."""
    shape = tf.shape(image)[:2]
    whole = shape * round(side * 8 / 7) // tf.reduce_min(shape)
    image = resized(image, whole)
    top, left = tf.unstack((whole - side) // 2)
    return image[top : top + side, left : left + side]


def uncut(contents: tf.Tensor) -> tf.Tensor:
    """Returns a JPEG file unchanged; fails, when it runs, on a truncated one.

    The decoder fails on it as well, but also writes to stderr.
    """

    def has_marker() -> tf.Tensor:
        values = tf.io.decode_raw(contents, tf.uint8)
        return tf.reduce_any((values[:-1] == 0xFF) & (values[1:] == 0xD9))

    # Nearly all files end with the marker; a few have more bytes after it.
    ends = tf.strings.substr(contents, -2, 2) == b"\xff\xd9"
    whole = tf.cond(ends, lambda: True, has_marker)
    with tf.control_dependencies([tf.debugging.Assert(whole, ["a JPEG without an end"])]):
        return tf.identity(contents)


def decode_whole(contents: tf.Tensor, channels: int) -> tf.Tensor:
    """Decodes one file as it is stored and in its own size.

    Args:
        contents: A JPEG, PNG, WebP, BMP or GIF file.
        channels: 1 or 3; 1 for JPEG and PNG only.

    Returns:
        uint8 (h, w, channels).

    Raises (when it runs):
        tf.errors.InvalidArgumentError: It cannot be decoded.
    """

    def decoded(sound: tf.Tensor) -> tf.Tensor:
        return tf.io.decode_jpeg(  # takes PNG too
            sound, channels=channels, dct_method="INTEGER_ACCURATE"
        )

    def others() -> tf.Tensor:
        if channels != 3:
            with tf.control_dependencies([tf.debugging.Assert(False, ["has three channels"])]):
                return tf.zeros([1, 1, channels], tf.uint8)
        is_bmp = tf.strings.substr(contents, 0, 2) == b"BM"
        return tf.cond(is_bmp, lambda: _decode_bmp(contents), lambda: _decode_frame(contents))

    is_png = tf.strings.substr(contents, 0, 4) == b"\x89PNG"
    kind = tf.where(tf.io.is_jpeg(contents), 0, tf.where(is_png, 1, 2))
    # One choice among three costs less than nested ones, which small images feel.
    return tf.switch_case(
        kind, [lambda: decoded(uncut(contents)), lambda: decoded(contents), others]
    )


def _decode_frame(contents: tf.Tensor) -> tf.Tensor:
    """Returns a WebP image or the first frame of a GIF, uint8 (h, w, 3).

    TensorFlow 2.21 writes beyond its memory on animated WebP files, whatever is asked of it: none
    may reach it.
    """

    def is_animated() -> tf.Tensor:
        flags = tf.io.decode_raw(tf.strings.substr(contents, 20, 1), tf.uint8)[0]
        return (tf.strings.substr(contents, 12, 4) == b"VP8X") & (flags & 2 > 0)

    is_webp = tf.strings.substr(contents, 0, 4) == b"RIFF"
    still = ~tf.cond(is_webp, is_animated, lambda: False)
    with tf.control_dependencies([tf.debugging.Assert(still, ["an animated WebP image"])]):
        return tf.io.decode_image(tf.identity(contents), expand_animations=False)[..., :3]


def _decode_bmp(contents: tf.Tensor) -> tf.Tensor:
    """Returns a BMP image of 8, 24 or 32 bits, uint8 (h, w, 3)."""
    stored = tf.io.decode_bmp(contents)

    def looked_up() -> tf.Tensor:
        # The decoder returns the places in the table of colors (blue, green, red, unused), which
        # lies behind both headers; the second one begins with its size.
        start = 14 + tf.io.decode_raw(tf.strings.substr(contents, 14, 4), tf.int32)[0]
        table = tf.io.decode_raw(tf.strings.substr(contents, start, 1024), tf.uint8)
        table = tf.reshape(table[: tf.size(table) // 4 * 4], [-1, 4])[:, 2::-1]
        return tf.gather(table, tf.cast(stored[..., 0], tf.int32))

    return tf.cond(tf.shape(stored)[2] == 1, looked_up, lambda: stored[..., :3])


def upright(image: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Returns an image as it is to be seen.

    Args:
        image: (h, w, C), as it is stored.
        orientation: int32 scalar, 1 to 8 as EXIF numbers them.
    """
    on_side, upside_down, mirrored = _turns(orientation)
    image = tf.cond(on_side, lambda: tf.transpose(image, [1, 0, 2]), lambda: image)
    image = tf.cond(upside_down, lambda: tf.reverse(image, [0]), lambda: image)
    return tf.cond(mirrored, lambda: tf.reverse(image, [1]), lambda: image)


def stored_window(
    window: tf.Tensor, orientation: tf.Tensor, height: tf.Tensor, width: tf.Tensor
) -> tf.Tensor:
    """Returns where a rectangle of the upright image lies in the stored one.

    Args:
        window: int32 (..., 4): first row, first column, rows, columns.
        orientation: int32 (...), 1 to 8.
        height: Rows of the upright image, int32 (...).
        width: Columns of the upright image.
    """
    on_side, upside_down, mirrored = _turns(orientation)
    top, left, rows, columns = tf.unstack(window, axis=-1)
    top = tf.where(upside_down, height - top - rows, top)
    left = tf.where(mirrored, width - left - columns, left)
    turned = tf.stack([left, top, columns, rows], -1)
    return tf.where(on_side[..., None], turned, tf.stack([top, left, rows, columns], -1))


def _turns(orientation: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Returns whether rows and columns change places, and whether rows, columns are reversed."""
    return tuple(
        tf.reduce_any(orientation[..., None] == numbers, -1)
        for numbers in ([5, 6, 7, 8], [3, 4, 7, 8], [2, 3, 6, 7])
    )


def decode(contents: tf.Tensor, form: Form, orientation: tf.Tensor | None = None) -> tf.Tensor:
    """Returns the image of one file in a form.

    Args:
        contents: A file, as for ``decode_whole``.
        form: The form.
        orientation: int32 scalar, see ``upright``; None for an upright image.

    Raises (when it runs):
        tf.errors.InvalidArgumentError: It cannot be decoded, or not in that form.
    """
    image = decode_whole(contents, form.channels)
    return fit(image if orientation is None else upright(image, orientation), form)


def read_all(
    paths: Sequence[str], form: Form, orientations: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Decodes files in parallel.

    Args:
        paths: The files.
        form: Size and channels of the images.
        orientations: Integers (len(paths),), see ``upright``; None if all are upright.

    Returns:
        (images, read): uint8 (len(paths), H, W, C), and bool (len(paths),), False where a file
        could not be decoded in that form (its image is then black).
    """
    images = np.zeros((len(paths), *form.shape), np.uint8)
    read = np.zeros(len(paths), bool)
    for places, chunk in read_chunks(paths, form, orientations, _CHUNK):
        images[places] = chunk
        read[places] = True
    return images, read


def read_chunks(
    paths: Sequence[str], form: Form, orientations: np.ndarray | None = None, size: int = 64
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields the images of files, decoded in parallel; arguments as for ``read_all``.

    Yields:
        (places, images): int32 (n,), the positions of files, and uint8 (n, H, W, C), with at most
        ``size`` images. Files that could not be decoded in that form are left out.
    """
    turned = orientations is not None
    if not turned:
        orientations = np.ones(len(paths), np.int32)

    def one(contents: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
        return decode(contents, form, orientation if turned else None)

    decoded = _each(paths, orientations, one).prefetch(2 * size)
    yield from decoded.batch(size).as_numpy_iterator()


def decodable(paths: Sequence[str]) -> np.ndarray:
    """Returns bool (len(paths),): which files can be decoded whole; keeps no image."""

    def one(contents: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
        del orientation
        # A value of the pixels: an image that nothing depends on would not be decoded at all.
        return tf.reduce_max(decode_whole(contents, channels=3))

    read = np.zeros(len(paths), bool)
    ones = np.ones(len(paths), np.int32)
    bar = tqdm(total=len(paths), desc="decoding", unit=" images", disable=None, leave=False)
    with bar:
        decoded = _each(paths, ones, one).prefetch(2 * _CHUNK)
        for places, _ in decoded.batch(_CHUNK).as_numpy_iterator():
            read[places] = True
            bar.update(len(places))
    return read


def _each(
    paths: Sequence[str],
    orientations: np.ndarray,
    decode: Callable[[tf.Tensor, tf.Tensor], tf.Tensor],
) -> tf.data.Dataset:
    """Returns the places of the files that ``decode`` can decode, and what it returned."""
    files = tf.data.Dataset.from_tensor_slices(
        (
            np.arange(len(paths), dtype=np.int32),
            np.asarray(paths, dtype=object),
            np.asarray(orientations, np.int32),
        )
    )

    def one(place: tf.Tensor, path: tf.Tensor, orientation: tf.Tensor) -> tuple[tf.Tensor, ...]:
        return place, decode(tf.io.read_file(path), orientation)

    # A file that fails is left out: the places that come back are those of good files.
    good = files.map(one, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    return good.ignore_errors()
