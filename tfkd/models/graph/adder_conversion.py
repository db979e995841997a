"""The adder form of a convolutional network, and the check that adder layers are normalized."""

from __future__ import annotations

import warnings
from collections.abc import Iterable

import keras

from tfkd.adder import AdderConv2D
from tfkd.errors import TfkdError, TfkdWarning
from tfkd.models.graph.calls import Call, all_calls, calls, graph_of, is_functional
from tfkd.models.graph.keras_layers import copy_weights, rebuild, remade
from tfkd.models.graph.taps import find_tap
from tfkd.models.layers.batch_normalization import BatchNormalization

layers = keras.layers
_NORMALIZATIONS = (
    layers.BatchNormalization,
    layers.LayerNormalization,
    layers.GroupNormalization,
    layers.RMSNormalization,
)
# Layers with weights whose outputs are sums of products.
_WEIGHTED = (layers.Conv2D, layers.Dense, layers.DepthwiseConv2D, layers.SeparableConv2D)
# The output of these is still a sum of distances where the input is.
_LINEAR = (
    layers.Add,
    layers.Average,
    layers.AveragePooling2D,
    layers.Dropout,
    layers.GlobalAveragePooling2D,
    layers.Identity,
    layers.MaxPooling2D,
    layers.SpatialDropout2D,
    layers.ZeroPadding2D,
)


def convert(model: keras.Model, keep: Iterable[str] | None = None, eta: float = 0.2) -> keras.Model:
    """Builds the adder form of a convolutional network: adder layers in place of convolutions.

    As in the published networks the first convolution (the stem) and the last layers with weights
    (the classifier) stay as they are, and so do depthwise, grouped and dilated convolutions. Every
    other ``Conv2D`` becomes an ``AdderConv2D`` of the same name, size and stride with fresh filters
    and without bias, followed by batch normalization: the one that is there with fresh weights, or
    a new one named ``<name>_bn``. An activation of the convolution becomes a layer
    ``<name>_activation`` after it. Every other layer keeps its weights. With ``"same"`` padding at
    stride 2, zeros lie on all sides of the image, where Keras puts them right and below only.

    The published networks normalize the logits as well;
    ``tfkd.models.create(name, num_classes, adder=True)`` builds them.

    Args:
        model: A functional model, or a Sequential with an input shape; it is not changed.
        keep: Names of convolutions that stay, in place of the first one; ``()`` for none.
        eta: The size of the filters' gradient, as for ``AdderConv2D``.

    Returns:
        A functional model that shares nothing with ``model``.

    Raises:
        TfkdError: The model is subclassed, nothing in it can be converted, or a name in ``keep`` is
            none of its layers.
    """
    graph_of(model)
    replaced = _replaced(model, keep)
    if not replaced:
        raise TfkdError(
            f"model {model.name!r}: found no convolution besides stem and classifier, wanted a "
            "Conv2D that an adder layer can replace"
        )
    normalized = _followed_by_normalization(model, replaced)
    fresh = {id(each) for each in normalized.values()}

    def make(layer):
        if id(layer) not in replaced:
            return remade(layer)
        return _adder(layer, eta, normalize=id(layer) not in normalized)

    converted, made = rebuild(model, make)
    for original, clone in made:
        if id(original) not in replaced and id(original) not in fresh:
            copy_weights(original, clone)
    return converted


def check_normalized(model: keras.Model) -> None:
    """Warns of adder layers without a normalization after them.

    Their outputs are large and negative, so the activation after them is dead. Pooling, sums and
    the like may stand between. Subclassed models are not checked.

    Args:
        model: Any Keras model.

    Warns:
        TfkdWarning: With the names of the layers.
    """
    if not is_functional(model):
        return
    found = sorted(set(_not_normalized(model)))
    if found:
        warnings.warn(
            f"model {model.name!r}: found no normalization after adder layers {', '.join(found)}, "
            "wanted batch normalization after every one",
            TfkdWarning,
            stacklevel=2,
        )


def _replaced(model: keras.Model, keep: Iterable[str] | None) -> dict[int, keras.Layer]:
    """The layers that adder layers replace, by identity."""
    convolutions = {
        id(call.operation): call.operation
        for _, call in all_calls(model)
        if isinstance(call.operation, layers.Conv2D) and _can_be_replaced(call.operation)
    }
    if keep is None:
        every = (call.operation for _, call in all_calls(model))
        kept = {id(next((each for each in every if isinstance(each, layers.Conv2D)), None))}
    else:
        paths = {find_tap(model, name) for name in keep}
        kept = {id(call.operation) for path, call in all_calls(model) if path in paths}
    kept |= _last_weighted(model)
    return {key: layer for key, layer in convolutions.items() if key not in kept}


