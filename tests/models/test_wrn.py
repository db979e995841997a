"""The wide residual networks: pre-activation, its taps, the shortcut, any depth and width."""

import keras
import numpy as np

from tests.models import families
from tfkd import models


def test_a_pre_tap_is_the_stage_after_the_next_normalization():
    model = families.trained("wrn_16_1")
    after = ["stage2_block1_bn1", "stage3_block1_bn1", "final_bn"]
    stages = [1, 2, 3]
    names = [f"stage{stage}{suffix}" for stage in stages for suffix in ("", "_pre")]
    taps = models.tapped(model, [*names, "pre_pool"])(families.images("wrn_16_1"))
    for stage, name in zip(stages, after, strict=True):
        layer = model.get_layer(name)
        gamma, beta, mean, variance = (weight.numpy() for weight in layer.weights)
        expected = gamma * (taps[f"stage{stage}"] - mean) / np.sqrt(variance + 1e-5) + beta
        np.testing.assert_allclose(taps[f"stage{stage}_pre"], expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(taps["pre_pool"], np.maximum(taps["stage3_pre"], 0))


def test_a_block_of_equal_width_adds_its_input_and_another_convolves_the_normalized_one():
    # At width 2 the first block of stage 1 widens, its second does not.
    model = families.shaken(models.create("wrn_16_2", 10, (8, 8, 3)))
    names = ["stem", "stage1_block1_relu1", "stage1_block1_conv2", "stage1_block1_add"]
    names += ["stage1_block2_conv2", "stage1"]
    taps = models.tapped(model, names)(families.images("wrn_16_1"))
    taps = {name: tensor.numpy() for name, tensor in taps.items()}
    kernel = model.get_layer("stage1_block1_shortcut_conv").kernel.numpy()[0, 0]
    expected = taps["stage1_block1_relu1"] @ kernel + taps["stage1_block1_conv2"]
    np.testing.assert_allclose(taps["stage1_block1_add"], expected, rtol=1e-4, atol=1e-4)
    expected = taps["stage1_block1_add"] + taps["stage1_block2_conv2"]
    np.testing.assert_allclose(taps["stage1"], expected, rtol=1e-5, atol=1e-5)
    assert taps["stem"].min() < 0
    assert "stage1_block1_shortcut_bn" not in models.tap_names(model)


def test_any_depth_and_width_has_the_parameters_of_its_formula():
    blocks, width, classes = 3, 3, 7
    stages = [16 * width, 32 * width, 64 * width]
    wanted = 3 * 9 * 16
    before = 16
    for channels in stages:
        wanted += before * channels  # The shortcut.
        for _ in range(blocks):
            wanted += 2 * before + 9 * before * channels + 2 * channels + 9 * channels**2
            before = channels
    wanted += 2 * before + before * classes + classes
    model = models.create("wrn", classes, (8, 8, 3), depth=6 * blocks + 4, width=width)
    assert models.cost(model).params == wanted


def test_the_classifier_starts_without_bias_and_convolutions_kaiming_normal():
    model = families.trained("wrn_16_1")
    logits = model.get_layer("logits")
    assert isinstance(logits.bias_initializer, keras.initializers.Zeros)
    assert np.abs(logits.kernel.numpy()).max() <= 1 / 8
    kernel = model.get_layer("stage3_block2_conv2").kernel.numpy()
    np.testing.assert_allclose(kernel.std(), np.sqrt(2 / (9 * 64)), rtol=0.03)
    assert not any(
        layer.use_bias for layer in model.layers if isinstance(layer, keras.layers.Conv2D)
    )
