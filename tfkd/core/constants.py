"""Frozen weights as constants of the graph that is being traced."""

from __future__ import annotations

import math

import keras
import tensorflow as tf

MOST_BYTES = 32 * 2**20
"""Of weights that become constants. Several copies of a graph are made, and each holds them."""


def call_with_constants(model: keras.Model, images: tf.Tensor):
    """Returns ``model(images, training=False)``, its weights being constants of the graph.

    What runs the graph on a processor lays out the filters of a convolution at every step, but
    those that are constant only once. Where nothing is traced, under several replicas, each of
    which would hold the constants, and above :data:`MOST_BYTES`, the model is called as it is.

    Args:
        model: A built model whose weights do not change any more.
        images: ``[B, H, W, C]``.
    """
    replicas = tf.distribute.get_strategy().num_replicas_in_sync
    size = sum(math.prod(each.shape) * tf.as_dtype(each.dtype).size for each in model.variables)
    if tf.executing_eagerly() or replicas > 1 or size > MOST_BYTES:
        return model(images, training=False)

    def constants(variables: list[keras.Variable]) -> list[tf.Tensor]:
        with tf.init_scope():
            values = [variable.numpy() for variable in variables]
        return [tf.constant(value) for value in values]

    outputs, _ = model.stateless_call(
        constants(model.trainable_variables),
        constants(model.non_trainable_variables),
        images,
        training=False,
    )
    return outputs
