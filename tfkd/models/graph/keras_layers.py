"""Copies of models in stock Keras layers, that load where tfkd is not installed.

Adder layers are the exception: Keras has no such layer, so they stay, and a file that holds them
loads after `import tfkd`.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Sequence

import keras

from tfkd.adder import AdderConv2D
from tfkd.errors import TfkdError, reason
from tfkd.models.graph.calls import is_functional, new_inputs, run
from tfkd.models.layers.batch_normalization import BatchNormalization
from tfkd.models.layers.grouped_convolution import GroupedConvolution


def stock(model: keras.Model) -> keras.Model:
    """Clones a model with stock Keras layers in place of tfkd's, and the same weights.

    The copy computes the same function at inference (equal but for the order of rounding, as stock
    batch normalization is composed of other operations), has the same layer names, and its
    `.keras` file loads without tfkd, unless it has adder layers. Training it further differs in one
    thing: stock batch normalization keeps the biased variance.

    Args:
        model: A functional model, or a Sequential with an input shape.

    Returns:
        A new functional model that shares nothing with `model`.

    Raises:
        TfkdError: If the model is subclassed, or a layer cannot be cloned or has no stock form.
    """
    copy, layers = rebuild(model, stock_layer)
    for original, clone in layers:
        copy_weights(original, clone)
    for layer in copy._flatten_layers():
        of_tfkd = type(layer).__module__.partition(".")[0] == "tfkd"
        if of_tfkd and not isinstance(layer, AdderConv2D):
            raise TfkdError(
                f"model {model.name!r}: found layer {layer.name!r} of tfkd's class "
                f"{type(layer).__name__}, which has no stock form here; wanted stock Keras layers"
            )
    return copy


@functools.singledispatch
def stock_layer(layer: keras.Layer) -> keras.Layer:
    """Returns a new layer of stock Keras with the configuration of `layer`, without its weights.

    Register further layer classes with `stock_layer.register(TheClass)`; any other layer is made
    again from its own configuration.

    Raises:
        TfkdError: If the layer cannot be made again.
    """
    return remade(layer)


@stock_layer.register(BatchNormalization)
def _stock_batch_normalization(layer):
    # Synchronization exists on TensorFlow alone; without it the file loads on every Keras backend.
    return remade(layer, keras.layers.BatchNormalization, synchronized=False)


@stock_layer.register(GroupedConvolution)
def _stock_grouped_convolution(layer):
    return remade(layer, keras.layers.Conv2D)


def remade(layer: keras.Layer, kind: type | None = None, **changes) -> keras.Layer:
    """Returns a layer of class `kind` (its own if None) from a layer's configuration with changes.

    Raises:
        TfkdError: If the layer cannot be made again.
    """
    kind = type(layer) if kind is None else kind
    try:
        return _from_config(kind, {**layer.get_config(), **changes})
    except Exception as error:
        raise TfkdError(
            f"layer {layer.name!r}: found a {type(layer).__name__} that cannot be cloned "
            f"({reason(error)}); wanted one that from_config(get_config()) makes again"
        ) from error


def _from_config(kind: type, config: dict) -> keras.Layer:
    """Returns ``kind.from_config(config)``, with Python functions in Lambda layers allowed.

    They are not read from a file here, so they are safe. Only Keras' deserialization passes this on
    to layers inside of layers; it finds the class by a name that is made for it.
    """
    name = "tfkd>layer"
    try:
        return keras.saving.deserialize_keras_object(
            {"class_name": name, "config": config}, custom_objects={name: kind}, safe_mode=False
        )
    except TypeError as error:
        # Keras wraps a TypeError of `from_config` in one with advice and the whole config.
        raise error.__context__ or error from None


def rebuild(
    model: keras.Model, make: Callable[[keras.Layer], keras.Layer | Sequence[keras.Layer]]
) -> tuple[keras.Model, list[tuple[keras.Layer, keras.Layer]]]:
    """Builds a model of the same form from new layers; sub-models and shared layers stay such.

    Args:
        model: A model with a graph.
        make: Returns the new layer, of the same name, for a layer that is not a sub-model; or
            several, to be called one after the other.

    Returns:
        The new functional model, and the pairs of old and new layers; of several new ones the
        first.
    """
    made: dict[int, tuple[keras.Layer, Sequence[keras.Layer]]] = {}

    def new(operation):
        if not isinstance(operation, keras.Layer):
            return (operation,)  # A function of keras.ops holds nothing.
        if id(operation) not in made:
            layer = build(operation) if is_functional(operation) else make(operation)
            layers = (layer,) if isinstance(layer, keras.Layer) else tuple(layer)
            made[id(operation)] = (operation, layers)
        return made[id(operation)][1]

    def perform(call, args, kwargs):
        layer, *further = new(call.operation)
        if isinstance(layer, keras.layers.Identity):
            kwargs = {}  # It may stand for a layer with more arguments, as mask.
        outputs = layer(*args, **kwargs)
        for each in further:
            outputs = each(outputs)
        return outputs

    def build(each):
        inputs = new_inputs(each)
        return keras.Model(inputs, run(each, inputs, perform), name=each.name)

    # Initializers draw their seeds from Python's generator; a copy must not shift what follows.
    state = random.getstate()
    try:
        copy = build(model)
    finally:
        random.setstate(state)
    return copy, [(old, new[0]) for old, new in made.values() if not is_functional(old)]


def copy_weights(original: keras.Layer, clone: keras.Layer) -> None:
    """Sets every variable of a clone, states of random seeds included, to the original's."""
    for old, new in zip(original.variables, clone.variables, strict=True):
        new.assign(keras.ops.convert_to_numpy(old))
    if isinstance(clone, keras.layers.Normalization):
        clone.finalize_state()
