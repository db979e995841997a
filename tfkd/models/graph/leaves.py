"""The calls of layers in a model and its sub-models as one sequence, with their tensors."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

import keras

from tfkd.models.graph.calls import calls, graph_of, is_functional
from tfkd.models.graph.outputs import outputs


@dataclass
class Leaf:
    """A call of a layer, in whatever sub-model, with its tensors by number.

    Attributes:
        path: Its path, as a tap.
        inputs: What it reads.
        outputs: What it makes.
    """

    path: str
    inputs: list[int]
    outputs: list[int]


@dataclass(frozen=True)
class Leaves:
    """The calls of a model as one sequence.

    A tensor has one number on both sides of a sub-model, and another one in each call of it.

    Attributes:
        calls: The calls, each after those that it depends on; a sub-model's in its place.
        outputs: The number of each output, by the names of :func:`tfkd.models.outputs`.
        by_path: The number of what each call with one output makes, calls of sub-models included.
    """

    calls: list[Leaf]
    outputs: dict[str, int]
    by_path: dict[str, int]

    def from_tensors(self, first: Iterable[int]) -> set[int]:
        """Returns the numbers of all tensors that depend on some, and of these themselves."""
        found = set(first)
        for leaf in self.calls:
            if not found.isdisjoint(leaf.inputs):
                found.update(leaf.outputs)
        return found


def leaves(model: keras.Model) -> Leaves:
    """Returns the calls of a model with a graph, those inside of sub-models in their place."""
    numbers = itertools.count()
    found: list[Leaf] = []
    by_path: dict[str, int] = {}

    def walk(part: keras.Model, prefix: str, known: dict[int, int]) -> None:
        for call in calls(part):
            path = prefix + call.name
            if is_functional(call.operation):
                graph = graph_of(call.operation)
                pairs = zip(graph.inputs, call.inputs, strict=True)
                inside = {id(own): known[id(given)] for own, given in pairs}
                walk(call.operation, f"{path}/", inside)
                for own, outer in zip(graph.outputs, call.outputs, strict=True):
                    known[id(outer)] = inside[id(own)]
            else:
                known.update((id(each), next(numbers)) for each in call.outputs)
                read, made = ([known[id(t)] for t in ts] for ts in (call.inputs, call.outputs))
                found.append(Leaf(path, read, made))
            if call.output is not None:
                by_path[path] = known[id(call.output)]

    known = {id(tensor): next(numbers) for tensor in graph_of(model).inputs}
    walk(model, "", known)
    ends = {name: known[id(tensor)] for name, tensor in outputs(model).items()}
    return Leaves(found, ends, by_path)
