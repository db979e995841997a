"""Folding batch normalization into the layer before it: the same outputs with fewer operations.

At inference a batch normalization is a scale and a shift per channel,

    gamma * (y - mean) / sqrt(variance + epsilon) + beta = scale * y + (beta - scale * mean),

so that of y = x * kernel + bias it can become part of kernel and bias.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import keras
import numpy as np

from tfkd.errors import TfkdError
from tfkd.models.graph.calls import Call, all_calls, calls, graph_of, is_functional
from tfkd.models.graph.keras_layers import copy_weights, rebuild, remade, stock_layer
from tfkd.models.graph.outputs import outputs_if_named
from tfkd.models.graph.taps import find_tap
from tfkd.models.layers.batch_normalization import BatchNormalization
from tfkd.models.layers.grouped_convolution import GroupedConvolution

layers = keras.layers
# The kernel of each foldable class, and the axes of it that make up the output channels, in order.
_KERNELS = {
    layers.Dense: ("kernel", (-1,)),
    layers.Conv1D: ("kernel", (-1,)),
    layers.Conv2D: ("kernel", (-1,)),
    GroupedConvolution: ("kernel", (-1,)),
    layers.Conv3D: ("kernel", (-1,)),
    layers.Conv1DTranspose: ("kernel", (-2,)),
    layers.Conv2DTranspose: ("kernel", (-2,)),
    layers.Conv3DTranspose: ("kernel", (-2,)),
    layers.DepthwiseConv1D: ("kernel", (-2, -1)),
    layers.DepthwiseConv2D: ("kernel", (-2, -1)),
    layers.SeparableConv1D: ("pointwise_kernel", (-1,)),
    layers.SeparableConv2D: ("pointwise_kernel", (-1,)),
}
_DTYPES = (None, "float32", "bfloat16", "float16")


def fold(model: keras.Model, keep: Iterable[str] = (), dtype: str | None = None) -> keras.Model:
    """Copies a model for inference, with batch normalization folded into convolutions and Dense.

    A batch normalization is folded if it is over the last axis, is called once, and reads a
    convolution or Dense layer that has no activation, is called once and is read by nothing else.
    In its place stands an `Identity` of the same name, which becomes no operation, so all layer
    names stay taps; the tap of a folded convolution is the normalized one, unless it is in `keep`.
    Batch normalizations that cannot be folded are kept, as stock Keras layers.

    Args:
        model: A functional model, or a Sequential with an input shape; it is not changed.
        keep: Taps whose values must stay what they are: a convolution among them is not folded.
        dtype: None to compute each layer as it did; "float32", "bfloat16" or "float16" to compute
            all but the output layer so. The outputs are float32 in any case.

    Returns:
        A new functional model that shares nothing with `model`; its weights are not trainable.
        Call it at inference only.

    Raises:
        TfkdError: If the model is subclassed, a layer cannot be cloned, or a name in `keep` or
            `dtype` is unknown.
    """
    if dtype not in _DTYPES:
        raise TfkdError(f"fold: found dtype={dtype!r}; wanted one of {_DTYPES}")
    graph_of(model)
    kept = {find_tap(model, name) for name in keep} - set(outputs_if_named(model))
    pairs = _foldable(model, kept)
    folded_away = {id(normalization) for _, normalization in pairs}
    normalization_of = {id(layer): normalization for layer, normalization in pairs}
    last = _output_operations(model)

    def make(layer):
        if id(layer) in folded_away:
            clone = layers.Identity(name=layer.name, dtype=layer.dtype_policy)
        elif id(layer) in normalization_of:
            clone = remade(layer, use_bias=True)
        else:
            clone = stock_layer(layer)
        if dtype is not None:
            clone.dtype_policy = "float32" if id(layer) in last else _policy(layer, dtype)
        return clone

    copy, made = rebuild(model, make)
    for original, clone in made:
        if id(original) in normalization_of:
            _set_folded_weights(original, normalization_of[id(original)], clone)
        elif id(original) not in folded_away:
            copy_weights(original, clone)
    copy = _with_float32_outputs(copy)
    copy.trainable = False
    return copy


def _foldable(
    model: keras.Model, kept: set[str]
) -> list[tuple[keras.Layer, keras.layers.BatchNormalization]]:
    """The pairs of a layer and the batch normalization that can become part of it.

    Args:
        model: A model with a graph.
        kept: Paths of calls whose layer must not be folded.
    """
    graphs = _graphs(model)
    uses = Counter(id(call.operation) for graph in graphs for call in calls(graph))
    # A kept layer counts as one that something else reads.
    uses.update(id(call.operation) for path, call in all_calls(model) if path in kept)
    pairs = []
    for graph in graphs:
        maker = {id(tensor): call for call in calls(graph) for tensor in call.outputs}
        readers = Counter(id(tensor) for call in calls(graph) for tensor in call.inputs)
        readers.update(id(tensor) for tensor in graph_of(graph).outputs)
        for call in calls(graph):
            before = maker.get(id(call.inputs[0])) if len(call.inputs) == 1 else None
            if (
                before is not None
                and readers[id(call.inputs[0])] == 1
                and uses[id(before.operation)] == 1
                and uses[id(call.operation)] == 1
                and _can_be_folded(call)
                and _can_take_a_scale(before.operation)
            ):
                pairs.append((before.operation, call.operation))
    return pairs


def _graphs(model: keras.Model) -> list[keras.Model]:
    """A model and all its sub-models, each once, but none that is called in training mode."""
    found = {id(model): model}
    for call in calls(model):
        if is_functional(call.operation) and not call.keywords.get("training"):
            found.update((id(each), each) for each in _graphs(call.operation))
    return list(found.values())


def _can_be_folded(call: Call) -> bool:
    """Whether a call is a plain batch normalization over the last axis, at inference."""
    layer = call.operation
    return (
        type(layer) in (layers.BatchNormalization, BatchNormalization)
        and not layer.renorm
        and layer.axis in (-1, len(call.inputs[0].shape) - 1)
        and not call.keywords.get("training")
    )


def _can_take_a_scale(layer: keras.Operation) -> bool:
    """Whether a layer is linear with its channels last, and its kernel is an ordinary variable."""
    return (
        type(layer) in _KERNELS
        and layer.activation is keras.activations.linear
        and getattr(layer, "data_format", "channels_last") == "channels_last"
        and not getattr(layer, "lora_enabled", False)
        and getattr(layer, "quantization_mode", None) is None
    )


def _set_folded_weights(
    original: keras.Layer, normalization: keras.layers.BatchNormalization, clone: keras.Layer
) -> None:
    """Sets a layer's weights to the original's followed by the normalization, in float64."""
    variance = _array(normalization.moving_variance) + normalization.epsilon
    scale = 1.0 / np.sqrt(variance)
    if normalization.scale:
        scale = scale * _array(normalization.gamma)
    shift = -_array(normalization.moving_mean)
    if original.use_bias:
        shift = shift + _array(original.bias)
    bias = shift * scale
    if normalization.center:
        bias = bias + _array(normalization.beta)
    name, channel_axes = _KERNELS[type(original)]
    kernel = _array(getattr(original, name))
    shape = [1] * kernel.ndim
    for axis in channel_axes:
        shape[axis] = kernel.shape[axis]
    if name == "pointwise_kernel":
        clone.depthwise_kernel.assign(original.depthwise_kernel)
    getattr(clone, name).assign(kernel * scale.reshape(shape))
    clone.bias.assign(bias)


def _array(variable) -> np.ndarray:
    return keras.ops.convert_to_numpy(variable).astype(np.float64)


def _policy(layer: keras.Layer, dtype: str) -> str:
    """The dtype policy that makes a layer compute in `dtype`.

    Kernels are stored in it, so that no step casts them; statistics and the like stay float32.
    """
    return dtype if type(layer) in _KERNELS or dtype == "float32" else f"mixed_{dtype}"


def _output_operations(model: keras.Model) -> set[int]:
    """The ids of the operations that make a model's outputs, looking into sub-models.

    Behind a function of `keras.ops`, such as one that puts classes in order, it is the layer
    before.
    """
    outputs = {id(tensor) for tensor in graph_of(model).outputs}
    found = set()
    for call in reversed(calls(model)):
        if outputs.intersection(id(tensor) for tensor in call.outputs):
            inner = is_functional(call.operation)
            found |= _output_operations(call.operation) if inner else {id(call.operation)}
            if not isinstance(call.operation, keras.Layer):
                outputs.update(id(tensor) for tensor in call.inputs)
    return found


def _with_float32_outputs(model: keras.Model) -> keras.Model:
    """The model itself, or with half-precision outputs cast to float32."""
    if not any(tensor.dtype in ("float16", "bfloat16") for tensor in model.outputs):
        return model
    outputs = keras.tree.map_structure(
        lambda tensor: layers.Identity(dtype="float32")(tensor), model.output
    )
    return keras.Model(model.input, outputs, name=model.name)
