"""What can be told of any Keras model: the images that it takes, and how its outputs end."""

from __future__ import annotations

from collections.abc import Sequence

import keras

from tfkd.errors import TfkdError
from tfkd.models.graph.calls import calls, is_functional
from tfkd.models.graph.outputs import LOGITS, outputs

_PROBABILITIES = ("Softmax", "Sigmoid")


def final_activation(model: keras.Model, output: str = LOGITS) -> str | None:
    """Returns "softmax" or "sigmoid" where an output visibly ends in one, otherwise ``None``.

    Args:
        model: Any Keras model; of a subclassed one nothing is known.
        output: Name of the output, as in :func:`tfkd.models.outputs`.
    """
    return _activation_before(model, outputs(model)[output]) if is_functional(model) else None


def _activation_before(model: keras.Model, tensor: keras.KerasTensor) -> str | None:
    for call in calls(model):
        position = next((n for n, each in enumerate(call.outputs) if each is tensor), None)
        if position is None:
            continue
        last = call.operation
        if is_functional(last):
            return _activation_before(last, keras.tree.flatten(last.output)[position])
        if type(last).__name__ in _PROBABILITIES:
            return type(last).__name__.lower()
        activation = getattr(last, "activation", None)
        if activation in (keras.activations.softmax, keras.activations.sigmoid):
            return activation.__name__
    return None


def image_shape(model: keras.Model, role: str) -> tuple[int | None, ...] | None:
    """Returns height, width and channels of a model's input; ``None`` where they are not known.

    Args:
        model: A built model.
        role: What the model is to its user, for messages: ``"student"``.

    Raises:
        TfkdError: When the model takes something else than one tensor.
    """
    if is_functional(model):
        shape = model.input_shape
    else:
        shape = (model.get_build_config() or {}).get("input_shape")
    if shape is None:
        return None
    if isinstance(shape, dict) or any(isinstance(size, (list, tuple)) for size in shape):
        raise TfkdError(f"{role} {model.name!r} has inputs {shape}, wanted one tensor of images")
    return tuple(shape[1:])


def shapes_agree(first: Sequence[int | None] | None, second: Sequence[int | None] | None) -> bool:
    """Returns whether two shapes may be equal; an unknown size, or shape, fits any."""
    if first is None or second is None:
        return True
    return len(first) == len(second) and all(
        a is None or b is None or a == b for a, b in zip(first, second)
    )
