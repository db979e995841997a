"""Queues of embeddings with labels, for training sets whose memory banks would not fit.

A departure from the methods that use it, after the queue of Kaiming He, Haoqi Fan, Yuxin Wu,
Saining Xie and Ross Girshick, "Momentum Contrast for Unsupervised Visual Representation Learning",
CVPR 2020: instead of a row for each training image the last ``size`` embeddings of student and
teacher are kept. The positive of an image is what the other network says of it now; its negatives
are all in the queue that are of other classes, which together weigh as ``size``. Places that were
never written are left out, and so an image may have no negatives at first.

The queues hold ``8 * size * width`` bytes on each replica, 17 MB for 16,384 of width 128.
"""

from __future__ import annotations

import tensorflow as tf

from tfkd.core import Context
from tfkd.distillers.shared.contrast import NETWORKS, Contrast, Vectors, counted
from tfkd.distillers.shared.queue import EMPTY, Queue


class LabeledQueue(Queue):
    """A queue of the embeddings of both networks, numbered by class.

    Args:
        size: Number of places.
        width: Width of the embeddings.
        name: Name of the layer.
    """

    def __init__(self, size: int, width: int, *, name: str) -> None:
        super().__init__(size, dict.fromkeys(NETWORKS, width), name=name)

    def contrast(self, context: Context, vectors: Vectors) -> Contrast:
        """Returns what the embeddings of a step are compared with: the other network's.

        Args:
            context: The step.
            vectors: The embeddings.
        """
        kept = tf.convert_to_tensor(self.numbers)[None, :]
        others = tf.logical_and(kept != EMPTY, kept != _labels(context)[:, None])
        weights = tf.cast(others, tf.float32)
        found = tf.reduce_sum(weights, axis=1)
        return Contrast(
            {
                "student": tf.stop_gradient(vectors["teacher"]),
                "teacher": tf.stop_gradient(vectors["student"]),
            },
            {
                "student": tf.convert_to_tensor(self.rows["teacher"]),
                "teacher": tf.convert_to_tensor(self.rows["student"]),
            },
            weights * tf.math.divide_no_nan(float(self.size), found)[:, None],
            self.size,
            self.size,
            known=found > 0,
        )

    def write(self, context: Context, vectors: Vectors) -> None:
        """Puts the embeddings of a batch in the place of the oldest.

        One of sample weight 0 takes a place, but is no negative.

        Args:
            context: The step.
            vectors: Its embeddings.
        """
        labels = tf.where(counted(context), context.gather(_labels(context)), EMPTY)
        self.put({name: context.gather(vectors[name]) for name in NETWORKS}, labels)


def _labels(context: Context) -> tf.Tensor:
    """Returns the class numbers of this replica's images, int32 ``(batch,)``."""
    return tf.cast(tf.reshape(context.labels, [-1]), tf.int32)
