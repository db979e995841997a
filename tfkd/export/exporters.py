"""Exporters by the kind of a network's outputs."""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras

from tfkd import models
from tfkd.core.tasks import Task
from tfkd.models.graph.outputs import LOGITS, in_depth_order


@dataclass(frozen=True)
class Exported:
    """A network on its way to a SavedModel.

    Attributes:
        network: The network: its name and its preprocessing.
        task: What its outputs mean.
        reference: Its model in float32, which the export must agree with.
        model: The model that is written: the same one, folded or in stock layers.
        points: Thresholds of early exits and what they gave on validation images, as
            :mod:`tfkd.core.tasks.exit_choice` has them; None where they are not known.
    """

    network: models.Network
    task: Task
    reference: keras.Model
    model: keras.Model
    points: Sequence[Mapping[str, Any]] | None = None


class Exporter(abc.ABC):
    """Writes networks with some kind of outputs, and checks what it wrote."""

    @abc.abstractmethod
    def write(self, exported: Exported, folder: Path) -> dict[str, list[int | None]]:
        """Writes a SavedModel into an existing folder.

        Returns:
            The shape of each of its outputs after the batch axis.

        Raises:
            OSError: When the folder cannot be written.
            TfkdError: For a network that cannot be written.
        """

    def facts(self, exported: Exported) -> dict[str, Any]:
        """Returns what else ``tfkd.json`` tells of the export."""
        del exported
        return {}

    @abc.abstractmethod
    def verify(self, exported: Exported, folder: Path) -> None:
        """Loads the SavedModel again and compares it with the network.

        Raises:
            TfkdError: When they differ.
        """


_EXPORTERS: dict[str, Exporter] = {}


def register(*kinds: str) -> Callable[[type[Exporter]], type[Exporter]]:
    """Returns a decorator that makes a class the exporter of some kinds of outputs."""

    def add(exporter: type[Exporter]) -> type[Exporter]:
        _EXPORTERS.update(dict.fromkeys(kinds, exporter()))
        return exporter

    return add


def exporter_of(model: keras.Model) -> Exporter:
    """Returns the exporter for the outputs of a model."""
    return _EXPORTERS[kind_of(model)]


def kind_of(model: keras.Model) -> str:
    """Returns ``"exits"`` for several exits, ``"logits"`` for one, otherwise ``"outputs"``.

    Raises:
        TfkdError: For outputs without names.
    """
    names = models.outputs(model)
    if len(in_depth_order(names)) > 1:
        return "exits"
    return "logits" if LOGITS in names else "outputs"
