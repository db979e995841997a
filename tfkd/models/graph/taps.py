"""Taps: any tensor inside a functional model, by the name of the layer that makes it.

A tap is the name of a layer, `backbone/layer` inside a sub-model called `backbone`, and `layer:2`
for the second call of a layer that is called more than once. The names of the model's outputs are
taps as well, and win over layers of the same name: `logits` is always the only output, whatever its
layer is called. A tapped model computes what the model computes, once: the taps are further outputs
of the same graph over the same weights.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import keras

from tfkd.errors import TfkdError, unknown
from tfkd.models.graph.calls import (
    Call,
    all_calls,
    calls,
    graph_of,
    is_functional,
    like,
    new_inputs,
    run,
    trace,
)
from tfkd.models.graph.outputs import LOGITS, outputs, outputs_if_named


class _OutputsOnly(keras.Model):
    """A model whose layers cannot be listed, with the named outputs asked for."""

    def __init__(self, model: keras.Model, names: Mapping[str, str]):
        super().__init__(name=f"{model.name}_tapped")
        self.model = model
        self._names = dict(names)

    def call(self, inputs, training=None):
        found = self.model(inputs, training=training)
        found = found if isinstance(found, Mapping) else {LOGITS: found}
        return {name: found[output] for name, output in self._names.items()}


def tap_names(model: keras.Model) -> tuple[str, ...]:
    """Every name that `tapped` accepts for a model, from the input to the output.

    Layers with several outputs are left out. A model without a graph (subclassed) has only its
    outputs.

    Args:
        model: Any Keras model.
    """
    if not is_functional(model):
        try:
            return tuple(outputs(model))
        except TfkdError:
            # One that was never called tells of further outputs later.
            return (LOGITS,)
    paths = [path for path, call in all_calls(model) if call.output is not None]
    return tuple(dict.fromkeys([*paths, *outputs_if_named(model)]))


def tapped(model: keras.Model, names: Iterable[str]) -> keras.Model:
    """A second model over the same weights whose outputs are the named taps.

    Args:
        model: Any functional model, or a Sequential with an input shape; of a subclassed one only
            the outputs can be tapped.
        names: The taps; see the head of this file. A mapping, as `{"pooled": "avg_pool"}`, gives
            them other names in the result.

    Returns:
        A model from the inputs of `model` to a dict, name -> tensor. Nothing is copied and nothing
        is computed twice; what no tap needs is not computed.

    Raises:
        TfkdError: For a name that is no tap of the model, with the nearest one, or that stands for
            several calls.
    """
    paths = _paths(model, names)
    if not is_functional(model):
        return _OutputsOnly(model, paths)
    own = outputs_if_named(model)
    inner_paths = [path for path in dict.fromkeys(paths.values()) if path not in own]
    both = _with_taps(model, inner_paths, f"{model.name}_tapped")
    result = both.output["output"]
    named = result if isinstance(result, dict) else {LOGITS: keras.tree.flatten(result)[0]}
    taps = {
        name: named[path] if path in own else both.output["taps"][path]
        for name, path in paths.items()
    }
    return like(model, both.input, taps, both.name)


def tap_shapes(model: keras.Model, names: Iterable[str]) -> dict[str, tuple[int | None, ...]]:
    """The shapes of taps after the batch axis; a size that may vary is None.

    Args:
        model: Any functional model; of a subclassed one, once it was called, only the outputs.
        names: The taps, or other names for them, as `tapped` takes them.

    Returns:
        A dict, name -> shape, such as `{"stage1": (32, 32, 16), "pooled": (64,)}`.

    Raises:
        TfkdError: As `tapped`; and for a subclassed model that was never called.
    """
    paths = _paths(model, names)
    own = outputs_if_named(model)
    shapes = {path: tuple(tensor.shape) for path, tensor in own.items()}
    if any(path not in own for path in paths.values()):
        shapes |= {
            path: tuple(made.shape)
            for path, call, _, _, made in trace(model)
            if call.output is not None and path not in own
        }
    return {name: shapes[path][1:] for name, path in paths.items()}


def head(model: keras.Model, start: str = "pre_pool", end: str = LOGITS) -> keras.Model:
    """The part of a model from a tap to an output, over the same weights.

    Args:
        model: A functional model.
        start: The tap that becomes the input.
        end: The output.

    Returns:
        A functional model from a tensor like the tap's to the output.

    Raises:
        TfkdError: If the name is no tap, or the output needs more than that tap.
    """
    graph_of(model)
    path = find_tap(model, start)
    name = f"{model.name}_head"
    own = outputs_if_named(model)
    if end not in own:
        raise TfkdError(
            f"head of model {model.name!r}: found the outputs {', '.join(own)}; wanted {end!r} "
            "among them"
        )
    goal = own[end]
    begins = own[path] if path in own else _call(model, path).outputs[0]
    if begins is goal:
        shape = tap_shapes(model, [start])[start]
        same = keras.Input(shape, dtype=goal.dtype)
        return keras.Model(same, keras.layers.Identity()(same), name=name)
    try:
        if path in own:
            return keras.Model(begins, goal, name=name)
        return _tail(model, path, name, goal)
    except ValueError:
        raise TfkdError(
            f"head of model {model.name!r}: found that {end!r} needs more than {start!r}; wanted a "
            f"tap that everything before {end!r} passes through"
        ) from None


def find_tap(model: keras.Model, name: str) -> str:
    """Returns the path that `name` stands for, or raises what is wrong with it.

    Args:
        model: Any Keras model.
        name: A tap.

    Returns:
        The name of an output, otherwise the path of a call as `tap_names` lists it.

    Raises:
        TfkdError: As `tapped`.
    """
    if not isinstance(name, str):
        raise TfkdError(f"tap of model {model.name!r}: found {name!r}, wanted the name of a layer")
    if not is_functional(model):
        known = tap_names(model)
        if name in known:
            return name
        raise TfkdError(
            f"tap {name!r} of model {model.name!r}: found a {type(model).__name__}, whose layers "
            f"cannot be listed; wanted {' or '.join(map(repr, known))}, or a functional model"
        )
    if name in outputs_if_named(model):
        return name
    known = {path: call for path, call in all_calls(model)}
    # The only call of a layer may be called its first.
    found = name if name in known else name.removesuffix(":1")
    if found in known:
        if known[found].output is None:
            raise TfkdError(
                f"tap {name!r} of model {model.name!r}: found a layer with "
                f"{len(known[found].outputs)} outputs; wanted a layer with one"
            )
        return found
    several = [path for path in known if _without_numbers(path) == _without_numbers(name)]
    if len(several) > 1:
        raise TfkdError(
            f"tap {name!r} of model {model.name!r}: found {len(several)} calls of it; wanted one "
            f"of {', '.join(several)}"
        )
    raise unknown(f"tap of model {model.name!r}", name, tap_names(model))


def _paths(model: keras.Model, names: Iterable[str] | Mapping[str, str]) -> dict[str, str]:
    """The path of each tap by its name in the result, without repetitions."""
    # A string alone would be taken letter by letter.
    if isinstance(names, str):
        raise TfkdError(f"taps: found the string {names!r}; wanted a list of names")
    sought = dict(names) if isinstance(names, Mapping) else {name: name for name in names}
    if not sought:
        raise TfkdError("taps: found no name; wanted one or more")
    return {name: find_tap(model, path) for name, path in sought.items()}


def _without_numbers(path: str) -> str:
    return "/".join(part.partition(":")[0] for part in path.split("/"))


def _call(model: keras.Model, path: str) -> Call:
    return next(call for known, call in all_calls(model) if known == path)


def _with_taps(model: keras.Model, paths: list[str], name: str) -> keras.Model:
    """The model with outputs {"output": its own, "taps": {path: tensor}}.

    A sub-model that holds a tap is replaced by one over the same graph that has the tap among its
    outputs, so that no layer is called twice in one graph, and equal layer names in sub-models do
    not meet.
    """
    graph = graph_of(model)
    own = [path for path in paths if "/" not in path]
    by_submodel: dict[str, list[str]] = {}
    for path in paths:
        first, _, rest = path.partition("/")
        if rest:
            by_submodel.setdefault(first, []).append(rest)
    if not by_submodel:
        known = {call.name: call for call in calls(model)}
        taps = {path: known[path].output for path in own}
        return like(model, graph.input, {"output": graph.output, "taps": taps}, name)
    taps = {}

    def perform(call, args, kwargs):
        if call.name not in by_submodel:
            made = call.operation(*args, **kwargs)
        else:
            # Each call gets a model of its own, whose name no other operation has.
            inner_name = f"{call.name.replace(':', '_')}_tapped"
            inner = _with_taps(call.operation, by_submodel[call.name], inner_name)
            both = inner(*args, **kwargs)
            made = both["output"]
            for path, tensor in both["taps"].items():
                taps[f"{call.name}/{path}"] = tensor
        if call.name in own:
            taps[call.name] = keras.tree.flatten(made)[0]
        return made

    inputs = new_inputs(model)
    result = run(model, inputs, perform)
    return like(model, inputs, {"output": result, "taps": taps}, name)


def _tail(
    model: keras.Model, path: str, name: str, goal: keras.KerasTensor | None = None
) -> keras.Model:
    """The model from the tensor at `path` to the output; a ValueError if that needs more."""
    goal = graph_of(model).outputs[0] if goal is None else goal
    first, _, rest = path.partition("/")
    call = next(each for each in calls(model) if each.name == first)
    if not rest:
        return keras.Model(call.outputs[0], goal, name=name)
    inner = _tail(call.operation, rest, f"{call.operation.name}_head")
    outer = _tail(model, first, name, goal)
    start = new_inputs(inner)
    return keras.Model(start, outer(inner(start)), name=name)
