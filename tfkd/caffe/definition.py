"""What a prototxt defines: its layers at inference, in one form whatever Caffe's version."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tfkd.caffe.errors import CaffeFormatError, shown, within
from tfkd.caffe.schema import ENUMS, as_text

_V1_TYPES = {
    "ABSVAL": "AbsVal",
    "ARGMAX": "ArgMax",
    "BNLL": "BNLL",
    "HDF5_DATA": "HDF5Data",
    "HDF5_OUTPUT": "HDF5Output",
    "LRN": "LRN",
    "MVN": "MVN",
    "RELU": "ReLU",
    "SOFTMAX_LOSS": "SoftmaxWithLoss",
    "TANH": "TanH",
}
"""Types of V1 that V2 does not spell as their words with capitals."""

_DATA = (
    "AnnotatedData",
    "Data",
    "DummyData",
    "HDF5Data",
    "ImageData",
    "Python",
    "VideoData",
    "WindowData",
)
"""Layers that give images of which the prototxt does not tell the size."""

_OLD_TRANSFORMS = {
    "Data": "data_param",
    "ImageData": "image_data_param",
    "WindowData": "window_data_param",
}
"""Where layers of V1 had what ``transform_param`` says, before there was one."""

_OF_TRAINING = (
    "Accuracy",
    "ContrastiveLoss",
    "EuclideanLoss",
    "HDF5Output",
    "HingeLoss",
    "InfogainLoss",
    "MultinomialLogisticLoss",
    "SigmoidCrossEntropyLoss",
    "Silence",
    "SoftmaxWithLoss",
)
_MOST_LAYERS = 10_000
_TEST = ENUMS["Phase"]["TEST"]


@dataclass(frozen=True)
class Layer:
    """A layer as the prototxt has it.

    Attributes:
        name: Its name.
        type: What it does, by Caffe's word of V2: ``"InnerProduct"``.
        bottoms: The blobs that it reads.
        tops: The blobs that it makes; one may be a blob that it reads.
        message: Its message.
    """

    name: str
    type: str
    bottoms: tuple[str, ...]
    tops: tuple[str, ...]
    message: Any = field(repr=False)

    def parameters(self, name: str):
        """Returns its message of parameters by the name of the field, with Caffe's defaults."""
        return getattr(self.message, name)


@dataclass(frozen=True)
class Transform:
    """How pixels become what the network takes, where the prototxt says so: mean, then scale.

    Attributes:
        scale: The factor.
        mean: The mean of each channel, or of all, in the network's order; none where it is empty.
        mean_file: The file of means; ``""`` for none.
        crop_size: Height and width of what is cut out of the middle of an image; 0 for none.
    """

    scale: float = 1.0
    mean: tuple[float, ...] = ()
    mean_file: str = ""
    crop_size: int = 0


@dataclass(frozen=True)
class Definition:
    """A network at inference.

    Attributes:
        name: Its name.
        inputs: The blobs that it is given, and the ``(channels, height, width)`` of each: None
            where the prototxt does not tell it, 0 for a length that it does not tell.
        layers: Its layers in their order, without those of training and data.
        transforms: How pixels become an input, for those of which the prototxt tells it.
        silent: Blobs that are made and then left alone.
    """

    name: str
    inputs: dict[str, tuple[int, ...] | None]
    layers: tuple[Layer, ...]
    transforms: dict[str, Transform]
    silent: frozenset[str] = frozenset()


def defined(message) -> Definition:
    """Returns what a NetParameter defines in the phase TEST.

    Args:
        message: The message, as :func:`tfkd.caffe.prototxt.read_prototxt` gives it.

    Raises:
        CaffeFormatError: For a network of the form V0, too many layers, inputs without their sizes,
            or a layer that is in for several reasons.
    """
    found = list(message.layer) or list(message.layers)
    if len(found) > _MOST_LAYERS:
        raise CaffeFormatError(f"found {len(found):,} layers, wanted at most {_MOST_LAYERS:,}")
    inputs = _declared_inputs(message)
    layers, transforms, silent = [], {}, set()
    for position, each in enumerate(found):
        layer = _layer(each, position)
        with within(f"layer {shown(layer.name)}"):
            if not is_in_test(each):
                continue
            if layer.type in _OF_TRAINING:
                silent |= set(layer.bottoms if layer.type == "Silence" else ())
            elif layer.type in ("Input", "MemoryData", *_DATA) and not layer.bottoms:
                transform = _transform(layer)
                inputs |= _given(layer, transform)
                transforms |= dict.fromkeys(layer.tops, transform)
            else:
                layers.append(layer)
    return Definition(as_text(message.name), inputs, tuple(layers), transforms, frozenset(silent))


