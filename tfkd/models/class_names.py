"""The names of classes: read from a file, and compared."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from tfkd.errors import TfkdError, reason

_SHOWN = 3


def read_class_names(path: str | os.PathLike) -> tuple[str, ...]:
    """Returns the names of a text file (UTF-8), one a line; empty lines are passed over.

    Raises:
        TfkdError: When the file cannot be read, or holds no name.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise TfkdError(
            f"class names {str(path)!r}: cannot be read ({reason(error)}), wanted a text file with "
            "one name a line"
        ) from error
    names = tuple(line.strip() for line in lines if line.strip())
    if not names:
        raise TfkdError(f"class names {str(path)!r}: found no name, wanted one a line")
    return names


def are_numbers(names: Sequence[str]) -> bool:
    """Returns whether names are those of classes without names: 0, 1, 2, ... in that order."""
    return tuple(names) == tuple(map(str, range(len(names))))


def are_same(first: Sequence[str], second: Sequence[str]) -> bool:
    """Returns whether names are the same, in the same order."""
    return _composed(first) == _composed(second)


def positions(found: Sequence[str] | None, wanted: Sequence[str] | None) -> list[int] | None:
    """Returns where each wanted class is among those found.

    Args:
        found: Names of classes in their order; ``None`` where they are not known.
        wanted: Likewise.

    Returns:
        The position of ``wanted[0]`` in ``found``, that of ``wanted[1]``, ...; ``None`` where names
        do not tell: one has none, or only numbers (see :func:`are_numbers`).

    Raises:
        TfkdError: When they are not the same classes, or are in another order and not all unlike.
    """
    if found is None or wanted is None:
        return None
    found, wanted = _composed(found), _composed(wanted)
    if found == wanted:
        return list(range(len(found)))
    if sorted(found) != sorted(wanted):
        if are_numbers(found) or are_numbers(wanted):
            return None
        raise TfkdError(
            f"found the classes {_those_without(found, wanted)}, wanted "
            f"{_those_without(wanted, found)}"
        )
    if len(set(found)) < len(found):
        twice = next(name for name in found if found.count(name) > 1)
        raise TfkdError(
            f"found the classes in another order, and {twice!r} twice, wanted one order"
        )
    place = {name: position for position, name in enumerate(found)}
    return [place[name] for name in wanted]


def _composed(names: Sequence[str]) -> tuple[str, ...]:
    """Returns names in one form: a letter with an accent may be written as one sign or as two."""
    return tuple(unicodedata.normalize("NFC", str(name)) for name in names)


def _those_without(names: Sequence[str], others: Sequence[str]) -> str:
    """Returns the first of some names that are not among others, as text."""
    own = [name for name in names if name not in others] or list(names)
    more = f" and {len(own) - _SHOWN} more" if len(own) > _SHOWN else ""
    return ", ".join(map(repr, own[:_SHOWN])) + more
