"""DiffKD: the student's feature is denoised, as if it were a noisy one of the teacher's.

Tao Huang, Yuan Zhang, Mingkai Zheng, Shan You, Fei Wang, Chen Qian and Chang Xu, "Knowledge
Diffusion for Distillation", NeurIPS 2023, arXiv 2305.15712. For each of two taps, with the
student's feature ``s``, the teacher's ``t``, and standard normal noise ``n`` and ``m``::

    z = stop_gradient(encode(t)),   x = gamma * embed(s) + (1 - gamma) * m
    L = CE + sum_taps diffusion_weight * L_diffusion + autoencoder_weight * L_autoencoder
                      + kd_weight * L_kd
    L_diffusion   = mse(predict(sqrt(a_k) z + sqrt(1 - a_k) n, k), n),   k uniform in 0..999
    L_autoencoder = mse(decode(encode(t)), t)
    L_kd          = mse(project(refine(x)), z), or KL(z || project(refine(x))) of logits

``predict`` is the denoiser, ``a`` and ``refine`` are in :mod:`tfkd.distillers.diffkd.diffusion`,
the modules in :mod:`tfkd.distillers.diffkd.modules`. ``gamma``, one number for each image, is
learned from ``embed(s)``. The first tap is the last feature map, with a linear autoencoder and 3x3
convolutions in the denoiser. The second are the logits, with 1x1 convolutions alone, ``z = t`` and
temperature 1. Means are over all elements. As in the published code, ``L_kd`` also trains the
denoiser, which runs six times in a step for each tap.

The noise is drawn from seed and step, for the batch of all replicas: the loss of a batch is a
function of these two, in training and in evaluation.

All weights are 1, as published for ImageNet, where the latent maps have 1024 channels. For
CIFAR-100 no settings were published; half the teacher's channels is the published code's default.

Departure: maps of two sizes are averaged to the smaller height and width, by adaptive pooling.

Maps are ``(batch, height, width, channels)``, logits ``(batch, classes)``, of any float type;
losses are computed in float32.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Annotated

import tensorflow as tf

from tfkd.core import Objective, Requires, Spec, register
from tfkd.core.divergences import as_float, kl_divergence
from tfkd.distillers.diffkd.diffusion import NOISE_STEPS, diffusion_loss
from tfkd.distillers.diffkd.modules import Connector
from tfkd.distillers.shared.adaptive_pooling import adaptive_average_pool
from tfkd.distillers.shared.layers import check_map, check_width, mismatch
from tfkd.errors import TfkdError
from tfkd.settings import Count, NonNegative, Range, field


@register("diffkd")
class DiffKD(Objective):
    """Knowledge diffusion for distillation, of the last feature map and of the logits."""

    use_features: bool = field(True, "whether the feature map is distilled")
    use_logits: bool = field(True, "whether the logits are distilled")
    diffusion_weight: NonNegative = field(1.0, "weight of the denoiser's own loss")
    autoencoder_weight: NonNegative = field(1.0, "weight of the autoencoder's loss")
    kd_weight: NonNegative = field(1.0, "weight of the distance to the teacher")
    refinement_steps: Annotated[int, Range(low=1, high=NOISE_STEPS // 2)] = field(
        5, "steps in which the student's feature is denoised"
    )
    latent_width: Count | None = field(
        None, "channels of the latent maps; None: half the teacher's channels"
    )
    feature: str = field("pre_pool", "tap of the student's feature map")
    teacher_feature: str = field("pre_pool", "tap of the teacher's feature map")

    def check(self) -> None:
        if not (self.use_features or self.use_logits):
            raise TfkdError(
                f"{self.name}: found use_features=False and use_logits=False, wanted one of them"
            )

    def term_names(self) -> tuple[str, ...]:
        features = ("feature_diffusion", "feature_autoencoder", "feature_kd")
        logits = ("logits_diffusion", "logits_kd")
        return features * self.use_features + logits * self.use_logits

    @property
    def requires(self) -> Requires:
        logits = ["logits"] * self.use_logits
        return Requires(
            taps={
                ("student", "main"): [self.feature] * self.use_features + logits,
                ("teacher", "main"): [self.teacher_feature] * self.use_features + logits,
            },
            allows_soft_labels=True,
        )

    def setup(self, spec: Spec) -> None:
        seeds = itertools.count(spec.seed, 2)
        student, teacher = spec.shapes["student", "main"], spec.shapes["teacher", "main"]
        if self.use_features:
            self._add_feature_connector(student[self.feature], teacher[self.teacher_feature], seeds)
        if self.use_logits:
            widths = (
                check_width(self.name, network, "logits", shapes["logits"])
                for network, shapes in (("student", student), ("teacher", teacher))
            )
            self.logits_connector = Connector(*widths, None, seeds, name=f"{self.name}_logits")

    def _add_feature_connector(self, student, teacher, seeds: Iterator[int]) -> None:
        """Makes the connector of the feature maps, and finds the size at which they meet.

        Raises:
            TfkdError: When one is no map, or has a size that is not known.
        """
        *own_size, own_channels = check_map(self.name, "student", self.feature, student)
        *size, channels = check_map(self.name, "teacher", self.teacher_feature, teacher)
        if own_size != size and None in (*own_size, *size):
            raise mismatch(
                self.name, self.feature, student, self.teacher_feature, teacher,
                "maps of one size, or of sizes that are known",
            )  # fmt: skip
        self._size = None if own_size == size else tuple(map(min, own_size, size))
        width = self.latent_width or max(channels // 2, 1)
        self.feature_connector = Connector(
            own_channels, channels, width, seeds, name=f"{self.name}_feature"
        )

    def compute(self, context) -> dict[str, tf.Tensor]:
        losses: dict[str, tf.Tensor] = {}
        if self.use_features:
            maps = [
                self._at_common_size(each)
                for each in (context.student(self.feature), context.teacher(self.teacher_feature))
            ]
            found, refined, latent = self._diffuse(context, self.feature_connector, *maps, salt=0)
            distance = context.mean(tf.square(refined - latent))
            losses |= {f"feature_{term}": value for term, value in found.items()}
            losses["feature_kd"] = self.kd_weight * distance
        if self.use_logits:
            maps = [each[:, None, None, :] for each in (context.student(), context.teacher())]
            found, refined, latent = self._diffuse(context, self.logits_connector, *maps, salt=3)
            distance = context.mean(kl_divergence(latent[:, 0, 0], refined[:, 0, 0]))
            losses |= {f"logits_{term}": value for term, value in found.items()}
            losses["logits_kd"] = self.kd_weight * distance
        return losses

    def _at_common_size(self, maps: tf.Tensor) -> tf.Tensor:
        if self._size is None or tuple(maps.shape[1:3]) == self._size:
            return maps
        return adaptive_average_pool(maps, size=self._size)

    def _diffuse(
        self, context, connector: Connector, student: tf.Tensor, teacher: tf.Tensor, salt: int
    ) -> tuple[dict[str, tf.Tensor], tf.Tensor, tf.Tensor]:
        """Runs the modules of a tap.

        Args:
            context: The step.
            connector: The modules.
            student: The student's maps.
            teacher: The teacher's.
            salt: Tells the draws of the taps apart; the next two numbers are used as well.

        Returns:
            The losses of denoiser and autoencoder, weighted, the student's refined maps and the
            teacher's latent ones.
        """
        training = context.training
        latent, error = connector.encoded(as_float(teacher), training)
        # Equal on every replica, each of which takes its own rows.
        everyone = tf.shape(context.gather(context.labels))[:1]
        shape = tf.concat([everyone, tf.shape(latent)[1:]], axis=0)
        start, noise = (
            context.own_rows(tf.random.stateless_normal(shape, context.seed(salt + draw)))
            for draw in range(2)
        )
        times = context.own_rows(
            tf.random.stateless_uniform(
                everyone, context.seed(salt + 2), maxval=NOISE_STEPS, dtype=tf.int32
            )
        )
        refined = connector.denoised(student, start, self.refinement_steps, training)
        loss = diffusion_loss(
            latent, noise, times, lambda maps, times: connector.predict(maps, times, training)
        )
        losses = {"diffusion": self.diffusion_weight * context.mean(loss)}
        if error is not None:
            losses["autoencoder"] = self.autoencoder_weight * context.mean(error)
        return losses, refined, latent