def _layer(message, position: int) -> Layer:
    is_v1 = message.DESCRIPTOR.name == "V1LayerParameter"
    if is_v1 and message.HasField("layer"):
        raise CaffeFormatError(
            f"layer {position}: found the form V0 of Caffe's first months, wanted V1 or V2 "
            "(Caffe's upgrade_net_proto_text makes it)"
        )
    name = as_text(message.name) or f"layer{position}"
    return Layer(
        name,
        type_of(message),
        tuple(map(as_text, message.bottom)),
        tuple(map(as_text, message.top)),
        message,
    )


def type_of(message) -> str:
    """Returns what the message of a layer does, by Caffe's word of V2."""
    if message.DESCRIPTOR.name != "V1LayerParameter":
        return as_text(message.type)
    word = next(name for name, value in ENUMS["V1LayerType"].items() if value == message.type)
    return _V1_TYPES.get(word, "".join(map(str.capitalize, word.split("_"))))


def is_in_test(message) -> bool:
    """Returns whether the message of a layer puts it into the network in the phase TEST.

    Raises:
        CaffeFormatError: When it both includes and excludes the layer.
    """
    if message.include and message.exclude:
        raise CaffeFormatError("found both 'include' and 'exclude', wanted one of them")
    if message.include:
        return any(map(_is_met, message.include))
    return not any(map(_is_met, message.exclude))


def _is_met(rule) -> bool:
    """Whether a rule holds in the phase TEST, at level 0, in no stage."""
    return (
        (not rule.HasField("phase") or rule.phase == _TEST)
        and rule.min_level <= 0 <= (rule.max_level if rule.HasField("max_level") else 0)
        and not rule.stage
    )


def _declared_inputs(message) -> dict[str, tuple[int, ...] | None]:
    """The inputs that a network names itself, outside of its layers."""
    names = list(map(as_text, message.input))
    shapes = [tuple(each.dim) for each in message.input_shape]
    if message.input_dim:
        lengths = list(message.input_dim)
        shapes = [tuple(lengths[start : start + 4]) for start in range(0, len(lengths), 4)]
        if len(lengths) % 4 or message.input_shape:
            raise CaffeFormatError(
                f"found {len(lengths)} numbers of input_dim and {len(message.input_shape)} of "
                "input_shape, wanted four of input_dim for each input, or an input_shape"
            )
    if len(names) != len(shapes):
        raise CaffeFormatError(
            f"found {len(names)} inputs and {len(shapes)} shapes of inputs, wanted one of each"
        )
    return {name: shape[1:] for name, shape in zip(names, shapes)}


def _given(layer: Layer, transform: Transform) -> dict[str, tuple[int, ...] | None]:
    """The blobs that a layer of data gives, and what it tells of their shapes."""
    if layer.type == "Input":
        shapes: Sequence = [tuple(each.dim)[1:] for each in layer.parameters("input_param").shape]
        if len(shapes) not in (1, len(layer.tops)):
            raise CaffeFormatError(
                f"found {len(shapes)} shapes for {len(layer.tops)} blobs, wanted one of each"
            )
        return dict(zip(layer.tops, list(shapes) * (len(layer.tops) if len(shapes) == 1 else 1)))
    if layer.type == "MemoryData":
        sizes = layer.parameters("memory_data_param")
        first: tuple[int, ...] = (sizes.channels, sizes.height, sizes.width)
    else:
        first = (0, transform.crop_size, transform.crop_size)
    # What follows are labels.
    return dict(zip(layer.tops, (first, *[None] * len(layer.tops))))


def _transform(layer: Layer) -> Transform:
    given = layer.parameters("transform_param")
    found = {name: getattr(given, name) for name in ("scale", "mean_file", "crop_size")}
    if layer.message.DESCRIPTOR.name == "V1LayerParameter" and layer.type in _OLD_TRANSFORMS:
        # Caffe's upgrade lets these win.
        old = layer.parameters(_OLD_TRANSFORMS[layer.type])
        found |= {name: getattr(old, name) for name in found if old.HasField(name)}
    mean, mean_file = tuple(given.mean_value), as_text(found["mean_file"])
    if mean and mean_file:
        raise CaffeFormatError("found both mean_value and mean_file, wanted one of them")
    return Transform(found["scale"], mean, mean_file, found["crop_size"])
