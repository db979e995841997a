"""PS-KD: the student is taught by what it said of the same image one epoch before.

Kyungyul Kim, ByeongMoon Ji, Doyoung Yoon and Sangheum Hwang, "Self-Knowledge Distillation with
Progressive Refinement of Targets", ICCV 2021, arXiv 2006.12000.

    L = -mean_batch sum_classes ((1 - alpha_t) * onehot(y) + alpha_t * M[i]) * log softmax(z)
    alpha_t = alpha_T * (epoch + 1) / epochs

``z`` student logits, ``M`` the memory: for each training image ``i`` the class probabilities of its
last visit, ``alpha_T`` the weight of the memory in the last epoch; epochs count from 0. There is no
temperature and no further cross-entropy. The memory is read before the update of a step and written
after it, with the probabilities that the loss was formed of (training mode, augmented image). The
published CIFAR-100 runs use ``alpha_T = 0.8``, 300 epochs, batches of 128, learning rate 0.1,
weight decay 5e-4, x0.1 at 150 and 225, Nesterov momentum.

Departure: the published code fills the memory from the labels throughout epoch 0; here an image
that was not seen before stands for its label, whenever that is. In epoch 0 this is the same; but an
image left out of it (a dropped last batch) then meets its label and not a row of zeros.

The memory holds ``4 * images * classes`` bytes on each replica: 20 MB for CIFAR-100, 5 GB for
ImageNet.

Logits and ``past``, the probabilities of the last visit, are ``(batch, classes)``, labels class
numbers; other types are those of :mod:`tfkd.core.divergences`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from tfkd.core import Objective, Requires, Spec, Terms, register
from tfkd.core.divergences import as_float, soft_cross_entropy
from tfkd.settings import Fraction, field


def memory_weight(
    epoch: tf.Tensor | float, epochs: tf.Tensor | float, final: float = 0.8
) -> tf.Tensor:
    """Returns alpha_t of an epoch, counted from 0: it is ``final`` in the last one and after it."""
    done = (tf.cast(epoch, tf.float32) + 1.0) / tf.maximum(tf.cast(epochs, tf.float32), 1.0)
    return final * tf.minimum(done, 1.0)


def refined_targets(
    labels: tf.Tensor, past: tf.Tensor, weight: tf.Tensor | float, seen: tf.Tensor | None = None
) -> tf.Tensor:
    """Returns ``(1 - alpha_t) * onehot + alpha_t * past``, without gradient.

    Args:
        labels: Class numbers.
        past: Probabilities of the last visit.
        weight: The paper's alpha_t, a number or a scalar of the type of ``past``.
        seen: Booleans ``(batch,)``; where false the label stands in for ``past``. ``None`` is all
            true.
    """
    past = as_float(past)
    labels = tf.cast(tf.reshape(labels, [-1]), tf.int32)
    onehot = tf.one_hot(labels, past.shape[-1], dtype=past.dtype)
    if seen is not None:
        past = tf.where(seen[:, None], past, onehot)
    return tf.stop_gradient((1.0 - weight) * onehot + weight * past)


def ps_kd_loss(
    student_logits: tf.Tensor,
    labels: tf.Tensor,
    past: tf.Tensor,
    weight: tf.Tensor | float,
    seen: tf.Tensor | None = None,
) -> tf.Tensor:
    """Returns the cross-entropy against :func:`refined_targets`, for each sample."""
    return soft_cross_entropy(refined_targets(labels, past, weight, seen), student_logits)


@register("ps_kd")
class PSKD(Objective):
    """Progressive self-distillation from a memory of past predictions; needs no teacher.

    Its loss takes the place of the label loss: ``student_loss_weight`` does not enter.
    """

    final_memory_weight: Fraction = field(
        0.8, "the paper's alpha_T: weight of the memory at the end"
    )

    requires = Requires(
        taps={("student", "main"): ["logits"]}, index=True, epochs=True, train_size=True
    )
    replaces_label_loss = True

    def setup(self, spec: Spec) -> None:
        # Every replica writes the same gathered rows, so that the first one's stand for all.
        kept = dict(
            initializer="zeros",
            trainable=False,
            autocast=False,
            aggregation="only_first_replica",
        )
        shape = (spec.train_size, spec.num_classes)
        self.memory = self.add_weight(shape=shape, dtype="float32", name="memory", **kept)
        self.seen = self.add_weight(shape=shape[:1], dtype="bool", name="seen", **kept)

    def compute(self, context) -> Terms:
        logits, index = context.student_logits, context.index
        # Gather and scatter on the variable itself touch these rows alone, instead of copying all
        # of the memory at each step.
        past = tf.cast(tf.gather(self.memory.value, index), logits.dtype)
        seen = tf.gather(self.seen.value, index)
        weight = memory_weight(context.epoch, context.epochs, self.final_memory_weight)
        weight = tf.cast(weight, logits.dtype)
        loss = context.mean(ps_kd_loss(logits, context.labels, past, weight, seen))
        return Terms({self.name: loss}, {"probabilities": tf.stop_gradient(tf.nn.softmax(logits))})

    def after_step(self, context, carry: Mapping[str, Any]) -> None:
        # GPUs scatter booleans by int32 alone.
        rows = context.gather(tf.cast(context.index, tf.int32))
        probabilities = tf.cast(context.gather(carry["probabilities"]), tf.float32)
        self.memory.value.scatter_update(tf.IndexedSlices(probabilities, rows))
        seen = tf.ones_like(rows, dtype=tf.bool)
        self.seen.value.scatter_update(tf.IndexedSlices(seen, rows))
