"""Memory banks: the running embeddings of every training image, student's and teacher's.

Tian et al., "Contrastive Representation Distillation", ICLR 2020. Rows start uniformly within
``sqrt(3 / width)``. After a step the row of each of its images becomes::

    L2(momentum * row + (1 - momentum) * embedding)

The two banks hold ``8 * images * width`` bytes on each replica: 51 MB for CIFAR-100 at width 128,
1.3 GB for ImageNet.
"""

from __future__ import annotations

import keras
import tensorflow as tf

from tfkd.core import Context
from tfkd.distillers.shared.contrast import NETWORKS, Contrast, Vectors, counted
from tfkd.distillers.shared.negatives import Negatives


def last_of_each(index: tf.Tensor, counts: tf.Tensor) -> tf.Tensor:
    """Returns for each row of a batch the last row of the same image that counts.

    Args:
        index: Positions of the images in the training set, ``(rows,)``.
        counts: Which rows count, booleans ``(rows,)``.

    Returns:
        Numbers of rows, int32 ``(rows,)``; -1 where none counts.
    """
    same = tf.logical_and(index[:, None] == index[None, :], counts[None, :])
    return tf.reduce_max(tf.where(same, tf.range(tf.shape(index)[0])[None, :], -1), axis=1)


class MemoryBank(keras.layers.Layer):
    """A bank for each network, and the draw of what their rows are compared with.

    Args:
        negatives: Draws the negatives.
        total: Number of training images.
        width: Width of the embeddings.
        momentum: Share of a row that stays when it is written.
        same_class: Whether the positive of an image is any image of its class, not itself.
        shares_negatives: Whether the images of a batch share their negatives.
        seed: Seed of the first rows; that of the teacher's bank is one more.
        name: Name of the layer.
    """

    def __init__(
        self,
        negatives: Negatives,
        total: int,
        width: int,
        *,
        momentum: float,
        same_class: bool,
        shares_negatives: bool,
        seed: int,
        name: str,
    ) -> None:
        super().__init__(name=name, dtype="float32")
        self._negatives, self._total = negatives, total
        self._momentum = momentum
        self._same_class, self._shares_negatives = same_class, shares_negatives
        bound = (3.0 / width) ** 0.5
        self.student, self.teacher = (
            self.add_weight(
                shape=(total, width),
                initializer=keras.initializers.RandomUniform(-bound, bound, seed=seed + number),
                trainable=False,
                autocast=False,
                # Every replica writes the same gathered rows, so that the first one's stand for
                # all.
                aggregation="only_first_replica",
                name=f"{network}_bank",
            )
            for number, network in enumerate(NETWORKS)
        )
        self.built = True

    def contrast(self, context: Context, vectors: Vectors) -> Contrast:
        """Returns what the embeddings of a step are compared with: rows of the other's bank.

        Args:
            context: The step.
            vectors: The embeddings, which are not read here.
        """
        del vectors
        index = context.index
        positives = index
        if self._same_class:
            everyone = context.gather(index)
            positives = context.own_rows(
                self._negatives.of_own_class(everyone, context.seed(salt=1))
            )
        if self._shares_negatives:
            rows, weights = self._negatives.of_batch(index, context.seed())
        else:
            rows = tf.range(self._total)
            weights = self._negatives.of_each(context.gather(index), context.seed())
            weights = context.own_rows(weights)
        others = {"student": self.teacher, "teacher": self.student}
        # Gather and scatter on the variable itself touch these rows alone, instead of copying all
        # of the bank at each step.
        return Contrast(
            {name: tf.gather(bank.value, positives) for name, bank in others.items()},
            {name: tf.gather(bank.value, rows) for name, bank in others.items()},
            weights,
            self._negatives.count,
            self._total,
        )

    def write(self, context: Context, vectors: Vectors) -> None:
        """Moves the rows of the batch towards its embeddings.

        Of several rows of one image the last is written; one of sample weight 0 is not.

        Args:
            context: The step.
            vectors: Its embeddings.
        """
        index = context.gather(tf.cast(context.index, tf.int32))
        last = last_of_each(index, counted(context))
        for name, bank in (("student", self.student), ("teacher", self.teacher)):
            rows = tf.gather(bank.value, index)
            moved = self._momentum * rows
            moved += (1.0 - self._momentum) * context.gather(vectors[name])
            moved = tf.gather(tf.math.l2_normalize(moved, axis=1), tf.maximum(last, 0))
            moved = tf.where(last[:, None] < 0, rows, moved)
            bank.value.scatter_update(tf.IndexedSlices(moved, index))
