"""A network with its weights, checked before anything is built: what is computed from what."""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tfkd.caffe.blobs import Blob
from tfkd.caffe.definition import Definition, Layer
from tfkd.caffe.errors import CaffeFormatError, shown, sizes, within
from tfkd.caffe.layers import Operation, Shape, operation_of
from tfkd.caffe.layers.activations import Softmax
from tfkd.caffe.layers.batch_normalization import BatchNorm, Scale
from tfkd.errors import TfkdWarning

_IMAGE = -1
_LONGEST_SIDE = 2**15
_LARGEST = 2**28


@dataclass(frozen=True)
class Node:
    """A layer whose output is computed.

    Attributes:
        names: Its name; of layers that became one, theirs, of which the last is its own.
        type: Its type, by Caffe's word.
        operation: What it does.
        inputs: The positions of the nodes that it reads; -1 is the image.
        blob: The blob that it makes.
        shape: The shape of that, without the batch.
        blobs: Its weights, in the shapes that the operation wants.
    """

    names: tuple[str, ...]
    type: str
    operation: Operation
    inputs: tuple[int, ...]
    blob: str
    shape: Shape
    blobs: tuple[Blob, ...]

    @property
    def name(self) -> str:
        """Its own name."""
        return self.names[-1]


@dataclass(frozen=True)
class Plan:
    """A network.

    Attributes:
        name: Its name.
        input: The blob that it is given.
        shape: Channels, height and width of that.
        nodes: Its layers in an order in which they can be computed.
        outputs: The position of each node that makes an output, and the blob that it is.
    """

    name: str
    input: str
    shape: Shape
    nodes: tuple[Node, ...]
    outputs: Mapping[int, str]


def planned(
    definition: Definition,
    weights: Mapping[str, tuple[Blob, ...]],
    *,
    keep_softmax: bool = False,
    image_size: int | None = None,
) -> Plan:
    """Joins a definition and weights by the names of layers, and checks that they fit.

    A layer that computes in place makes a new value under the old name, as in Caffe. Every value
    that no layer reads is an output. A Scale that alone reads a BatchNorm becomes one node with it.

    Args:
        definition: The definition.
        weights: The blobs of layers by name; a warning tells of layers that are not defined.
        keep_softmax: Whether a Softmax that makes an output stays; its input is the output else.
        image_size: Height and width of images; None for those of the definition.

    Raises:
        CaffeFormatError: With the layer, for what is not supported, does not fit or is missing.
    """
    image = _image(definition)
    shape = _image_shape(definition, image, weights, image_size)
    current, nodes = {image: _IMAGE}, []
    filled: set[str] = set()
    for layer in definition.layers:
        with within(f"layer {shown(layer.name)}"):
            inputs = [_position(current, blob) for blob in layer.bottoms]
            for top in layer.tops:
                if top in current and top not in layer.bottoms:
                    raise CaffeFormatError(
                        f"found the top {shown(top)}, which another layer makes, wanted a new name"
                    )
            if layer.type == "Split" and len(inputs) == 1:
                current |= dict.fromkeys(layer.tops, inputs[0])
                continue
            shapes = [shape if each == _IMAGE else nodes[each].shape for each in inputs]
            if layer.name in filled:
                raise CaffeFormatError(
                    "found a second layer of that name, wanted one, because weights go by names"
                )
            nodes.append(_node(layer, inputs, shapes, weights))
            if nodes[-1].blobs:
                filled.add(layer.name)
            current[layer.tops[0]] = len(nodes) - 1
    _tell_of_extra(definition, weights)
    outputs = _outputs(nodes, current, definition.silent, keep_softmax)
    nodes, outputs = _in_use(*_with_scales(nodes, outputs))
    return Plan(definition.name, image, shape, tuple(nodes), outputs)


def _image(definition: Definition) -> str:
    """The blob of images, which is the only one of those given that layers read."""
    read = {blob for layer in definition.layers for blob in layer.bottoms}
    found = [name for name in definition.inputs if name in read]
    if len(found) != 1:
        listed = f": {', '.join(map(shown, found[:8]))}" if found else ""
        raise CaffeFormatError(
            f"found {len(found)} inputs that layers read{listed}; wanted one, of images"
        )
    return found[0]


def _image_shape(
    definition: Definition,
    image: str,
    weights: Mapping[str, tuple[Blob, ...]],
    image_size: int | None,
) -> Shape:
    shape = definition.inputs[image]
    if shape is None or len(shape) != 3:
        found = "no shape" if shape is None else f"the shape {sizes(shape)}"
        raise CaffeFormatError(
            f"input {shown(image)}: found {found} of an image, wanted channels, height and width"
        )
    channels, *sides = shape
    channels = channels or _channels_of_first(definition, image, weights)
    if image_size is not None:
        sides = [image_size, image_size]
    if not channels or not all(sides):
        raise CaffeFormatError(
            f"input {shown(image)}: found {channels or 'no'} channels and images "
            f"{' x '.join(map(str, sides))}, which data tell; wanted a prototxt with an Input "
            "layer, or the size of images"
        )
    found = (channels, *sides)
    if not all(0 < length <= _LONGEST_SIDE for length in found):
        raise CaffeFormatError(
            f"input {shown(image)}: found {sizes(found)}, wanted lengths from 1 to {_LONGEST_SIDE}"
        )
    _check_size(found)
    return found


