"""The losses between the exits of one network: labels at every exit, and every pair of exits.

For ``n`` exits with logits ``z_1 .. z_n``, shallow to deep, and a temperature ``T``::

    CE_i  = CE(y, softmax(z_i))
    KD_ij = T^2 * KL(softmax(z_j / T) || softmax(z_i / T))        for i < j

The deeper exit of a pair is the teacher and takes no gradient. Every method that distills a network
with several exits into itself is a choice of weights over these ``n + n (n - 1) / 2`` losses. Their
order is ``CE_1 .. CE_n``, then the pairs ``(1, 2), (1, 3) .. (1, n), (2, 3) .. (n - 1, n)``.

The divergences are those of Wang and Li, "Harmonized Dense Knowledge Distillation Training for
Multi-Exit Architectures", AAAI 2021; that the teacher is held fixed and that ``T^2`` restores the
scale of gradients is taken from the published code of Phuong and Lampert, "Distillation-Based
Training for Multi-Exit Architectures", ICCV 2019.
"""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from tfkd.core.divergences import as_float, cross_entropy, kl_divergence


def pairs(count: int) -> tuple[tuple[int, int], ...]:
    """Returns the pairs (student, teacher) of ``count`` exits, numbered from 0, in order."""
    return tuple((i, j) for i in range(count) for j in range(i + 1, count))


def label_names(exits: Sequence[str]) -> tuple[str, ...]:
    """Returns the names of the label losses, such as ``exit1_ce``."""
    return tuple(f"{name}_ce" for name in exits)


def pair_names(exits: Sequence[str]) -> tuple[str, ...]:
    """Returns the names of the pairs, student first, such as ``exit1_from_exit2``."""
    return tuple(f"{exits[i]}_from_{exits[j]}" for i, j in pairs(len(exits)))


def loss_names(exits: Sequence[str]) -> tuple[str, ...]:
    """Returns the names of all losses, in the order of :func:`exit_losses`."""
    return (*label_names(exits), *pair_names(exits))


def cross_entropies(labels: tf.Tensor, logits: Sequence[tf.Tensor]) -> tf.Tensor:
    """Returns the cross-entropy of every exit.

    Args:
        labels: Class numbers ``(batch,)``, or distributions ``(batch, classes)``.
        logits: Those of the exits, shallow to deep, each ``(batch, classes)``.

    Returns:
        Losses of each sample, ``(exits, batch)``.
    """
    return tf.stack([cross_entropy(labels, each) for each in logits])


def pair_losses(logits: Sequence[tf.Tensor], temperature: tf.Tensor | float) -> tf.Tensor:
    """Returns the softened divergence of every pair of exits, in the order of :func:`pairs`.

    Args:
        logits: Those of the exits, shallow to deep, each ``(batch, classes)``; two or more.
        temperature: The paper's T, a number or a scalar.

    Returns:
        Losses of each sample, ``(pairs, batch)``.
    """
    students = tf.stack([tf.nn.log_softmax(as_float(each) / temperature) for each in logits])
    teachers = tf.stop_gradient(students)
    probabilities = tf.exp(teachers)
    # All teachers of one student at once: their number of operations would grow with the square.
    of_students = [
        tf.reduce_sum(probabilities[i + 1 :] * (teachers[i + 1 :] - students[i]), axis=-1)
        for i in range(len(logits) - 1)
    ]
    return temperature**2 * tf.concat(of_students, axis=0)


def deepest_losses(logits: Sequence[tf.Tensor], temperature: tf.Tensor | float) -> tf.Tensor:
    """Returns the softened divergence of every exit from the deepest, ``KD_1n .. KD_(n-1)n``.

    Args:
        logits: As for :func:`pair_losses`.
        temperature: As for :func:`pair_losses`.

    Returns:
        Losses of each sample, ``(exits - 1, batch)``.
    """
    teacher = tf.stop_gradient(as_float(logits[-1]))
    students = tf.stack([as_float(each) for each in logits[:-1]])
    return kl_divergence(teacher, students, temperature)


def exit_losses(
    labels: tf.Tensor, logits: Sequence[tf.Tensor], temperature: tf.Tensor | float
) -> tf.Tensor:
    """Returns the losses of all exits and of all pairs.

    Args:
        labels: As for :func:`cross_entropies`.
        logits: As for :func:`pair_losses`.
        temperature: As for :func:`pair_losses`.

    Returns:
        Losses of each sample, ``(exits + pairs, batch)``.
    """
    return tf.concat([cross_entropies(labels, logits), pair_losses(logits, temperature)], axis=0)
