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

import keras
import tensorflow as tf

from tfkd.core import Context
from tfkd.distillers.shared.contrast import NETWORKS, Contrast, Vectors, counted

_EMPTY = -1
"""Label of a place that holds nothing."""


class LabeledQueue(keras.layers.Layer):
    """A queue for each network, written together.

    Args:
        size: Number of places.
        width: Width of the embeddings.
        name: Name of the layer.
    """

    def __init__(self, size: int, width: int, *, name: str) -> None:
        super().__init__(name=name, dtype="float32")
        self._size = size
        # Every replica writes the same gathered rows, so that the first one's stand for all.
        kept = dict(trainable=False, autocast=False, aggregation="only_first_replica")
        self.student, self.teacher = (
            self.add_weight(
                shape=(size, width), initializer="zeros", name=f"{network}_queue", **kept
            )
            for network in NETWORKS
        )
        self.labels = self.add_weight(
            shape=(size,),
            dtype="int32",
            initializer=keras.initializers.Constant(_EMPTY),
            name="labels",
            **kept,
        )
        self.next = self.add_weight(
            shape=(), dtype="int32", initializer="zeros", name="next", **kept
        )
        self.built = True

    def contrast(self, context: Context, vectors: Vectors) -> Contrast:
        """Returns what the embeddings of a step are compared with: the other network's.

        Args:
            context: The step.
            vectors: The embeddings.
        """
        kept = tf.convert_to_tensor(self.labels)[None, :]
        others = tf.logical_and(kept != _EMPTY, kept != _labels(context)[:, None])
        weights = tf.cast(others, tf.float32)
        found = tf.reduce_sum(weights, axis=1)
        return Contrast(
            {
                "student": tf.stop_gradient(vectors["teacher"]),
                "teacher": tf.stop_gradient(vectors["student"]),
            },
            {
                "student": tf.convert_to_tensor(self.teacher),
                "teacher": tf.convert_to_tensor(self.student),
            },
            weights * tf.math.divide_no_nan(float(self._size), found)[:, None],
            self._size,
            self._size,
            known=found > 0,
        )

    def write(self, context: Context, vectors: Vectors) -> None:
        """Puts the embeddings of a batch in the place of the oldest.

        One of sample weight 0 takes a place, but is no negative.

        Args:
            context: The step.
            vectors: Its embeddings.
        """
        labels = tf.where(counted(context), context.gather(_labels(context)), _EMPTY)
        rows = tf.shape(labels)[0]
        # The last ones of a batch larger than the queue.
        places = ((self.next + tf.range(rows)) % self._size)[-self._size :]
        for name, queue in (("student", self.student), ("teacher", self.teacher)):
            values = context.gather(vectors[name])[-self._size :]
            queue.value.scatter_update(tf.IndexedSlices(values, places))
        labels = labels[-self._size :]
        # Few and small: written as a whole, as every device can do.
        self.labels.assign(tf.tensor_scatter_nd_update(self.labels, places[:, None], labels))
        self.next.assign((self.next + rows) % self._size)


def _labels(context: Context) -> tf.Tensor:
    """Returns the class numbers of this replica's images, int32 ``(batch,)``."""
    return tf.cast(tf.reshape(context.labels, [-1]), tf.int32)
