"""Whether two sides mean the same classes, and networks brought into one order of them."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Sequence

from tfkd import models
from tfkd.core.tasks.task import Task
from tfkd.errors import TfkdError, TfkdWarning
from tfkd.models.class_count import check_count
from tfkd.models.class_names import positions
from tfkd.models.graph.class_order import reordered


def order_of(
    found: Sequence[str] | None, wanted: Sequence[str] | None, who: str, whose: str, accept: str
) -> list[int] | None:
    """Returns where the classes of one side are on the other, in the order of the former.

    Args:
        found: Names of the classes of a network; ``None`` where they are not known.
        wanted: Those that it should have.
        who: The network, for messages.
        whose: Who has the wanted ones.
        accept: What takes the classes by their numbers, whatever their names, for the message.

    Returns:
        The position of each wanted class among those found; ``None`` where they are in that order,
        or nothing is known of them.

    Raises:
        TfkdError: When they are other classes.
    """
    try:
        places = positions(found, wanted)
    except TfkdError as error:
        raise TfkdError(
            f"{who}: {error} as {whose} has ({accept} takes them by their numbers)"
        ) from None
    return None if places is None or places == sorted(places) else places


def aligned(
    network: models.Network,
    names: Sequence[str] | None,
    task: Task,
    *,
    who: str,
    whose: str,
    accept: str,
    tell: bool = True,
) -> models.Network:
    """Returns a network whose classes are in the order of some names.

    Args:
        network: The network.
        names: Names of the classes; ``None`` where they are not known.
        task: The task of the network.
        who: What the network is called in messages.
        whose: Who has these names.
        accept: What takes the classes by their numbers, for the message.
        tell: Whether a warning says that the order is another one.

    Returns:
        The network itself where the order is the same or nothing is known of it; otherwise one over
        the same weights that gives its outputs in the order of the names.

    Raises:
        TfkdError: When the network has other classes, names for another number of them, or outputs
            that cannot be brought into another order.
    """
    check_count(network, who)
    places = order_of(network.class_names, names, who, whose, accept)
    if places is None:
        return network
    outputs = task.class_outputs(models.outputs(network.model))
    if not outputs or not models.is_functional(network.model):
        raise TfkdError(
            f"{who}: found the classes of {whose} in another order, which this network cannot be "
            f"brought into, wanted the same order ({accept} takes them by their numbers)"
        )
    if tell:
        tell_of_order(who, whose)
    mapped = network.with_model(reordered(network.model, outputs, places))
    return dataclasses.replace(mapped, class_names=tuple(map(str, names or ())))


def tell_of_order(who: str, whose: str) -> None:
    """Warns that classes are in another order."""
    warnings.warn(
        f"{who} has the classes of {whose} in another order: its outputs are brought into that of "
        f"{whose}",
        TfkdWarning,
        stacklevel=3,
    )
