"""How a small mapping of settings, such as ``train.optimizer`` in a config, is read and checked."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import Any

from tfkd.errors import TfkdError, TfkdWarning, unknown


def read(
    thing: str, settings: Mapping[str, Any], fields: Mapping[str, Mapping[str, Any]]
) -> tuple[str, dict[str, Any]]:
    """Reads settings of the form ``{"name": ..., field: value, ...}``.

    One mapping serves every name, so that changing the name alone (by a flag, say) is a valid
    change: a field that only other names use is set aside, with a warning if its value is not the
    default. A value of None stands for the default.

    Args:
        thing: What is set, in words, for instance ``"optimizer"``.
        settings: A mapping, or an ml_collections ConfigDict, with the key ``name``.
        fields: For every known name, its fields and their defaults.

    Returns:
        The name, and a value for every field of that name.

    Raises:
        TfkdError: If the settings are no mapping, or name or field is unknown.
    """
    if not hasattr(settings, "items"):
        raise TfkdError(f"{thing} is {settings!r}; wanted a mapping with the key 'name'")
    given = dict(settings.items())
    name = given.pop("name", None)
    if name is None:
        raise TfkdError(f"{thing} has no 'name'; wanted one of {', '.join(sorted(fields))}")
    if name not in fields:
        raise unknown(thing, name, fields)
    known = {field: default for each in fields.values() for field, default in each.items()}
    values = dict(fields[name])
    unused = []
    for field, value in given.items():
        if field not in known:
            raise unknown(f"{thing} field", field, known)
        if value is None:
            continue
        if field in values:
            values[field] = value
        elif value != known[field]:
            unused.append(field)
    if unused:
        warnings.warn(
            f"{thing} {name!r} makes no use of {', '.join(unused)}", TfkdWarning, stacklevel=3
        )
    return name, values


def number(
    name: str,
    value: Any,
    *,
    low: float = 0.0,
    high: float = math.inf,
    above: bool = False,
    below: bool = False,
) -> float:
    """Returns a value as a float after checking that it is a finite number within bounds.

    Args:
        name: The name of the value, for the message.
        value: The value.
        low: The smallest allowed value.
        high: The largest allowed value.
        above: Whether the value must be larger than `low`, not equal to it.
        below: Whether the value must be smaller than `high`, not equal to it.

    Raises:
        TfkdError: If it is no number, not finite, or out of bounds.
    """
    numeric = isinstance(value, (int, float)) or (
        getattr(value, "shape", None) == () and hasattr(value, "__float__")
    )
    if not isinstance(value, bool) and numeric:
        found = float(value)
        enough = found > low if above else found >= low
        small = found < high if below else found <= high
        if math.isfinite(found) and enough and small:
            return found
    bounds = f"{'>' if above else '>='} {low:g}"
    if high < math.inf:
        bounds += f" and {'<' if below else '<='} {high:g}"
    raise TfkdError(f"{name} is {value!r}; wanted a number {bounds}")


def flag(name: str, value: Any) -> bool:
    """Returns a value after checking that it is True or False.

    Raises:
        TfkdError: If it is anything else.
    """
    if isinstance(value, bool):
        return value
    raise TfkdError(f"{name} is {value!r}; wanted True or False")


def choice(name: str, value: Any, allowed: tuple[str, ...]) -> str:
    """Returns a value after checking that it is one of the allowed words.

    Raises:
        TfkdError: If it is not, naming the nearest.
    """
    if value in allowed:
        return value
    raise unknown(name, value, allowed)
