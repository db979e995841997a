"""Where PKKD compares two networks: layers of filters, found in the graph of a model.

**Reconstruction**: the paper does not list its layers. Chosen here: the last convolution (or adder
layer) of each residual block, and in a network without residual blocks every one; never the stem,
the classifier or the projections of shortcuts.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import keras

from tfkd.errors import TfkdError
from tfkd.models.graph.calls import all_calls, calls, graph_of, is_functional
from tfkd.models.graph.taps import LOGITS, find_tap


def matched_layers(model: keras.Model) -> list[str]:
    """Returns the taps at which a network is compared, from the input to the output.

    Args:
        model: A functional model.

    Raises:
        TfkdError: When it has no graph, or no such layer.
    """
    found = list(_ends_of_blocks(model)) or _inner_layers(model)
    if not found:
        raise TfkdError(
            f"model {model.name!r}: found no convolution or adder layer besides stem and "
            "classifier, wanted some, or positions=[...] with names of taps"
        )
    return found


def fan_in(model: keras.Model, name: str) -> int:
    """Returns how many terms the sum in each output of a layer of filters has.

    Args:
        model: A functional model.
        name: The tap of the layer, whose outputs must be raw sums.

    Raises:
        TfkdError: When it is no tap, no layer of filters, or has an activation inside.
    """
    path = find_tap(model, name)
    layer = None if path == LOGITS else dict(all_calls(model))[path].operation
    if not _has_filters(layer):
        kind = "the output" if layer is None else type(layer).__name__
        raise TfkdError(
            f"position {name!r} of model {model.name!r}: found {kind}, wanted a convolution or an "
            "adder layer"
        )
    activation = getattr(layer, "activation", None)
    if activation not in (None, keras.activations.linear):
        raise TfkdError(
            f"position {name!r} of model {model.name!r}: found the activation "
            f"{activation.__name__} inside the layer, wanted its raw output"
        )
    return math.prod(layer.kernel.shape[:-1])


def _has_filters(operation) -> bool:
    """Whether an operation is a full convolution in two dimensions, or an adder layer."""
    shape = getattr(getattr(operation, "kernel", None), "shape", ())
    return len(shape) == 4 and shape[-1] == getattr(operation, "filters", None)


def _ends_of_blocks(model: keras.Model, prefix: str = "") -> Iterator[str]:
    """Yields the last layer of filters in the longest branch of every sum, sub-models included.

    A branch is what one summand needs and no other: shortcut projections are short ones.
    """
    listed = calls(model)
    maker = {id(tensor): call for call in listed for tensor in call.outputs}
    needed: dict[int, set[int]] = {}
    for call in listed:
        summands = [
            needed[id(maker[id(tensor)])] if id(tensor) in maker else set()
            for tensor in call.inputs
        ]
        needed[id(call)] = {id(call)}.union(*summands)
        if is_functional(call.operation):
            yield from _ends_of_blocks(call.operation, f"{prefix}{call.name}/")
        if type(call.operation).__name__ != "Add" or len(summands) < 2:
            continue
        branches = []
        for number, summand in enumerate(summands):
            own = summand.difference(*summands[:number], *summands[number + 1 :])
            branches.append(
                [each for each in listed if id(each) in own and _has_filters(each.operation)]
            )
        longest = max(branches, key=len)
        if longest:
            yield prefix + longest[-1].name


def _inner_layers(model: keras.Model) -> list[str]:
    """Returns every layer of filters but the stem, and the classifier where it is one."""
    graph_of(model)
    weighted = [
        (path, call)
        for path, call in all_calls(model)
        if getattr(call.operation, "kernel", None) is not None
    ]
    filters = [(path, call) for path, call in weighted if _has_filters(call.operation)]
    if filters and filters[-1][1] is weighted[-1][1]:
        filters.pop()
    return [path for path, _ in filters[1:]]
