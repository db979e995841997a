"""The memory of finished runs, which TensorFlow would keep for ever.

``tf.custom_gradient``, of which SiLU is made and many a loss, enters a function into a table of the
process each time that it is traced. The table is never emptied, and each entry holds the graph it
was traced in: a process of many runs grew by 5 to 12 MB with each of them.
"""

from __future__ import annotations

import contextlib
import types
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf

# Neither the table nor graphs of functions have a public name in TensorFlow.
from tensorflow.python.framework import func_graph, ops

_TABLE: dict[str, dict[str, Any]] = ops.gradient_registry._registry
_ENTRY = "type"
_OURS = "CustomGradient-"
_KEPT = "_tfkd_custom_gradients"
_DEPTH = 6


@contextlib.contextmanager
def released() -> Iterator[None]:
    """Lets the graphs that the block traces go when nothing else holds them any more.

    The custom gradients of the block move from the table to the graphs that they belong to, so that
    a function that outlives the block keeps its gradient.
    """
    before = set(_TABLE)
    try:
        yield
    finally:
        for name in [each for each in _TABLE if each.startswith(_OURS)]:
            gradient = _TABLE[name][_ENTRY]
            if isinstance(gradient, _OfGraph):
                if gradient.is_gone():
                    del _TABLE[name]
            elif name not in before:
                _move(name, gradient)


class _OfGraph:
    """A gradient that lives as long as its graph."""

    def __init__(self, gradient: Callable) -> None:
        self._gradient = weakref.ref(gradient)

    def is_gone(self) -> bool:
        return self._gradient() is None

    def __call__(self, *arguments: Any) -> Any:
        gradient = self._gradient()
        if gradient is None:
            raise LookupError("the graph of this gradient is gone")
        return gradient(*arguments)


def _move(name: str, gradient: Callable) -> None:
    graphs = list(_graphs(gradient, _DEPTH))
    for graph in graphs:
        setattr(graph, _KEPT, [*getattr(graph, _KEPT, ()), gradient])
    if graphs:
        _TABLE[name][_ENTRY] = _OfGraph(gradient)


def _graphs(value: Any, depth: int) -> Iterator[func_graph.FuncGraph]:
    """Yields the graphs of the tensors that a function holds."""
    if tf.is_symbolic_tensor(value):
        if isinstance(value.graph, func_graph.FuncGraph):
            yield value.graph
        return
    inside: Any = ()
    if isinstance(value, types.FunctionType):
        inside = [cell.cell_contents for cell in value.__closure__ or () if _is_filled(cell)]
    elif isinstance(value, dict):
        inside = value.values()
    elif isinstance(value, (list, tuple)):
        inside = value
    for each in inside if depth else ():
        yield from _graphs(each, depth - 1)


def _is_filled(cell: types.CellType) -> bool:
    return cell != types.CellType()
