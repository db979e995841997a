"""What JSON files are to look like, and how one is told that is valid JSON of another shape.

A shape is a type (``int`` takes no bool, ``float`` any number, ``object`` anything), ``None``, a
tuple of alternatives, ``[shape]`` for a list of any length, or a dict of the shapes of its keys, of
which ``"key?"`` may be missing and ``"*"`` stands for all others::

    {"name": str, "sizes": [(int, None)], "notes?": {"*": str}}
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from tfkd.errors import TfkdError, reason

MOST_BYTES = 2**28
"""No file that tfkd writes is larger; one that is does not even come into memory."""

OTHER = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
"""What code raises that takes apart what is of another shape."""

_WORDS = {dict: "an object", list: "a list", str: "a string", bool: "a truth value",
          int: "a whole number", float: "a number", type(None): "null"}  # fmt: skip


class Misfit(ValueError):
    """A value of another shape; the message says where, what was found and what was wanted."""


def require(value: Any, shape: Any, where: str = "") -> None:
    """Raises a :class:`Misfit` for a value of another shape.

    Args:
        value: As ``json`` reads it.
        shape: The shape.
        where: What stands before the message, such as the key that holds the value.
    """
    if shape is object:
        return
    if isinstance(shape, tuple):
        # The last one is that of which the message speaks.
        for each in shape[:-1]:
            try:
                return require(value, each, where)
            except Misfit:
                continue
        return require(value, shape[-1], where)
    kind = type(shape) if isinstance(shape, (dict, list)) else shape or type(None)
    if not _is(value, kind):
        raise Misfit(f"{where or 'the file'} is {_words(value)}, not {_WORDS[kind]}")
    if isinstance(shape, list):
        for number, each in enumerate(value):
            require(each, shape[0], f"{where}[{number}]")
    elif isinstance(shape, dict):
        _require_keys(value, shape, where)


def _require_keys(value: dict[str, Any], shape: dict[str, Any], where: str) -> None:
    listed = {key.removesuffix("?"): each for key, each in shape.items() if key != "*"}
    for key, each in listed.items():
        if key in value:
            require(value[key], each, f"{where}.{key}" if where else key)
        elif f"{key}?" not in shape:
            raise Misfit(f"{where or 'the file'} has no {key!r}")
    if "*" in shape:
        for key in value.keys() - listed.keys():
            require(value[key], shape["*"], f"{where}.{key}" if where else key)


def _is(value: Any, kind: type) -> bool:
    if kind in (int, float):
        number = isinstance(value, (int, float) if kind is float else int)
        # Whatever is done with it, it fits 64 bits.
        return number and not isinstance(value, bool) and not abs(value) >= 2**63
    return isinstance(value, kind)


def _words(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{_WORDS[type(value)]} ({text[:30]} ...)"


def read(path: str | os.PathLike, shape: Any) -> Any:
    """Returns the content of a JSON file of a shape.

    Raises:
        Misfit: When it is of another shape or no JSON.
        OSError: When it cannot be read.
    """
    path = Path(path)
    size = path.stat().st_size
    if size > MOST_BYTES:
        raise Misfit(f"the file has {size:,} bytes")
    return parse(path.read_bytes(), shape)


def parse(text: str | bytes, shape: Any) -> Any:
    """Returns the content of a text of JSON of a shape.

    Raises:
        Misfit: When it is of another shape or no JSON.
    """
    try:
        value = json.loads(text)
    except RecursionError:
        raise Misfit("the file is nested too deep") from None
    except ValueError as error:  # UTF-8 as well.
        raise Misfit(f"the file is no JSON: {reason(error)}") from None
    require(value, shape)
    return value


def read_or_tell(path: str | os.PathLike, shape: Any, wanted: str) -> Any:
    """Returns :func:`read`, and raises a :class:`TfkdError` instead of its errors.

    Args:
        path: The file.
        shape: The shape.
        wanted: What would be right, for the message.
    """
    try:
        return read(path, shape)
    except OSError as error:
        raise TfkdError(
            f"file {str(path)!r}: cannot be read ({error.strerror or reason(error)}), "
            f"wanted {wanted}"
        ) from None
    except Misfit as error:
        raise TfkdError(f"file {str(path)!r}: {error}; wanted {wanted}") from None
