"""The VGG networks: poolings, taps, first weights, and the classifier of the ImageNet form."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.models import families
from tfkd import models

STAGES = ["stem", "stage1", "stage2", "stage3", "stage4"]


@pytest.mark.parametrize(("side", "last"), [(64, 4), (96, 12)])
def test_the_fourth_block_pools_only_in_images_64_pixels_high(side, last):
    shapes = models.tap_shapes(models.create("vgg8", 10, (side, side, 3)), ["stage3", "stage4"])
    assert shapes["stage3"] == (side // 8, side // 8, 512)
    assert shapes["stage4"] == (last, last, 512)


def test_every_block_ends_in_the_relu_of_its_pre_tap():
    model = families.trained("vgg8")
    taps = models.tapped(model, [*STAGES, *(f"{stage}_pre" for stage in STAGES)])(
        families.images("vgg8")
    )
    for stage in STAGES:
        before = taps[f"{stage}_pre"].numpy()
        assert before.min() < 0
        np.testing.assert_array_equal(taps[stage], np.maximum(before, 0))


def test_a_convolution_has_a_bias_that_starts_at_zero_and_the_classifier_starts_small():
    model = families.trained("vgg8")
    convolution = model.get_layer("stage3_conv1")
    assert isinstance(convolution.bias_initializer, keras.initializers.Zeros)
    assert convolution.kernel.numpy().std() == pytest.approx(np.sqrt(2 / (9 * 512)), rel=0.02)
    logits = model.get_layer("logits")
    assert logits.kernel.numpy().std() == pytest.approx(0.01, rel=0.05)
    assert isinstance(logits.bias_initializer, keras.initializers.Zeros)


def test_the_imagenet_form_ends_in_a_pooled_map_and_two_hidden_layers():
    name = "vgg16_bn_imagenet"
    model = families.trained(name)
    names = ["stage4", "pre_pool", "average_pool", "fc1", "fc2_relu", "pooled"]
    taps = models.tapped(model, names)(families.images(name), training=False)
    taps = {tap: tensor.numpy() for tap, tensor in taps.items()}
    assert taps["stage4"].shape == (4, 2, 2, 512)
    np.testing.assert_array_equal(taps["pre_pool"], taps["stage4"].max((1, 2), keepdims=True))
    # One pixel is the average of every one of the 7 x 7 windows.
    averages = np.broadcast_to(taps["pre_pool"], (4, 7, 7, 512))
    np.testing.assert_allclose(taps["average_pool"], averages, rtol=1e-6)
    kernel, bias = (weight.numpy() for weight in model.get_layer("fc1").weights)
    expected = averages.reshape(4, -1) @ kernel + bias
    np.testing.assert_allclose(taps["fc1"], expected, rtol=1e-4, atol=1e-3)
    np.testing.assert_array_equal(taps["pooled"], taps["fc2_relu"])


def test_dropout_acts_in_training_alone():
    model = families.trained("vgg16_bn_imagenet")
    head = models.head(model)
    features = tf.random.uniform((64, *head.input_shape[1:]))
    pooled = models.tapped(head, ["fc1_relu", "fc1_dropout"])
    trained = pooled(features, training=True)
    alive = trained["fc1_relu"].numpy() > 0
    share = (trained["fc1_dropout"].numpy()[alive] == 0).mean()
    assert 0.4 < share < 0.6
    rested = pooled(features, training=False)
    np.testing.assert_array_equal(rested["fc1_dropout"], rested["fc1_relu"])


def test_maps_of_other_sizes_are_averaged_to_seven_by_seven_as_torch_does():
    model = models.create("vgg16_imagenet", 3, (320, 256, 3), hidden=1)
    layer = model.get_layer("average_pool")
    features = np.random.default_rng(0).normal(size=(1, 10, 8, 2)).astype(np.float32)
    found = layer(features).numpy()
    for row in range(7):
        for column in range(7):
            rows = slice(row * 10 // 7, -(-(row + 1) * 10 // 7))
            columns = slice(column * 8 // 7, -(-(column + 1) * 8 // 7))
            expected = features[:, rows, columns].mean((1, 2))
            np.testing.assert_allclose(found[:, row, column], expected, rtol=1e-5, atol=1e-6)
    assert models.tap_shapes(model, ["pre_pool"]) == {"pre_pool": (10, 8, 512)}
