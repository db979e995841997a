"""Which channels of the feature maps of a model belong together, so that none goes without others.

Every convolution makes channels of its own. Layers that treat each channel by itself hand them on,
sums tie those of their inputs together, and whatever is not known here keeps those that it reads
and makes as they are.
"""

from __future__ import annotations

from collections.abc import Sequence

import keras

from tfkd.models.graph.calls import Call, calls, graph_of

layers = keras.layers

# Each output channel follows from the input channel of the same number.
_BY_CHANNEL = (
    layers.Activation, layers.ELU, layers.LeakyReLU, layers.ReLU, layers.Identity,
    layers.Dropout, layers.SpatialDropout2D, layers.GaussianDropout, layers.GaussianNoise,
    layers.MaxPooling2D, layers.AveragePooling2D, layers.AdaptiveAveragePooling2D,
    layers.GlobalAveragePooling2D, layers.GlobalMaxPooling2D,
    layers.ZeroPadding2D, layers.Cropping2D, layers.UpSampling2D,
    layers.BatchNormalization,
)  # fmt: skip
# The same among the functions of keras.ops, which have no public classes.
_FUNCTIONS_BY_CHANNEL = (
    "Elu", "Gelu", "HardSigmoid", "HardSilu", "LeakyRelu", "Relu", "Relu6", "Sigmoid", "Silu",
    "Softplus", "Tanh", "MaxPool", "AveragePool",
)  # fmt: skip
# Layers and functions of keras.ops that join maps of the same channels, by the names of both.
_SUMS = ("Add", "Average", "Maximum", "Minimum", "Multiply", "Subtract")


class Group:
    """Channels that are kept or left out by the same choice.

    Attributes:
        width: Their number.
        pinned: Whether all of them must be kept.
        makers: The convolutions that make them; several where their outputs are summed up.
    """

    def __init__(self, width: int, makers: Sequence[Call] = (), pinned: bool = False) -> None:
        self.width = width
        self.pinned = pinned
        self.makers = list(makers)
        self._joined: Group | None = None

    @property
    def whole(self) -> Group:
        """The group that this one became a part of; itself if there is none."""
        found = self
        while found._joined is not None:
            found = found._joined
        return found

    def join(self, other: Group) -> None:
        """Makes one group of both."""
        first, second = self.whole, other.whole
        if first is not second:
            second._joined = first
            first.makers += second.makers
            first.pinned |= second.pinned


class Channels:
    """The groups of channels in a model whose input keeps its own.

    Args:
        model: A functional model of one input and one output, both feature maps; a sub-model in it
            counts as a layer that is not known.
        fixed: Names of layers that keep their channels.
    """

    def __init__(self, model: keras.Model, fixed: Sequence[str] = ()) -> None:
        self._groups: dict[int, tuple[Group, ...]] = {}
        for tensor in graph_of(model).inputs:
            self._groups[id(tensor)] = (Group(tensor.shape[-1], pinned=True),)
        for call in calls(model):
            found = self._follow(call, keeps=call.operation.name in fixed)
            self._groups.update((id(tensor), found) for tensor in call.outputs)
        self.output = self.of(graph_of(model).outputs[0])
        """The groups of the output."""

    def of(self, tensor: keras.KerasTensor) -> tuple[Group, ...]:
        """Returns the groups of a tensor of the model, several where maps are concatenated."""
        return tuple(group.whole for group in self._groups[id(tensor)])

    def read_by(self, call: Call) -> tuple[Group, ...]:
        """Returns the groups of the first tensor that a call reads."""
        return self.of(call.inputs[0])

    def _follow(self, call: Call, keeps: bool) -> tuple[Group, ...]:
        """Returns the groups of what a call makes."""
        read = [self._groups[id(tensor)] for tensor in call.inputs]
        operation, kind = call.operation, type(call.operation).__name__
        if ":" not in call.name and not keeps:
            if is_convolution(operation):
                return (Group(operation.filters, [call]),)
            if is_depthwise(operation):
                return read[0]
        if hands_on(operation) and not keeps:
            return read[0]
        if isinstance(operation, layers.Concatenate) and operation.axis in (-1, 3):
            return tuple(group for each in read for group in each)
        if kind in _SUMS and len({tuple(g.whole.width for g in each) for each in read}) == 1:
            for several in zip(*read, strict=True):
                for group in several[1:]:
                    several[0].join(group)
            return read[0]
        for group in (group for each in read for group in each):
            group.whole.pinned = True
        width = call.outputs[0].shape[-1] if len(call.outputs) == 1 else None
        return (Group(width or 0, pinned=True),)


def is_convolution(operation) -> bool:
    """Whether a layer is a convolution of all channels, which may be narrowed."""
    return (
        isinstance(operation, layers.Conv2D)
        and operation.groups == 1
        and operation.data_format == "channels_last"
    )


def is_depthwise(operation) -> bool:
    """Whether a layer is a convolution that makes of each channel one."""
    return (
        isinstance(operation, layers.DepthwiseConv2D)
        and operation.depth_multiplier == 1
        and operation.data_format == "channels_last"
    )


def hands_on(operation) -> bool:
    """Whether an operation treats every channel by itself, as it treats the others."""
    if type(operation).__name__ in _FUNCTIONS_BY_CHANNEL:
        return True
    if isinstance(operation, layers.BatchNormalization):
        return operation.axis in (-1, 3)
    if isinstance(operation, layers.PReLU):
        return tuple(operation.shared_axes or ()) == (1, 2)
    return isinstance(operation, _BY_CHANNEL) and (
        getattr(operation, "data_format", "channels_last") == "channels_last"
    )
