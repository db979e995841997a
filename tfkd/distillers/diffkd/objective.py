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

Departures: maps of two sizes are averaged to the smaller height and width, by adaptive pooling;
convolutions before a normalization have no bias, which it would take away again. ``project`` is a
1x1 convolution and its normalization; the authors' code of this paper alone has no normalization
there.

Maps are ``(batch, height, width, channels)``, logits ``(batch, classes)``, of any float type;
losses are computed in float32.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Annotated

import tensorflow as tf

from tfkd import models
from tfkd.core import Requires, Spec, register
from tfkd.core.divergences import as_float, kl_divergence
from tfkd.distillers.diffkd.diffusion import NOISE_STEPS, diffusion_loss
from tfkd.distillers.diffkd.modules import Connector
from tfkd.distillers.shared.adaptive_pooling import to_common_size
from tfkd.distillers.shared.idle_settings import refuse_idle
from tfkd.distillers.shared.layers import check_map, check_width
from tfkd.distillers.shared.tap_pair import TapPair
from tfkd.errors import TfkdError
from tfkd.settings import Count, NonNegative, Range, field

SALTS = {"feature": (0, 1, 2), "logits": (3, 4, 5)}
"""What tells the three draws of each tap apart."""


@register("diffkd")
class DiffKD(TapPair):
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
    student_tap: str = field("pre_pool", "feature map of the student")
    teacher_tap: str = field("pre_pool", "feature map of the teacher")

    def check(self) -> None:
        if not (self.use_features or self.use_logits):
            raise TfkdError(
                f"{self.name}: found use_features=False and use_logits=False, wanted one of them"
            )
        if not self.use_features:
            of_maps = ["autoencoder_weight", "latent_width", "student_tap", "teacher_tap"]
            refuse_idle(self, of_maps, "use_features=False", "use_features=True")

    def term_names(self) -> tuple[str, ...]:
        features = ("feature_diffusion", "feature_autoencoder", "feature_kd")
        logits = ("logits_diffusion", "logits_kd")
        return features * self.use_features + logits * self.use_logits

    @property
    def requires(self) -> Requires:
        taps = {("student", "main"): self.student_tap, ("teacher", "main"): self.teacher_tap}
        return Requires(
            taps={
                view: [tap] * self.use_features + ["logits"] * self.use_logits
                for view, tap in taps.items()
            },
            allows_soft_labels=True,
        )

    def choose_taps(self, student: models.Network, teachers: Sequence[models.Network]) -> None:
        if self.use_features:
            super().choose_taps(student, teachers)

    def setup(self, spec: Spec) -> None:
        seeds = itertools.count(spec.seed, 2)
        student, teacher = spec.shapes["student", "main"], spec.shapes["teacher", "main"]
        self.connectors: dict[str, Connector] = {}
        if self.use_features:
            *_, channels = check_map(
                self.name, "student", self.student_tap, student[self.student_tap]
            )
            *_, target = check_map(
                self.name, "teacher", self.teacher_tap, teacher[self.teacher_tap]
            )
            latent_width = self.latent_width or max(target // 2, 1)
            self.connectors["feature"] = Connector(
                channels, target, latent_width, seeds, name=f"{self.name}_feature"
            )
        if self.use_logits:
            channels, target = (
                check_width(self.name, network, "logits", shapes["logits"])
                for network, shapes in (("student", student), ("teacher", teacher))
            )
            self.connectors["logits"] = Connector(
                channels, target, None, seeds, name=f"{self.name}_logits"
            )

    def compute(self, context) -> dict[str, tf.Tensor]:
        losses: dict[str, tf.Tensor] = {}
        if self.use_features:
            maps = context.student(self.student_tap), context.teacher(self.teacher_tap)
            losses |= self._losses_of(
                context, "feature", *to_common_size(*maps), tf.math.squared_difference
            )
        if self.use_logits:
            pixels = (each[:, None, None, :] for each in (context.student(), context.teacher()))
            losses |= self._losses_of(context, "logits", *pixels, kl_divergence)
        return losses

    def _losses_of(
        self, context, word: str, student: tf.Tensor, teacher: tf.Tensor, distance: Callable
    ) -> dict[str, tf.Tensor]:
        """Returns the weighted losses of one tap by name.

        Args:
            context: The step.
            word: ``feature`` or ``logits``.
            student: The student's maps.
            teacher: The teacher's, of the same height and width.
            distance: Of the teacher's latent maps and the student's refined ones, by element or
                pixel.
        """
        connector, training = self.connectors[word], context.training
        latent, error = connector.encoded(as_float(teacher), training)
        start, noise, times = self._draws(context, word, latent)
        refined = connector.denoised(student, start, self.refinement_steps, training)
        diffusion = diffusion_loss(latent, noise, times, connector.predictor(training))
        losses = {
            "diffusion": self.diffusion_weight * context.mean(diffusion),
            "kd": self.kd_weight * context.mean(distance(latent, refined)),
        }
        if error is not None:
            losses["autoencoder"] = self.autoencoder_weight * context.mean(error)
        return {f"{word}_{term}": loss for term, loss in losses.items()}

    def _draws(
        self, context, word: str, latent: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Returns noise to start from, noise to be predicted, and times, for this replica's rows.

        Args:
            context: The step.
            word: ``feature`` or ``logits``.
            latent: Maps that the noise is like.
        """
        seeds = [context.seed(salt) for salt in SALTS[word]]
        everyone = tf.shape(context.gather(context.labels))[:1]
        shape = tf.concat([everyone, tf.shape(latent)[1:]], axis=0)
        start, noise = (
            tf.ensure_shape(context.own_rows(tf.random.stateless_normal(shape, seed)), latent.shape)
            for seed in seeds[:2]
        )
        times = tf.random.stateless_uniform(everyone, seeds[2], maxval=NOISE_STEPS, dtype=tf.int32)
        return start, noise, context.own_rows(times)
