"""PyTorch weights in tfkd's networks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import keras
import numpy as np

from tfkd.errors import TfkdError
from tfkd.models import registry
from tfkd.torch.rules import Rules, nearest, rules_of


@dataclass(frozen=True)
class Slot:
    """A variable of a layer, and the tensor that belongs in it.

    Attributes:
        variable: The variable.
        tensor: The tensor's name in its module: `weight`, `bias`, `running_mean`, `running_var`.
        shape: The tensor's shape.
        convert: From the tensor to the variable's layout.
    """

    variable: keras.Variable
    tensor: str
    shape: tuple[int, ...]
    convert: Callable[[np.ndarray], np.ndarray] = lambda values: values


def port(
    weights: Mapping[str, np.ndarray],
    network: str,
    *,
    image_size: int | None = None,
    **kwargs,
) -> keras.Model:
    """Builds a network and gives it the weights of its published PyTorch form.

    The logits are those of the PyTorch network in evaluation mode, but for rounding. The class
    count and the channels of an image are read off the weights.

    Args:
        weights: A state dict, name -> array in torch's layout, as `tfkd.torch.read` gives it.
        network: The network's name, as for `tfkd.models.create`.
        image_size: Height and width of an image, in pixels; None for those that the network was
            published for.
        **kwargs: The network's own arguments.

    Returns:
        The network, as `tfkd.models.create` builds it.

    Raises:
        TfkdError: For a network without a known PyTorch form, and for weights that are not its own:
            names that it lacks, or that lack here, another shape, or values that are no finite
            numbers.
    """
    rules = rules_of(network)
    entry = registry.entry(network)
    weights = {name: np.asarray(values) for name, values in weights.items()}
    classes = _length(weights, rules, "logits", 0, network)
    channels = _length(weights, rules, rules.stem, 1, network)
    sides = entry.default_shape[:2] if image_size is None else (image_size, image_size)
    model = registry.create(network, classes, (*sides, channels), **kwargs)
    assign(model, weights, network)
    return model


def assign(model: keras.Model, weights: Mapping[str, np.ndarray], network: str) -> None:
    """Sets every variable of a model from the tensors of its published PyTorch form.

    Args:
        model: A model that `tfkd.models.create` built.
        weights: As in `port`.
        network: The name that the model was created by.

    Raises:
        TfkdError: As `port`; the model is then as it was before.
    """
    slots = _slots(model, rules_of(network), weights, network)
    missing = [name for name in slots if name not in weights]
    odd = [name for name in weights if name not in slots]
    if missing or odd:
        raise TfkdError(_names_differ(network, weights, odd, missing))
    values = {name: _fitting(name, slot, weights, network) for name, slot in slots.items()}
    for name, slot in slots.items():
        slot.variable.assign(slot.convert(values[name]))


def _length(weights: Mapping, rules: Rules, layer: str, axis: int, network: str) -> int:
    """The length of an axis of the kernel of a layer."""
    names = [f"{module}.weight" for module in rules.modules(layer)]
    found = next((weights[name] for name in names if name in weights), None)
    if found is None:
        raise TfkdError(_names_differ(network, weights, (), names[:1]))
    if found.ndim <= axis:
        raise TfkdError(
            f"network {network!r}: tensor of its layer {layer!r}: found shape {found.shape}, "
            "wanted that of a kernel"
        )
    return found.shape[axis]


def _slots(
    model: keras.Model, rules: Rules, weights: Mapping[str, np.ndarray], network: str
) -> dict[str, Slot]:
    """Returns tensor name -> slot for every variable of a model."""
    slots = {}
    for layer in model.layers:
        if not layer.weights:
            continue
        modules = rules.modules(layer.name)
        if not modules:
            raise TfkdError(
                f"network {network!r}: found layer {layer.name!r}, which its published PyTorch "
                "form does not have"
            )
        usual = [module for module in modules if f"{module}.weight" in weights]
        module = (usual or modules)[0]
        for slot in _layer_slots(layer, rules.maps.get(layer.name)):
            slots[f"{module}.{slot.tensor}"] = slot
    if len(slots) != len(model.weights):
        raise TfkdError(
            f"network {network!r}: found {len(slots)} tensors for {len(model.weights)} variables; "
            "wanted one for each"
        )
    return slots


def _layer_slots(layer: keras.Layer, maps: tuple[int, int, int] | None) -> list[Slot]:
    """The variables of a layer.

    Args:
        layer: A built layer.
        maps: The channels, height and width that a linear layer sees in a row, or None.
    """
    if isinstance(layer, keras.layers.BatchNormalization):
        shape = tuple(layer.gamma.shape)
        return [
            Slot(layer.gamma, "weight", shape),
            Slot(layer.beta, "bias", shape),
            Slot(layer.moving_mean, "running_mean", shape),
            Slot(layer.moving_variance, "running_var", shape),
        ]
    kernel = layer.kernel
    if isinstance(layer, keras.layers.DepthwiseConv2D):
        # Height, width, channels, 1 here; channels, 1, height, width there.
        height, width, channels, each = kernel.shape
        slots = [Slot(kernel, "weight", (channels, each, height, width), _transposed(2, 3, 0, 1))]
    elif isinstance(layer, keras.layers.Conv2D):
        height, width, inputs, outputs = kernel.shape
        shape = (outputs, inputs, height, width)
        slots = [Slot(kernel, "weight", shape, _transposed(2, 3, 1, 0))]
    elif maps is not None:
        slots = [Slot(kernel, "weight", tuple(kernel.shape[::-1]), _of_flat_maps(maps))]
    else:
        slots = [Slot(kernel, "weight", tuple(kernel.shape[::-1]), _transposed(1, 0))]
    if layer.use_bias:
        slots.append(Slot(layer.bias, "bias", tuple(layer.bias.shape)))
    return slots


def _transposed(*axes: int) -> Callable[[np.ndarray], np.ndarray]:
    return lambda values: values.transpose(axes)


def _of_flat_maps(maps: tuple[int, int, int]) -> Callable[[np.ndarray], np.ndarray]:
    """A linear layer over feature maps: channels come first there and last here."""

    def convert(values: np.ndarray) -> np.ndarray:
        apart = values.reshape(len(values), *maps)
        return apart.transpose(2, 3, 1, 0).reshape(-1, len(values))

    return convert


def _fitting(name: str, slot: Slot, weights: Mapping[str, np.ndarray], network: str) -> np.ndarray:
    """The tensor of a slot in float32, if it fits."""
    found = weights[name]
    if found.shape != slot.shape:
        raise TfkdError(
            f"network {network!r}: tensor {name!r}: found shape {found.shape}, wanted {slot.shape}"
            f"{_hint(weights, network)}"
        )
    with np.errstate(over="ignore"):
        values = found.astype(np.float32)
    if not np.isfinite(values).all():
        raise TfkdError(
            f"network {network!r}: tensor {name!r}: found values that are infinite or none, wanted "
            "finite numbers"
        )
    return values


def _names_differ(network: str, weights: Mapping, odd, missing) -> str:
    parts = []
    if odd:
        parts.append(f"{len(odd)} tensors that it does not have, such as {odd[0][:80]!r}")
    if missing:
        parts.append(f"none for {len(missing)} that it has, such as {missing[0]!r}")
    return (
        f"network {network!r}: among {len(weights)} tensors found {' and '.join(parts)}; wanted "
        f"the names of its published PyTorch form{_hint(weights, network)}"
    )


def _hint(weights: Mapping, network: str) -> str:
    near = nearest(weights)
    return "" if near in (None, network) else f"; they look like those of {near!r}"
