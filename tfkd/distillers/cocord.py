"""CoCoRD: the student's embedding is contrasted with the teacher's, and predicts its slow twin's.

Shipeng Fu, Haoran Yang and Xiaomin Yang, "Contrastive Consistent Representation Distillation",
BMVC 2023. Of three independently augmented views a, b and c of each image::

    q  = P_s(S(a)),  p1 = Q(q),  p2 = Q(P_s(S(b)))
    k  = P_t(T(c)),  u1 = P_s'(S'(b)),  u2 = P_s'(S'(a))
    L  = CE + contrast_weight * L_contrast + prediction_weight * L_prediction
    L_contrast   = -mean_batch log softmax([cos(q, k), cos(q, queue)] / temperature)_0
    L_prediction = mean_batch (2 - 2 cos(p1, u1)) + (2 - 2 cos(p2, u2))

``S`` and ``T`` are the embeddings of student and teacher, ``P_s`` the student's projector (linear,
batch normalization, ReLU, linear) and ``Q`` its predictor, of the same form. ``S'`` and ``P_s'``
are the moving averages of ``S`` and ``P_s`` (momentum 0.9), ``P_t`` that of ``P_s`` (0.999). They
start as copies, normalize by the statistics of their own batches, whose moving statistics are not
averaged, and take no gradient, as ``k``, ``u1`` and ``u2`` do not. The queue holds the last 2048
``k / |k|``, at first random ones; a batch is compared with the queue of the steps before, and is
written to it after the update. The key of an image of ``sample_weight`` 0 takes a place there, but
is compared with nothing.

The published code averages after the query pass and before the keys. The student has the same
weights in both, so that the average is formed here before the networks run. Weights, widths and
momenta are those of the published CIFAR-100 runs.

RECONSTRUCTION: the published code needs embeddings of equal width. Where the teacher's has another
one, the first linear layer of ``P_t`` keeps its random first weights, and the rest is averaged.

Departure: the linear layers before a normalization have no bias, which it would take away again.

Embeddings are ``(batch, width)``, of any float type; losses are computed in float32, one for each
image.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from tfkd.core import Companion, Requires, Spec, Terms, register
from tfkd.core.divergences import LEFT_OUT, as_float
from tfkd.distillers.shared.contrast import counted
from tfkd.distillers.shared.layers import check_width, dense, normalization, sequence
from tfkd.distillers.shared.queue import EMPTY, Queue
from tfkd.distillers.shared.tap_pair import TapPair
from tfkd.models.graph.keras_layers import copy_weights, rebuild, remade
from tfkd.settings import Count, Fraction, NonNegative, Positive, field

Pairs = list[tuple[keras.Variable, keras.Variable]]

_KEY = "key"
_COUNTS = 0
"""Number of a place of the queue that counts, whatever image its key is of."""


@dataclass(frozen=True)
class MovingAverage:
    """Variables that follow others: ``average = momentum * average + (1 - momentum) * followed``.

    (As attributes of an objective they would be taken for variables of its own.)

    Attributes:
        pairs: Each average, with what it follows.
        momentum: The share of the old values.
    """

    pairs: Pairs
    momentum: float

    def update(self) -> None:
        """Moves every average once."""
        for average, followed in self.pairs:
            difference = tf.convert_to_tensor(followed) - tf.convert_to_tensor(average)
            average.value.assign_add((1.0 - self.momentum) * difference)


def contrast_logits(
    query: tf.Tensor,
    key: tf.Tensor,
    queue: tf.Tensor,
    temperature: float = 0.1,
    counted: tf.Tensor | None = None,
) -> tf.Tensor:
    """Returns the softened cosines of each query with its own key and with the queue.

    Args:
        query: Projected embeddings of the student, ``(batch, width)``.
        key: Those of the teacher, of the same images.
        queue: Earlier keys, ``(queue, width)``, rows of length 1.
        temperature: What the cosines are divided by.
        counted: Which rows of the queue count, booleans ``(queue,)``; ``None`` is all.

    Returns:
        Shape ``(batch, 1 + queue)``, the own key first.
    """
    query, key = _unit(query), _unit(key)
    own = tf.reduce_sum(query * key, axis=-1, keepdims=True)
    others = tf.matmul(query, tf.cast(queue, query.dtype), transpose_b=True)
    if counted is not None:
        others = tf.where(counted[None, :], others, tf.constant(LEFT_OUT, others.dtype))
    return tf.concat([own, others], axis=-1) / temperature


def contrast_loss(
    query: tf.Tensor,
    key: tf.Tensor,
    queue: tf.Tensor,
    temperature: float = 0.1,
    counted: tf.Tensor | None = None,
) -> tf.Tensor:
    """Returns how badly each query tells its own key from the queue, for each sample.

    Arguments are those of :func:`contrast_logits`.
    """
    return -tf.nn.log_softmax(contrast_logits(query, key, queue, temperature, counted))[:, 0]


def prediction_loss(prediction: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
    """Returns ``2 - 2 cos(prediction, target)``, for each sample.

    Args:
        prediction: Shape ``(batch, width)``.
        target: What is to be predicted, of the same shape.
    """
    return 2.0 - 2.0 * tf.reduce_sum(_unit(prediction) * _unit(target), axis=-1)


def perceptron(inputs: int, inner: int, outputs: int, seed: int, name: str) -> keras.Sequential:
    """Returns linear, batch normalization, ReLU, linear: features ``(batch, inputs)`` -> outputs.

    Args:
        inputs: Width of the features.
        inner: Width between the linear layers.
        outputs: Width of the result.
        seed: Seed of the first weights; the next three numbers are used as well.
        name: Name of the layers.
    """
    layers = [
        dense(inputs, inner, seed, use_bias=False, name=f"{name}_first"),
        normalization((None, inner), name=f"{name}_bn"),
        keras.layers.ReLU(name=f"{name}_relu"),
        dense(inner, outputs, seed + 2, name=f"{name}_last"),
    ]
    return sequence(layers, (None, inputs), name=name)


@register("cocord")
class CoCoRD(TapPair):
    """Contrastive consistent representation distillation, over three views of each image."""

    contrast_weight: NonNegative = field(1.0, "weight of the contrast with the teacher")
    prediction_weight: NonNegative = field(4.0, "weight of predicting the slow twin")
    temperature: Positive = field(0.1, "divides the cosines of the contrast")
    queue_size: Count = field(2048, "earlier keys of the teacher that are kept")
    projection_width: Count = field(2048, "width of projected embeddings, and inside projectors")
    predictor_width: Count = field(512, "width inside the predictor")
    slow_momentum: Fraction = field(0.9, "share of the old weights in the student's slow twin")
    teacher_momentum: Fraction = field(0.999, "the same for the teacher's projector")
    student_tap: str = field("pooled", "embedding of the student, a vector")
    teacher_tap: str = field("pooled", "embedding of the teacher, a vector")

    terms = ("contrast", "prediction")

    @property
    def requires(self) -> Requires:
        return Requires(
            taps={
                ("student", "main"): [self.student_tap],
                ("student", "second"): [self.student_tap],
                (self._slow, "main"): [self.student_tap],
                (self._slow, "second"): [self.student_tap],
                ("teacher", "third"): [self.teacher_tap],
            },
            allows_soft_labels=True,
        )

    @property
    def _slow(self) -> str:
        """Name of the slow twin among the networks."""
        return f"{self.name}_slow"

    def setup(self, spec: Spec) -> None:
        own_shape = spec.shapes["student", "main"][self.student_tap]
        teacher_shape = spec.shapes["teacher", "third"][self.teacher_tap]
        own = check_width(self.name, "student", self.student_tap, own_shape)
        teacher = check_width(self.name, "teacher", self.teacher_tap, teacher_shape)
        width = self.projection_width
        self.projector, self.slow_projector, self.teacher_projector = (
            perceptron(inputs, width, width, seed, f"{self.name}_{word}projector")
            for word, inputs, seed in (
                ("", own, spec.seed),
                ("slow_", own, spec.seed),
                ("teacher_", teacher, spec.seed + 8),
            )
        )
        self.predictor = perceptron(
            width, self.predictor_width, width, spec.seed + 4, f"{self.name}_predictor"
        )
        self.untrained = [self.slow_projector, self.teacher_projector]
        twin, layers = rebuild(spec.network("student").model, remade)
        self.companions[self._slow] = Companion(twin)
        layers += zip(self.projector.layers, self.slow_projector.layers, strict=True)
        self._slow_average = MovingAverage(_copied(layers), self.slow_momentum)
        layers = list(zip(self.projector.layers, self.teacher_projector.layers, strict=True))
        # The first layer can be a copy where the embeddings are equally wide.
        copies = _copied(layers if own == teacher else layers[1:])
        self._teacher_average = MovingAverage(copies, self.teacher_momentum)
        self.queue = Queue(
            self.queue_size,
            {_KEY: width},
            name=f"{self.name}_queue",
            start=lambda shape, dtype: _unit(
                tf.random.stateless_normal(shape, (spec.seed, 0), dtype=dtype)
            ),
            number=_COUNTS,
        )

    def before_step(self, context) -> None:
        self._slow_average.update()
        self._teacher_average.update()

    def compute(self, context) -> Terms:
        training = context.training
        first, second = (
            self.projector(context.student(self.student_tap, view), training=training)
            for view in ("main", "second")
        )
        target_of_second, target_of_first = (
            tf.stop_gradient(
                self.slow_projector(
                    context.output(self._slow, self.student_tap, view), training=training
                )
            )
            for view in ("main", "second")
        )
        teacher = context.teacher(self.teacher_tap, "third")
        key = tf.stop_gradient(_unit(self.teacher_projector(teacher, training=training)))
        queue = tf.convert_to_tensor(self.queue.rows[_KEY])
        known = tf.convert_to_tensor(self.queue.numbers) != EMPTY
        contrast = contrast_loss(first, key, queue, self.temperature, known)
        prediction = prediction_loss(self.predictor(first, training=training), target_of_first)
        prediction += prediction_loss(self.predictor(second, training=training), target_of_second)
        losses = {
            "contrast": self.contrast_weight * context.mean(contrast),
            "prediction": self.prediction_weight * context.mean(prediction),
        }
        return Terms(losses, {_KEY: key})

    def after_step(self, context, carry: Mapping[str, Any]) -> None:
        keys = tf.cast(context.gather(carry[_KEY]), tf.float32)
        self.queue.put({_KEY: keys}, tf.where(counted(context), _COUNTS, EMPTY))


def _unit(vectors: tf.Tensor) -> tf.Tensor:
    """Returns vectors of length 1, in float32 or float64."""
    return tf.math.l2_normalize(as_float(vectors), axis=-1)


def _copied(layers: Iterable[tuple[keras.layers.Layer, keras.layers.Layer]]) -> Pairs:
    """Copies the weights of layers to others, and returns what is averaged: copy and original."""
    pairs: Pairs = []
    for original, copy in layers:
        copy_weights(original, copy)
        pairs += zip(copy.trainable_variables, original.trainable_variables, strict=True)
    return pairs
