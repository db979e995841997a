"""JPEG and PNG files to pixels, many at a time; a file that cannot be used is always named."""

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
    """What every decoded image must look like.

    Attributes:
        height: Rows.
        width: Columns.
        channels: 1 (grey) or 3 (RGB).
        resize: Whether images of another size are resized (bilinear, antialiased, the whole image
            whatever its proportions); otherwise they are refused.
        centre: Whether the middle is cut, in place of that, from the image resized so that its
            shorter side is 8/7 of the form's: 224 of 256, as ImageNet networks are evaluated.
    """

    height: int
    width: int
    channels: int
    resize: bool
    centre: bool = False

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
    """Returns a decoded image in the form wanted.

    Args:
        image: uint8 (h, w, C).
        form: What it must look like.

    Raises (when it runs):
        tf.errors.InvalidArgumentError: It has another size and may not be resized.
    """
    if form.centre:
        return tf.ensure_shape(_middle(image, form.height), form.shape)
    same = tf.reduce_all(tf.shape(image)[:2] == form.shape[:2])
    if form.resize:
        image = tf.cond(same, lambda: image, lambda: resized(image, form.shape[:2]))
    else:
        with tf.control_dependencies([tf.debugging.Assert(same, [tf.shape(image)])]):
            image = tf.identity(image)
    return tf.ensure_shape(image, form.shape)


def _middle(image: tf.Tensor, side: int) -> tf.Tensor:
    """Returns the middle of an image, (side, side, C); the longer side is rounded down."""
    shape = tf.shape(image)[:2]
    whole = shape * round(side * 8 / 7) // tf.reduce_min(shape)
    image = resized(image, whole)
    top, left = tf.unstack((whole - side) // 2)
    return image[top : top + side, left : left + side]


def uncut(contents: tf.Tensor) -> tf.Tensor:
    """Returns a JPEG file as it is; fails when it runs on one that was cut off, without an end.

    The decoder finds that out as well, but it also writes about it on stderr.
    """

    def has_marker() -> tf.Tensor:
        values = tf.io.decode_raw(contents, tf.uint8)
        return tf.reduce_any((values[:-1] == 0xFF) & (values[1:] == 0xD9))

    # Nearly all files end with the marker; it may also have something behind it.
    ends = tf.strings.substr(contents, -2, 2) == b"\xff\xd9"
    whole = tf.cond(ends, lambda: True, has_marker)
    with tf.control_dependencies([tf.debugging.Assert(whole, ["a JPEG without an end"])]):
        return tf.identity(contents)


def decode_as_it_is(contents: tf.Tensor, channels: int) -> tf.Tensor:
    """Decodes one file; the accurate transform gives the pixels that other libraries give.

    Args:
        contents: A JPEG or PNG file.
        channels: 1 or 3, or 0 for what is in the file.

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
    return fit(decode_as_it_is(contents, form.channels), form)


def _is_grey(contents: tf.Tensor) -> tf.Tensor:
    """Whether a JPEG or PNG file holds a grey image, from its header."""
    return tf.cond(
        tf.io.is_jpeg(contents),
        lambda: tf.image.extract_jpeg_shape(contents)[2] == 1,
        # Byte 25 of a PNG is its colour type: 0 grey, 4 grey with alpha.
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
        height, width, _ = decode_as_it_is(contents, channels=3).shape
        return height, width, 1 if bool(_is_grey(contents)) else 3
    except tf.errors.OpError:
        return None


def all_grey(paths: Sequence[str]) -> bool:
    """Returns whether every readable file of the list is grey."""
    grey = _files(paths).map(
        lambda _, path: _is_grey(tf.io.read_file(path)),
        num_parallel_calls=tf.data.AUTOTUNE,
    )
    return all(bool(each) for each in grey.ignore_errors().as_numpy_iterator())


def read_all(paths: Sequence[str], form: Form) -> tuple[np.ndarray, np.ndarray]:
    """Decodes files in parallel.

    Args:
        paths: The files.
        form: What the images must look like.

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
    """Yields chunks of the places of the files that can be decoded (and their images)."""

    def one(place: tf.Tensor, path: tf.Tensor) -> tuple[tf.Tensor, ...]:
        image = _decode(tf.io.read_file(path), form)
        if with_images:
            return place, image
        with tf.control_dependencies([image]):  # decoded all the same
            return (tf.identity(place),)

    # A file that fails is left out, so that the places that come back tell which ones were good.
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
        form: What the images must look like.
        draws: (B, ...), what `decode` is to know of each image.
        decode: Makes an image of contents, row of draws and form; None decodes it whole.

    Returns:
        uint8 (B, H, W, C).

    Raises (when it runs):
        tf.errors.InvalidArgumentError: A file could not be decoded in that form; the message names
            it, and `explain` turns it into a TfkdError.
    """
    batch = paths.shape[0]
    draws = tf.zeros([batch]) if draws is None else draws
    files = tf.data.Dataset.from_tensor_slices((tf.range(batch), paths, draws))

    def one(place: tf.Tensor, path: tf.Tensor, drawn: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        contents = tf.io.read_file(path)
        return place, decode(contents, drawn, form) if decode else _decode(contents, form)

    decoded = files.map(one)
    # The element at the end is there for batches of which no file can be read.
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
    """Returns what is wrong with a file that could not be decoded in the form wanted."""
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

    A streamed image is first decoded in the middle of a run, and what is wrong with it then comes
    out of TensorFlow as a long InvalidArgumentError.

    Args:
        error: What was raised while iterating.

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