def _channels_of_first(
    definition: Definition, image: str, weights: Mapping[str, tuple[Blob, ...]]
) -> int:
    """The channels that the first convolution of the images has weights for; 0 for unknown."""
    for layer in definition.layers:
        if layer.type == "Convolution" and image in layer.bottoms and layer.name in weights:
            lengths = weights[layer.name][0].shape
            if len(lengths) == 4:
                return lengths[1] * layer.parameters("convolution_param").group
    return 0


def _position(current: Mapping[str, int], blob: str) -> int:
    if blob not in current:
        raise CaffeFormatError(
            f"found the bottom {shown(blob)}, wanted a blob that a layer before it makes"
        )
    return current[blob]


def _node(
    layer: Layer,
    inputs: Sequence[int],
    shapes: Sequence[Shape],
    weights: Mapping[str, tuple[Blob, ...]],
) -> Node:
    operation = operation_of(layer)
    shape = operation.output(shapes)
    _check_size(shape)
    blobs = _fitting(operation.weights(shapes), weights.get(layer.name, ()))
    operation.check_weights([blob.values for blob in blobs])
    names, blob = (layer.name,), layer.tops[0]
    return Node(names, layer.type, operation, tuple(inputs), blob, shape, blobs)


def _fitting(wanted: Sequence[Shape], found: Sequence[Blob]) -> tuple[Blob, ...]:
    """The blobs of a layer in the shapes that are wanted."""
    if wanted and not found:
        raise CaffeFormatError("found no weights of that name, wanted those of the same network")
    if len(wanted) != len(found):
        raise CaffeFormatError(f"found {len(found)} blobs, wanted {len(wanted)}")
    fitting = []
    for number, (shape, blob) in enumerate(zip(wanted, found)):
        if _without_leading_ones(shape) != _without_leading_ones(blob.shape):
            raise CaffeFormatError(
                f"blob {number}: found the shape {sizes(blob.shape)}, wanted {sizes(shape)}"
            )
        fitting.append(dataclasses.replace(blob, shape=shape))
    return tuple(fitting)


def _without_leading_ones(shape: Shape) -> Shape:
    """A shape without what Caffe's older files put before it, which have four lengths always."""
    first = next((axis for axis, length in enumerate(shape) if length != 1), len(shape))
    return tuple(shape[first:])


def _check_size(shape: Shape) -> None:
    if math.prod(shape) > _LARGEST:
        raise CaffeFormatError(
            f"found {sizes(shape)} values of an image, wanted at most {_LARGEST:,}"
        )


def _tell_of_extra(definition: Definition, weights: Mapping[str, tuple[Blob, ...]]) -> None:
    defined = {layer.name for layer in definition.layers}
    extra = [name for name in weights if name not in defined]
    if extra:
        warnings.warn(
            f"{len(extra)} layers with weights are not in the prototxt and left out, such as "
            f"{shown(extra[0])}",
            TfkdWarning,
            stacklevel=3,
        )


def _outputs(
    nodes: Sequence[Node], current: Mapping[str, int], silent: frozenset[str], keep_softmax: bool
) -> dict[int, str]:
    read = {position for node in nodes for position in node.inputs}
    silenced = {current[blob] for blob in silent if blob in current}
    found: dict[int, str] = {}
    for position, node in enumerate(nodes):
        if position in read | silenced:
            continue
        if isinstance(node.operation, Softmax) and not keep_softmax:
            (position,) = node.inputs
        if position == _IMAGE:
            raise CaffeFormatError("found a Softmax of the image, wanted a network with weights")
        found[position] = nodes[position].blob
    if not found:
        raise CaffeFormatError("found no output, wanted a layer that no other one reads")
    return found


def _with_scales(
    nodes: Sequence[Node], outputs: Mapping[int, str]
) -> tuple[list[Node], Mapping[int, str]]:
    """The nodes, where a Scale does the work of the BatchNorm that it alone reads as well."""
    readers = Counter(position for node in nodes for position in node.inputs)
    readers.update(list(outputs))
    found = list(nodes)
    for position, node in enumerate(nodes):
        if not isinstance(node.operation, Scale) or node.inputs == (_IMAGE,):
            continue
        before = nodes[node.inputs[0]]
        if isinstance(before.operation, BatchNorm) and readers[node.inputs[0]] == 1:
            found[position] = dataclasses.replace(
                node,
                names=(*before.names, *node.names),
                type="BatchNorm, Scale",
                operation=before.operation.with_scale(node.operation),
                inputs=before.inputs,
                blobs=(*before.blobs, *node.blobs),
            )
    return found, outputs


def _in_use(nodes: Sequence[Node], outputs: Mapping[int, str]) -> tuple[list[Node], dict[int, str]]:
    """The nodes that outputs need, and the outputs, by the positions that they then have."""
    needed = set(outputs)
    for position in range(len(nodes) - 1, -1, -1):
        if position in needed:
            needed.update(nodes[position].inputs)
    kept = sorted(needed - {_IMAGE})
    place = {old: new for new, old in enumerate(kept)} | {_IMAGE: _IMAGE}
    found = [
        dataclasses.replace(nodes[old], inputs=tuple(place[each] for each in nodes[old].inputs))
        for old in kept
    ]
    return found, {place[position]: blob for position, blob in outputs.items()}
