"""A small network with batch normalization that is far from the identity."""

import keras
import numpy as np
import pytest

from tfkd import models

MEAN = (110.0, 120.0, 130.0)
STD = (50.0, 60.0, 70.0)


def lively(model: keras.Model) -> keras.Model:
    """Gives every batch normalization statistics, scales and offsets as after training."""
    random = np.random.default_rng(3)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            gamma, beta, mean, variance = layer.get_weights()
            layer.set_weights(
                [
                    random.uniform(0.5, 1.5, gamma.shape),
                    random.normal(0, 0.3, beta.shape),
                    random.normal(0, 0.5, mean.shape),
                    random.uniform(0.5, 2.0, variance.shape),
                ]
            )
    return model


@pytest.fixture
def network():
    """ResNet-8 for 16x12 color images and 5 classes, normalized by a mean and a deviation."""
    model = lively(models.create("resnet8", num_classes=5, input_shape=(16, 12, 3)))
    return models.Network(model, models.Preprocess(MEAN, STD), name="small")


@pytest.fixture
def images():
    """Seven uint8 images for the network."""
    return np.random.default_rng(5).integers(0, 256, (7, 16, 12, 3), dtype=np.uint8)


@pytest.fixture
def expected(network, images):
    """The network's logits on the images, normalized by hand."""
    pixels = images.astype(np.float32)
    return network.model.predict((pixels - np.float32(MEAN)) / np.float32(STD), verbose=0)
