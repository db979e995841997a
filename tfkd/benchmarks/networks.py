"""The networks that are measured: as fresh ones, but with the statistics of trained ones."""

from __future__ import annotations

import keras
import numpy as np

from tfkd import models


def as_trained(name: str, classes: int, shape: tuple[int, int, int], **settings) -> keras.Model:
    """Returns a network whose batch normalization holds numbers as after training.

    Fresh ones are 0 and 1. TensorFlow would leave out a folded network's additions of 0, and with
    them the fusing of additions into convolutions, so that fresh networks are no fair subjects.

    Args:
        name: A name of `tfkd.models`.
        classes: Number of logits.
        shape: Height, width and channels of an image.
        **settings: Further arguments of the network.
    """
    model = models.create(name, classes, shape, **settings)
    generator = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            for variable, low, high in (
                (layer.gamma, 0.5, 1.0),
                (layer.beta, -0.3, 0.3),
                (layer.moving_mean, -0.3, 0.3),
                (layer.moving_variance, 0.5, 1.5),
            ):
                variable.assign(generator.uniform(low, high, variable.shape))
    return model
