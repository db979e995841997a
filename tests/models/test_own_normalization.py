"""Models that normalize pixels themselves are told from those that do not."""

import keras
import numpy as np
import pytest

from tests.fixtures import shades
from tfkd import models

layers = keras.layers


def begins_with(*first):
    return keras.Sequential([keras.Input((8, 8, 3)), *first, layers.Conv2D(2, 3)])


def of_image(function):
    image = keras.Input((8, 8, 3))
    return keras.Model(image, layers.Conv2D(2, 3)(function(image)))


class Shrunk(layers.Layer):
    def call(self, pixels):
        return pixels / 5


class Edges(layers.Layer):
    def call(self, pixels):
        return pixels - keras.ops.roll(pixels, 1, axis=1)


def skipping(image):
    return layers.Concatenate()([image, layers.Rescaling(1 / 255)(image)])


def two_inputs():
    images = [keras.Input((8, 8, 3)) for _ in range(2)]
    return keras.Model(images, layers.Add()([layers.Rescaling(1 / 255)(each) for each in images]))


NORMALIZING = {
    "rescaling": (lambda: begins_with(layers.Rescaling(1 / 255)), 0, 1),
    "behind augmentation": (
        lambda: begins_with(layers.RandomFlip(), layers.Rescaling(1 / 127.5, -1)), -1, 1
    ),
    "normalization": (
        lambda: begins_with(layers.Normalization(mean=[100] * 3, variance=[2500] * 3)), -2, 3.1
    ),
    "sub-models": (
        lambda: begins_with(
            keras.Sequential([layers.RandomFlip(), layers.Resizing(6, 6)]),
            keras.Sequential([layers.Rescaling(1 / 255), layers.Rescaling(2)]),
        ), 0, 2,
    ),
    "lambda": (lambda: begins_with(layers.Lambda(lambda pixels: pixels / 5)), 0, 51),
    "arithmetic": (lambda: of_image(lambda image: keras.ops.cast(image, "float32") / 51), 0, 5),
    "both branches": (lambda: of_image(lambda image: image / 255 + image / 255), 0, 2),
    "tf": (lambda: of_image(keras.applications.mobilenet_v2.preprocess_input), -1, 1),
    "torch": (lambda: of_image(keras.applications.densenet.preprocess_input), -2.118, 2.64),
    "caffe": (lambda: of_image(keras.applications.vgg16.preprocess_input), -123.68, 151.061),
    "behind layers without weights": (
        lambda: begins_with(
            layers.RandomContrast(0.2), layers.GaussianNoise(0.5), layers.Dropout(0.1),
            layers.RandomBrightness(0.2), layers.AveragePooling2D(2), layers.UpSampling2D(2),
            layers.Reshape((192,)), layers.Rescaling(1 / 255), layers.Reshape((8, 8, 3)),
        ), 0, 1,
    ),
    "pipeline": (
        lambda: begins_with(layers.Pipeline([layers.RandomInvert(), layers.Rescaling(1 / 255)])),
        0, 1,
    ),
    "resized by a function": (
        lambda: of_image(lambda image: keras.ops.image.resize(image, (16, 16)) / 255), 0, 1
    ),
    "lambda of another size": (
        lambda: begins_with(layers.Lambda(lambda pixels: pixels[:, ::2] / 255)), 0, 1
    ),
    "by channels": (
        lambda: of_image(
            lambda image: layers.Concatenate()(
                [layers.Rescaling(1 / 255)(each) for each in keras.ops.split(image, 3, axis=-1)]
            )
        ), 0, 1,
    ),
    "a layer of one's own": (lambda: begins_with(Shrunk()), 0, 51),
}  # fmt: skip
OTHERS = {
    "convolution": lambda: begins_with(),
    "nothing is changed": lambda: begins_with(layers.Rescaling(1.0), layers.Normalization()),
    "batch normalization": lambda: begins_with(layers.BatchNormalization()),
    "behind a convolution": lambda: begins_with(layers.Conv2D(3, 1), layers.Rescaling(1 / 255)),
    "a part of it reads pixels": lambda: of_image(skipping),
    "a residual": lambda: of_image(lambda image: image + layers.Conv2D(3, 1)(image)),
    "edges": lambda: begins_with(Edges()),
    "padding and pooling": lambda: begins_with(
        layers.ZeroPadding2D(), layers.GaussianNoise(0.5), layers.AveragePooling2D(2)
    ),
    "two inputs": two_inputs,
}


@pytest.mark.parametrize("case", NORMALIZING)
def test_a_model_that_begins_with_normalization(case):
    make, low, high = NORMALIZING[case]
    found = models.own_normalization(make())
    np.testing.assert_allclose((found.low, found.high), (low, high), rtol=1e-3, atol=1e-6)
    assert found.layers


def test_a_model_that_normalizes_each_image_by_its_own_mean():
    found = models.own_normalization(
        of_image(lambda image: image / 255 - keras.ops.mean(image / 255, (1, 2, 3), keepdims=True))
    )
    assert -1 < found.low < -0.3 < 0.3 < found.high < 1


def test_looking_at_a_model_leaves_the_states_of_its_seeds():
    drawn = layers.RandomErasing(seed=1)
    model = begins_with(drawn, layers.Dropout(0.1, seed=2), layers.Rescaling(1 / 255))
    before = [np.array(each) for each in model.non_trainable_variables]
    assert before and models.own_normalization(model)
    np.testing.assert_equal([np.array(each) for each in model.non_trainable_variables], before)


@pytest.mark.parametrize("case", OTHERS)
def test_a_model_that_does_not(case):
    assert models.own_normalization(OTHERS[case]()) is None


def test_the_layers_are_named():
    found = models.own_normalization(shades.itself())
    assert str(found) == "scaled: 0..255 become -1..1"
    assert models.own_normalization(shades.model()) is None


@pytest.mark.parametrize("included", [True, False])
def test_an_application_by_name(included):
    model = models.create(
        "keras.applications:MobileNetV3Small",
        4,
        (32, 32, 3),
        minimalistic=True,
        include_preprocessing=included,
    )
    found = models.own_normalization(model)
    assert (found and (found.low, found.high)) == ((-1, 1) if included else None)


def test_what_is_done_before_a_network_in_words():
    assert str(models.Preprocess.none()) == "as they are"
    assert str(models.Preprocess((1.5,), (2.0,))) == "less 1.5, divided by 2"
    assert str(models.Preprocess.published("caffe")).endswith(
        "divided by 1, 1, 1, blue, green, red"
    )
