"""A plan as a Keras model of stock layers and functions of ``keras.ops``."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import keras

from tfkd.caffe.errors import CaffeFormatError, shown, sizes, within
from tfkd.caffe.layers import Label, Shape
from tfkd.caffe.plan import Plan

_LOGITS = "logits"
_NAME = "caffe"


@dataclass(frozen=True)
class Built:
    """A model, and what its layers are called.

    Attributes:
        model: A functional model from images (batch, height, width, channels) to its output, or to
            a dict of them. Values of (channels, 1, 1) that are the only output are (channels,).
        names: The name of the Keras layer that gives the output of each layer of Caffe, by the
            latter's name. Of layers of one name it is that of the first.
    """

    model: keras.Model
    names: dict[str, str]


def build(plan: Plan, first: Callable | None = None) -> Built:
    """Returns the model of a plan, with its weights.

    Layers keep their names, but for characters that Keras or TensorFlow does not take and a number
    behind the second one of a name.

    Args:
        plan: The network.
        first: ``first(images, name)`` is what the first layer sees of them, by a layer of that
            name; None for the images themselves.

    Raises:
        CaffeFormatError: For more layers one after the other than Keras joins (about 900), and
            where a layer of Keras has another output than the layer of Caffe.
    """
    names = _Names()
    channels, height, width = plan.shape
    image = keras.Input((height, width, channels), name=names.fresh(plan.input))
    labels = [names.fresh(node.name) for node in plan.nodes]
    found = [image if first is None else first(image, names.fresh("image_mean"))]
    for node, name in zip(plan.nodes, labels):
        with within(f"layer {shown(node.name)}"):
            # The image stands at the end of the list, at -1, when nothing else is made.
            inputs = [found[position + 1] for position in node.inputs]
            label = Label(name, lambda word, name=name: names.fresh(f"{name}_{word}"))
            output = node.operation.build(inputs, label, [blob.values for blob in node.blobs])
            _check(tuple(output.shape[1:]), node.shape)
            found.append(output)
    outputs = {
        name: found[position + 1] for name, position in _output_names(plan, labels, names).items()
    }
    model = _joined(image, _named(outputs, names), plan)
    by_layer: dict[str, str] = {}
    for node, name in zip(plan.nodes, labels):
        by_layer.setdefault(node.name, name)
    return Built(model, by_layer)


def _joined(image, outputs, plan: Plan) -> keras.Model:
    try:
        return keras.Model(image, outputs, name=_plain(plan.name) or _NAME)
    except RecursionError:
        raise CaffeFormatError(
            f"found {len(plan.nodes):,} layers, wanted fewer one after the other: Keras walks "
            "through them by recursion"
        ) from None


class _Names:
    """Names that Keras and TensorFlow take, each once."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def fresh(self, name: str) -> str:
        """Returns a name like another one that was not returned before."""
        plain = _plain(name) or _NAME
        found, number = plain, 1
        while found in self._taken:
            number += 1
            found = f"{plain}_{number}"
        self._taken.add(found)
        return found

    def __contains__(self, name: str) -> bool:
        return name in self._taken


def _plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]", "_", name).lstrip("_-")


def _output_names(plan: Plan, labels: list[str], names: _Names) -> dict[str, int]:
    """The position of each output's node by the name of its blob, or else of its layer.

    The name of an output goes before that of a layer, so that it must not be another layer's: of
    ``fc`` and a ReLU that computes in place, both with the blob ``fc``, the second is the output.
    """
    found: dict[str, int] = {}
    for position, blob in plan.outputs.items():
        own, name = labels[position], _plain(blob) or _NAME
        is_another = name in found or (name in names and name != own)
        found[own if is_another else name] = position
    return found


def _named(outputs: dict, names: _Names):
    """The one output, or a dict of them."""
    if len(outputs) > 1:
        return outputs
    (output,) = outputs.values()
    if len(output.shape) == 4 and tuple(output.shape[1:3]) == (1, 1):
        return keras.layers.Flatten(name=names.fresh(_LOGITS))(output)
    return output


def _check(found: Shape, wanted: Shape) -> None:
    """Refuses what is built otherwise than it was planned."""
    *sizes_found, channels = found
    if (channels, *sizes_found) != wanted:
        raise CaffeFormatError(
            f"found an output {sizes((channels, *sizes_found))}, wanted {sizes(wanted)}"
        )
