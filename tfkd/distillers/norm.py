"""NORM: an expansion of the student's last feature is matched to N copies of the teacher's.

Xiaolong Liu, Lujun Li, Chao Li and Anbang Yao, "NORM: Knowledge Distillation via N-to-One
Representation Matching", ICLR 2023, arXiv 2305.13803. Two linear maps stand in the student, between
its last feature ``x`` and the pooling before its classifier::

    E(x) = BN(conv1x1(x)), to N times the teacher's channels;   D(e) = BN(conv1x1(e)), back again
    z = classifier(pool(x + D(E(x))))
    L = r * CE + beta * KL_4 + k(epoch) * N * mse(E(x), [t, t, ..., t])

``t`` is the teacher's last feature after its ReLU, repeated N times along the channels: the sum
over N segments of the mean squared difference of each. ``k`` is 0.1 in the first 10 epochs, 0.5 up
to epoch 20, 1 up to 180, 0.5 up to 210, then 0.1 (``phase_epochs``, ``phase_factors``). ``r`` is
the distiller's ``student_loss_weight``; the objective's weight is that of ``beta * KL`` and L_N.

Label loss, other methods and metrics see ``z``, in training and in evaluation. There is no
nonlinearity between ``x`` and the classifier, so that everything merges into the classifier when
training is over (``finalize``): with ``A_i`` and ``c_i`` matrix and shift of E and D, each with its
normalization folded in::

    W' = (1 + A_1 A_2) W,   b' = (c_1 A_2 + c_2) W + b

The student that is saved is a plain one, with the plain one's parameters, and gives the logits that
were trained, up to rounding. The student must end in global average pooling and one linear layer
with a bias; another end is refused.

``normalize_logits`` (default, as in the published code; not verified in the paper): label loss and
KL see logits less their mean, divided by ``sqrt(variance + 1e-7)`` and times 2.5, of both networks.
The order of the classes is the same. But the saved student has no such step: its logits are the
unnormalized ones, so that its accuracy is that of training, its confidence and label loss are not.
Another method of logits beside this one compares normalized logits with a teacher's that are not,
which a warning tells: take ``kd_weight``, or ``normalize_logits=False``. Beside SSKD, whose label
loss is one of the student's own logits, D would never be trained: refused.

If the teacher's map is larger, it is max-pooled in windows of ``floor(teacher / student)`` pixels;
where the sizes still differ, the larger map is averaged to the smaller one (ours: the published
code fails there).

Choices and departures. x and t are the features that are pooled, ``pre_pool``. Of WRNs the
published code takes the bare sums instead, before the last normalization and ReLU, where nothing
merges; and its MobileNetV2 has no ReLU behind the last convolution, where tfkd's has one. ``N = 1``
keeps both maps, which the code then leaves out. The filters start Kaiming-normal over the fan-out,
as those of most published students. The code runs one epoch more (241), with k at its last value.

Published: N = 8, KL at temperature 4; CIFAR-100: r swept over 1/16, 1/8, 1/4 and 1/2, without a
value for any pair (1/4 is our choice), beta = 0 for plain NORM and none published for NORM + KD.
ImageNet: k = 0.1, 0.5, 0.9, 0.5, 0.1 with ends at the epochs 5, 15, 60 and 80, r = 1 for resnet34
to resnet18 and 1/8 for resnet50 to mobilenetv1; those runs have a learning rate that falls by a
cosine, not in steps, and max-pool E(x), the student's map, where it is larger than the teacher's,
instead of the other way round. ``residual=False`` is the paper's "plain FT".

Features are ``(batch, height, width, channels)`` of known height and width. E and D compute in the
policy of the layers, losses in float32.
"""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from tfkd import models
from tfkd.core import Finish, Requires, Spec, register
from tfkd.core.divergences import as_float, kl_divergence
from tfkd.distillers.shared.adaptive_pooling import to_common_size
from tfkd.distillers.shared.idle_settings import refuse_idle
from tfkd.distillers.shared.layers import check_map, mismatch, normalization, sequence
from tfkd.distillers.shared.tap_pair import TapPair
from tfkd.errors import TfkdError
from tfkd.models.graph.calls import all_calls
from tfkd.models.graph.keras_layers import copy_weights, rebuild, remade
from tfkd.settings import Count, NonNegative, Positive, field

_SCALE = 2.5
_EPSILON = 1e-7
# Dropout does nothing at inference, Flatten only takes the axes of the one pixel away.
_PASSING = (keras.layers.Identity, keras.layers.Dropout, keras.layers.Flatten)


def norm_loss(expanded: tf.Tensor, teacher: tf.Tensor) -> tf.Tensor:
    """Returns ``N * mse`` against N copies of the teacher's feature, for each sample.

    Args:
        expanded: E(x), ``(batch, height, width, N * channels)``; segment n holds the channels from
            ``n * channels`` on.
        teacher: t, ``(batch, height, width, channels)``.

    Returns:
        Shape ``(batch,)``.
    """
    expanded = as_float(expanded)
    channels = teacher.shape[-1]
    copies = expanded.shape[-1] // channels
    shape = tf.concat([tf.shape(expanded)[:-1], [copies, channels]], axis=0)
    target = tf.cast(teacher, expanded.dtype)[..., None, :]
    difference = tf.reshape(expanded, shape) - target
    return copies * tf.reduce_mean(tf.square(difference), axis=(1, 2, 3, 4))


