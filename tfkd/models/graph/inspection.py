"""What can be told of any Keras model: the images that it takes, and how its outputs end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import keras
import numpy as np

from tfkd.errors import TfkdError
from tfkd.models.graph.calls import Call, calls, graph_of, is_functional
from tfkd.models.graph.outputs import LOGITS, outputs

_PROBABILITIES = ("Softmax", "Sigmoid")

# What may come before or between the layers that normalize: it moves pixels and keeps their values.
_MOVES = (
    keras.layers.CenterCrop,
    keras.layers.Cropping2D,
    keras.layers.Identity,
    keras.layers.RandomCrop,
    keras.layers.RandomFlip,
    keras.layers.RandomRotation,
    keras.layers.RandomTranslation,
    keras.layers.RandomZoom,
    keras.layers.Resizing,
    keras.layers.ZeroPadding2D,
)
_NORMALIZES = (keras.layers.Lambda, keras.layers.Normalization, keras.layers.Rescaling)
# Functions of keras.ops, which have no public classes.
_ARITHMETIC = ("Add", "Divide", "Multiply", "Subtract", "TrueDivide")
_CONVERTS = ("Cast", "Flip", "GetItem", "Stack")
# For a model without a fixed image size.
_SIZE = 8


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


@dataclass(frozen=True)
class OwnNormalization:
    """How a model normalizes pixels before it does anything else.

    Attributes:
        layers: The names of the layers, or functions, that do so.
        low: The smallest value, of any channel, that black becomes.
        high: The largest that white becomes.
    """

    layers: tuple[str, ...]
    low: float
    high: float

    def __str__(self) -> str:
        return f"{', '.join(self.layers)}: 0..255 become {self.low:.3g}..{self.high:.3g}"


def own_normalization(model: keras.Model) -> OwnNormalization | None:
    """Returns how a model normalizes pixels itself, ``None`` where it visibly does not.

    It does where its graph begins with ``Rescaling`` or ``Normalization`` layers, with arithmetic,
    or with a ``Lambda`` that keeps the shape, perhaps inside of sub-models and behind layers that
    only move pixels, and where black or white has become another value before any other layer.

    Args:
        model: Any Keras model; of a subclassed one nothing is known.
    """
    if not is_functional(model):
        return None
    images = graph_of(model).inputs
    if len(images) != 1 or len(images[0].shape) != 4:
        return None
    shape = [size or _SIZE for size in images[0].shape[1:]]
    black_and_white = np.broadcast_to(np.float32([0, 255]).reshape(2, 1, 1, 1), (2, *shape))
    names: list[str] = []
    seen, _ = _followed(model, keras.ops.convert_to_tensor(black_and_white), names)
    ranges = [_range(pixels) for pixels in seen]
    if not names or not ranges or any(np.allclose(each, [0, 255]) for each in ranges):
        return None
    lows, highs = zip(*ranges)
    return OwnNormalization(tuple(names), min(lows), max(highs))


def _followed(model: keras.Model, pixels, names: list[str]) -> tuple[list, object | None]:
    """Follows pixels through a model as long as nothing but normalization happens to them.

    Args:
        model: A model with one input.
        pixels: What it is given.
        names: The names of what normalizes are added here.

    Returns:
        The pixels that other layers read, and those that the model ends in, if it is passed whole.
    """
    graph, seen = graph_of(model), []
    known = {id(graph.inputs[0]): pixels}
    for call in calls(model):
        read = [known[id(tensor)] for tensor in call.inputs if id(tensor) in known]
        made = None
        if read and len(read) == len(call.inputs) and call.output is not None:
            if is_functional(call.operation):
                inside, made = _followed(call.operation, read[0], names)
                seen += inside
                read = []
            else:
                made = _made(call, read, known)
        if made is None:
            seen += read
            continue
        known[id(call.output)] = made
        if isinstance(call.operation, _NORMALIZES) or type(call.operation).__name__ in _ARITHMETIC:
            names.append(call.name)
    return seen, known.get(id(graph.outputs[0])) if len(graph.outputs) == 1 else None


def _made(call: Call, read: list, known: dict):
    """Returns pixels behind a call that moves or normalizes them; ``None`` for another call."""
    operation = call.operation
    if isinstance(operation, _MOVES):
        return read[0]
    of_keras_ops = not isinstance(operation, keras.Layer)
    if not isinstance(operation, _NORMALIZES) and not (
        of_keras_ops and type(operation).__name__ in _ARITHMETIC + _CONVERTS
    ):
        return None
    args, kwargs = call.node.arguments.fill_in(known)
    made = operation(*args, **kwargs)
    # What a Lambda does is not known, but normalization keeps the shape.
    return None if isinstance(operation, _NORMALIZES) and made.shape != read[0].shape else made


def _range(pixels) -> tuple[float, float]:
    pixels = keras.ops.convert_to_numpy(keras.ops.cast(pixels, "float32"))
    return float(pixels.min()), float(pixels.max())
