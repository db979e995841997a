"""The cost of a network up to each of its exits."""

from __future__ import annotations

from collections.abc import Iterable

import keras

from tfkd.errors import TfkdError
from tfkd.models.graph.calls import calls, graph_of, is_functional
from tfkd.models.graph.outputs import exits, outputs
from tfkd.models.summary.cost import Cost, cost, operations, total


def exit_costs(model: keras.Model) -> dict[str, Cost]:
    """Counts, for each exit, the part of a model that leads from the input to that exit alone.

    Args:
        model: Any Keras model with a fixed image size; a subclassed one has one exit.

    Returns:
        The cost by exit, shallow to deep, as :func:`cost` counts it.

    Raises:
        TfkdError: As :func:`cost` and :func:`tfkd.models.exits`; and for several exits of a
            subclassed model, whose layers cannot be listed.
    """
    names = exits(model)
    if not is_functional(model):
        if len(names) > 1:
            raise TfkdError(
                f"exits of model {model.name!r}: found a {type(model).__name__}, whose layers "
                "cannot be listed; wanted a functional model"
            )
        return {name: cost(model) for name in names}
    ends, counted = outputs(model), list(operations(model))
    costs = {}
    for name in names:
        paths, _ = _leading_to([ends[name]], model, "")
        costs[name] = total(each for each in counted if each[0] in paths)
    return costs


def _leading_to(
    ends: Iterable[keras.KerasTensor], model: keras.Model, prefix: str
) -> tuple[set[str], set[int]]:
    """Returns the paths of all calls that some tensors need, and the tensors needed by identity.

    Args:
        ends: Tensors of the model's graph.
        model: A model with a graph.
        prefix: Path of the model.
    """
    paths: set[str] = set()
    needed = {id(tensor) for tensor in ends}
    for call in reversed(calls(model)):
        if not any(id(tensor) in needed for tensor in call.outputs):
            continue
        if not is_functional(call.operation):
            paths.add(prefix + call.name)
            needed.update(id(tensor) for tensor in call.inputs)
            continue
        graph = graph_of(call.operation)
        pairs = zip(graph.outputs, call.outputs, strict=True)
        inner_ends = [inner for inner, outer in pairs if id(outer) in needed]
        inner_paths, inner_needed = _leading_to(inner_ends, call.operation, f"{prefix}{call.name}/")
        paths |= inner_paths
        needed.update(
            id(outer)
            for inner, outer in zip(graph.inputs, call.inputs, strict=True)
            if id(inner) in inner_needed
        )
    return paths, needed
