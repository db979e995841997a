"""WCoRD: contrastive distillation by both forms of the Wasserstein distance.

Liqun Chen, Dong Wang, Zhe Gan, Jingjing Liu, Ricardo Henao and Lawrence Carin, "Wasserstein
Contrastive Representation Distillation", CVPR 2021, arXiv 2012.08674.

RECONSTRUCTION, all of it. The abstract says what there is: the dual form for global knowledge
(contrastive, a bound of mutual information), the primal form for local knowledge within a batch.
The equations could not be read, and no public code was found::

    L = lambda_1 * L_global + lambda_2 * L_local
    g(a, b) = <v_s, v_t>,  v = L2(h(f)),  h linear, its kernel divided by its spectral norm
    critic="nce":   L_global = CRD's loss of g / tau
    critic="dual":  L_global = -(mean_positives g - mean_negatives g), student's + teacher's
    L_local = sum_ij P_ij C_ij,   C_ij = 1 - cos(v_s,i, v_t,j)
    P = argmin <P, C> - 0.1 H(P)  with both marginals uniform, or the sample weights

Positives, negatives, banks and their settings are those of :mod:`tfkd.distillers.crd`, whose scale
``"nce"`` keeps. Ours are: the heads (1-Lipschitz only where their output has length 1 or more, as
L2 comes behind), the cosine, the entropy and its weight, 100 iterations, and that ``P`` is constant
in the gradient (``differentiates_plan=True`` differentiates it as well). ``lambda_1 = 0.8`` and
``lambda_2 = 0.05`` are recalled. The paper may weigh the negatives of ``"dual"`` otherwise.

The local loss is formed over the batch of all replicas.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import keras
import tensorflow as tf

from tfkd.core import Context, Spec, Terms, register
from tfkd.distillers.crd import step_loss
from tfkd.distillers.shared.contrast import NETWORKS, Scores, Vectors
from tfkd.distillers.shared.contrastive import Contrastive
from tfkd.distillers.shared.idle_settings import refuse_idle
from tfkd.distillers.shared.partition import Partition
from tfkd.distillers.shared.sinkhorn import sinkhorn_plan
from tfkd.distillers.shared.spectral_dense import SpectralDense
from tfkd.settings import Count, NonNegative, Positive, field


def dual_loss(student: Scores, teacher: Scores, count: int) -> tf.Tensor:
    """Returns the dual form of the global loss for each sample.

    Args:
        student: Inner products of the student's embeddings with positives and candidates.
        teacher: The same of the teacher's.
        count: Negatives of an image, to which its weights add up.

    Returns:
        Shape ``(batch,)``.
    """
    return tf.add_n(
        [
            tf.reduce_sum(scores.weights * scores.negative, axis=1) / count - scores.positive
            for scores in (student, teacher)
        ]
    )


def transport_loss(
    student: tf.Tensor,
    teacher: tf.Tensor,
    weights: tf.Tensor | None = None,
    entropy_weight: float = 0.1,
    iterations: int = 100,
    differentiates_plan: bool = False,
) -> tf.Tensor:
    """Returns each student row's part of the local loss, whose mean over the batch the loss is.

    Args:
        student: Embeddings of length 1, ``(batch, width)``.
        teacher: The same of the teacher.
        weights: Weights of the samples, ``(batch,)``, by which the marginals are weighed and the
            mean is; ``None`` is the same for all.
        entropy_weight: As in :func:`sinkhorn_plan`.
        iterations: As there.
        differentiates_plan: Whether the gradient passes through the plan.

    Returns:
        Shape ``(batch,)``.
    """
    cost = 1.0 - tf.matmul(student, teacher, transpose_b=True)
    alike = tf.ones_like(cost[0])
    if weights is None:
        weights = alike
    weights = tf.where(tf.reduce_any(weights > 0), weights, alike)
    share = weights / tf.reduce_sum(weights)
    given = cost if differentiates_plan else tf.stop_gradient(cost)
    plan = sinkhorn_plan(given, entropy_weight, iterations, share)
    return tf.math.divide_no_nan(tf.reduce_sum(plan * cost, axis=1), share)


@register("wcord")
class WCoRD(Contrastive):
    """Wasserstein contrastive representation distillation; a reconstruction."""

    global_weight: NonNegative = field(0.8, "the paper's lambda_1")
    local_weight: NonNegative = field(0.05, "the paper's lambda_2")
    critic: Literal["nce", "dual"] = field("nce", "the global loss: CRD's, or the dual form itself")
    entropy_weight: Positive = field(0.1, "weight of the entropy of the transport plan")
    iterations: Count = field(100, "Sinkhorn iterations of the transport plan")
    differentiates_plan: bool = field(False, "whether the gradient passes through the plan")

    terms = ("global", "local")

    def check(self) -> None:
        super().check()
        if self.critic == "dual":
            refuse_idle(self, ["temperature"], "critic='dual'", "critic='nce'")

    def make_head(self, inputs: int, seed: int, name: str) -> keras.layers.Layer:
        return SpectralDense(inputs, self.width, seed, name=name)

    def setup(self, spec: Spec) -> None:
        super().setup(spec)
        if self.critic == "nce":
            self.partition = Partition(f"{self.name}_partition")

    def compute(self, context: Context) -> Terms:
        vectors = self.embed(context)
        contrast = self.kept.contrast(context, vectors)
        carry: dict[str, Any] = {"vectors": vectors}
        if self.critic == "nce":
            everywhere, carry["partitions"] = step_loss(
                context, vectors, contrast, self.partition, self.temperature
            )
        else:
            scores = [contrast.scores(name, vectors[name]) for name in NETWORKS]
            everywhere = dual_loss(*scores, contrast.count)
        losses = {
            "global": self.global_weight * context.mean(everywhere, contrast.known),
            "local": self._local(context, vectors) if self.local_weight else tf.zeros(()),
        }
        return Terms(losses, carry)

    def _local(self, context: Context, vectors: Vectors) -> tf.Tensor:
        """Returns the weighted local loss of the embeddings of all replicas."""
        weights = context.batch.get("sample_weight")
        if weights is not None:
            weights = context.gather(tf.cast(tf.reshape(weights, [-1]), tf.float32))
        within = transport_loss(
            *(context.gather(vectors[name]) for name in NETWORKS),
            weights,
            self.entropy_weight,
            self.iterations,
            self.differentiates_plan,
        )
        return self.local_weight * context.mean(within, gathered=True)

    def after_step(self, context: Context, carry: Mapping[str, Any]) -> None:
        super().after_step(context, carry)
        if self.critic == "nce":
            self.partition.keep(carry["partitions"])
