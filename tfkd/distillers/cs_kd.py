"""CS-KD: an image is taught by what the student itself says of another image of the same class.

Sukmin Yun, Jongjin Park, Kimin Lee and Jinwoo Shin, "Regularizing Class-wise Predictions via
Self-knowledge Distillation", CVPR 2020, arXiv 2003.13964.

    L = CE(y, softmax(z(x))) + lambda * T^2 * mean_batch KL(softmax(z(x') / T) || softmax(z(x) / T))

``z`` student logits, ``x`` the image, ``x'`` (the view ``pair``) an image of the same class drawn
uniformly with replacement and augmented on its own. ``z(x')`` carries no gradient. ``lambda`` is
the weight of this objective; the label loss has weight 1. The published CIFAR-100 runs use ``T =
4`` and ``lambda = 1`` (3 for CUB-200-2011), batches of 128 images and 128 partners, 200 epochs,
learning rate 0.1, weight decay 1e-4, x0.1 at 50 % and 75 %.

As in the published code the partners run through the student in training mode and on their own, so
that each of the two batches has its own batch statistics and both move the running ones. The
published pair may be an image and itself, augmented twice.

Shapes and types are those of :mod:`tfkd.core.divergences`.
"""

from __future__ import annotations

import tensorflow as tf

from tfkd.core import Objective, Requires, register
from tfkd.core.divergences import kl_divergence
from tfkd.settings import Positive, field


def cs_kd_loss(
    student_logits: tf.Tensor, pair_logits: tf.Tensor, temperature: float = 4.0
) -> tf.Tensor:
    """Returns ``T^2 * KL(pair || student)`` for each sample, without gradient to the pair."""
    return kl_divergence(tf.stop_gradient(pair_logits), student_logits, temperature)


@register("cs_kd")
class CSKD(Objective):
    """Class-wise self-distillation: no teacher, but a partner of the same class for each image."""

    temperature: Positive = field(4.0, "the paper's T")

    # The images run first: their batch statistics enter the running ones before their partners'.
    requires = Requires(taps={("student", "main"): ["logits"], ("student", "pair"): ["logits"]})

    def compute(self, context) -> tf.Tensor:
        partners = context.student("logits", "pair")
        return context.mean(cs_kd_loss(context.student_logits, partners, self.temperature))
