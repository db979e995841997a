"""Exits put on a network that has none."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import keras

from tfkd.errors import TfkdError, reason, unknown
from tfkd.models.graph.calls import graph_of
from tfkd.models.graph.leaves import leaves
from tfkd.models.graph.outputs import LOGITS, outputs
from tfkd.models.graph.taps import find_tap, tapped
from tfkd.models.layers.blocks import convolution, kaiming_normal, linear, normalization, relu

Head = Callable[..., keras.KerasTensor]

HEAD_WIDTH = 128
"""Channels of the head ``convolutions``, those of an MSDNet for CIFAR."""


def multi_exit(
    model: keras.Model,
    taps: Sequence[str],
    head: str | Head = "linear",
    *,
    seed: int | None = None,
    name: str | None = None,
) -> keras.Model:
    """Returns a network with an exit at each of some taps, over the weights of one that has none.

    Args:
        model: A functional model of one output, the logits, which becomes the deepest exit.
        taps: Where the heads begin, shallow to deep: maps ``(batch, height, width, channels)`` or
            vectors ``(batch, channels)``, by the names of :func:`tfkd.models.tap_names`.
        head: ``"linear"``, the mean over positions and a linear classifier; ``"convolutions"``,
            before these two 3x3 convolutions of stride 2 and 128 channels, as an MSDNet has them,
            for maps alone; or a function ``head(features, num_classes=, name=)`` that returns
            logits ``(batch, classes)``. ``name`` is that of the exit; names of layers begin with
            it.
        seed: Seed of the first weights of named heads, from which each has its own; ``None`` draws
            them as ``keras.utils.set_random_seed`` has it.
        name: Name of the result; ``None`` is that of ``model`` and ``_exits``.

    Returns:
        A functional model from the input of ``model`` to a dict of logits, ``exit1``, ``exit2``,
        ... and ``logits``. It shares the layers of ``model``; those of the heads bear the names of
        their exits: ``exit1_pooled``, ``exit1``.

    Raises:
        TfkdError: For a model without a graph or with several outputs; for no taps, one that is not
            there, twice, the output itself or before one that it follows; for a head that is not
            known, fails or does not fit.
    """
    who = f"exits of model {getattr(model, 'name', model)!r}"
    classes = _classes(who, model)
    taps = _checked(who, model, taps)
    if isinstance(head, str) and head not in HEADS:
        raise unknown(f"head of the {who}", head, HEADS)
    exits = [f"exit{number}" for number in range(1, len(taps) + 1)]
    for layer in model.layers:
        if layer.name.split("_")[0] in exits:
            raise TfkdError(
                f"{who}: found a layer called {layer.name!r}; wanted the name for exits"
            )
    source = tapped(model, {**dict(zip(exits, taps)), LOGITS: LOGITS})
    made = {}
    for number, (exit, tap) in enumerate(zip(exits, taps)):
        features = source.output[exit]
        where = f"{who}: the head at {tap!r}"
        if isinstance(head, str):
            starts = None if seed is None else seed + _SEEDS * number
            made[exit] = HEADS[head](where, features, classes, exit, starts)
            continue
        try:
            made[exit] = head(features, num_classes=classes, name=exit)
        # What a function of the user's does wrong is told in one line, like any other wrong input.
        except Exception as error:
            raise TfkdError(f"{where} failed: {reason(error)}") from error
        shape = getattr(made[exit], "shape", None)
        if shape is None or tuple(shape) != (None, classes):
            found = type(made[exit]).__name__ if shape is None else tuple(shape)
            raise TfkdError(f"{where} gives {found}; wanted logits (None, {classes})")
    made[LOGITS] = source.output[LOGITS]
    return keras.Model(source.input, made, name=name or f"{model.name}_exits")


def _classes(who: str, model: keras.Model) -> int:
    """Returns the number of classes of a model that is to get exits."""
    graph_of(model)
    found = outputs(model)
    if tuple(found) != (LOGITS,):
        raise TfkdError(f"{who}: found the outputs {', '.join(found)}; wanted the logits alone")
    shape = tuple(found[LOGITS].shape)
    if len(shape) != 2 or shape[-1] is None:
        raise TfkdError(f"{who}: found output {shape}; wanted logits (batch, classes)")
    return shape[-1]


def _checked(who: str, model: keras.Model, taps: Sequence[str]) -> list[str]:
    """Returns the taps as a list, checked."""
    if isinstance(taps, str) or not isinstance(taps, Sequence) or not taps:
        raise TfkdError(f"{who}: found taps {taps!r}; wanted a list of names, shallow to deep")
    graph = leaves(model)
    places = {**graph.by_path, **graph.outputs}
    numbers = [places[find_tap(model, tap)] for tap in taps]
    for position, (tap, number) in enumerate(zip(taps, numbers)):
        if number == graph.outputs[LOGITS]:
            raise TfkdError(f"{who}: found tap {tap!r}, the output; wanted taps before it")
        if number in numbers[:position]:
            raise TfkdError(f"{who}: found tap {tap!r} twice; wanted each once")
        after = graph.from_tensors([number])
        for earlier, other in zip(taps[:position], numbers):
            if other in after:
                raise TfkdError(
                    f"{who}: found tap {earlier!r} before {tap!r}, from which it is made; wanted "
                    "taps shallow to deep"
                )
    return list(taps)


_SEEDS = 10
"""How far the seeds of two heads are apart."""


def _linear_head(where: str, features, classes: int, name: str, seed: int | None):
    """The mean over positions, where there are any, and a linear classifier."""
    shape = tuple(features.shape)
    if len(shape) not in (2, 4) or shape[-1] is None:
        raise TfkdError(f"{where}: found features {shape}; wanted maps or vectors of known width")
    pooled = features
    if len(shape) == 4:
        pooled = keras.layers.GlobalAveragePooling2D(name=f"{name}_pooled")(features)
    starts = {}
    if seed is not None:
        bound = shape[-1] ** -0.5
        for number, part in enumerate(("kernel", "bias")):
            draw = keras.initializers.RandomUniform(-bound, bound, seed=seed + number)
            starts[f"{part}_initializer"] = draw
    return linear(pooled, classes, name=name, **starts)


def _convolutions_head(where: str, features, classes: int, name: str, seed: int | None):
    """Two convolutions of stride 2, their mean over positions, and a linear classifier."""
    if len(features.shape) != 4:
        raise TfkdError(f"{where}: found features {tuple(features.shape)}; wanted maps")
    for number in (1, 2):
        layer = f"{name}_head{number}"
        draw = None if seed is None else seed + 1 + number
        features = convolution(
            features, HEAD_WIDTH, 3, 2, name=f"{layer}_conv",
            start=lambda draw=draw: kaiming_normal(seed=draw),
        )  # fmt: skip
        features = relu(normalization(features, name=f"{layer}_bn"), name=f"{layer}_relu")
    return _linear_head(where, features, classes, name, seed)


HEADS = {"linear": _linear_head, "convolutions": _convolutions_head}
"""The heads that have a name."""
