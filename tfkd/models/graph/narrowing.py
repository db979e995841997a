"""The student of blockwise distillation: a network whose blocks are replaced by narrower ones."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

import keras

from tfkd.errors import TfkdError
from tfkd.models.graph.calls import Call, calls, new_inputs, run
from tfkd.models.graph.channels import Channels, is_convolution
from tfkd.models.graph.cuts import Block, blocks, is_plain
from tfkd.models.graph.segments import segment
from tfkd.models.layers.batch_normalization import BatchNormalization

ReceptiveField = Literal["kept", "smaller", "larger"]

NARROW = "_narrow"
"""Ending of the names of layers that stand before the restoring convolution of a block."""

RESTORING = "_restore"
"""Ending of the name of that convolution."""

_ACTIVATIONS = (
    keras.layers.Activation, keras.layers.ELU, keras.layers.LeakyReLU, keras.layers.ReLU,
    keras.layers.Identity,
)  # fmt: skip


def blockwise(
    model: keras.Model,
    cuts: Sequence[str] | None = None,
    ratio: float = 2.0,
    blocks_to_replace: Collection[int] | None = None,
    receptive_field: ReceptiveField = "kept",
    *,
    name: str | None = None,
) -> keras.Model:
    """Returns a network whose blocks are narrower ones, which give maps like those they replace.

    A block keeps its layers, but each convolution has ``round(filters / ratio)`` of its filters, at
    least one; a 1x1 convolution then restores the channels of the block, followed by what follows
    the last convolution of the block: batch normalization, if it has any, and the activation, which
    also stands before it. Convolutions whose outputs are added to the input of the block keep
    their filters; where those of the last one do, nothing is restored. Convolutions of replaced
    blocks start He-normal, with biases of 0.

    Args:
        model: A functional model from images to logits; it is copied.
        cuts: The taps that blocks end with, see :func:`tfkd.models.blocks`.
        ratio: By what the filters are divided, more than 1; halves are rounded up.
        blocks_to_replace: The numbers of the blocks, from 1 on; None is all.
        receptive_field: "kept"; "smaller": the last convolution of a block that is larger than 1x1
            becomes a 1x1; "larger": the restoring one is a 3x3.
        name: Name of the result; None is that of `model`.

    Returns:
        A functional model with fresh weights. Layers have the names that they have in `model`, and
        so have the cuts, at maps of the same shapes; new ones are called `CUT_restore`,
        `CUT_restore_bn` and, before these, `LAYER_narrow`, where `LAYER` itself comes after them: a
        repeated activation, a sum that is a tap, or the cut itself.

    Raises:
        TfkdError: For a model or cuts that make no blocks, a block that is not there, or one whose
            convolutions cannot be narrowed or changed as asked for.
    """
    who = f"blockwise student of model {getattr(model, 'name', model)!r}"
    found = blocks(model, cuts)
    numbers = [each.number for each in found]
    chosen = numbers if blocks_to_replace is None else list(blocks_to_replace)
    for number in chosen:
        if number not in numbers:
            raise TfkdError(
                f"{who}: found block {number!r}; wanted numbers from 1 to {numbers[-1]}"
            )
    if not chosen or not ratio > 1:
        raise TfkdError(
            f"{who}: found ratio={ratio!r} and blocks {chosen}; wanted a ratio above 1 and a block"
        )
    replaced = [
        _Replaced.of(f"{who}: block {each.number}", model, each, ratio, receptive_field)
        for each in found
        if each.number in chosen
    ]
    return _rebuilt(model, replaced, name or model.name)


@dataclass(frozen=True)
class _Replaced:
    """How a block of a student differs from the teacher's.

    Attributes:
        layers: Names of its convolutions.
        filters: Filters of those that are narrowed, by name.
        pointwise: The convolution that becomes a 1x1; None without one.
        restored_after: Name of the call behind which the channels are restored; None where they
            are all there.
        hands_over: Whether that call gives its name to what restores the channels.
        activations: What is repeated before that, by name.
        end: The cut.
        channels: Channels of the block's output.
        size: Height and width of the restoring convolution.
        settings: Its use of a bias and its own activation.
        normalization: Settings of the batch normalization after it; None without one.
    """

    layers: frozenset[str]
    filters: dict[str, int]
    pointwise: str | None
    restored_after: str | None
    hands_over: bool
    activations: tuple[Call, ...]
    end: str
    channels: int
    size: int
    settings: dict
    normalization: tuple[type, dict] | None

    @classmethod
    def of(
        cls,
        who: str,
        model: keras.Model,
        block: Block,
        ratio: float,
        receptive_field: ReceptiveField,
    ) -> _Replaced:
        piece = segment(model, block.start, block.end, name="piece")
        several = {each.operation.name for each in calls(model) if ":" in each.name}
        channels = Channels(piece, several)
        made = [each for each in calls(piece) if is_convolution(each.operation)]
        filters = {
            each.operation.name: _narrowed(each.operation.filters, ratio)
            for each in made
            if not any(group.pinned for group in channels.of(each.outputs[0]))
        }
        if not filters:
            raise TfkdError(
                f"{who}: found no convolution that can be narrowed; wanted one whose output is not "
                "added to what keeps its channels"
            )
        restores = not all(group.pinned for group in channels.output)
        core, tail = _tail(model, piece, block.end)
        normalizations = [
            each.operation
            for each in calls(piece)
            if isinstance(each.operation, keras.layers.BatchNormalization)
        ]
        last = made[-1].operation
        activations = tuple(each for each in tail if _is_activation(each))
        has_own = any(not isinstance(e.operation, keras.layers.Identity) for e in activations)
        return cls(
            layers=frozenset(each.operation.name for each in made),
            filters=filters,
            pointwise=_pointwise(who, made) if receptive_field == "smaller" else None,
            restored_after=core.name if restores else None,
            hands_over=core.name == block.end or not getattr(core.operation, "weights", None),
            activations=activations,
            end=block.end,
            channels=piece.output_shape[-1],
            size=_restoring_size(who, receptive_field, restores),
            settings={
                "use_bias": last.use_bias,
                "activation": None if has_own else last.activation,
                "dtype": last.dtype_policy,
            },
            normalization=_settings_of(normalizations[-1]) if normalizations else None,
        )

    def copy(self, operation: keras.Operation) -> keras.Operation:
        """Returns a layer or function of the block as the student has it."""
        settings = operation.get_config()
        name = operation.name
        if name in self.layers:
            settings |= _he_normal()
        if name in self.filters:
            settings["filters"] = self.filters[name]
        if name == self.pointwise:
            settings["kernel_size"] = (1, 1)
        if name == self.restored_after and self.hands_over:
            settings["name"] = name + NARROW
        return type(operation).from_config(settings)

    def restored(self, maps: keras.KerasTensor) -> keras.KerasTensor:
        """Returns maps of all channels of the block, before its last activation."""
        for call in self.activations:
            settings = call.operation.get_config() | {"name": call.operation.name + NARROW}
            maps = type(call.operation).from_config(settings)(maps)
        last = self.restored_after if self.hands_over else None
        name = self.end + RESTORING
        convolution = keras.layers.Conv2D(
            self.channels,
            self.size,
            padding="same",
            name=name if self.normalization else last or name,
            **self.settings,
            **_he_normal(),
        )
        maps = convolution(maps)
        if self.normalization is None:
            return maps
        kind, settings = self.normalization
        return kind.from_config(settings | {"name": last or f"{name}_bn"})(maps)


def _rebuilt(model: keras.Model, replaced: Sequence[_Replaced], name: str) -> keras.Model:
    """Returns a copy of a model with other blocks."""
    of_layer = {layer: each for each in replaced for layer in each.layers}
    of_core = {each.restored_after: each for each in replaced if each.restored_after is not None}
    copies: dict[int, keras.Operation] = {}

    def copy(operation):
        if id(operation) not in copies:
            own = of_layer.get(operation.name) or of_core.get(operation.name)
            if own is None:
                made = type(operation).from_config(operation.get_config())
            else:
                made = own.copy(operation)
            copies[id(operation)] = made
        return copies[id(operation)]

    def perform(call, args, kwargs):
        made = copy(call.operation)(*args, **kwargs)
        return of_core[call.name].restored(made) if call.name in of_core else made

    inputs = new_inputs(model)
    return keras.Model(inputs, run(model, inputs, perform), name=name)


def _tail(model: keras.Model, piece: keras.Model, end: str) -> tuple[Call, list[Call]]:
    """Returns the last call of a block that makes its channels, and the plain ones behind it."""
    graph = calls(model)
    inside = {id(each.operation) for each in calls(piece)}
    maker = {id(each.outputs[0]): each for each in graph if each.output is not None}
    (call,) = (each for each in graph if each.name == end)
    tail: list[Call] = []
    while is_plain(call) and len(call.inputs) == 1:
        before = maker.get(id(call.inputs[0]))
        if before is None or id(before.operation) not in inside:
            break
        tail.insert(0, call)
        call = before
    return call, tail


def _is_activation(call: Call) -> bool:
    return isinstance(call.operation, _ACTIVATIONS)


def _narrowed(filters: int, ratio: float) -> int:
    return max(1, math.floor(filters / ratio + 0.5))


def _pointwise(who: str, made: Sequence[Call]) -> str:
    """Returns the last convolution of a block that can become a 1x1 without further changes."""
    for call in reversed(made):
        layer = call.operation
        if max(layer.kernel_size) > 1:
            if layer.padding == "same" and max(layer.strides) == 1:
                return layer.name
            break
    raise TfkdError(
        f"{who}: found receptive_field='smaller' and no last convolution that pads by itself and "
        "has stride 1; wanted 'kept' or 'larger'"
    )


def _restoring_size(who: str, receptive_field: ReceptiveField, restores: bool) -> int:
    if receptive_field != "larger":
        return 1
    if not restores:
        raise TfkdError(
            f"{who}: found receptive_field='larger' and channels that are all kept, which nothing "
            "restores; wanted 'kept' or 'smaller'"
        )
    return 3


def _settings_of(layer: keras.layers.BatchNormalization) -> tuple[type, dict]:
    kind = type(layer) if isinstance(layer, BatchNormalization) else keras.layers.BatchNormalization
    return kind, layer.get_config()


def _he_normal() -> dict:
    return {"kernel_initializer": keras.initializers.HeNormal(), "bias_initializer": "zeros"}
