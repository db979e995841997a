"""The groups of benchmarks by name, and how one is run.

A group is a module of :mod:`tfkd.benchmarks.groups` with a function ``experiments(tiny)`` that
yields its experiments one by one, so that the networks of one are gone before the next are made.
The name of the module is that of the group, the first line of its docstring describes it.
"""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
from collections.abc import Callable
from types import ModuleType

from tfkd.benchmarks import groups
from tfkd.benchmarks.measure import Experiment, Row, measure
from tfkd.errors import unknown


def names() -> list[str]:
    """Returns the names of all groups, sorted."""
    return sorted(module.name for module in pkgutil.iter_modules(groups.__path__))


def description(name: str) -> str:
    """Returns what a group measures, in a line.

    Raises:
        TfkdError: For an unknown group.
    """
    return (_module(name).__doc__ or "").partition("\n")[0]


def run(
    name: str,
    *,
    rounds: int = 9,
    turn: float = 0.4,
    tiny: bool = False,
    show: Callable[[list[Row]], None] = lambda rows: None,
) -> list[Row]:
    """Measures all experiments of a group.

    Args:
        name: One of `names()`.
        rounds: Turns of each case.
        turn: Seconds that a turn lasts.
        tiny: Whether to use the smallest sizes, which shows that everything runs; the times then
            mean nothing, and no row has a goal.
        show: Called with the rows of each experiment as soon as they are known.

    Raises:
        TfkdError: For an unknown group; the nearest is named.
    """
    rows = []
    for experiment in _module(name).experiments(tiny):
        experiment = _without_goals(experiment) if tiny else experiment
        experiment = dataclasses.replace(experiment, name=f"{name}: {experiment.name}")
        found = measure(experiment, rounds, turn)
        show(found)
        rows += found
    return rows


def _module(name: str) -> ModuleType:
    if name not in names():
        raise unknown("benchmark group", name, names())
    return importlib.import_module(f"{groups.__name__}.{name}")


def _without_goals(experiment: Experiment) -> Experiment:
    comparisons = [dataclasses.replace(each, goal=None) for each in experiment.comparisons]
    return dataclasses.replace(experiment, comparisons=comparisons)
