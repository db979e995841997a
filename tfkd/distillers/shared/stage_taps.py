"""The stages of a network, found by the names that all networks of tfkd give them."""

from __future__ import annotations

import re

from tfkd import models
from tfkd.errors import TfkdError

_STAGE = re.compile(r"stage(\d+)")


def stage_taps(network: models.Network, method: str) -> list[str]:
    """Returns the taps ``stage1``, ``stage2``, ... of a network, from the image on.

    Names that the network gives to other taps (:attr:`tfkd.models.Network.taps`) count as well.

    Args:
        network: The network.
        method: Name of the method, for the message.

    Raises:
        TfkdError: When it has none.
    """
    known = {*models.tap_names(network.model), *network.taps}
    found = sorted((name for name in known if _STAGE.fullmatch(name)), key=_number)
    if not found:
        raise TfkdError(
            f"{method}: found no taps called stage1, stage2, ... in network {network.name!r}; "
            "wanted such names, by its layers or by tfkd.models.Network(model, taps=...), or the "
            "taps in the method's settings"
        )
    return found


def has_tap(network: models.Network, name: str) -> bool:
    """Returns whether a network has a tap of this name."""
    return name in network.taps or name in models.tap_names(network.model)


def _number(name: str) -> int:
    match = _STAGE.fullmatch(name)
    return int(match[1]) if match else 0
