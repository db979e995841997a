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
    listed = ", ".join(known) if known else "none"
    return TfkdError(f"unknown {kind} {name!r}{did_you_mean(name, known)} (known: {listed})")


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """Returns ``"; did you mean 'NAME'?"`` with the nearest of some names, or ``""``."""
    near = difflib.get_close_matches(str(name), list(names), n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else ""


def original(error: BaseException) -> TfkdError | None:
    """Returns the error of tfkd that another one was made of, if there is one.

    AutoGraph and the calls of Keras' layers put many lines around an error that is raised while
    they trace a step, in one of the same class; the error itself, of one line, is in the context of
    theirs.

    Args:
        error: What was caught.
    """
    found, each = None, error
    while each is not None:
        if isinstance(each, TfkdError):
            found = each
            if "\n" not in str(each):
                break
        each = each.__context__
    return found


def reason(error: BaseException) -> str:
    """Returns the first line of an error's message, or its type where it has none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
