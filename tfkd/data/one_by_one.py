"""Batches of images that are made one by one inside a graph; a failure names the image."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import tensorflow as tf

from tfkd.data import headers
from tfkd.data.decoding import Form, decodable
from tfkd.errors import TfkdError

_MARK = "unusable image file "
_RECORD = "record "


def each_of(
    make: Callable[..., tf.Tensor],
    rows: Sequence[tf.Tensor],
    names: tf.Tensor,
    form: Form,
    filler: tf.Tensor | None = None,
) -> tf.Tensor:
    """Makes the images of a batch inside a graph, one by one.

    Args:
        make: Makes an image, uint8 (H, W, C), of its row of each of ``rows``.
        rows: Tensors (B, ...).
        names: Strings (B,), what each image is called if it cannot be made, such as its file.
        form: Size and channels of the images.
        filler: Any value of the kind that ``make`` makes, where that is no image.

    Returns:
        uint8 (B, H, W, C), or (B, ...) like ``filler``.

    Raises (when it runs):
        tf.errors.InvalidArgumentError: An image could not be made; the message names it, and
            ``explain`` turns it into a TfkdError.
    """
    numbered = tf.data.Dataset.from_tensor_slices((tf.range(tf.shape(names)[0]), *rows))
    made = numbered.map(lambda place, *row: (place, make(*row)))
    filler = tf.zeros(form.shape, tf.uint8) if filler is None else filler
    return all_of(made, names, filler, form)


def all_of(found: tf.data.Dataset, names: tf.Tensor, filler: tf.Tensor, form: Form) -> tf.Tensor:
    """Returns all elements of a data set as a batch, unless one of them fails; inside a graph.

    Args:
        found: Yields pairs (place, value), place being 0, 1, ... B - 1.
        names: Strings (B,), what each is called if it fails.
        filler: Any value of that kind.
        form: Size and channels of the images that are to be made.

    Raises (when it runs):
        tf.errors.InvalidArgumentError: As ``each_of``.
    """
    batch = tf.shape(names)[0]
    # The last element serves batches of which all fail.
    last = tf.data.Dataset.from_tensors((batch, filler))
    found = found.ignore_errors().concatenate(last).batch(tf.cast(batch + 1, tf.int64))
    places, values = found.get_single_element()
    missing = tf.ones([batch + 1], tf.bool)
    missing = tf.tensor_scatter_nd_update(missing, places[:, None], tf.zeros_like(places, tf.bool))
    values = checked(values[:-1], ~missing[:-1], names, form)
    return tf.ensure_shape(values, [names.shape[0], *filler.shape])


def checked(values: tf.Tensor, sound: tf.Tensor, names: tf.Tensor, form: Form) -> tf.Tensor:
    """Returns the values of a batch, unless one of its rows is not sound; inside a graph.

    Args:
        values: Tensor (B, ...).
        sound: Booleans (B,).
        names: As for ``all_of``.
        form: Likewise.

    Raises (when it runs):
        tf.errors.InvalidArgumentError: As ``each_of``.
    """
    bad = tf.boolean_mask(names, ~sound)
    wanted = f"> {form.height} x {form.width} x {form.channels} resize {form.resize:d}"
    message = tf.strings.join([_MARK, "<", tf.strings.reduce_join(bad[:1]), wanted])
    with tf.control_dependencies([tf.debugging.Assert(tf.size(bad) == 0, [message])]):
        return tf.identity(values)


def record_names(paths: tf.Tensor, numbers: tf.Tensor) -> tf.Tensor:
    """Returns what records are called, strings (B,), as ``explain`` knows them.

    Args:
        paths: Strings (B,), their files.
        numbers: Integers (B,), their positions there.
    """
    return tf.strings.join([_RECORD, tf.strings.as_string(numbers), " of ", paths])


def damaged(path: str, number: int) -> TfkdError:
    """Returns the error about a record by its file and its position there."""
    return TfkdError(
        f"{_RECORD}{number} of {path}: cannot be decoded, found a damaged record or image, wanted "
        f"{headers.WANTED}"
    )


def problem(path: str, form: Form) -> str:
    """Returns the line about a file that could not be decoded in a form."""
    try:
        header = headers.read(path)
    except headers.Unreadable as error:
        return f"{path}: cannot be decoded, found {error}, wanted {headers.WANTED}"
    if not decodable([path])[0]:
        return f"{path}: cannot be decoded, found a damaged image, wanted {headers.WANTED}"
    if (header.height, header.width) != (form.height, form.width) and not form.resize:
        return (
            f"{path}: found an image of {header.height} x {header.width} pixels, wanted "
            f"{form.height} x {form.width} as the others have; set image_size to resize them all"
        )
    return f"{path}: cannot be decoded with {form.channels} channels"


def explain(error: BaseException) -> TfkdError | None:
    """Returns the one-line error behind a failure of a streamed input pipeline.

    A streamed image is first decoded in the middle of a run, where TensorFlow reports a bad one by
    a long InvalidArgumentError.

    Args:
        error: The error that iterating raised.

    Returns:
        A TfkdError that names the image file or record, or None if the failure is another one.
    """
    found = re.search(
        re.escape(_MARK) + r"<(.*?)> (\d+) x (\d+) x (\d+) resize (\d)", str(error), re.DOTALL
    )
    if found is None:
        return None
    path, *form = found.groups()
    record = re.fullmatch(rf"{_RECORD}(\d+) of (.*)", path, re.DOTALL)
    if record is not None:
        return damaged(record[2], int(record[1]))
    height, width, channels, resize = map(int, form)
    return TfkdError(problem(path, Form(height, width, channels, bool(resize))))
