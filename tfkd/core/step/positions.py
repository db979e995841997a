"""Whether the positions that a batch gives its images are those of the training set.

Methods with a bank or a memory read and write rows by these positions. One beyond the last row is
an error of many lines on processors, and on GPUs nothing at all: what is read is 0, what is written
is lost. Images in another order than the labels of the training set have negatives of their class.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from tfkd.errors import TfkdError


class Positions:
    """The positions of the training set, and the labels there.

    Args:
        size: Number of training images; ``None`` where it is not known.
        labels: Their class numbers, ``(size,)``; ``None`` where nobody asked for them.
    """

    def __init__(self, size: int | None, labels: np.ndarray | None) -> None:
        self._size = len(labels) if size is None and labels is not None else size
        self._labels = None if labels is None else tf.constant(labels, tf.int32)
        there = "positions from 0 on" if self._size is None else f"0 to {self._size - 1}"
        self.told = (
            f"index: found {{count}} image(s) of a batch beyond the training set, wanted {there} "
            "(train_size)",
            "index: found {count} image(s) of a batch with another label than train_labels has at "
            "their positions, wanted both in the order of the training set",
        )
        """What is said of each of the numbers that :meth:`checked` returns."""

    def checked(
        self, batch: Mapping[str, tf.Tensor]
    ) -> tuple[dict[str, tf.Tensor], tf.Tensor | None]:
        """Returns a batch whose positions are all there, and how many images were wrong.

        A few operations on one number an image: nothing beside a step.

        Args:
            batch: The batch of this replica.

        Returns:
            The batch, and float32 ``(2,)``: images at positions beyond the training set, and those
            that count and have another label there; ``None`` for a batch without positions.
        """
        if "index" not in batch:
            return dict(batch), None
        # Outside of graphs a batch may hold arrays.
        given, label = map(tf.convert_to_tensor, (batch["index"], batch["label"]))
        index = tf.maximum(given, 0)
        if self._size is not None:
            index = tf.minimum(index, tf.cast(self._size - 1, index.dtype))
        beyond = tf.not_equal(index, given)
        others = tf.zeros_like(beyond)
        if self._labels is not None and _are_numbers(label):
            label = tf.cast(tf.reshape(label, [-1]), tf.int32)
            others = tf.not_equal(tf.gather(self._labels, index), label)
            if "sample_weight" in batch:
                weights = tf.reshape(batch["sample_weight"], [-1])
                others = tf.logical_and(others, tf.not_equal(weights, 0))
        counts = [tf.math.count_nonzero(each, dtype=tf.float32) for each in (beyond, others)]
        return {**batch, "index": index}, tf.stack(counts)


def checked_labels(labels, size: int | None, who: str) -> np.ndarray:
    """Returns the labels of the training set as a vector of class numbers.

    Args:
        labels: Class numbers ``(images,)`` or ``(images, 1)``.
        size: Number of training images; ``None`` where it is not known.
        who: The method that reads them, for the message.

    Raises:
        TfkdError: For labels of another form or number.
    """
    found = np.asarray(labels)
    if found.ndim == 2 and found.shape[1] == 1:
        found = found[:, 0]
    if found.ndim != 1 or found.dtype.kind not in "iuf" or np.any(found != np.floor(found)):
        raise TfkdError(
            f"train_labels for {who}: found {found.dtype} of shape {found.shape}, wanted a class "
            "number for each training image, (images,)"
        )
    if size is not None and len(found) != size:
        raise TfkdError(
            f"train_labels for {who}: found {len(found)}, wanted {size}, one for each training "
            "image (train_size)"
        )
    return found.astype(np.int64)


def _are_numbers(label: tf.Tensor) -> bool:
    """Whether labels are class numbers, a shape that is not known being none of theirs."""
    return label.shape.rank == 1 or (label.shape.rank == 2 and label.shape[-1] == 1)
