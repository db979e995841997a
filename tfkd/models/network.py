"""A model together with the way pixels reach it."""

from __future__ import annotations

from dataclasses import dataclass

import keras

from tfkd.errors import TfkdError
from tfkd.models.preprocess import Preprocess


@dataclass(frozen=True)
class Network:
    """A Keras model and its preprocessing, so that networks trained on different pixels can meet.

    Attributes:
        model: Any Keras model from images to logits.
        preprocess: What is done to pixels 0..255 before the model sees them.
        name: What the network is called in tables; the model's name if None.

    Raises:
        TfkdError: If `model` is not a Keras model.
    """

    model: keras.Model
    preprocess: Preprocess = Preprocess.none()
    name: str | None = None

    def __post_init__(self):
        if not isinstance(self.model, keras.Model):
            raise TfkdError(f"network: found {type(self.model).__name__}; wanted a keras.Model")
        if self.name is None:
            object.__setattr__(self, "name", self.model.name)

    def __call__(self, pixels, training: bool | None = None):
        """The model's outputs for pixels (batch, height, width, channels) 0..255 of any dtype."""
        return self.model(self.preprocess(pixels), training=training)


def as_network(model: keras.Model | Network) -> Network:
    """Returns a network as it is, and a Keras model as a network without preprocessing.

    Raises:
        TfkdError: If it is neither.
    """
    return model if isinstance(model, Network) else Network(model)
