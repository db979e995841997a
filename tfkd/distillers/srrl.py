"""SRRL: the teacher's own classifier says of the student's features what it says of the teacher's.

Jing Yang, Brais Martinez, Adrian Bulat and Georgios Tzimiropoulos, "Knowledge Distillation via
Softmax Regression Representation Learning", ICLR 2021, section 3::

    L = CE + L_FM + L_SR
    L_FM = mean_batch mean_channels (r - t)^2
    L_SR = mean_batch mean_classes  (head(r) - z)^2

``t`` is the feature that the teacher's classifier ``head`` reads, ``z = head(t)`` its logits and
``r`` the student's feature behind a connector: 1x1 convolution without bias, batch normalization,
ReLU. Its filters start normal with deviation ``sqrt(2 / channels of t)``. Two forms:

- ``connector_on="map"``, the authors' code: the connector runs on the student's last feature map,
  and ``r`` is the mean over its pixels.
- ``connector_on="pooled"``, the code of the CIFAR-100 comparisons (SimKD): the mean over the pixels
  comes first. ReLU makes the two differ.

The head is all that the teacher has between ``t`` and its logits, in inference mode. The gradient
passes through it to the student; its weights get none, are those of the teacher, and are no part
of what is trained or saved. ``teacher_tap`` may be any vector that the logits follow from. In the
networks of tfkd it is ``pooled``, the input of their last linear layer: the mean over ``pre_pool``
in most, the second hidden layer in VGG for ImageNet, the flattened map in VGG-small. (Choice: the
paper's networks all end in that mean.)

Published for ImageNet: weights 1 and 1, which are the defaults, with ``connector_on="map"``. The
usual results on CIFAR-100 are those of ``connector_on="pooled"`` with KD (temperature 4, weight 1)
beside it: ``methods(srrl=dict(connector_on="pooled"), kd=dict(weight=1.0))``.

Features are of any float type, losses float32.
"""

from __future__ import annotations

import math
from typing import Literal

import keras
import tensorflow as tf

from tfkd.core import Requires, Spec, register
from tfkd.core.divergences import as_float
from tfkd.distillers.shared.layers import (
    Shape,
    check_map,
    check_width,
    normalization,
    sequence,
)
from tfkd.distillers.shared.tap_pair import TapPair
from tfkd.settings import NonNegative, field

Place = Literal["map", "pooled"]


def srrl_losses(
    feature: tf.Tensor, logits: tf.Tensor, teacher_feature: tf.Tensor, teacher_logits: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the feature matching and the softmax regression of each sample.

    Args:
        feature: The student's feature behind the connector, ``(batch, channels)``.
        logits: What the teacher's head makes of it, ``(batch, classes)``.
        teacher_feature: The teacher's, ``(batch, channels)``.
        teacher_logits: The teacher's, ``(batch, classes)``.

    Returns:
        Two tensors ``(batch,)``.
    """
    matching = tf.square(as_float(feature) - as_float(teacher_feature))
    regression = tf.square(as_float(logits) - as_float(teacher_logits))
    return tf.reduce_mean(matching, axis=-1), tf.reduce_mean(regression, axis=-1)


def connector(shape: Shape, channels: int, seed: int, name: str) -> keras.Sequential:
    """Returns 1x1 convolution, batch normalization and ReLU.

    Args:
        shape: Of the feature, batch axis first: a map, or a vector, where the convolution is a
            linear layer.
        channels: Channels of the result.
        seed: Seed of the filters.
        name: Name of the connector.
    """
    start = keras.initializers.RandomNormal(stddev=math.sqrt(2.0 / channels), seed=seed)
    common = {"use_bias": False, "kernel_initializer": start, "name": f"{name}_filters"}
    if len(shape) == 4:
        filters: keras.layers.Layer = keras.layers.Conv2D(channels, 1, **common)
    else:
        filters = keras.layers.Dense(channels, **common)
    filters.build(shape)
    made = (*shape[:-1], channels)
    layers = [filters, normalization(made, name=f"{name}_bn"), keras.layers.ReLU()]
    return sequence(layers, shape, name=name)


def through_frozen(head: keras.Model, feature: tf.Tensor) -> tf.Tensor:
    """Returns what a head makes of a feature; the gradient reaches the feature, not the weights.

    Args:
        head: The head, run in inference mode.
        feature: Its input.
    """
    trained, others = (
        [tf.stop_gradient(tf.convert_to_tensor(each)) for each in variables]
        for variables in (head.trainable_variables, head.non_trainable_variables)
    )
    logits, _ = head.stateless_call(trained, others, feature, training=False)
    return logits


@register("srrl")
class SRRL(TapPair):
    """Softmax regression representation learning."""

    connector_on: Place = field("map", "what the connector runs on: the map, or its mean")
    feature_weight: NonNegative = field(1.0, "weight of the feature matching")
    regression_weight: NonNegative = field(1.0, "weight of the softmax regression")
    student_tap: str = field(
        "pre_pool", "feature of the student: a map; or a vector, for connector_on='pooled'"
    )
    teacher_tap: str = field("pooled", "feature of the teacher, a vector that its logits follow")

    terms = ("feature", "regression")

    @property
    def requires(self) -> Requires:
        return Requires(
            taps={
                ("student", "main"): [self.student_tap],
                ("teacher", "main"): ["logits", self.teacher_tap],
            },
            allows_soft_labels=True,
        )

    def setup(self, spec: Spec) -> None:
        shape = spec.shapes["student", "main"][self.student_tap]
        if self.connector_on == "map" or len(shape) != 2:
            check_map(self.name, "student", self.student_tap, shape)
        if self.connector_on == "pooled":
            shape = (shape[0], shape[-1])
        wanted = spec.shapes["teacher", "main"][self.teacher_tap]
        channels = check_width(self.name, "teacher", self.teacher_tap, wanted)
        # What the teacher cannot give is told before anything runs.
        spec.head("teacher", self.teacher_tap)
        self.connector = connector(shape, channels, spec.seed, f"{self.name}_connector")

    def connected(self, feature: tf.Tensor, training: bool) -> tf.Tensor:
        """Returns the student's feature behind the connector, ``(batch, channels)`` in float32."""
        if self.connector_on == "pooled" and feature.shape.rank == 4:
            feature = tf.reduce_mean(as_float(feature), axis=(1, 2))
        feature = as_float(self.connector(feature, training=training))
        return tf.reduce_mean(feature, axis=(1, 2)) if feature.shape.rank == 4 else feature

    def compute(self, context) -> dict[str, tf.Tensor]:
        feature = self.connected(context.student(self.student_tap), context.training)
        logits = through_frozen(context.head("teacher", self.teacher_tap), feature)
        matching, regression = srrl_losses(
            feature, logits, context.teacher(self.teacher_tap), context.teacher()
        )
        return {
            "feature": self.feature_weight * context.mean(matching),
            "regression": self.regression_weight * context.mean(regression),
        }