def normalized_logits(logits: tf.Tensor) -> tf.Tensor:
    """Returns logits of mean 0 and deviation 2.5 in each row, float32 (float64 stays float64)."""
    logits = as_float(logits)
    centered = logits - tf.reduce_mean(logits, axis=-1, keepdims=True)
    variance = tf.reduce_mean(tf.square(centered), axis=-1, keepdims=True)
    return _SCALE * centered * tf.math.rsqrt(variance + _EPSILON)


def phase_factor(
    epoch: tf.Tensor | float, ends: tuple[float, ...], factors: tuple[float, ...]
) -> tf.Tensor:
    """Returns k of an epoch, counted from 0.

    Args:
        epoch: The epoch.
        ends: Epochs at which the phases end, rising.
        factors: k of each phase, one more than there are ends.
    """
    passed = tf.cast(epoch, tf.float32) >= tf.constant(ends, tf.float32)
    return tf.gather(tf.constant(factors, tf.float32), tf.reduce_sum(tf.cast(passed, tf.int32)))


def merged(
    expansion: tuple[np.ndarray, np.ndarray],
    contraction: tuple[np.ndarray, np.ndarray],
    kernel: np.ndarray,
    bias: np.ndarray,
    residual: bool = True,
) -> tuple[np.ndarray, np.ndarray]:
    """Returns kernel and bias of the classifier that does the work of E, D and its own.

    Args:
        expansion: Matrix ``(channels, inner)`` and shift ``(inner,)`` of E.
        contraction: Matrix ``(inner, channels)`` and shift ``(channels,)`` of D.
        kernel: The classifier's, ``(channels, classes)``.
        bias: The classifier's.
        residual: Whether D's output is added to the feature, or takes its place.
    """
    (expand, expand_shift), (contract, contract_shift) = expansion, contraction
    through = expand @ contract
    if residual:
        through = through + np.eye(len(through))
    shift = expand_shift @ contract + contract_shift
    return through @ kernel, shift @ kernel + bias


