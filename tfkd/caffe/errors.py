"""The error for files of Caffe's, and how what stands in them is shown."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from tfkd.errors import TfkdError

_LONGEST = 80


class CaffeFormatError(TfkdError):
    """A file of Caffe's that is damaged, is something else, or holds what is not supported."""


@contextlib.contextmanager
def within(place: str) -> Iterator[None]:
    """Puts a place, such as a file or a layer, before the errors of a block."""
    try:
        yield
    except CaffeFormatError as error:
        raise CaffeFormatError(f"{place}: {error}") from None


def shown(text: str) -> str:
    """Returns a text of a file in quotes, in one line and not too long."""
    return repr(text if len(text) <= _LONGEST else f"{text[:_LONGEST]}...")


def sizes(shape) -> str:
    """Returns a shape as ``64x3x3x3``, and that of a single number as ``1``."""
    return "x".join(map(str, shape[:8])) or "1"
