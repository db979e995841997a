"""The one family of errors that tfkd raises for wrong input, and how their messages are made."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class TfkdError(ValueError):
    """A wrong configuration, file, shape, class count or path.

    The message is one line that names the thing, what was found and what would be right, so that
    a binary can print it as it is and exit with status 2.
    """


class TfkdWarning(UserWarning):
    """Something that works, but perhaps not as the user meant it."""


def unknown(kind: str, name: str, names: Iterable[str]) -> TfkdError:
    """Returns the error for a name that is not among the known ones, with the nearest of them.

    Args:
        kind: What is named, in words, for instance ``"network"``.
        name: The name that was asked for.
        names: The names that exist.
    """
    known = sorted(str(each) for each in names)
    near = difflib.get_close_matches(str(name), known, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    listed = ", ".join(known) if known else "none"
    return TfkdError(f"unknown {kind} {name!r}{hint} (known: {listed})")
