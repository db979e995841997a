"""The weights of one network in another one whose layers are the same, in their order."""

from __future__ import annotations

import dataclasses

import keras
import numpy as np

from tfkd import models
from tfkd.errors import TfkdError

_TOLERANCE = 1e-4
_VARIABLES = ("kernel", "bias", "gamma", "beta", "moving_mean", "moving_variance", "alpha")


def matched(network: models.Network, name: str) -> models.Network:
    """Returns a network of tfkd with the weights of another network.

    The layers with weights of both, in the order in which Keras lists them (by their depth), must
    have variables of the same names and shapes. What the two compute is compared on a random image,
    as equal layers do not make equal networks.

    Args:
        network: The network with weights.
        name: The name of the other one, as for ``tfkd.models.create``.

    Raises:
        TfkdError: When a layer is another one, or the outputs differ by more than 1e-4 of the
            largest.
    """
    source, who = network.model, f"network {name!r} from {network.name!r}"
    shape = source.output_shape
    if not isinstance(shape, tuple) or len(shape) != 2:
        raise TfkdError(f"{who}: found outputs {shape}, wanted one of (batch, classes)")
    model = models.create(name, shape[-1], source.input_shape[1:])
    given, wanted = ([layer for layer in each.layers if layer.weights] for each in (source, model))
    for position, (old, new) in enumerate(zip(given, wanted)):
        if _form(old) != _form(new):
            raise TfkdError(
                f"{who}: found as layer {position + 1} with weights {_described(old)}, wanted "
                f"{_described(new)}"
            )
    if len(given) != len(wanted):
        raise TfkdError(f"{who}: found {len(given)} layers with weights, wanted {len(wanted)}")
    for old, new in zip(given, wanted):
        for variable, values in _variables(new).items():
            values.assign(_variables(old)[variable])
    _compare(source, model, who)
    return dataclasses.replace(network.with_model(model), taps={})


def _variables(layer: keras.Layer) -> dict[str, keras.Variable]:
    found = {name: getattr(layer, name, None) for name in _VARIABLES}
    return {name: each for name, each in found.items() if isinstance(each, keras.Variable)}


def _form(layer: keras.Layer) -> dict[str, tuple[int, ...]]:
    return {name: tuple(each.shape) for name, each in _variables(layer).items()}


def _described(layer: keras.Layer) -> str:
    shapes = ", ".join(f"{name} {shape}" for name, shape in _form(layer).items())
    return f"{layer.name!r} with {shapes or 'none that are known'}"


def _compare(source: keras.Model, model: keras.Model, who: str) -> None:
    images = np.random.default_rng(0).normal(0, 50, (1, *source.input_shape[1:]))
    wanted, found = (
        np.asarray(each(images.astype(np.float32), training=False)) for each in (source, model)
    )
    largest = float(np.max(np.abs(wanted)))
    difference = float(np.max(np.abs(found - wanted)))
    # Written so that NaN fails.
    if not difference <= _TOLERANCE * largest:
        raise TfkdError(
            f"{who}: found equal layers and outputs that differ by {difference:.2e}, wanted at "
            f"most {_TOLERANCE:g} of the largest, {largest:.4g}: it is another network"
        )
