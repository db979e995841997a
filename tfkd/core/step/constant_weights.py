"""Frozen weights as constants of the graph that is being traced."""

from __future__ import annotations

import math

import keras
import tensorflow as tf

MOST_BYTES = 32 * 2**20
"""Of weights that become constants of one step. Several copies of its graph are made in memory."""


def size_as_constants(model: keras.Model) -> float:
    """Returns how many bytes the weights of a model take; infinite where they may not be constants.

    That is for models with a state besides their weights, such as that of a random generator.
    """
    if len(model.variables) != len(model.weights):
        return math.inf
    return sum(math.prod(each.shape) * tf.as_dtype(each.dtype).size for each in model.weights)


def call_with_constants(model: keras.Model, images: tf.Tensor):
    """Returns ``model(images, training=False)``, its weights being constants of the graph.

    What runs the graph on a processor lays out the filters of a convolution at every step, but
    those that are constant only once. Where nothing is traced, and under several replicas, each of
    which would hold the constants, the model is called as it is.

    Args:
        model: A built model without any state but weights that do not change any more.
        images: ``[B, H, W, C]``.
    """
    if tf.executing_eagerly() or tf.distribute.get_strategy().num_replicas_in_sync > 1:
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
