"""A model whose classes come in another order."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import keras

from tfkd.models.graph.calls import graph_of, like
from tfkd.models.graph.outputs import outputs


def reordered(model: keras.Model, names: Collection[str], positions: Sequence[int]) -> keras.Model:
    """Returns a second model over the same weights, with the classes of its outputs in an order.

    Values are moved and not computed, so that each is what it was to the bit.

    Args:
        model: A functional model, or a Sequential with an input shape.
        names: Those of its outputs whose last axis is the classes; others stay as they are.
        positions: For each class of the new order its position in that of `model`.

    Returns:
        A model with the taps of `model`, but for the outputs, which are in the new order.

    Raises:
        TfkdError: If the model is subclassed.
    """
    graph = graph_of(model)
    order = [int(position) for position in positions]
    found = {
        name: keras.ops.take(tensor, order, axis=-1) if name in names else tensor
        for name, tensor in outputs(model).items()
    }
    several = isinstance(graph.output, dict)
    made = found if several else next(iter(found.values()))
    return like(model, graph.input, made, model.name)
