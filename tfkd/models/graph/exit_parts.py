"""A network with several outputs, cut into what each of them needs beyond those before it.

The cut is lazy: a layer belongs to the first output that cannot do without it, wherever it stands
in the network. Parts that are run one after the other compute what the network computes, and one
may stop after any of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import keras

from tfkd.models.graph.leaves import Leaf, leaves
from tfkd.models.graph.outputs import exits


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

    steps: tuple[Leaf, ...]
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
    graph = leaves(model)
    found, done = [], set()
    for group in groups:
        named = {name: graph.outputs[name] for name in group}
        own = [step for step in _leading_to(named.values(), graph.calls) if step.path not in done]
        done |= {step.path for step in own}
        made = {number for step in own for number in step.outputs}
        read = {number for step in own for number in step.inputs} | set(named.values())
        found.append((tuple(own), made, read - made, named))
    cut = []
    for position, (own, made, read, named) in enumerate(found):
        later = set().union(*(each[2] for each in found[position + 1 :]))
        cut.append(Part(own, tuple(sorted(read)), tuple(sorted(made & later)), named))
    return tuple(cut)


def _leading_to(ends: Iterable[int], steps: Sequence[Leaf]) -> list[Leaf]:
    """Returns the steps that some tensors need, in order."""
    needed, found = set(ends), []
    for step in reversed(steps):
        if needed.intersection(step.outputs):
            needed.update(step.inputs)
            found.append(step)
    return found[::-1]
