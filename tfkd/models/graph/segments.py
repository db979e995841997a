"""Pieces of functional models, and models composed of such pieces."""

from __future__ import annotations

from collections.abc import Sequence

import keras

from tfkd.errors import TfkdError
from tfkd.models.graph.calls import InferenceModel, calls, graph_of, is_functional
from tfkd.models.graph.inspection import shapes_agree
from tfkd.models.graph.outputs import outputs
from tfkd.models.graph.taps import find_tap, tap_shapes


def segment(
    model: keras.Model,
    start: str | None,
    end: str,
    *,
    name: str,
    training: bool | None = None,
) -> keras.Model:
    """Returns the piece of a model between two taps, over the same weights.

    Args:
        model: A functional model.
        start: The tap whose tensor becomes the input; ``None`` is the input of the model.
        end: The tap, or the output, that the piece ends with.
        name: Name of the piece, its own wherever it is composed with others.
        training: ``False`` for a frozen piece, which runs in inference mode (dropout off, batch
            normalization by the moving statistics) whatever the mode of the model around it;
            ``None`` follows that model.

    Returns:
        A functional model from a tensor like that of ``start`` to one like that of ``end``.

    Raises:
        TfkdError: For a name that is no tap, ``training=True``, or an end that needs more than the
            start.
    """
    if "/" in name:
        raise TfkdError(f"segment {name!r}: found a slash in the name, wanted none")
    if training:
        raise TfkdError(f"segment {name!r}: found training=True, wanted False or None")
    graph = graph_of(model)
    own = outputs(model)
    last = find_tap(model, end)
    first = None if start is None else find_tap(model, start)
    if first is None:
        if len(graph.inputs) != 1:
            raise TfkdError(
                f"segment {name!r} of model {model.name!r}: found {len(graph.inputs)} inputs, "
                "wanted one"
            )
        reference = graph.inputs[0]
    else:
        reference = own.get(first)
    shape = graph.inputs[0].shape[1:] if first is None else tap_shapes(model, [start])[start]
    entry = keras.Input(
        shape, dtype=None if reference is None else reference.dtype, name=f"{name}_input"
    )
    replay = _Replay(first, last, entry)
    known = {} if reference is None else {id(reference): entry}
    replay.run(model, known, "")
    result = known.get(id(own[last])) if last in own else replay.result
    if result is None:
        raise TfkdError(
            f"segment {name!r} of model {model.name!r}: found that {end!r} needs more than "
            f"{start!r}; wanted a tap that everything before {end!r} passes through"
        )
    if result is entry:
        result = keras.layers.Identity(name=f"{name}_identity")(entry)
    kind = InferenceModel if training is False else keras.Model
    return kind(entry, result, name=name)


def chain(segments: Sequence[keras.Model], name: str) -> keras.Model:
    """Returns the model that calls pieces one after the other.

    The layers of a piece are taps under its name: ``block2/conv1``.

    Args:
        segments: Models of one input and, but for the last, one output, each with its own name.
        name: Name of the whole.

    Raises:
        TfkdError: For no pieces, two of one name, or pieces that do not fit.
    """
    for each in segments:
        if not isinstance(each, keras.Model):
            raise TfkdError(
                f"chain {name!r}: found {type(each).__name__}, wanted models such as segment() "
                "makes"
            )
    names = [each.name for each in segments]
    repeated = sorted({each for each in names if names.count(each) > 1})
    if not segments:
        raise TfkdError(f"chain {name!r}: found no segments, wanted one or more")
    if repeated:
        raise TfkdError(
            f"chain {name!r}: found the segments {', '.join(repeated)} twice, wanted names of "
            "their own"
        )
    entry = keras.Input(
        batch_shape=segments[0].input_shape, dtype=segments[0].inputs[0].dtype, name=f"{name}_input"
    )
    tensor = entry
    for each in segments:
        wanted = each.input_shape
        if not isinstance(tensor, keras.KerasTensor) or not (
            isinstance(wanted, tuple) and shapes_agree(tensor.shape, wanted)
        ):
            raise TfkdError(
                f"chain {name!r}: found {getattr(tensor, 'shape', 'several outputs')} before "
                f"segment {each.name!r}, wanted {wanted}"
            )
        tensor = each(tensor)
    return keras.Model(entry, tensor, name=name)


class _Replay:
    """Calls the layers of a model once more, beginning at one of its taps.

    Args:
        first: Path of the call whose output is given; ``None`` begins at the input.
        last: Path of the call, or name of the output, to end with.
        entry: The tensor that stands for the output of ``first``.
    """

    def __init__(self, first: str | None, last: str, entry: keras.KerasTensor) -> None:
        self._first, self._last, self._entry = first, last, entry
        self.result: keras.KerasTensor | None = None

    def run(self, model: keras.Model, known: dict[int, keras.KerasTensor], prefix: str) -> None:
        """Performs every call whose inputs are known.

        Args:
            model: A model with a graph.
            known: New tensors by the identity of those that they stand for; filled up.
            prefix: Path of the model.
        """
        for call in calls(model):
            path = prefix + call.name
            if path == self._first:
                known[id(call.outputs[0])] = self._entry
            elif self._opens(call.operation, path):
                self._run_inside(call, known, path)
            elif all(id(tensor) in known for tensor in call.inputs):
                args, kwargs = call.node.arguments.fill_in(known)
                made = keras.tree.flatten(call.operation(*args, **kwargs))
                known.update(zip(map(id, call.outputs), made, strict=True))
            if path == self._last:
                self.result = known.get(id(call.outputs[0]))

    def _opens(self, operation, path: str) -> bool:
        """Whether a sub-model holds one of the two ends."""
        ends = [end for end in (self._first, self._last) if end is not None]
        return is_functional(operation) and any(end.startswith(f"{path}/") for end in ends)

    def _run_inside(self, call, known: dict[int, keras.KerasTensor], path: str) -> None:
        graph = graph_of(call.operation)
        inside = {
            id(own): known[id(given)]
            for own, given in zip(graph.inputs, call.inputs, strict=True)
            if id(given) in known
        }
        self.run(call.operation, inside, f"{path}/")
        for own, outer in zip(graph.outputs, call.outputs, strict=True):
            if id(own) in inside:
                known[id(outer)] = inside[id(own)]
