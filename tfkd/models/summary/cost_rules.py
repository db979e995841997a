"""How Keras' own layers count: the rules that `cost` starts with."""

from __future__ import annotations

import math

import keras

from tfkd.adder import AdderConv2D
from tfkd.models.summary.cost import Work, rule, work_of

layers = keras.layers


@rule(
    layers.BatchNormalization,
    layers.LayerNormalization,
    layers.GroupNormalization,
    layers.RMSNormalization,
    layers.Normalization,
    layers.PReLU,
    layers.Embedding,
)
def _free(layer, inputs, outputs):
    return Work()


@rule(layers.Dense)
def _dense(layer, inputs, outputs):
    return Work(math.prod(outputs[0]) * inputs[0][-1])


@rule(layers.Conv1D, layers.Conv2D, layers.Conv3D)
def _convolution(layer, inputs, outputs):
    """Every output value sums over the filter's window and its group's channels."""
    channels = _channels(layer, inputs[0]) // layer.groups
    return Work(math.prod(outputs[0]) * math.prod(layer.kernel_size) * channels)


@rule(AdderConv2D)
def _adder_convolution(layer, inputs, outputs):
    """No product: two additions, a difference and a sum, in place of every multiply-accumulate."""
    terms = math.prod(outputs[0]) * math.prod(layer.kernel_size) * inputs[0][-1]
    return Work(adder_additions=2 * terms)


@rule(layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose)
def _transposed_convolution(layer, inputs, outputs):
    """Every input value is multiplied with the filter's window of every output channel."""
    return Work(math.prod(inputs[0]) * math.prod(layer.kernel_size) * layer.filters)


@rule(layers.DepthwiseConv1D, layers.DepthwiseConv2D)
def _depthwise_convolution(layer, inputs, outputs):
    """Every output value sums over the filter's window in one channel."""
    return Work(math.prod(outputs[0]) * math.prod(layer.kernel_size))


@rule(layers.SeparableConv1D, layers.SeparableConv2D)
def _separable_convolution(layer, inputs, outputs):
    """A depthwise convolution, then a 1x1 convolution at every position of the output."""
    between = _channels(layer, inputs[0]) * layer.depth_multiplier
    positions = math.prod(outputs[0]) // layer.filters
    window = math.prod(layer.kernel_size)
    return Work(positions * between * (window + layer.filters))


@rule(layers.TimeDistributed)
def _time_distributed(layer, inputs, outputs):
    """The inner layer, once per step of the first axis."""
    inner = work_of(layer.layer, [shape[1:] for shape in inputs], [shape[1:] for shape in outputs])
    if inner is None:
        return None
    steps = inputs[0][0]
    return Work(inner.macs * steps, inner.adder_additions * steps)


def _channels(layer, shape) -> int:
    return shape[0] if layer.data_format == "channels_first" else shape[-1]
