"""The grouped convolution against a block-diagonal one, and its stock and folded forms."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.models import families
from tfkd import models
from tfkd.models.layers.grouped_convolution import GroupedConvolution

IMAGES = np.random.default_rng(0).normal(size=(2, 5, 6, 6)).astype(np.float32)


def small_model(**arguments):
    """A grouped 3x3 convolution from 6 to 9 channels and its normalization."""
    image = keras.Input((5, 6, 6))
    features = GroupedConvolution(9, 3, groups=3, name="conv", **arguments)(image)
    return families.shaken(keras.Model(image, models.BatchNormalization(name="bn")(features)))


def block_diagonal(kernel, groups):
    """(height, width, channels of a group, filters) with zeros between groups."""
    blocks = tf.split(kernel, groups, -1)
    size = kernel.shape[2]
    rows = [
        tf.pad(block, ((0, 0), (0, 0), (size * index, size * (groups - 1 - index)), (0, 0)))
        for index, block in enumerate(blocks)
    ]
    return tf.concat(rows, -1)


@pytest.mark.parametrize(
    ("strides", "padding", "use_bias"), [(1, "same", True), (2, "valid", False)]
)
@pytest.mark.parametrize("compiled", [False, True])
def test_values_and_gradients_are_those_of_a_block_diagonal_kernel(
    strides, padding, use_bias, compiled
):
    layer = GroupedConvolution(9, 3, strides=strides, padding=padding, use_bias=use_bias, groups=3)
    layer.build(IMAGES.shape)
    kernel = layer.kernel.value
    assert kernel.shape == (3, 3, 2, 9)

    def both():
        images = tf.constant(IMAGES)
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(images)
            found = layer(images)
            expected = tf.nn.conv2d(images, block_diagonal(kernel, 3), strides, padding.upper())
            losses = [tf.reduce_sum(tf.sin(each)) for each in (found, expected)]
        gradients = [tape.gradient(loss, [images, kernel]) for loss in losses]
        return found, expected, gradients

    found, expected, (own, wanted) = (tf.function(both) if compiled else both)()
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    assert found.shape == layer.compute_output_shape(IMAGES.shape)
    for one, other in zip(own, wanted, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_the_stock_form_is_a_grouped_convolution_of_keras():
    model = small_model()
    copy = models.stock(model)
    assert type(copy.get_layer("conv")) is keras.layers.Conv2D
    assert copy.get_layer("conv").groups == 3
    assert families.difference(model(IMAGES), copy(IMAGES)) <= 1e-5


def test_normalization_folds_into_it():
    model = small_model(use_bias=False)
    folded = models.fold(model)
    assert isinstance(folded.get_layer("bn"), keras.layers.Identity)
    assert families.difference(model(IMAGES), folded(IMAGES)) <= 1e-5


def test_a_group_counts_its_own_channels():
    cost = models.cost(small_model())
    assert cost.macs == 3 * 4 * 9 * 9 * 2
    assert cost.params == 9 * 9 * 2 + 9 + 2 * 9


def test_grouped_convolution_is_exported_and_saved(tmp_path):
    model = small_model()
    model.export(tmp_path / "export", verbose=False)
    expected = model(IMAGES)
    restored = tf.saved_model.load(str(tmp_path / "export"))
    assert families.difference(expected, restored.serve(IMAGES)) <= 1e-5
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert type(loaded.get_layer("conv")) is GroupedConvolution
    np.testing.assert_array_equal(loaded(IMAGES), expected)
