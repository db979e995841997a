"""The cost of a network up to each of its exits."""

from __future__ import annotations

import keras

from tfkd.errors import TfkdError
from tfkd.models.graph.calls import is_functional
from tfkd.models.graph.exit_parts import exit_parts
from tfkd.models.graph.outputs import exits
from tfkd.models.summary.cost import Cost, cost, operations, total


def exit_costs(model: keras.Model) -> dict[str, Cost]:
    """Counts, for each exit, all that must have run before it and those before it have answered.

    That is what an inference runs that leaves at an exit: the ways to all exits up to it, the heads
    of earlier exits among them, and no layer that only later exits need. Published counts of MSDNet
    are higher while it has several scales: they also hold the finer ones of a block that the exit
    after it does not read, which run with a later exit here. Published counts may also hold
    activations, pooling and biases, which :func:`cost` does not count: at the last exit the
    convolutions and linear layers of both are the same.

    Args:
        model: Any Keras model with a fixed image size; a subclassed one has one exit.

    Returns:
        The cumulative cost by exit, shallow to deep, as :func:`cost` counts it.

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
    counted, paths, costs = list(operations(model)), set(), {}
    for name, part in zip(names, exit_parts(model), strict=True):
        paths |= {step.path for step in part.steps}
        costs[name] = total(each for each in counted if each[0] in paths)
    return costs
