"""A network as a row of blocks, cut at named taps."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import keras

from tfkd.errors import TfkdError
from tfkd.models.graph.calls import Call, calls, graph_of, is_functional
from tfkd.models.graph.leaves import Leaves, leaves
from tfkd.models.graph.outputs import LOGITS, outputs
from tfkd.models.graph.taps import find_tap, tap_names, tap_shapes

_END = re.compile(r"stem|stage\d+")


@dataclass(frozen=True)
class Block:
    """A piece of a network that ends at a cut.

    Attributes:
        number: Its number, from 1 on.
        start: The tap that it reads; None is the input of the network. What stands between a cut
            and the first layer with weights after it, such as a pooling, belongs to no block.
        end: The tap that it ends with, the cut, by its path.
    """

    number: int
    start: str | None
    end: str


def blocks(model: keras.Model, cuts: Sequence[str] | None = None) -> list[Block]:
    """Returns the blocks of a model; what follows the last is its head.

    Args:
        model: A functional model of one output, the logits.
        cuts: The taps that blocks end with, shallow to deep, none of them inside of a sub-model;
            None is the last of the taps `stem`, `stage1`, `stage2`, ... of each size of feature
            maps: in a VGG network those before the poolings.

    Raises:
        TfkdError: For another model, no cuts, one that is not there, twice, out of order or the
            output itself, or one that something passes by.
    """
    who = f"blocks of model {getattr(model, 'name', model)!r}"
    graph_of(model)
    if tuple(outputs(model)) != (LOGITS,):
        raise TfkdError(f"{who}: found the outputs {', '.join(outputs(model))}; wanted the logits")
    if isinstance(cuts, str) or (cuts is not None and not all(isinstance(e, str) for e in cuts)):
        raise TfkdError(f"{who}: found cuts {cuts!r}; wanted a list of names, shallow to deep")
    ends = _usual(who, model) if cuts is None else list(cuts)
    if not ends:
        raise TfkdError(f"{who}: found no cuts; wanted the names of taps, shallow to deep")
    ends = [find_tap(model, end) for end in ends]
    _check_order(who, model, ends)
    starts = [None, *(_start(model, end) for end in ends[:-1])]
    return [Block(n, *both) for n, both in enumerate(zip(starts, ends, strict=True), start=1)]


def _usual(who: str, model: keras.Model) -> list[str]:
    """Returns the taps that end stages, of each size of feature maps the last."""
    ends = [name for name in tap_names(model) if _END.fullmatch(name)]
    sizes = [tap_shapes(model, [end])[end][:2] for end in ends]
    if not ends or any(None in size for size in sizes):
        raise TfkdError(
            f"{who}: found {'images of no fixed size' if ends else 'no taps called stage1, ...'}; "
            "wanted cuts=[...], the taps that blocks end with"
        )
    following = [*sizes[1:], None]
    return [end for end, size, after in zip(ends, sizes, following) if size != after]


def _check_order(who: str, model: keras.Model, ends: Sequence[str]) -> None:
    graph = leaves(model)
    places = {**graph.by_path, **graph.outputs}
    numbers = [places[end] for end in ends]
    before = None
    for end, number in zip(ends, numbers):
        if "/" in end:
            raise TfkdError(f"{who}: found the cut {end!r} in a sub-model; wanted cuts outside")
        if number == graph.outputs[LOGITS]:
            raise TfkdError(f"{who}: found the cut {end!r}, the output; wanted cuts before it")
        if before is not None and number not in graph.from_tensors([before[1]]) - {before[1]}:
            raise TfkdError(
                f"{who}: found the cut {before[0]!r} before {end!r}; wanted each once, shallow to "
                "deep"
            )
        if graph.outputs[LOGITS] in _around(graph, number, len(graph_of(model).inputs)):
            raise TfkdError(
                f"{who}: found that the output needs more than the cut {end!r}; wanted a tap that "
                "everything before it passes through"
            )
        before = end, number


def _around(graph: Leaves, cut: int, inputs: int) -> set[int]:
    """Returns the numbers of the tensors that the inputs lead to by ways that miss a cut."""
    found = set(range(inputs))
    for leaf in graph.calls:
        if not found.isdisjoint(leaf.inputs):
            found.update(number for number in leaf.outputs if number != cut)
    return found


def _start(model: keras.Model, end: str) -> str:
    """Returns the tap that the block after a cut reads: that before its first layer with weights.

    A layer with a mode, such as dropout, belongs to the block.
    """
    graph = calls(model)
    (call,) = (each for each in graph if each.name == end)
    while True:
        readers = [each for each in graph if any(t is call.outputs[0] for t in each.inputs)]
        if len(readers) != 1 or not is_plain(readers[0]) or len(readers[0].inputs) != 1:
            return call.name
        call = readers[0]


def is_plain(call: Call) -> bool:
    """Whether a call has one output, no weights and no mode: an activation, a pooling, a name."""
    operation = call.operation
    return (
        call.output is not None
        and not is_functional(operation)
        and not getattr(operation, "variables", None)
        and not getattr(operation, "_call_has_training_arg", False)
    )
