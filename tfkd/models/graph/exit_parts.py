"""A network with several outputs, cut into what each of them needs beyond those before it.

The cut is lazy: a layer belongs to the first output that cannot do without it, wherever it stands
in the network. Parts that are run one after the other compute what the network computes, and one
may stop after any of them.
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras

from tfkd.models.graph.calls import Call, calls, graph_of, is_functional
from tfkd.models.graph.outputs import exits, outputs


@dataclass(frozen=True)
class Step:
    """One call of a layer in a network whose sub-models are opened.

    Attributes:
        path: Its path, as a tap.
        call: The call.
        reads: The number of each tensor that it reads, by the identity of the symbolic one.
        makes: The numbers of those that it makes.
    """

    path: str
    call: Call
    reads: Mapping[int, int]
    makes: tuple[int, ...]

    def run(self, tensors: dict[int, Any]) -> None:
        """Performs the call in inference mode.

        Args:
            tensors: Tensors by their numbers; what is made is added.
        """
        operation = self.call.operation
        args, kwargs = self.call.node.arguments.fill_in(
            {reference: tensors[number] for reference, number in self.reads.items()}
        )
        # The mode of a whole network goes over what one of its calls was recorded with.
        if isinstance(operation, keras.Layer):
            if "training" in inspect.signature(operation.call).parameters:
                kwargs["training"] = False
        made = keras.tree.flatten(operation(*args, **kwargs))
        tensors.update(zip(self.makes, made, strict=True))


@dataclass(frozen=True)
class Part:
    """What some outputs need beyond the parts before.

    Attributes:
        steps: The calls, in order.
        reads: Numbers of the tensors that are made before, by the steps of other parts, and that
            this one reads; the image is 0.
        makes: Numbers of those that it makes for later parts.
        outputs: The number of each output by its name.
    """

    steps: tuple[Step, ...]
    reads: tuple[int, ...]
    makes: tuple[int, ...]
    outputs: Mapping[str, int]


def exit_parts(model: keras.Model) -> tuple[Part, ...]:
    """Returns a part for each exit of a functional model, shallow to deep.

    Raises:
        TfkdError: As :func:`tfkd.models.exits`, or for a model that has no graph.
    """
    return parts(model, [[name] for name in exits(model)])


def parts(model: keras.Model, groups: Sequence[Iterable[str]]) -> tuple[Part, ...]:
    """Cuts a functional model of one input into a part for each group of its outputs.

    Args:
        model: The model.
        groups: Names of outputs, in the order in which they are wanted.

    Raises:
        TfkdError: For a model that has no graph, or outputs without names.
    """
    numbers = itertools.count()
    graph = graph_of(model)
    known = {id(tensor): next(numbers) for tensor in graph.inputs}
    steps = list(_opened(model, "", known, numbers))
    ends = {name: known[id(tensor)] for name, tensor in outputs(model).items()}
    found, done = [], set()
    for group in groups:
        named = {name: ends[name] for name in group}
        own = [step for step in _leading_to(named.values(), steps) if step.path not in done]
        done |= {step.path for step in own}
        made = {number for step in own for number in step.makes}
        read = {number for step in own for number in step.reads.values()} | set(named.values())
        found.append((tuple(own), made, read - made, named))
    cut = []
    for position, (own, made, read, named) in enumerate(found):
        later = set().union(*(each[2] for each in found[position + 1 :]))
        cut.append(Part(own, tuple(sorted(read)), tuple(sorted(made & later)), named))
    return tuple(cut)


def _opened(
    model: keras.Model, prefix: str, known: dict[int, int], numbers: Iterator[int]
) -> Iterator[Step]:
    """Yields every call of a model and its sub-models that is no sub-model itself.

    Args:
        model: A model with a graph.
        prefix: Path of the model.
        known: The number of each tensor by identity; filled up.
        numbers: Numbers that no tensor has yet.
    """
    for call in calls(model):
        if not is_functional(call.operation):
            made = tuple(next(numbers) for _ in call.outputs)
            reads = {id(tensor): known[id(tensor)] for tensor in call.inputs}
            yield Step(prefix + call.name, call, reads, made)
        else:
            graph = graph_of(call.operation)
            # A sub-model that is called twice has the same symbolic tensors both times.
            inside = {
                id(own): known[id(given)]
                for own, given in zip(graph.inputs, call.inputs, strict=True)
            }
            yield from _opened(call.operation, f"{prefix}{call.name}/", inside, numbers)
            made = tuple(inside[id(tensor)] for tensor in graph.outputs)
        known.update(zip(map(id, call.outputs), made, strict=True))


def _leading_to(ends: Iterable[int], steps: Sequence[Step]) -> list[Step]:
    """Returns the steps that some tensors need, in order."""
    needed, found = set(ends), []
    for step in reversed(steps):
        if needed.intersection(step.makes):
            needed.update(step.reads.values())
            found.append(step)
    return found[::-1]
