"""How a network ends: in logits, as it should, or in probabilities."""

from __future__ import annotations

import keras

from tfkd.models.graph.calls import calls, graph_of, is_functional

_PROBABILITIES = ("Softmax", "Sigmoid")


def final_activation(model: keras.Model) -> str | None:
    """Returns "softmax" or "sigmoid" where a model's graph visibly ends in one, otherwise None.

    Args:
        model: Any Keras model; of a subclassed one nothing is known.
    """
    if not is_functional(model):
        return None
    output = graph_of(model).outputs[0]
    for call in calls(model):
        if any(each is output for each in call.outputs):
            last = call.operation
            if is_functional(last):
                return final_activation(last)
            if type(last).__name__ in _PROBABILITIES:
                return type(last).__name__.lower()
            activation = getattr(last, "activation", None)
            if activation in (keras.activations.softmax, keras.activations.sigmoid):
                return activation.__name__
    return None
