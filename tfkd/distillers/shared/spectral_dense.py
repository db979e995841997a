"""A linear layer whose kernel is divided by its spectral norm, so that it is 1-Lipschitz.

Takeru Miyato, Toshiki Kataoka, Masanori Koyama and Yuichi Yoshida, "Spectral Normalization for
Generative Adversarial Networks", ICLR 2018, arXiv 1802.05957, algorithm 1, as torch reparametrizes
layers: the norm is ``v' W u`` with ``u`` and ``v`` constant, gradients pass through the ``W`` in
it, and the kernel itself is never overwritten. Training improves ``u`` by one iteration a step.
"""

from __future__ import annotations

import keras
import tensorflow as tf

from tfkd.distillers.shared.layers import dense


def spectral_norm(kernel: tf.Tensor, vector: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the spectral norm of a kernel after one power iteration, and the vector found.

    Args:
        kernel: Shape ``(inputs, units)``.
        vector: The estimate so far of the right singular vector, ``(units,)``.

    Returns:
        A scalar with the gradient ``v u'`` to the kernel, and the better estimate, without one.
    """
    left = tf.math.l2_normalize(tf.linalg.matvec(kernel, vector))
    right = tf.math.l2_normalize(tf.linalg.matvec(kernel, left, transpose_a=True))
    left, right = tf.stop_gradient(left), tf.stop_gradient(right)
    return tf.tensordot(left, tf.linalg.matvec(kernel, right), 1), right


class SpectralDense(keras.layers.Layer):
    """A linear layer of spectral norm 1, features ``(batch, inputs)`` -> ``(batch, units)``.

    Args:
        inputs: Width of the features.
        units: Width of the result.
        seed: Seed of the first weights and of the first vector.
        name: Name of the layer.
    """

    def __init__(self, inputs: int, units: int, seed: int, *, name: str) -> None:
        super().__init__(name=name, dtype="float32")
        self.dense = dense(inputs, units, seed, name=f"{name}_dense", dtype="float32")
        self.vector = self.add_weight(
            shape=(units,),
            initializer=keras.initializers.RandomNormal(stddev=1.0, seed=seed + 2),
            trainable=False,
            autocast=False,
            aggregation="only_first_replica",
            name="vector",
        )
        self.built = True

    def call(self, features: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Returns the result; training writes the vector."""
        kernel = tf.convert_to_tensor(self.dense.kernel)
        norm, vector = spectral_norm(kernel, tf.convert_to_tensor(self.vector))
        if training:
            self.vector.assign(vector)
        return tf.matmul(features, kernel / norm) + self.dense.bias
