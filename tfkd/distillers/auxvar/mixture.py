"""Classes by way of an auxiliary variable: which of some stored images an image is like.

``u`` are embeddings of the student, ``(batch, width)``, ``v`` those of the stored images by the
teacher, ``(stored, width)``, both of length 1; ``q`` are the classes of the stored images,
``(stored, classes)``, rows of probabilities. Nothing of the size ``batch * stored * classes`` is
formed. Computed in the type of what is given, which is float32 in training.
"""

from __future__ import annotations

import tensorflow as tf

from tfkd.core.divergences import LEFT_OUT, as_float, soft_cross_entropy

EPSILON = 1e-8
"""Added to probabilities whose logarithm is taken, or that divide."""


def instance_logits(
    vectors: tf.Tensor, stored: tf.Tensor, kappa: float, allowed: tf.Tensor
) -> tf.Tensor:
    """Returns the logits of ``p(z | x) = softmax_z(kappa * u . v_z)``.

    Args:
        vectors: The embeddings ``u``.
        stored: The embeddings ``v``.
        kappa: Concentration of the von Mises-Fisher distributions around the stored embeddings.
        allowed: Which stored images an image may be like, booleans ``(batch or 1, stored)``.

    Returns:
        Shape ``(batch, stored)``.
    """
    logits = kappa * tf.linalg.matmul(vectors, stored, transpose_b=True)
    return tf.where(allowed, logits, tf.constant(LEFT_OUT, logits.dtype))


def class_probabilities(logits: tf.Tensor, classes: tf.Tensor) -> tf.Tensor:
    """Returns ``p(y | x) = sum_z p(y | z) p(z | x)``, shape ``(batch, classes)``.

    By Bayes' rule it is the same as ``p(y) p(u | y)``, normalized, with ``p(y)`` the mean of
    ``p(y | z)`` and ``p(u | y)`` a mixture of the von Mises-Fisher densities around the stored
    embeddings, weighted by ``p(z | y)``.

    Args:
        logits: Those of ``p(z | x)``, as :func:`instance_logits` gives them.
        classes: The classes ``q`` of the stored images.
    """
    return tf.linalg.matmul(tf.nn.softmax(logits), classes)


def marginal_loss(target: tf.Tensor, probabilities: tf.Tensor) -> tf.Tensor:
    """Returns ``KL(target || p(y | x))`` for each image, with 1e-8 added to ``p(y | x)``.

    Args:
        target: The teacher's probabilities, ``(batch, classes)``.
        probabilities: Those of :func:`class_probabilities`.
    """
    target, probabilities = as_float(target), as_float(probabilities)
    gained = target * tf.math.log(probabilities + EPSILON)
    return tf.reduce_sum(tf.math.xlogy(target, target) - gained, axis=-1)


def elbo_targets(target: tf.Tensor, classes: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Returns ``Q(z) = sum_y target_y q(z | x, y)``, what ``p(z | x)`` should be.

    ``q(z | x, y)`` is ``p(y | z) softmax_z(teacher's logits)``, normalized over ``z``: what the
    teacher takes the image for where its class is known. A class that no stored image has (less
    than 1e-8 in the mean) is left out.

    Args:
        target: The teacher's probabilities, ``(batch, classes)``.
        classes: The classes of the stored images.
        logits: Those of the teacher's own ``p(z | x)``, ``(batch, stored)``.

    Returns:
        Shape ``(batch, stored)``; the sum of a row is 1 less what the target gives to classes that
        are left out.
    """
    own = tf.nn.softmax(logits)
    share = target / (tf.linalg.matmul(own, classes) + EPSILON)
    return own * tf.linalg.matmul(share, classes, transpose_b=True)


def elbo_loss(targets: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Returns ``-sum_z Q(z) log p(z | x)``: the negative bound but for what nothing can change.

    Args:
        targets: ``Q`` of :func:`elbo_targets`.
        logits: Those of ``p(z | x)``.
    """
    return soft_cross_entropy(targets, logits)


def infonce_loss(own: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Returns ``-log p(z = own | x)``, the limit of :func:`elbo_loss` for a large teacher's kappa.

    Args:
        own: Position of each image among the stored ones, ``(batch,)``.
        logits: Those of ``p(z | x)``.
    """
    return tf.nn.sparse_softmax_cross_entropy_with_logits(labels=own, logits=logits)
