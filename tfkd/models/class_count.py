"""Whether a network has a name for each of its classes."""

from __future__ import annotations

from tfkd.errors import TfkdError
from tfkd.models.graph.calls import is_functional
from tfkd.models.graph.outputs import class_width, output_sizes
from tfkd.models.network import Network


def check_count(network: Network, who: str) -> None:
    """Checks that a network has a name for each of its classes, if it has any.

    Raises:
        TfkdError: When it has fewer or more.
    """
    if network.class_names is None or not is_functional(network.model):
        return
    classes = class_width(output_sizes(network.model))
    if classes not in (None, len(network.class_names)):
        raise TfkdError(
            f"{who}: found {len(network.class_names)} class names, wanted {classes}, one a class"
        )
