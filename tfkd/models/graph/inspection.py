"""What can be told of any Keras model: the images that it takes, and how its outputs end."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass

import keras
import numpy as np

from tfkd.errors import TfkdError
from tfkd.models.graph.calls import Call, calls, graph_of, is_functional
from tfkd.models.graph.outputs import LOGITS, outputs

_PROBABILITIES = ("Softmax", "Sigmoid")

_NORMALIZES = (keras.layers.Lambda, keras.layers.Normalization, keras.layers.Rescaling)
# Functions of keras.ops, which have no public classes.
_ARITHMETIC = ("Add", "Divide", "Multiply", "Subtract", "TrueDivide")
# For a model without a fixed image size.
_SIZE = 64


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

    A black, a white and a mottled image are followed through whatever has no weights, in inference
    mode, up to the first layers with some: augmentation, noise, cropping, pooling and reshaping may
    come before a normalization, or between two. What normalizes gives black and white another
    range: ``Rescaling``, ``Normalization``, arithmetic, a ``Lambda`` that keeps the channels, or
    any other layer that makes of each image the same image in another range. Every channel that
    layers with weights read must have one.

    Args:
        model: Any Keras model; of a subclassed one nothing is known.
    """
    if not is_functional(model):
        return None
    images = graph_of(model).inputs
    if len(images) != 1 or len(images[0].shape) != 4:
        return None
    shape = [size or _SIZE for size in images[0].shape[1:]]
    probes = np.empty((3, *shape), "float32")
    probes[:] = np.float32([0, 255, 0]).reshape(3, 1, 1, 1)
    probes[2] = np.random.RandomState(0).uniform(0, 255, shape)
    names: list[str] = []
    # What layers draw or remember while they are looked at is forgotten.
    with keras.StatelessScope(collect_losses=True):
        seen, _ = _followed(model, [keras.ops.convert_to_tensor(probes)], names)
        read = [_numbers(pixels) for pixels in seen]
    if not names or not read or any(_has_raw_channel(pixels) for pixels in read):
        return None
    plain = np.array([(pixels[:2].min(), pixels[:2].max()) for pixels in read])
    if np.ptp(plain) < 1e-3:  # Each image is normalized by its own mean.
        plain = np.array([(pixels.min(), pixels.max()) for pixels in read])
    return OwnNormalization(tuple(names), float(plain.min()), float(plain.max()))


def _followed(model: keras.Model, pixels: list, names: list[str]) -> tuple[list, list | None]:
    """Follows pixels through a model up to its first layers with weights.

    Args:
        model: A model with a graph.
        pixels: What it is given, in the order of its inputs.
        names: The names of what normalizes are added here.

    Returns:
        The pixels that layers with weights read, and those that the model ends in, if it is passed
        whole.
    """
    graph, seen = graph_of(model), []
    known = {id(tensor): each for tensor, each in zip(graph.inputs, pixels)}
    for call in calls(model):
        read = [known[id(tensor)] for tensor in call.inputs if id(tensor) in known]
        made = None
        if read and len(read) == len(call.inputs):
            if is_functional(call.operation):
                inside, made = _followed(call.operation, read, names)
                seen += inside
                read = []
            else:
                made = _made(call, read, known, names)
        if made is None:
            seen += read
            continue
        known |= {id(tensor): each for tensor, each in zip(call.outputs, made)}
    ends = [known.get(id(tensor)) for tensor in graph.outputs]
    return seen, None if any(each is None for each in ends) else ends


def _made(call: Call, read: list, known: dict, names: list[str]) -> list | None:
    """Returns what a call without weights makes of pixels; ``None`` for another call."""
    if isinstance(call.operation, keras.layers.Pipeline):
        for layer in call.operation.layers:
            made = _applied(layer, f"{call.name}/{layer.name}", read, read[:1], {}, names)
            if made is None:
                return None
            read = made
        return read
    args, kwargs = call.node.arguments.fill_in(known)
    return _applied(call.operation, call.name, read, args, kwargs, names)


def _applied(operation, name: str, read: list, args, kwargs: dict, names: list[str]) -> list | None:
    """Returns what an operation without weights makes of pixels; ``None`` for another one."""
    is_layer = isinstance(operation, keras.Layer)
    if is_layer and operation.weights and not isinstance(operation, keras.layers.Normalization):
        return None
    if is_layer and "training" in inspect.signature(operation.call).parameters:
        kwargs = {**kwargs, "training": False}
    try:
        made = keras.tree.flatten(operation(*args, **kwargs))
    # An image of another size, or of three in a batch, may be none that it can take.
    except Exception:
        return None
    if len(made) == 1 and _normalizes(operation, read, made[0]):
        names.append(name)
    return made


def _normalizes(operation, read: list, made) -> bool:
    """Whether an operation brings pixels into another range and else leaves them what they are."""
    before, after = [_numbers(each) for each in read], _numbers(made)
    if np.allclose(_range(before), _range([after]), 1e-3, 1e-3):
        return False
    if isinstance(operation, keras.layers.Lambda):
        return after.ndim == 4 and after.shape[-1] == before[0].shape[-1]
    if isinstance(operation, _NORMALIZES):
        return True
    if not isinstance(operation, keras.Layer) and type(operation).__name__ in _ARITHMETIC:
        return True
    return after.shape == before[0].shape and _is_same_image(before[0][2], after[2])


def _is_same_image(first: np.ndarray, second: np.ndarray) -> bool:
    """Whether each channel of an image is a linear function of that of another one."""
    first, second = (each.reshape(-1, each.shape[-1]) for each in (first, second))
    first, second = (each - each.mean(axis=0) for each in (first, second))
    norms = np.linalg.norm(first, axis=0) * np.linalg.norm(second, axis=0)
    return bool(np.all(np.abs((first * second).sum(axis=0)) > 0.9999 * norms) and np.all(norms > 0))


def _has_raw_channel(pixels: np.ndarray) -> bool:
    """Whether black and white are still 0 and 255 in a channel."""
    channels = pixels[:2].reshape(-1, pixels.shape[-1])
    ranges = np.stack([channels.min(axis=0), channels.max(axis=0)], axis=-1)
    return bool(np.isclose(ranges, [0, 255]).all(axis=-1).any())


def _range(images: list[np.ndarray]) -> tuple[float, float]:
    """Returns the least and the greatest value of black and white."""
    plain = [each[:2] for each in images]
    return min(float(each.min()) for each in plain), max(float(each.max()) for each in plain)


def _numbers(pixels) -> np.ndarray:
    return keras.ops.convert_to_numpy(keras.ops.cast(pixels, "float32"))