def pooled_teacher(teacher: tf.Tensor, size: tuple[int, int]) -> tf.Tensor:
    """Returns the teacher's map, max-pooled by the whole number of times that it is larger.

    Args:
        teacher: Shape ``(batch, height, width, channels)``.
        size: Height and width of the student's map.
    """
    window = [max(large // small, 1) for large, small in zip(teacher.shape[1:3], size)]
    return teacher if window == [1, 1] else tf.nn.max_pool2d(teacher, window, window, "VALID")


def linear_classifier(network: models.Network, tap: str, method: str) -> keras.layers.Dense:
    """Returns the one linear layer between a tap of a network and its logits.

    Args:
        network: The network.
        tap: The feature that is pooled.
        method: Name of the method, for the message.

    Raises:
        TfkdError: When there is more than global average pooling and a linear layer with a bias, or
            the layer is used elsewhere as well.
    """
    head = models.head(network.model, network.paths([tap])[tap])
    found = [
        call.operation
        for _, call in all_calls(head)
        if not models.is_functional(call.operation) and type(call.operation) not in _PASSING
    ]
    if list(map(type, found)) == [keras.layers.GlobalAveragePooling2D, keras.layers.Dense]:
        classifier = found[1]
        uses = [call for _, call in all_calls(network.model) if call.operation is classifier]
        linear = classifier.activation is keras.activations.linear
        if classifier.use_bias and linear and len(uses) == 1:
            return classifier
    words = ", ".join(f"{layer.name} ({type(layer).__name__})" for layer in found) or "nothing"
    raise TfkdError(
        f"{method}: found {words} between {tap!r} and the logits of student {network.name!r}, "
        "wanted GlobalAveragePooling2D and a Dense layer with a bias, without activation and used "
        "once, into which the expansion merges"
    )


def _folded(layers: keras.Sequential) -> tuple[np.ndarray, np.ndarray]:
    """Returns matrix and shift of a 1x1 convolution and its normalization, in float64."""
    convolution, normalized = layers.layers
    kernel, gamma, beta, mean, variance = (
        keras.ops.convert_to_numpy(each).astype(np.float64)
        for each in (
            convolution.kernel,
            normalized.gamma,
            normalized.beta,
            normalized.moving_mean,
            normalized.moving_variance,
        )
    )
    scale = gamma / np.sqrt(variance + normalized.epsilon)
    return kernel[0, 0] * scale, beta - mean * scale


def _linear(channels: int, filters: int, seed: int, *, name: str) -> keras.Sequential:
    """Returns a 1x1 convolution without bias and its normalization."""
    start = keras.initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal", seed=seed)
    layer = keras.layers.Conv2D(
        filters, 1, use_bias=False, kernel_initializer=start, name=f"{name}_convolution"
    )
    layers = [layer, normalization((None, None, None, filters), name=f"{name}_normalization")]
    return sequence(layers, (None, None, None, channels), name=name)


@register("norm")
class NORM(TapPair):
    """N-to-one representation matching, which leaves a plain student."""

    expansion: Count = field(8, "the paper's N, copies of the teacher's feature")
    kd_weight: NonNegative = field(0.0, "the paper's beta, of the divergence of the logits")
    temperature: Positive = field(4.0, "of that divergence")
    residual: bool = field(True, "whether the feature is added to its expansion and contraction")
    normalize_logits: bool = field(True, "whether label loss and divergence see normalized logits")
    phase_epochs: tuple[NonNegative, ...] = field(
        (10.0, 20.0, 180.0, 210.0), "epochs at which the phases of the feature loss end"
    )
    phase_factors: tuple[NonNegative, ...] = field(
        (0.1, 0.5, 1.0, 0.5, 0.1), "the paper's k, of the feature loss, in each phase"
    )
    student_tap: str = field("pre_pool", "the student's feature before the pooling")
    teacher_tap: str = field("pre_pool", "the teacher's feature")

    def check(self) -> None:
        if list(self.phase_epochs) != sorted(self.phase_epochs):
            raise TfkdError(f"{self.name}: found phase_epochs={self.phase_epochs}, wanted rising")
        if len(self.phase_factors) != len(self.phase_epochs) + 1:
            raise TfkdError(
                f"{self.name}: found {len(self.phase_factors)} phase_factors and "
                f"{len(self.phase_epochs)} phase_epochs, wanted one factor more"
            )
        if not self.kd_weight:
            refuse_idle(self, ["temperature"], "kd_weight=0", "kd_weight > 0")

    @property
    def rescales_logits(self) -> str:
        if not self.normalize_logits:
            return ""
        return "normalize_logits=False, or its own divergence (kd_weight)"

    @property
    def requires(self) -> Requires:
        logits = ["logits"] if self.kd_weight else []
        return Requires(
            taps={
                ("student", "main"): [self.student_tap],
                ("teacher", "main"): [*logits, self.teacher_tap],
            },
            allows_soft_labels=True,
        )

    def term_names(self) -> tuple[str, ...]:
        return ("feature", "kd") if self.kd_weight else ("feature",)

    def setup(self, spec: Spec) -> None:
        student = spec.shapes["student", "main"][self.student_tap]
        teacher = spec.shapes["teacher", "main"][self.teacher_tap]
        *own_size, channels = check_map(self.name, "student", self.student_tap, student)
        *size, wanted = check_map(self.name, "teacher", self.teacher_tap, teacher)
        if None in (*own_size, *size):
            known = "a known height and width of both"
            raise mismatch(self.name, self.student_tap, student, self.teacher_tap, teacher, known)
        linear_classifier(spec.network("student"), self.student_tap, self.name)
        inner = self.expansion * wanted
        self.expand = _linear(channels, inner, spec.seed, name=f"{self.name}_expand")
        self.contract = _linear(inner, channels, spec.seed + 1, name=f"{self.name}_contract")

    def student_logits(self, context) -> tf.Tensor:
        features = context.output("student", self.student_tap)
        expanded = self.expand(features, training=context.training)
        context.scratch[self.name] = expanded
        changed = tf.cast(self.contract(expanded, training=context.training), features.dtype)
        if self.residual:
            changed += features
        logits = context.head("student", self.student_tap)(changed, training=context.training)
        return normalized_logits(logits) if self.normalize_logits else logits

    def compute(self, context) -> dict[str, tf.Tensor]:
        expanded = context.scratch[self.name]
        teacher = context.teacher(self.teacher_tap)
        teacher = pooled_teacher(teacher, tuple(expanded.shape[1:3]))
        losses = {"feature": context.mean(norm_loss(*to_common_size(expanded, teacher)))}
        if self.kd_weight:
            taught_by = context.teacher()
            taught_by = normalized_logits(taught_by) if self.normalize_logits else taught_by
            loss = kl_divergence(taught_by, context.student_logits, self.temperature)
            losses["kd"] = self.kd_weight * context.mean(loss)
        return losses

    def schedule(self, epoch: tf.Tensor) -> dict[str, tf.Tensor | float]:
        return {
            "feature": phase_factor(epoch, self.phase_epochs, self.phase_factors),
            "kd": 1.0,
        }

    def finalize(self, student: models.Network, finish: Finish) -> models.Network:
        classifier = linear_classifier(student, self.student_tap, self.name)
        kernel, bias = (
            keras.ops.convert_to_numpy(each).astype(np.float64)
            for each in (classifier.kernel, classifier.bias)
        )
        plain, layers = rebuild(student.model, remade)
        for original, clone in layers:
            copy_weights(original, clone)
            if original is classifier:
                kernel, bias = merged(
                    _folded(self.expand), _folded(self.contract), kernel, bias, self.residual
                )
                clone.kernel.assign(kernel)
                clone.bias.assign(bias)
        return student.with_model(plain)
