"""Distances between class distributions that several papers share, in log-softmax form.

Logits are ``(batch, classes)`` of any float type; labels are class numbers of any integer type,
``(batch,)`` or ``(batch, 1)``, or, where a function takes them, distributions like logits. Losses
are computed in float32 (float64 stays float64), one for each sample, and are finite for any finite
logits.
"""

from __future__ import annotations

import tensorflow as tf

LEFT_OUT = -1e9
"""The logit of a class that takes no part: finite, and of probability 0 beside any real logit."""


def as_float(logits: tf.Tensor) -> tf.Tensor:
    """Returns logits in float32, or float64 where they already are."""
    logits = tf.convert_to_tensor(logits)
    return logits if logits.dtype == tf.float64 else tf.cast(logits, tf.float32)


def cross_entropy(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Returns ``-log softmax(logits)[label]``; labels may be distributions."""
    logits = as_float(logits)
    labels = tf.convert_to_tensor(labels)
    if labels.shape.rank == 2 and labels.shape[-1] == logits.shape[-1] and labels.shape[-1] != 1:
        return soft_cross_entropy(tf.cast(labels, logits.dtype), logits)
    labels = tf.cast(tf.reshape(labels, [-1]), tf.int32)
    return tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)


def soft_cross_entropy(target: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Returns ``-sum_c target_c log softmax(logits)_c``, against distributions."""
    logits = as_float(logits)
    return -tf.reduce_sum(tf.cast(target, logits.dtype) * tf.nn.log_softmax(logits), axis=-1)


def kl_divergence(
    teacher_logits: tf.Tensor, student_logits: tf.Tensor, temperature: float = 1.0
) -> tf.Tensor:
    """Returns the softened Kullback-Leibler divergence with the gradient scale restored.

    ``temperature^2 * sum_c q_c (log q_c - log p_c)`` with ``q = softmax(teacher / temperature)``
    and ``p = softmax(student / temperature)`` (Hinton, Vinyals and Dean, "Distilling the Knowledge
    in a Neural Network", 2015, section 2).
    """
    teacher_log = tf.nn.log_softmax(as_float(teacher_logits) / temperature)
    student_log = tf.nn.log_softmax(as_float(student_logits) / temperature)
    difference = tf.exp(teacher_log) * (teacher_log - student_log)
    return temperature**2 * tf.reduce_sum(difference, axis=-1)


def mean_of_probabilities(logits: list[tf.Tensor]) -> tf.Tensor:
    """Returns the logits of several teachers as those of one, whose softmax is their mean.

    Every method that knows one teacher works with several that way.
    """
    logs = tf.stack([tf.nn.log_softmax(as_float(each)) for each in logits])
    return tf.reduce_logsumexp(logs, axis=0) - tf.math.log(tf.cast(len(logits), logs.dtype))


def one_hot(labels: tf.Tensor, num_classes: int) -> tf.Tensor:
    """Returns class numbers as booleans, one for each class."""
    labels = tf.cast(tf.reshape(labels, [-1]), tf.int32)
    return tf.one_hot(labels, num_classes, on_value=True, off_value=False)


def nontarget_log_softmax(logits: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
    """Returns the log-softmax of softened logits over the classes that are no target.

    For targets (booleans, as from :func:`one_hot`) it is a finite number near ``-1e9``: a weight of
    0 makes their products 0.
    """
    logits = as_float(logits)
    left_out = tf.constant(LEFT_OUT, logits.dtype)
    return tf.nn.log_softmax(tf.where(target, left_out, logits))
