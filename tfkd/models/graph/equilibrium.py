"""Gradient equilibrium: a twin of a network with exits whose gradients do not add up.

Li, Zhang, Qi, Yang and Huang, "Improved Techniques for Training Adaptive Deep Networks", ICCV 2019,
section 3.2. Where the head of exit ``i`` of ``n`` leaves the network, the gradient becomes::

    (g_head + (n - i) * g_later) / (n - i + 1)

The rest of the graph stays as it is, and so do all outputs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import keras
import tensorflow as tf

from tfkd.errors import TfkdError
from tfkd.models.graph.calls import is_functional, like, new_inputs, run
from tfkd.models.graph.leaves import leaves
from tfkd.models.graph.outputs import exits

Factors = Mapping[str, list[float]]
"""For the path of a call the factor of the gradient to each of its inputs."""

_NOWHERE = -1
"""The depth of what leads to no exit."""


def equilibrium(model: keras.Model) -> keras.Model:
    """Returns a twin of a network with exits, over the same weights, with gradient equilibrium.

    The head of an exit is whatever leads to this exit and to no deeper one. It is found in the
    graph, so that the network may be any; in sub-models too.

    Args:
        model: A functional model with exits, as :func:`tfkd.models.exits` names them.

    Returns:
        A functional model with the same inputs and outputs. It is for training alone: its further
        layers are no part of ``model``, and have no weights.

    Raises:
        TfkdError: For a model without a graph or with one exit, or where the head of an exit
            cannot be told from the rest.
    """
    names = exits(model)
    if len(names) < 2:
        raise TfkdError(
            f"gradient equilibrium of model {model.name!r}: found one exit, wanted two or more"
        )
    return _twin(model, _factors(model, names), f"{model.name}_equilibrium", "")


class ScaledGradient(keras.layers.Layer):
    """Hands its input on, and the gradient back times a factor.

    Args:
        factor: The factor.
        name: Name of the layer.
    """

    def __init__(self, factor: float, name: str) -> None:
        super().__init__(name=name, autocast=False)
        self.factor = factor

    def call(self, inputs):
        @tf.custom_gradient
        def scaled(tensor):
            return tf.identity(tensor), lambda upstream: self.factor * upstream

        return scaled(inputs)


def _factors(model: keras.Model, names: Sequence[str]) -> Factors:
    """Returns the factors of those calls where they are not all 1."""
    count, graph = len(names), leaves(model)
    # The position of the deepest exit that a call, or a tensor, leads to.
    depths: dict[str, int] = {}
    deepest = {graph.outputs[name]: position for position, name in enumerate(names)}
    readers: dict[int, set[int]] = {}
    for leaf in reversed(graph.calls):
        depth = depths[leaf.path] = max(deepest.get(each, _NOWHERE) for each in leaf.outputs)
        for each in leaf.inputs:
            deepest[each] = max(deepest.get(each, _NOWHERE), depth)
            readers.setdefault(each, set()).add(depth)
    # The exits whose heads leave at a tensor: those before the deepest that it leads to.
    leaving = {
        tensor: [depth for depth in read if _NOWHERE < depth < deepest[tensor]]
        for tensor, read in readers.items()
    }
    for position, name in enumerate(names[:-1]):
        if not any(position in each for each in leaving.values()):
            raise TfkdError(
                f"gradient equilibrium of model {model.name!r}: found no layers that lead to "
                f"{name!r} alone, wanted a head of its own for each exit"
            )

    def factor(depth: int, tensor: int) -> float:
        product = 1.0
        for position in leaving[tensor]:
            left = count - position  # Exits from here on.
            if depth == position:
                product /= left
            elif depth > position:
                product *= (left - 1) / left
        return product

    found = {
        leaf.path: [factor(depths[leaf.path], each) for each in leaf.inputs] for leaf in graph.calls
    }
    return {path: each for path, each in found.items() if set(each) - {1.0}}


def _twin(model: keras.Model, factors: Factors, name: str, prefix: str) -> keras.Model:
    """Returns a model with layers that scale gradients in front of those calls that want them."""
    scaled: dict[tuple[int, float], keras.KerasTensor] = {}

    def scale(tensor: keras.KerasTensor, factor: float) -> keras.KerasTensor:
        if factor == 1.0:
            return tensor
        key = id(tensor), factor
        if key not in scaled:
            scaled[key] = ScaledGradient(factor, f"scaled_gradient{len(scaled) + 1}")(tensor)
        return scaled[key]

    def feed(call, tensors: list) -> list:
        own = factors.get(prefix + call.name)
        return tensors if own is None else list(map(scale, tensors, own))

    def perform(call, args, kwargs):
        path = f"{prefix}{call.name}/"
        operation = call.operation
        if is_functional(operation) and any(each.startswith(path) for each in factors):
            # A name of its own, as one graph may call a sub-model twice.
            inner = f"{call.name.replace(':', '_')}_equilibrium"
            operation = _twin(operation, factors, inner, path)
        return operation(*args, **kwargs)

    inputs = new_inputs(model)
    return like(model, inputs, run(model, inputs, perform, feed), name)
