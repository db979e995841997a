"""Sizes of two directions, which Caffe's parameters give in several ways."""

from __future__ import annotations

from tfkd.caffe.errors import CaffeFormatError

Pair = tuple[int, int]
"""Of height and width."""


def pair(parameters, both: str, one: str, default: int | None, least: int) -> Pair:
    """Returns a size of both directions.

    Args:
        parameters: The message.
        both: The field with one number, or one for each direction: ``"kernel_size"``.
        one: The beginning of the two fields with one direction each: ``"kernel"``.
        default: The size where neither is given; None where one must be.
        least: The smallest size that there may be.

    Raises:
        CaffeFormatError: When it is given twice, half or not at all, or is too small.
    """
    names = f"{one}_h", f"{one}_w"
    given = [name for name in names if parameters.HasField(name)]
    values = _listed(parameters, both)
    if given and values:
        raise CaffeFormatError(f"found both {both} and {given[0]}, wanted one of them")
    if given:
        if len(given) == 1 and default is None:
            raise CaffeFormatError(f"found {given[0]} alone, wanted {' and '.join(names)}")
        values = [getattr(parameters, name) for name in names]
    if not values and default is not None:
        values = [default]
    if len(values) not in (1, 2):
        raise CaffeFormatError(f"found {len(values)} numbers of {both}, wanted 1 or 2")
    if not all(least <= value < 2**16 for value in values):
        raise CaffeFormatError(f"found {both} {values}, wanted at least {least}, below {2**16}")
    return values[0], values[-1]


def _listed(parameters, name: str) -> list[int]:
    value = getattr(parameters, name)
    if not isinstance(value, int):
        return list(value)
    return [value] if parameters.HasField(name) else []
