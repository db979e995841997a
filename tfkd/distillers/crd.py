"""CRD: student and teacher embed an image alike, and apart from images of other classes.

Yonglong Tian, Dilip Krishnan and Phillip Isola, "Contrastive Representation Distillation", ICLR
2020, arXiv 1910.10699, section 3 and the authors' code::

    v_s = L2(h_s(f_s)),  v_t = L2(h_t(f_t))               h: linear, f: pooled features
    E_s = exp(v_s . bank_t[c] / tau),  E_t = exp(v_t . bank_s[c] / tau)
    l(P) = -mean_batch [log(P_0 / (P_0 + q + 1e-7)) + sum_j log(q / (P_j + q + 1e-7))]
    L = l(E_s / Z_s) + l(E_t / Z_t),   q = K / n

``c`` are a positive (0) and ``K`` negatives, rows of the banks of all ``n`` training images. Each
``Z`` is ``n * mean E`` of the first batch, and constant from then on. After the step the rows of
the batch become ``L2(0.5 * row + 0.5 * v)``, each bank with the embeddings of its own network.
Gradients reach the student and both heads. ``mode="exact"``: the positive is the row of the
image itself; ``"relax"``: that of a random image of its class. Negatives are of other classes.

Published for CIFAR-100: weight 0.8 beside the label loss (with KD: and 1 for KD at T = 4),
``K = 16384`` of 50,000, ``tau = 0.07``, width 128. ``Z`` and the banks are part of the state of a
run.

Exact: the loss, formed as ``softplus(log(Z (q + 1e-7)) - s_0) + sum_j softplus(s_j - log(Z (q +
1e-7))) + K log(1 + 1e-7 / q)`` of the logarithms ``s`` of ``E``, the same numbers without a
cancellation; heads, banks, ``Z`` and the order of reading and writing.

Departure: the images of a batch share their negatives (``shared_negatives=True``). Each of them
still has ``K`` different ones, any image of another class as likely as any other, so that loss and
gradient have the expectation that the paper's draw gives them; ``shared_negatives=False`` is that
draw, and scores the whole bank at every step: of resnet56 -> resnet20 in batches of 64 the step
then takes 1.9 times that of KD on two CPU cores, instead of 1.1. How both are drawn, and what
happens where other classes hold fewer than ``K`` images, is told in
:mod:`tfkd.distillers.shared.negatives`; what a queue changes (``memory="queue"``), in
:mod:`tfkd.distillers.shared.labeled_queue`.

The banks hold ``8 * n * width`` bytes on each replica: 51 MB for CIFAR-100, 1.3 GB for ImageNet.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from tfkd.core import Context, Spec, Terms, register
from tfkd.distillers.shared.contrast import NETWORKS, Contrast, Scores, Vectors
from tfkd.distillers.shared.contrastive import Contrastive
from tfkd.distillers.shared.layers import dense
from tfkd.distillers.shared.partition import Partition

_EPSILON = 1e-7


def crd_loss(
    student: Scores, teacher: Scores, partitions: tf.Tensor, count: int, total: int
) -> tf.Tensor:
    """Returns ``l(P_s) + l(P_t)`` for each sample.

    Args:
        student: Scores of the student's embeddings, divided by the temperature: ``log E_s``.
        teacher: The same of the teacher's.
        partitions: ``Z_s`` and ``Z_t``, shape ``(2,)``.
        count: The paper's K, to which the weights of an image's negatives add up.
        total: The paper's n, the number of rows of a bank.

    Returns:
        Shape ``(batch,)``, in the type of the scores.
    """
    share = count / total
    found = 2 * count * math.log1p(_EPSILON / share)
    for scores, partition in zip((student, teacher), tf.unstack(partitions)):
        even = tf.math.log(partition * (share + _EPSILON))
        negatives = scores.weights * tf.nn.softplus(scores.negative - even)
        found += tf.nn.softplus(even - scores.positive) + tf.reduce_sum(negatives, axis=1)
    return found


def step_loss(
    context: Context, vectors: Vectors, contrast: Contrast, partition: Partition, temperature: float
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns :func:`crd_loss` of a step, and the ``Z`` of both networks to be kept.

    Args:
        context: The step.
        vectors: Its embeddings.
        contrast: What they are compared with.
        partition: The ``Z`` known so far.
        temperature: The paper's tau.
    """
    scores = {name: contrast.scores(name, vectors[name] / temperature) for name in NETWORKS}
    found = partition.of(context, scores, contrast)
    # Where there is none, nothing has negatives, and nothing counts.
    usable = tf.where(found > 0, found, 1.0)
    loss = crd_loss(scores["student"], scores["teacher"], usable, contrast.count, contrast.total)
    return loss, found


@register("crd")
class CRD(Contrastive):
    """Contrastive representation distillation."""

    def make_head(self, inputs: int, seed: int, name: str) -> keras.layers.Layer:
        return dense(inputs, self.width, seed, name=name, dtype="float32")

    def setup(self, spec: Spec) -> None:
        super().setup(spec)
        self.partition = Partition(f"{self.name}_partition")

    def compute(self, context: Context) -> Terms:
        vectors = self.embed(context)
        contrast = self.kept.contrast(context, vectors)
        per_sample, partitions = step_loss(
            context, vectors, contrast, self.partition, self.temperature
        )
        loss = context.mean(per_sample, contrast.known)
        return Terms({self.name: loss}, {"vectors": vectors, "partitions": partitions})

    def after_step(self, context: Context, carry: Mapping[str, Any]) -> None:
        super().after_step(context, carry)
        self.partition.keep(carry["partitions"])
