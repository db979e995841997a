"""ReviewKD: early stages of the teacher are taught by what later stages of the student have seen.

Pengguang Chen, Shu Liu, Hengshuang Zhao and Jiaya Jia, "Distilling Knowledge via Knowledge Review",
CVPR 2021, arXiv 2104.09044, sections 3.2 to 3.4::

    L = CE + w * min(1, epoch / warmup) * sum_i HCL(out_i, t_i)

Levels ``i`` go from the deepest to the first. Each has a module of attention-based fusion (ABF),
with ``x`` the student's feature and ``y`` the fused feature of the level before, which is deeper::

    x     <- BN(conv1x1(x)), to min(max_channels, channels of the student's deepest feature)
    x     <- x * z_1 + y * z_2,   [z_1, z_2] = sigmoid(conv1x1([x, y])), a number for each pixel
    out_i  = BN(conv3x3(x)), to the teacher's channels

``y`` is resized to the student's feature, and the fused ``x``, which is the next level's ``y``, to
the teacher's, by the nearest pixel. The deepest level has no ``y``.

The hierarchical context loss (HCL) compares a level at several sizes, ``mse`` the mean over all
elements, ``pool_l`` adaptive average pooling to ``l`` x ``l``::

    HCL(s, t) = (mse(s, t) + sum_l w_l * mse(pool_l s, pool_l t)) / (1 + sum_l w_l)

over those ``l`` of 4, 2, 1 that are smaller than the feature, with the weights 1/2, 1/4, 1/8 in the
order of those that are used.

Levels. Student: ``stage1``, ``stage2``, ..., then ``pooled``, a map of one pixel; the stem is not
used. Teacher: the same before the last ReLU (``stage1_pre``, ...) where it has such taps. The
stages of a WRN are bare sums, and its ``_pre`` taps those after the next normalization, as in the
published code. On ImageNet the published student is read before the ReLU as well
(``student_preactivation``). Networks with different numbers of stages are paired from the deepest
on, and the first stages of the one with more are left out (ours; published pairs have the same
number). ``student_taps`` and ``teacher_taps`` name other features in place of the stages.

Weights. CIFAR-100: w = 5 for wrn_40_2 to wrn_16_2, wrn_40_1 and shufflev1, and for resnet32x4 to
resnet8x4 and shufflev1; 8 for resnet32x4 to shufflev2, 0.6 for resnet56 to resnet20, 1 for
resnet110 to resnet32 and as the code's default. ImageNet: 1 (resnet34 to resnet18) or 8, with
``max_channels = 256`` (resnet50 to mobilenetv1), no warm-up. w is the objective's weight.

The epoch counts from 0, as in the authors' code: the first one has no review loss. (mdistiller
counts from 1.) Departures: the teacher is in inference mode, where the authors' CIFAR loop leaves
its batch normalization in training mode; and the recipe is that of the CRD comparison, where theirs
has batches of 128, learning rate 0.1 (0.02 for small networks), and Nesterov momentum.

Features are ``(batch, height, width, channels)`` of known height and width, or ``(batch,
channels)``. Fusions compute in the policy of the layers, losses in float32.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import keras
import tensorflow as tf

from tfkd import models
from tfkd.core import Objective, Requires, Spec, register
from tfkd.core.divergences import as_float
from tfkd.distillers.shared.adaptive_pooling import adaptive_average_pool
from tfkd.distillers.shared.idle_settings import refuse_idle
from tfkd.distillers.shared.layers import (
    Shape,
    check_map,
    convolution,
    mismatch,
    normalization,
    sequence,
)
from tfkd.distillers.shared.stage_taps import has_tap, paired_stages, taps_of_pairs
from tfkd.settings import Count, NonNegative, field

POOLED = "pooled"
"""The deepest level of every network."""

_SIZES = (4, 2, 1)


def resized(maps: tf.Tensor, size: Sequence[int]) -> tf.Tensor:
    """Returns maps at another height and width by the nearest pixel, as torch chooses it.

    Row ``i`` of ``n`` is row ``floor(i * m / n)`` of ``m``, columns likewise.

    Args:
        maps: Shape ``(batch, height, width, channels)``.
        size: Height and width of the result.
    """
    if tuple(maps.shape[1:3]) == tuple(size):
        return maps
    return tf.raw_ops.ResizeNearestNeighbor(
        images=maps, size=tf.constant(list(size), tf.int32), half_pixel_centers=False
    )


def fused(features: tf.Tensor, residual: tf.Tensor, gates: tf.Tensor) -> tf.Tensor:
    """Returns ``x * z_1 + y * z_2``.

    Args:
        features: The paper's x, ``(batch, height, width, channels)``.
        residual: Its y, of the same shape.
        gates: z, ``(batch, height, width, 2)``.
    """
    return features * gates[..., :1] + residual * gates[..., 1:]


def hierarchical_loss(student: tf.Tensor, teacher: tf.Tensor) -> tf.Tensor:
    """Returns HCL for each sample, ``(batch,)``.

    Args:
        student: Shape ``(batch, height, width, channels)``, of known height and width.
        teacher: The same.
    """
    # Pooling is linear: the difference is pooled instead of both.
    student = as_float(student)
    difference = student - tf.cast(teacher, student.dtype)
    total, weight, weights = _mean_square(difference), 1.0, 1.0
    for size in _SIZES:
        if size < min(difference.shape[1:3]):
            weight /= 2
            weights += weight
            total += weight * _mean_square(adaptive_average_pool(difference, (size, size)))
    return total / weights


def reviewkd_loss(student: Sequence[tf.Tensor], teacher: Sequence[tf.Tensor]) -> tf.Tensor:
    """Returns the sum of :func:`hierarchical_loss` over levels, for each sample.

    Args:
        student: What the fusions made, one of each level.
        teacher: The teacher's features, in the same order and shapes.
    """
    return tf.add_n([hierarchical_loss(*level) for level in zip(student, teacher, strict=True)])


def warmup_factor(epoch: tf.Tensor | float, warmup_epochs: float) -> tf.Tensor:
    """Returns ``min(epoch / warmup_epochs, 1)``, with epochs from 0; 1 without a warm-up."""
    epoch = tf.cast(epoch, tf.float32)
    return tf.minimum(epoch / warmup_epochs, 1.0) if warmup_epochs else tf.ones_like(epoch)


def _mean_square(maps: tf.Tensor) -> tf.Tensor:
    return tf.reduce_mean(tf.square(maps), axis=(1, 2, 3))


def before_relu(network: models.Network, stages: Sequence[str]) -> list[str]:
    """Returns the taps of stages before their last ReLU; the stage itself where there is none."""
    return [f"{tap}_pre" if has_tap(network, f"{tap}_pre") else tap for tap in stages]


class AttentionFusion(keras.layers.Layer):
    """The module of one level: attention-based fusion.

    Args:
        channels: Channels of the student's feature.
        middle: Channels in which features are fused.
        wanted: Channels of the teacher's feature.
        seed: Seed of the first weights; the next three are used as well.
        fuses: Whether there is a deeper level, whose feature is fused.
        name: Name of the layer.
    """

    def __init__(
        self, channels: int, middle: int, wanted: int, seed: int, *, fuses: bool, name: str
    ) -> None:
        super().__init__(name=name)
        self.reduce = _normalized(channels, middle, 1, seed, name=f"{name}_reduce")
        self.attend = None
        if fuses:
            self.attend = convolution(2 * middle, 2, 1, seed + 1, name=f"{name}_attend")
        self.expand = _normalized(middle, wanted, 3, seed + 3, name=f"{name}_expand")
        self.built = True

    def call(self, features, residual=None, *, size, training=None):
        """Returns the level's output, and the fused feature that the next level takes up.

        Args:
            features: The student's feature, ``(batch, height, width, channels)``.
            residual: The fused feature of the level before; ``None`` for the deepest.
            size: Height and width of the teacher's feature, which both results have.
            training: Whether normalization uses the batch.
        """
        features = self.reduce(features, training=training)
        if self.attend is not None:
            residual = resized(residual, features.shape[1:3])
            gates = tf.sigmoid(self.attend(tf.concat([features, residual], axis=-1)))
            features = fused(features, residual, gates)
        features = resized(features, size)
        return self.expand(features, training=training), features


def _normalized(channels: int, filters: int, size: int, seed: int, *, name: str):
    """Returns a convolution without bias and its normalization.

    The filters start as the published ones, Kaiming-uniform with a slope of 1.
    """
    layer = keras.layers.Conv2D(
        filters,
        size,
        padding="same",
        use_bias=False,
        kernel_initializer=keras.initializers.LecunUniform(seed=seed),
        name=f"{name}_convolution",
    )
    layers = [layer, normalization((None, None, None, filters), name=f"{name}_normalization")]
    return sequence(layers, (None, None, None, channels), name=name)


@register("reviewkd")
class ReviewKD(Objective):
    """Knowledge review: fused features of the student against all stages of the teacher."""

    warmup_epochs: NonNegative = field(20.0, "epochs until the loss has its full weight; 0: none")
    max_channels: Count = field(512, "most channels in which features are fused")
    student_preactivation: bool = field(
        False, "whether the student's stages, too, are read before their last ReLU"
    )
    student_taps: tuple[str, ...] = field(
        (), "taps of the student to compare beside pooled; none: its stages"
    )
    teacher_taps: tuple[str, ...] = field(
        (), "those of the teacher; none: its stages before their ReLU"
    )

    requires = Requires(teacher=True, allows_soft_labels=True, tasks=None)

    def check(self) -> None:
        if self.student_taps:
            idle, wanted = ["student_preactivation"], "taps before a ReLU, or student_taps=()"
            refuse_idle(self, idle, f"student_taps={self.student_taps!r}", wanted)

    def choose_taps(self, student: models.Network, teachers: Sequence[models.Network]) -> None:
        if not teachers:
            return  # The distiller tells of what is missing.
        teacher, named = teachers[0], (self.student_taps, self.teacher_taps)
        own, theirs = zip(*paired_stages(student, teacher, self.name, *named))
        if self.student_preactivation and not self.student_taps:
            own = before_relu(student, own)
        if not self.teacher_taps:
            theirs = before_relu(teacher, theirs)
        pairs = [*zip(own, theirs), (POOLED, POOLED)]
        self._levels = pairs[::-1]
        self.requires = dataclasses.replace(self.requires, taps=taps_of_pairs(pairs))

    def setup(self, spec: Spec) -> None:
        own, theirs = (spec.shapes[network, "main"] for network in ("student", "teacher"))
        pairs = [
            self._channels(student, own[student], teacher, theirs[teacher])
            for student, teacher in self._levels
        ]
        middle = min(self.max_channels, pairs[0][0])
        self.fusions = [
            AttentionFusion(
                channels,
                middle,
                wanted,
                spec.seed + 4 * number,
                fuses=number > 0,
                name=f"{self.name}_fusion{len(pairs) - number}",
            )
            for number, (channels, wanted) in enumerate(pairs)
        ]

    def _channels(
        self, student_tap: str, student: Shape, teacher_tap: str, teacher: Shape
    ) -> tuple[int, int]:
        """Returns the channels of student and teacher at a level, whose sizes must be known."""
        own = check_map(self.name, "student", student_tap, _as_map_shape(student))
        theirs = check_map(self.name, "teacher", teacher_tap, _as_map_shape(teacher))
        if None in (*own, *theirs):
            wanted = "a known height and width of both"
            raise mismatch(self.name, student_tap, student, teacher_tap, teacher, wanted)
        return own[2], theirs[2]

    def compute(self, context) -> tf.Tensor:
        made, targets, residual = [], [], None
        for fusion, (student, teacher) in zip(self.fusions, self._levels, strict=True):
            target = _as_map(context.teacher(teacher))
            output, residual = fusion(
                _as_map(context.student(student)),
                residual,
                size=tuple(target.shape[1:3]),
                training=context.training,
            )
            made.append(output)
            targets.append(target)
        return context.mean(reviewkd_loss(made, targets))

    def schedule(self, epoch: tf.Tensor) -> tf.Tensor:
        return warmup_factor(epoch, self.warmup_epochs)


def _as_map(feature: tf.Tensor) -> tf.Tensor:
    """Returns a vector as a map of one pixel, and a map as it is."""
    return feature[:, None, None, :] if feature.shape.rank == 2 else feature


def _as_map_shape(shape: Shape) -> Shape:
    return (shape[0], 1, 1, shape[1]) if len(shape) == 2 else shape
