"""A small network of every family, built once, for what must hold for all of them."""

import functools

import keras
import numpy as np

from tfkd import models

CLASSES = 10
# Name, image side, and arguments that make it small.
FAMILIES = {
    "resnet8": (8, {}),
    "wrn_16_1": (8, {}),
    "vgg8": (8, {}),
    "mobilenetv2": (16, {}),
    "shufflev1": (8, {}),
    "shufflev2": (8, {}),
    "resnet18": (32, {"width": 8}),
    "mobilenetv1": (32, {"width": 0.25}),
    "vgg16_bn_imagenet": (32, {"hidden": 16}),
}


def shaken(model):
    """The model with random statistics, scales and biases, so that nothing is neutral."""
    rng = np.random.default_rng(1)
    for layer in model._flatten_layers(include_self=False, recursive=True):
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.moving_mean.assign(rng.normal(0, 0.3, layer.moving_mean.shape))
            layer.moving_variance.assign(rng.uniform(0.3, 2.0, layer.moving_mean.shape))
            if layer.scale:
                layer.gamma.assign(rng.normal(0, 1.0, layer.moving_mean.shape))
            if layer.center:
                layer.beta.assign(rng.normal(0, 0.5, layer.moving_mean.shape))
        elif getattr(layer, "bias", None) is not None:
            layer.bias.assign(rng.normal(size=layer.bias.shape))
    return model


def images(name, seed=0):
    """Four images of the size that suits a family."""
    side, _ = FAMILIES[name]
    return np.random.default_rng(seed).normal(size=(4, side, side, 3)).astype(np.float32)


def fresh(name, classes=CLASSES, shape=None):
    """A new network of a family, for images of its smallest or of another shape."""
    side, arguments = FAMILIES[name]
    return models.create(name, classes, shape or (side, side, 3), **arguments)


@functools.cache
def trained(name):
    """The family's shared network, with statistics as after training. No test may change it."""
    return shaken(fresh(name))


def difference(expected, found):
    """The largest error in units of the largest output."""
    expected = np.asarray(expected)
    return np.abs(expected - np.asarray(found)).max() / np.abs(expected).max()
