"""Taps that a batch brings along: what follows from frozen parts need not be run at every step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import keras
import tensorflow as tf

from tfkd import models
from tfkd.errors import TfkdError
from tfkd.models.graph.calls import InferenceModel, calls


def cached_key(tap: str) -> str:
    """Returns the entry of a batch that holds a tap of the network in the student's place."""
    return f"cached_{tap}"


def check_constant(
    network: models.Network, taps: Sequence[str], trained: Sequence[keras.Variable], who: str
) -> None:
    """Checks that taps are functions of the image alone, as long as some variables train.

    Args:
        network: The network.
        taps: Its taps.
        trained: The variables that train; layers that hold none of them are frozen.
        who: What wants to keep these taps, for messages.

    Raises:
        TfkdError: For a tap that is not there, or that depends on what trains or is drawn.
    """
    learned = {id(variable) for variable in trained}
    for tap in taps:
        model = models.tapped(network.model, network.paths([tap]))
        for path, layer in _with_mode(model, "", isinstance(model, InferenceModel)):
            if not layer.trainable_variables:
                raise TfkdError(
                    f"{who}: found {path!r} before the cached tap {tap!r}, which may act in "
                    "training alone; wanted it in a segment(..., training=False)"
                )
        for variable in model.trainable_variables:
            if id(variable) in learned:
                raise TfkdError(
                    f"{who}: found {variable.path!r}, which trains, before the cached tap {tap!r}; "
                    "wanted a tap that depends on frozen parts alone"
                )


def _with_mode(
    model: keras.Model, prefix: str, in_inference: bool
) -> Iterator[tuple[str, keras.layers.Layer]]:
    """Yields the layers with a mode, and their paths, that follow the mode of the whole."""
    for call in calls(model):
        operation, path = call.operation, prefix + call.name
        if models.is_functional(operation):
            inference = in_inference or isinstance(operation, InferenceModel)
            yield from _with_mode(operation, f"{path}/", inference)
        elif not in_inference and getattr(operation, "_call_has_training_arg", False):
            yield path, operation


class Resumed:
    """A network that is run from some of its taps on.

    Args:
        network: The network.
        taps: The taps that are wanted.
        given: Those that a batch gives.

    Raises:
        TfkdError: For a name that is no tap.
    """

    def __init__(self, network: models.Network, taps: Sequence[str], given: Sequence[str]) -> None:
        self._given = list(given)
        self._taps = list(taps)
        wanted = [tap for tap in taps if tap not in given]
        both = models.tapped(network.model, network.paths(dict.fromkeys([*given, *wanted])))
        starts = [both.output[tap] for tap in given]
        ends = {tap: both.output[tap] for tap in wanted}
        name = f"{network.model.name}_resumed"
        try:
            self._model, self._needs_images = keras.Model(starts, ends, name=name), False
        except ValueError:  # Something comes from the image past the taps that are given.
            starts += keras.tree.flatten(both.input)
            self._model, self._needs_images = keras.Model(starts, ends, name=name), True

    def __call__(
        self, batch: Mapping[str, tf.Tensor], images: tf.Tensor, training: bool
    ) -> dict[str, tf.Tensor]:
        """Returns the taps.

        Args:
            batch: The batch, with those that are given.
            images: Its images, normalized.
            training: The mode of the network.
        """
        given = {tap: batch[cached_key(tap)] for tap in self._given}
        inputs = [*given.values(), *([images] if self._needs_images else [])]
        found = {**given, **self._model(inputs, training=training)}
        return {tap: found[tap] for tap in self._taps}
