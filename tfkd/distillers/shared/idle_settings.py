"""Settings that another one leaves without effect."""

from __future__ import annotations

from collections.abc import Sequence

from tfkd.core import Objective
from tfkd.errors import TfkdError
from tfkd.settings import fields_of


def refuse_idle(objective: Objective, names: Sequence[str], chosen: str, wanted: str) -> None:
    """Refuses settings that are not their defaults where they have no effect.

    Args:
        objective: The objective.
        names: Its settings that have none.
        chosen: What was chosen instead, as ``memory='queue'``.
        wanted: What would give them an effect.

    Raises:
        TfkdError: For the first of them that was set.
    """
    fields = fields_of(type(objective))
    for name in names:
        value = getattr(objective, name)
        if value != fields[name].default:
            raise TfkdError(
                f"{objective.name}: found {name}={value!r} with {chosen}, where it has no effect; "
                f"wanted {wanted}"
            )