def _can_be_replaced(layer: layers.Conv2D) -> bool:
    """Whether an adder layer has the same outputs' shape."""
    odd = all(size % 2 for size in layer.kernel_size)
    return (
        layer.groups == 1
        and set(layer.dilation_rate) == {1}
        and layer.data_format == "channels_last"
        and (layer.padding == "valid" or odd)
        and not isinstance(layer, layers.DepthwiseConv2D)
    )


def _last_weighted(model: keras.Model) -> set[int]:
    """The identities of the layers with weights that no other such layer comes after."""
    maker = {id(tensor): call for call in calls(model) for tensor in call.outputs}
    found: set[int] = set()
    seen: set[int] = set()
    waiting = [id(tensor) for tensor in graph_of(model).outputs]
    while waiting:
        call = maker.get(waiting.pop())
        if call is None or id(call.node) in seen:
            continue
        seen.add(id(call.node))
        if is_functional(call.operation):
            inner = _last_weighted(call.operation)
            found |= inner
            if inner:
                continue
        elif isinstance(call.operation, _WEIGHTED):
            found.add(id(call.operation))
            continue
        waiting += [id(tensor) for tensor in call.inputs]
    return found


def _readers(model: keras.Model) -> dict[int, list[Call]]:
    """The calls that read each tensor of a graph, without those of sub-models."""
    found: dict[int, list[Call]] = {}
    for call in calls(model):
        for tensor in call.inputs:
            found.setdefault(id(tensor), []).append(call)
    return found


def _graphs(model: keras.Model) -> list[keras.Model]:
    """A model and all its sub-models."""
    inner = [call.operation for _, call in all_calls(model) if is_functional(call.operation)]
    return [model, *{id(each): each for each in inner}.values()]


def _followed_by_normalization(
    model: keras.Model, replaced: dict[int, keras.Layer]
) -> dict[int, keras.Layer]:
    """The normalization that alone reads a replaced layer without activation, by the layer."""
    found = {}
    for graph in _graphs(model):
        readers = _readers(graph)
        for call in calls(graph):
            layer = replaced.get(id(call.operation))
            if layer is None or layer.activation is not keras.activations.linear:
                continue
            after = [each.operation for each in readers.get(id(call.output), [])]
            if len(after) == 1 and isinstance(after[0], _NORMALIZATIONS):
                found[id(layer)] = after[0]
    return found


def _adder(layer: layers.Conv2D, eta: float, *, normalize: bool) -> list[keras.Layer]:
    """The layers in place of a convolution."""
    made = [
        AdderConv2D(
            layer.filters,
            layer.kernel_size,
            strides=tuple(layer.strides),
            padding=layer.padding,
            eta=eta,
            kernel_regularizer=layer.kernel_regularizer,
            trainable=layer.trainable,
            dtype=layer.dtype_policy,
            name=layer.name,
        )
    ]
    if normalize:
        made.append(BatchNormalization(dtype=layer.dtype_policy, name=f"{layer.name}_bn"))
    if layer.activation is not keras.activations.linear:
        made.append(
            layers.Activation(
                layer.activation, dtype=layer.dtype_policy, name=f"{layer.name}_activation"
            )
        )
    return made


def _not_normalized(model: keras.Model) -> list[str]:
    """The names of adder layers whose outputs reach something else than a normalization."""
    return [
        call.name
        for graph in _graphs(model)
        for call in calls(graph)
        if isinstance(call.operation, AdderConv2D)
        and not _is_normalized(call, _readers(graph), graph_of(graph).outputs)
    ]


def _is_normalized(call: Call, readers: dict[int, list[Call]], ends: list) -> bool:
    """Whether the output of a call reaches only normalizations, at once or after sums."""
    if any(call.output is end for end in ends):
        return False
    return all(
        isinstance(after.operation, _NORMALIZATIONS)
        or (isinstance(after.operation, _LINEAR) and _is_normalized(after, readers, ends))
        for after in readers.get(id(call.output), [])
    )
