"""The batch normalization of tfkd's networks: fused on one device, synchronized over replicas."""

from __future__ import annotations

import keras
import tensorflow as tf

from tfkd.errors import TfkdError

_FUSED_DTYPES = (tf.float32, tf.bfloat16, tf.float16)


@keras.saving.register_keras_serializable(package="tfkd")
class BatchNormalization(keras.layers.BatchNormalization):
    """Batch normalization over the last axis, as `torch.nn.BatchNorm2d` computes it, only faster.

    With mean m and variance v over every axis but the last,

        output = gamma * (input - m) / sqrt(v + epsilon) + beta.

    In training m and v are those of the batch and the moving statistics follow as
    `moving = momentum * moving + (1 - momentum) * batch`, with the *unbiased* batch variance
    (divided by count - 1), as in torch; `keras.layers.BatchNormalization` keeps the biased one. At
    inference, or when `trainable` is False, m and v are the moving statistics. Statistics of a
    batch that are not finite are left out of the moving ones.

    On one replica both modes are one `FusedBatchNormV3` operation, about a fifth of a training
    step cheaper than Keras' own composition. Under several replicas of `tf.distribute` the counts,
    means and squared distances of the replicas are joined by one all-reduce, so that the outputs,
    gradients and moving statistics are those of the whole batch on one device; with
    `synchronized=False` every replica normalizes its own part (fused), and only the moving
    statistics are averaged, so that they stay equal. Statistics are float32 for float16 and
    bfloat16 inputs.

    Forward-mode derivatives (`tf.autodiff.ForwardAccumulator`) do not pass through TensorFlow's
    all-reduce; take them by double backward, or on one replica.

    Source: Ioffe and Szegedy, "Batch Normalization", 2015, https://arxiv.org/abs/1502.03167.

    Args:
        momentum: The share of the old moving statistics that a step keeps. (Torch's `momentum`
            is one minus this.)
        epsilon: Added to the variance.
        synchronized: Whether replicas share the statistics of a batch.
        **kwargs: `center`, `scale`, initializers, regularizers, constraints and `name`, as in
            `keras.layers.BatchNormalization`.

    Input shape: (batch, ..., channels), of any rank from 2. Output shape: the same.

    Raises:
        TfkdError: For an axis that is not the last, for `renorm`, and for a masked input.
    """

    def __init__(
        self,
        *,
        momentum: float = 0.9,
        epsilon: float = 1e-5,
        synchronized: bool = True,
        **kwargs,
    ):
        if kwargs.get("renorm"):
            raise TfkdError(
                "BatchNormalization: found renorm=True; wanted False, or "
                "keras.layers.BatchNormalization, which has it"
            )
        super().__init__(momentum=momentum, epsilon=epsilon, synchronized=synchronized, **kwargs)

    def build(self, input_shape):
        if self.axis not in (-1, len(input_shape) - 1):
            raise TfkdError(
                f"BatchNormalization {self.name!r}: found axis={self.axis} for inputs of rank "
                f"{len(input_shape)}; wanted the last axis, -1"
            )
        super().build(input_shape)

    def call(self, inputs, training=None, mask=None):
        if mask is not None:
            raise TfkdError(
                f"BatchNormalization {self.name!r}: found a mask; wanted none "
                "(keras.layers.BatchNormalization honours masks)"
            )
        inputs = tf.convert_to_tensor(inputs)
        fusable = inputs.dtype in _FUSED_DTYPES
        if not (training and self.trainable):
            if fusable:
                return self._fused(inputs, training=False)[0]
            return super().call(inputs, training=False)
        context = tf.distribute.get_replica_context()
        # There is no replica context while a strategy's scope is open: one whole batch, then.
        several = context is not None and context.num_replicas_in_sync > 1
        if fusable and not (several and self.synchronized):
            outputs, mean, variance = self._fused(inputs, training=True)
            if several:
                mean, variance = context.all_reduce(tf.distribute.ReduceOp.MEAN, [mean, variance])
        else:
            outputs, mean, variance = self._from_parts(inputs, context if several else None)
        for moving, value in ((self.moving_mean, mean), (self.moving_variance, variance)):
            value = tf.cast(value, moving.dtype)
            # What a bad batch does to outputs is seen and stops a run; here it would stay for good.
            moving.assign(tf.where(tf.math.is_finite(value), value, tf.convert_to_tensor(moving)))
        return outputs

    def _parameters(self, dtype):
        """Gamma, beta, moving mean and moving variance as tensors of `dtype`."""
        channels = self.moving_mean.shape
        gamma = tf.ones(channels, dtype) if self.gamma is None else tf.cast(self.gamma, dtype)
        beta = tf.zeros(channels, dtype) if self.beta is None else tf.cast(self.beta, dtype)
        return gamma, beta, tf.cast(self.moving_mean, dtype), tf.cast(self.moving_variance, dtype)

    def _fused(self, inputs, training):
        """Outputs, and the moving mean and variance after this batch, by one operation.

        The raw operation is called because `tf.compat.v1.nn.fused_batch_norm` silently raises
        every epsilon to at least 1.001e-5.
        """
        gamma, beta, mean, variance = self._parameters(tf.float32)
        # The operation sees an image; any other rank is a batch of one-pixel images.
        images = inputs
        if inputs.shape.rank != 4:
            images = tf.reshape(inputs, (-1, 1, 1, inputs.shape[-1]))
        outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=images,
            scale=gamma,
            offset=beta,
            mean=mean,
            variance=variance,
            epsilon=self.epsilon,
            exponential_avg_factor=1.0 - self.momentum if training else 1.0,
            is_training=training,
        )
        if inputs.shape.rank != 4:
            outputs = tf.ensure_shape(tf.reshape(outputs, tf.shape(inputs)), inputs.shape)
        return tf.cast(outputs, self.compute_dtype), mean, variance

    def _from_parts(self, inputs, context):
        """The same from the statistics of the parts of the batch that replicas have.

        With the n rows of a part, its mean a and its sum q of squared distances from a, those of
        the whole are ``a = sum n a / sum n`` and ``q = sum q + sum n (a - its a)^2`` (Chan, Golub
        and LeVeque, "Updating Formulae and a Pairwise Algorithm for Computing Sample Variances",
        1979): sums of squares would cancel where a mean is large, as behind adder layers.

        Args:
            inputs: (batch, ..., channels), any floating type.
            context: The replica context whose replicas share the batch, or None for one replica.
        """
        dtype = tf.float64 if inputs.dtype == tf.float64 else tf.float32
        gamma, beta, old_mean, old_variance = self._parameters(dtype)
        inputs = tf.cast(inputs, dtype)
        axes = list(range(inputs.shape.rank - 1))
        channels = inputs.shape[-1]
        count = tf.cast(tf.size(inputs) // channels, dtype)
        own = tf.reduce_mean(inputs, axes)
        centered = inputs - own
        squares = tf.reduce_sum(tf.square(centered), axes)
        mean = own
        if context is not None:
            # Each replica fills a row of its own; their sum has all rows.
            part = tf.concat([own, squares, tf.reshape(count, (1,))], axis=0)
            row = tf.one_hot(context.replica_id_in_sync_group, context.num_replicas_in_sync)
            rows = tf.cast(row, dtype)[:, None] * part
            rows = context.all_reduce(tf.distribute.ReduceOp.SUM, rows)
            means, all_squares, counts = tf.split(rows, (channels, channels, 1), axis=1)
            count = tf.reduce_sum(counts)
            mean = tf.reduce_sum(counts * means, axis=0) / count
            between = tf.reduce_sum(counts * tf.square(means - mean), axis=0)
            squares = tf.reduce_sum(all_squares, axis=0) + between
        variance = squares / count
        scale = gamma * tf.math.rsqrt(variance + self.epsilon)
        outputs = centered * scale + (beta + (own - mean) * scale)
        unbiased = variance * (count / tf.maximum(count - 1.0, 1.0))
        return (
            tf.cast(outputs, self.compute_dtype),
            old_mean + (1.0 - self.momentum) * (mean - old_mean),
            self.momentum * old_variance + (1.0 - self.momentum) * unbiased,
        )
