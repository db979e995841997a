"""Types of settings, as annotations: which values fit them, and how a message calls those.

``bool``, ``int``, ``float``, ``str``, ``dict``, ``Literal`` of strings, numbers with a
:class:`Range`, tuples of one type (``tuple[str, ...]``), and any of them ``| None``.
"""

from __future__ import annotations

import dataclasses
import sys
import types
import typing
from numbers import Integral, Real
from typing import Annotated, Any, Literal

_NOUNS = {int: "whole number", float: "number", str: "string", dict: "dict"}


@dataclasses.dataclass(frozen=True)
class Range:
    """Bounds of a number: ``Annotated[float, Range(above=0)]``."""

    low: float | None = None
    high: float | None = None
    above: float | None = None
    below: float | None = None

    def __contains__(self, value: Any) -> bool:
        return (
            (self.low is None or value >= self.low)
            and (self.high is None or value <= self.high)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )

    def __str__(self) -> str:
        if None not in (self.low, self.high):
            return f"from {_shown(self.low)} to {_shown(self.high)}"
        signs = {">=": self.low, ">": self.above, "<=": self.high, "<": self.below}
        return " and ".join(f"{sign} {at:g}" for sign, at in signs.items() if at is not None)


def _shown(bound: float | None) -> str:
    return f"{bound:,}" if isinstance(bound, int) else f"{bound:g}"


Positive = Annotated[float, Range(above=0)]
NonNegative = Annotated[float, Range(low=0)]
Fraction = Annotated[float, Range(low=0, high=1)]
Count = Annotated[int, Range(low=1)]


class Misfit(Exception):
    """A value that a type does not hold."""


def fit(annotation: Any, value: Any) -> Any:
    """Returns a value as a type holds it: a whole number as a float, a list as a tuple.

    A bool is no number, NaN and infinities are none either; scalars of NumPy are taken as those of
    Python, and one string as a tuple of strings.

    Raises:
        Misfit: When the type does not hold it.
    """
    if getattr(value, "shape", None) == () and hasattr(value, "item"):
        value = value.item()
    optional, kind, inside, bounds = _parts(annotation)
    if optional and value is None:
        return None
    if kind is tuple:
        value = (value,) if isinstance(value, str) and inside[:1] == (str,) else value
        if isinstance(value, (tuple, list)):
            return tuple(fit(inside[0], each) if inside else each for each in value)
    elif kind in (int, float):
        number = isinstance(value, Integral if kind is int else Real)
        # Neither NaN nor an infinity lies between the two.
        if number and -sys.float_info.max <= value <= sys.float_info.max:
            if not isinstance(value, bool) and all(value in each for each in bounds):
                return kind(value)
    elif kind is Literal:
        if isinstance(value, str) and value in inside:
            return value
    elif kind is dict:
        if hasattr(value, "items"):
            return dict(value.items())
    elif isinstance(value, kind):
        return value
    raise Misfit


def wanted(annotation: Any, many: bool = False) -> str:
    """Returns in words the values that a type holds: ``a number > 0``.

    Args:
        annotation: The type.
        many: Whether to speak of several.

    Raises:
        TypeError: When no setting can have this type.
    """
    optional, kind, inside, bounds = _parts(annotation)
    if kind is tuple and inside[1:] in ((), (...,)):
        words = f"a list of {wanted(inside[0], many=True)}" if inside else "a list"
    elif kind is Literal:
        words = " or ".join(repr(each) for each in inside)
    elif kind is bool:
        words = "True or False"
    elif kind in _NOUNS:
        noun = f"{_NOUNS[kind]}s" if many else f"a {_NOUNS[kind]}"
        words = " ".join([noun, *map(str, bounds)])
    else:
        raise TypeError(
            f"found the type {annotation!r}, wanted bool, int, float, str, dict, Literal, "
            "tuple[X, ...], X | None, or ClassVar for what is no setting"
        )
    return f"{words} or None" if optional else words


def choices(annotation: Any) -> tuple[str, ...]:
    """Returns the words of a ``Literal``, and none of another type."""
    _, kind, inside, _ = _parts(annotation)
    return inside if kind is Literal else ()


def kind(annotation: Any) -> type:
    """Returns the class of the values that are not ``None``; ``str`` for a ``Literal``."""
    _, found, _, _ = _parts(annotation)
    return str if found is Literal else found


def plain(annotation: Any) -> Any:
    """Returns a type without ``Annotated``, as signatures show it."""
    optional, kind, inside, _ = _parts(annotation)
    if kind is tuple and inside:
        kind = tuple[plain(inside[0]), ...]  # type: ignore[misc]
    elif kind is Literal:
        kind = Literal[inside]
    return kind | None if optional else kind


def _parts(annotation: Any) -> tuple[bool, Any, tuple, list[Range]]:
    """Returns whether ``None`` fits, the bare type, the types or words in it, and its bounds."""
    inside = typing.get_args(annotation)
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        others = [each for each in inside if each is not types.NoneType]
        if len(others) == 1:
            return (True, *_parts(others[0])[1:])
    bounds = [each for each in getattr(annotation, "__metadata__", ()) if isinstance(each, Range)]
    if hasattr(annotation, "__metadata__"):
        annotation = inside[0]
    kind = typing.get_origin(annotation) or annotation
    return False, kind, typing.get_args(annotation), bounds
