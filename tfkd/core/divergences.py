"""Distances between class distributions that several papers share, in log-softmax form.

Every function takes logits of any float type, computes in float32 (float64 stays float64), returns
one value for each sample and is finite for any finite logits.
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
    """Cross-entropy of the labels, ``-log softmax(logits)[label]``, for each sample.

    Args:
        labels: Class numbers of any integer type, shape ``(batch,)`` or ``(batch, 1)``, or dense
            label distributions, shape ``(batch, classes)``.
        logits: Shape ``(batch, classes)``.

    Returns:
        Shape ``(batch,)``.
    """
    logits = as_float(logits)
    labels = tf.convert_to_tensor(labels)
    if labels.shape.rank == 2 and labels.shape[-1] == logits.shape[-1] and labels.shape[-1] != 1:
        return soft_cross_entropy(tf.cast(labels, logits.dtype), logits)
    labels = tf.cast(tf.reshape(labels, [-1]), tf.int32)
    return tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)


def soft_cross_entropy(target: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Cross-entropy against target distributions, ``-sum_c target_c log softmax(logits)_c``.

    Args:
        target: Probabilities, shape ``(batch, classes)``.
        logits: Shape ``(batch, classes)``.

    Returns:
        Shape ``(batch,)``.
    """
    logits = as_float(logits)
    return -tf.reduce_sum(tf.cast(target, logits.dtype) * tf.nn.log_softmax(logits), axis=-1)


def kl_divergence(
    teacher_logits: tf.Tensor, student_logits: tf.Tensor, temperature: float = 1.0
) -> tf.Tensor:
    """Softened Kullback-Leibler divergence with the gradient scale restored.

    ``temperature^2 * sum_c q_c (log q_c - log p_c)`` with ``q = softmax(teacher / temperature)``
    and ``p = softmax(student / temperature)`` (Hinton, Vinyals and Dean, "Distilling the Knowledge
    in a Neural Network", 2015, section 2).

    Args:
        teacher_logits: Shape ``(batch, classes)``; the distribution to be matched.
        student_logits: Shape ``(batch, classes)``.
        temperature: Softening of both distributions, > 0.

    Returns:
        Shape ``(batch,)``.
    """
    teacher_log = tf.nn.log_softmax(as_float(teacher_logits) / temperature)
    student_log = tf.nn.log_softmax(as_float(student_logits) / temperature)
    difference = tf.exp(teacher_log) * (teacher_log - student_log)
    return temperature**2 * tf.reduce_sum(difference, axis=-1)


def mean_of_probabilities(logits: list[tf.Tensor]) -> tf.Tensor:
    """Joins several teachers into one: the logarithm of the mean of their probabilities.

    The result is a set of logits like any other (its softmax is the mean), so that every method
    that knows one teacher also works with several.

    Args:
        logits: One tensor for each teacher, each ``(batch, classes)``.

    Returns:
        Shape ``(batch, classes)``.
    """
    logs = tf.stack([tf.nn.log_softmax(as_float(each)) for each in logits])
    return tf.reduce_logsumexp(logs, axis=0) - tf.math.log(tf.cast(len(logits), logs.dtype))


def one_hot(labels: tf.Tensor, num_classes: int) -> tf.Tensor:
    """Returns class numbers, ``(batch,)`` or ``(batch, 1)``, as booleans ``(batch, classes)``."""
    labels = tf.cast(tf.reshape(labels, [-1]), tf.int32)
    return tf.one_hot(labels, num_classes, on_value=True, off_value=False)


def nontarget_log_softmax(logits: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
    """Returns the log-softmax over the classes that are no target.

    Args:
        logits: Shape ``(batch, classes)``, softened already.
        target: Booleans of the same shape: the classes to leave out.

    Returns:
        Shape ``(batch, classes)``; a finite number near ``-1e9`` for the classes left out, so that
        a weight of 0 makes their products 0.
    """
    logits = as_float(logits)
    left_out = tf.constant(LEFT_OUT, logits.dtype)
    return tf.nn.log_softmax(tf.where(target, left_out, logits))
