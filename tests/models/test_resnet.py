"""The ResNet family: its form, its taps, its first weights."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfkd import models


@pytest.fixture
def bfloat16_policy():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    yield
    keras.config.set_dtype_policy(before)


def test_the_depth_in_the_name_counts_the_layers_with_weights_on_the_main_path():
    for name, depth in (("resnet8", 8), ("resnet20", 20), ("resnet32x4", 32)):
        weighted = [
            layer.name
            for layer in models.create(name, 10).layers
            if isinstance(layer, (keras.layers.Conv2D, keras.layers.Dense))
            and "shortcut" not in layer.name
        ]
        assert len(weighted) == depth


@pytest.mark.parametrize("shape", [(8, 8, 1), (4, 4, 3), (33, 47, 5), (64, 32, 3)])
def test_any_image_size_and_channel_count_gives_logits(shape):
    model = models.create("resnet8", 7, input_shape=shape)
    logits = model(np.zeros((2, *shape), np.float32), training=False)
    assert logits.shape == (2, 7)


def test_an_open_image_size_takes_images_of_several_sizes():
    model = models.create("resnet8", 7, input_shape=(None, None, 3))
    for side in (8, 20):
        assert model(np.zeros((2, side, side, 3), np.float32), training=False).shape == (2, 7)


def test_a_stage_ends_in_the_relu_of_its_pre_tap():
    model = models.create("resnet8", 10, input_shape=(16, 16, 3))
    names = [f"stage{stage}{suffix}" for stage in (1, 2, 3) for suffix in ("", "_pre")]
    taps = models.tapped(model, names)(tf.random.normal((4, 16, 16, 3)))
    for stage in (1, 2, 3):
        before = taps[f"stage{stage}_pre"].numpy()
        assert before.min() < 0
        np.testing.assert_array_equal(taps[f"stage{stage}"], np.maximum(before, 0))


def test_pooled_is_the_mean_of_pre_pool_and_logits_are_linear_in_it():
    model = models.create("resnet8", 10, input_shape=(16, 16, 3))
    taps = models.tapped(model, ["stage3", "pre_pool", "pooled", "logits"])(
        tf.random.normal((4, 16, 16, 3))
    )
    taps = {name: tensor.numpy() for name, tensor in taps.items()}
    kernel, bias = (weight.numpy() for weight in model.get_layer("logits").weights)
    np.testing.assert_array_equal(taps["pre_pool"], taps["stage3"])
    np.testing.assert_allclose(taps["pooled"], taps["pre_pool"].mean((1, 2)), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(taps["logits"], taps["pooled"] @ kernel + bias, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("side", [15, 16])
def test_a_convolution_of_stride_two_pads_one_pixel_on_every_side(side):
    model = models.create("resnet8", 10, input_shape=(side, side, 3))
    taps = models.tapped(model, ["stage1", "stage2_block1_conv1"])(
        tf.random.normal((2, side, side, 3))
    )
    kernel = model.get_layer("stage2_block1_conv1").kernel.numpy()
    padded = np.pad(taps["stage1"].numpy(), ((0, 0), (1, 1), (1, 1), (0, 0)))
    expected = sum(
        padded[:, row : row + side : 2, column : column + side : 2] @ kernel[row, column]
        for row in range(3)
        for column in range(3)
    )
    np.testing.assert_allclose(taps["stage2_block1_conv1"], expected, rtol=1e-4, atol=1e-5)


def test_convolutions_start_kaiming_normal_over_the_fan_out_and_have_no_bias():
    model = models.create("resnet32x4", 10)
    convolutions = [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    assert not any(layer.use_bias for layer in convolutions)
    for layer in convolutions[-6:]:
        kernel = layer.kernel.numpy()
        fan_out = kernel.shape[0] * kernel.shape[1] * kernel.shape[3]
        expected = math.sqrt(2 / fan_out)
        assert kernel.std() == pytest.approx(expected, rel=0.02)
        # Not truncated: a normal of this many values goes beyond three deviations.
        assert np.abs(kernel).max() > 3 * expected


def test_the_classifier_starts_uniform_within_one_over_the_root_of_the_fan_in():
    kernel, bias = models.create("resnet8x4", 1000).get_layer("logits").weights
    for values in (kernel.numpy(), bias.numpy()):
        assert np.abs(values).max() == pytest.approx(1 / 16, rel=0.01)
        assert values.std() == pytest.approx(1 / 16 / math.sqrt(3), rel=0.05)


def test_normalization_has_momentum_nine_tenths_and_the_small_epsilon():
    layer = models.create("resnet8", 10).get_layer("stem_bn")
    assert (layer.momentum, layer.epsilon) == (0.9, 1e-5)
    assert layer.synchronized


def test_logits_are_float32_under_a_bfloat16_policy(bfloat16_policy):
    model = models.create("resnet8", 10, input_shape=(8, 8, 3))
    taps = models.tapped(model, ["stage3", "logits"])(np.ones((2, 8, 8, 3), np.float32))
    assert taps["stage3"].dtype == tf.bfloat16
    assert taps["logits"].dtype == tf.float32


def test_a_saved_network_comes_back_with_its_taps(tmp_path):
    model = models.create("resnet8", 10, input_shape=(8, 8, 3))
    model.save(tmp_path / "network.keras")
    loaded = keras.saving.load_model(tmp_path / "network.keras")
    image = tf.random.normal((2, 8, 8, 3))
    assert models.tap_names(loaded) == models.tap_names(model)
    np.testing.assert_array_equal(loaded(image, training=False), model(image, training=False))
