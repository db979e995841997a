"""Settings that serve several things, of which one is chosen by its name."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from tfkd.errors import TfkdWarning
from tfkd.settings import Settings, fields_of, values_of


def used(settings: Settings, own: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Returns the values that the thing of ``settings.name`` uses, apart from those that are None.

    One group of settings serves every name, so that changing the name alone (by a flag, say) is a
    valid change: the settings of other names are set aside, with a warning unless they hold their
    default.

    Args:
        settings: The settings.
        own: For every name, those of its settings that not every name has.
    """
    name, values = settings.name, values_of(settings)
    others = {each for listed in own.values() for each in listed} - set(own[name])
    unused = [
        each
        for each, field in fields_of(type(settings)).items()
        if each in others and values[each] != field.default
    ]
    if unused:
        thing = type(settings).__name__.removesuffix("Settings").lower()
        warnings.warn(
            f"{thing} {name!r} makes no use of {', '.join(unused)}", TfkdWarning, stacklevel=3
        )
    return {
        each: value
        for each, value in values.items()
        if each not in (*others, "name") and value is not None
    }
