"""Freezing layers while a step is traced."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence

import keras

from tfkd import models
from tfkd.models.graph.calls import Call, calls


@contextlib.contextmanager
def frozen_layers(
    models_and_layers: Iterable[keras.layers.Layer], trained: Iterable[keras.Variable]
) -> Iterator[None]:
    """Freezes, for a while, what lies outside the trained parts.

    A layer none of whose own variables are trained runs in inference mode. So does a layer without
    variables, such as dropout, if it lies between frozen layers alone; one beside a trained layer
    belongs to that layer. Keras reads the mode when a step is traced, so that is when this must
    hold; the layers' own flags, which are saved with a model, stay what they were.

    Args:
        models_and_layers: Layers, without their sub-layers, and functional models.
        trained: The variables that are trained.
    """
    kept = {id(variable) for variable in trained}
    listed = list(models_and_layers)
    frozen = [layer for layer in listed if _rests(layer, kept)]
    still = [
        layer
        for model in listed
        if models.is_functional(model)
        for layer in _between_frozen(model, {id(each) for each in frozen})
    ]
    for layer in frozen:
        layer.trainable = False
    for layer in still:
        layer.call = _in_inference(layer.call)
    try:
        yield
    finally:
        for layer in still:
            del layer.call
        for layer in frozen:
            layer.trainable = True


def _own_variables(layer: keras.layers.Layer) -> Sequence[keras.Variable]:
    inner = list(layer._flatten_layers(include_self=False))
    return [] if inner else layer.trainable_variables


def _rests(layer: keras.layers.Layer, kept: set[int]) -> bool:
    own = _own_variables(layer)
    return bool(own) and not any(id(variable) in kept for variable in own)


def _between_frozen(model: keras.Model, frozen: set[int]) -> list[keras.layers.Layer]:
    """Returns the layers without variables, but with a mode, whose neighbors are all frozen."""
    graph = calls(model)
    maker = {id(tensor): call for call in graph for tensor in call.outputs}
    readers: dict[int, list[Call]] = {}
    for call in graph:
        for tensor in call.inputs:
            readers.setdefault(id(tensor), []).append(call)

    def before(call: Call) -> list[Call]:
        return [maker[id(tensor)] for tensor in call.inputs if id(tensor) in maker]

    def after(call: Call) -> list[Call]:
        return [each for tensor in call.outputs for each in readers.get(id(tensor), ())]

    def nearest(call: Call, step) -> list[Call]:
        """The nearest calls with variables in one direction."""
        found, waiting, seen = [], step(call), set()
        while waiting:
            each = waiting.pop()
            if id(each.node) in seen:
                continue
            seen.add(id(each.node))
            if getattr(each.operation, "weights", None):
                found.append(each)
            else:
                waiting += step(each)
        return found

    def is_frozen(call: Call) -> bool:
        layers = [call.operation]
        if models.is_functional(call.operation):
            layers = [
                each for each in call.operation._flatten_layers() if _own_variables(each)
            ] or layers
        return all(id(each) in frozen or not each.trainable_variables for each in layers)

    return [
        call.operation
        for call in graph
        if getattr(call.operation, "_call_has_training_arg", False)
        and not call.operation.trainable_variables
        and not models.is_functional(call.operation)
        and (neighbors := [*nearest(call, before), *nearest(call, after)])
        and all(map(is_frozen, neighbors))
    ]


def _in_inference(call):
    def inference(*args, **kwargs):
        return call(*args, **{**kwargs, "training": False})

    return inference
