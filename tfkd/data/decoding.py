"""Decoding of JPEG and PNG files, many at a time; errors name the file."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import tensorflow as tf

from tfkd.errors import TfkdError

_CHUNK = 256
_MARK = "unusable image file "


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
    def bytes(self) -> int:
        """Size of one decoded image."""
        return self.height * self.width * self.channels


def resized(images: tf.Tensor, size: tuple[int, int]) -> tf.Tensor:
    """Returns uint8 images, (h, w, C) or (B, h, w, C), in the size (height, width)."""
    scaled = tf.image.resize(tf.cast(images, tf.float32), size, antialias=True)
    return tf.cast(tf.clip_by_value(tf.round(scaled), 0, 255), tf.uint8)


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
    """Decodes one file in its own size, with the accurate transform of other libraries.

    Args:
        contents: A JPEG or PNG file.
        channels: 1 or 3, or 0 for those of the file.

    Returns:
        uint8 (h, w, C).

    Raises (when it runs):
        tf.errors.InvalidArgumentError: It cannot be decoded.
    """
    contents = tf.cond(tf.io.is_jpeg(contents), lambda: uncut(contents), lambda: contents)
    return tf.io.decode_jpeg(  # by content; takes PNG too
        contents, channels=channels, dct_method="INTEGER_ACCURATE"
    )


def _decode(contents: tf.Tensor, form: Form) -> tf.Tensor:
    return fit(decode_whole(contents, form.channels), form)


def _is_gray(contents: tf.Tensor) -> tf.Tensor:
    """Whether a JPEG or PNG file holds a gray image, from its header."""
    return tf.cond(
        tf.io.is_jpeg(contents),
        lambda: tf.image.extract_jpeg_shape(contents)[2] == 1,
        # Byte 25 of a PNG is its color type: 0 gray, 4 gray with alpha.
        lambda: tf.reduce_any(tf.strings.substr(contents, 25, 1) == [b"\x00", b"\x04"]),
    )


def _files(paths: Sequence[str]) -> tf.data.Dataset:
    return tf.data.Dataset.from_tensor_slices(
        (np.arange(len(paths), dtype=np.int32), np.asarray(paths, dtype=object))
    )


def native_shape(path: str) -> tuple[int, int, int] | None:
    """Returns (height, width, channels) of an image file, or None if it cannot be decoded."""
    try:
        contents = tf.io.read_file(path)
        height, width, _ = decode_whole(contents, channels=3).shape
        return height, width, 1 if bool(_is_gray(contents)) else 3
    except tf.errors.OpError:
        return None


def all_gray(paths: Sequence[str]) -> bool:
    """Whether every readable file of the list is gray."""
    gray = _files(paths).map(
        lambda _, path: _is_gray(tf.io.read_file(path)),
        num_parallel_calls=tf.data.AUTOTUNE,
    )
    return all(bool(each) for each in gray.ignore_errors().as_numpy_iterator())


def read_all(paths: Sequence[str], form: Form) -> tuple[np.ndarray, np.ndarray]:
    """Decodes files in parallel.

    Args:
        paths: The files.
        form: Size and channels of the images.

    Returns:
        (images, read): uint8 (len(paths), H, W, C), and bool (len(paths),), False where a file
        could not be decoded in that form (its image is then black).
    """
    images = np.zeros((len(paths), *form.shape), np.uint8)
    read = np.zeros(len(paths), bool)
    for places, chunk in _decoded(paths, form, with_images=True):
        images[places] = chunk
        read[places] = True
    return images, read


def readable(paths: Sequence[str], form: Form) -> np.ndarray:
    """Returns bool (len(paths),): which files can be decoded in that form; keeps no image."""
    read = np.zeros(len(paths), bool)
    for (places,) in _decoded(paths, form, with_images=False):
        read[places] = True
    return read


def _decoded(paths: Sequence[str], form: Form, with_images: bool) -> Iterator[tuple]:
    """Yields chunks of the places of the files that can be decoded (and of their images)."""

    def one(place: tf.Tensor, path: tf.Tensor) -> tuple[tf.Tensor, ...]:
        image = _decode(tf.io.read_file(path), form)
        if with_images:
            return place, image
        with tf.control_dependencies([image]):  # decoded all the same
            return (tf.identity(place),)

    # A file that fails is left out: the places that come back are those of good files.
    return (
        _files(paths)
        .map(one, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        .ignore_errors()
        .batch(_CHUNK)
        .prefetch(tf.data.AUTOTUNE)
        .as_numpy_iterator()
    )


def read_batch(
    paths: tf.Tensor,
    form: Form,
    draws: tf.Tensor | None = None,
    decode: Callable[[tf.Tensor, tf.Tensor, Form], tf.Tensor] | None = None,
) -> tf.Tensor:
    """Decodes a batch of files inside a graph.

    Args:
        paths: Strings (B,).
        form: Size and channels of the images.
        draws: (B, ...), an argument of ``decode`` for each image.
        decode: Makes an image of contents, row of draws and form; None decodes it whole.

    Returns:
        uint8 (B, H, W, C).

    Raises (when it runs):
        tf.errors.InvalidArgumentError: A file could not be decoded in that form; the message names
            it, and ``explain`` turns it into a TfkdError.
    """
    batch = paths.shape[0]
    draws = tf.zeros([batch]) if draws is None else draws
    files = tf.data.Dataset.from_tensor_slices((tf.range(batch), paths, draws))

    def one(place: tf.Tensor, path: tf.Tensor, drawn: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        contents = tf.io.read_file(path)
        return place, decode(contents, drawn, form) if decode else _decode(contents, form)

    decoded = files.map(one)
    # The last element serves batches of which no file can be read.
    last = tf.data.Dataset.from_tensors((batch, tf.zeros(form.shape, tf.uint8)))
    decoded = decoded.ignore_errors().concatenate(last).batch(batch + 1)
    places, images = decoded.get_single_element()
    missing = tf.ones([batch + 1], tf.bool)
    missing = tf.tensor_scatter_nd_update(missing, places[:, None], tf.zeros_like(places, tf.bool))
    bad = tf.boolean_mask(paths, missing[:-1])
    message = tf.strings.join([_MARK, "<", tf.strings.reduce_join(bad[:1]), ">"])
    with tf.control_dependencies([tf.debugging.Assert(tf.size(bad) == 0, [message])]):
        return tf.ensure_shape(images[:-1], [batch, *form.shape])


def problem(path: str, form: Form) -> str:
    """Returns the line about a file that could not be decoded in a form."""
    found = native_shape(path)
    if found is None:
        return f"{path}: cannot be decoded, wanted a whole JPEG or PNG image"
    height, width, _ = found
    if (height, width) != (form.height, form.width):
        return (
            f"{path}: found an image of {height} x {width} pixels, wanted {form.height} x "
            f"{form.width} as the others have; set image_size to resize them all"
        )
    return f"{path}: cannot be decoded with {form.channels} channels"


def explain(error: BaseException) -> TfkdError | None:
    """Returns the one-line error behind a failure of a streamed input pipeline.

    A streamed image is first decoded in the middle of a run, where TensorFlow reports a bad one by
    a long InvalidArgumentError.

    Args:
        error: The error that iterating raised.

    Returns:
        A TfkdError that names the image file, or None if the failure is another one.
    """
    found = re.search(re.escape(_MARK) + "<(.*?)>", str(error), re.DOTALL)
    if found is None:
        return None
    path = found.group(1)
    shape = native_shape(path)
    if shape is None:
        return TfkdError(f"{path}: cannot be decoded, wanted a whole JPEG or PNG image")
    return TfkdError(
        f"{path}: found an image of {shape[0]} x {shape[1]} pixels with {shape[2]} channels, "
        f"wanted the form of the first training image; set image_size to resize them all"
    )
