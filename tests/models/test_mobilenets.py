"""MobileNet V1 and V2: depthwise convolutions, linear bottlenecks, taps, first weights."""

import keras
import numpy as np
import pytest

from tests.models import families
from tfkd import models
from tfkd.models.layers import blocks


@pytest.mark.parametrize("side", [16, 17])
def test_a_depthwise_convolution_of_stride_two_pads_one_pixel_on_every_side(side):
    image = keras.Input((side, side, 4))
    model = keras.Model(image, blocks.depthwise_convolution(image, 2, name="conv"))
    kernel = model.get_layer("conv").kernel.numpy()[..., 0]
    images = np.random.default_rng(0).normal(size=(2, side, side, 4)).astype(np.float32)
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
    expected = sum(
        padded[:, row : row + side : 2, column : column + side : 2] * kernel[row, column]
        for row in range(3)
        for column in range(3)
    )
    np.testing.assert_allclose(model(images), expected, rtol=1e-4, atol=1e-5)


def test_blocks_end_linearly_and_add_an_input_of_their_size():
    model = families.trained("mobilenetv2")
    names = ["stage1_block2_project_bn", "stage1_block3_project_bn", "stage1", "stage4"]
    taps = models.tapped(model, names)(families.images("mobilenetv2"))
    added = taps["stage1_block2_project_bn"] + taps["stage1_block3_project_bn"]
    np.testing.assert_allclose(taps["stage1"], added, rtol=1e-5, atol=1e-6)
    assert min(taps["stage1"].numpy().min(), taps["stage4"].numpy().min()) < 0
    sums = [each.name for each in model.layers if isinstance(each, keras.layers.Add)]
    blocks = {1: [3], 2: [2, 3], 3: [2, 3, 4, 6, 7], 4: [2, 3]}
    assert sums == [
        f"stage{stage}_block{block}_add" for stage, each in blocks.items() for block in each
    ]


def test_activations_are_not_cut_off_at_six_and_the_first_block_keeps_its_expansion():
    model = families.trained("mobilenetv2")
    relus = [each for each in model.layers if isinstance(each, keras.layers.ReLU)]
    assert len(relus) == 2 * 17 + 2
    assert all(each.max_value is None for each in relus)
    assert model.get_layer("stage1_block1_expand_conv").kernel.shape == (1, 1, 16, 16)


def test_first_weights_are_those_of_the_published_code():
    model = families.trained("mobilenetv2")
    # Normal over all filters of a depthwise convolution, as torch counts its fan-out.
    depthwise = model.get_layer("stage4_block2_depthwise_conv").kernel.numpy()
    assert depthwise.std() == pytest.approx(np.sqrt(2 / (9 * 480)), rel=0.05)
    pointwise = model.get_layer("final_conv").kernel.numpy()
    assert pointwise.std() == pytest.approx(np.sqrt(2 / 1280), rel=0.02)
    logits = model.get_layer("logits")
    assert logits.kernel.numpy().std() == pytest.approx(0.01, rel=0.05)
    assert isinstance(logits.bias_initializer, keras.initializers.Zeros)


def test_the_first_version_starts_as_torch_leaves_its_layers():
    model = families.trained("mobilenetv1")
    depthwise = model.get_layer("stage4_block2_depthwise_conv").kernel.numpy()
    assert np.abs(depthwise).max() == pytest.approx(1 / 3, rel=0.01)
    pointwise = model.get_layer("stage4_block2_pointwise_conv").kernel.numpy()
    assert np.abs(pointwise).max() == pytest.approx(1 / 16, rel=0.01)
    assert pointwise.std() == pytest.approx(1 / 16 / np.sqrt(3), rel=0.02)


def test_a_stage_of_the_first_version_ends_in_the_relu_of_its_pre_tap_before_a_halving():
    names = [f"stage{stage}{suffix}" for stage in (1, 2, 3, 4) for suffix in ("", "_pre")]
    taps = models.tapped(families.trained("mobilenetv1"), names)(families.images("mobilenetv1"))
    for stage, side in ((1, 8), (2, 4), (3, 2), (4, 1)):
        before = taps[f"stage{stage}_pre"].numpy()
        assert before.shape[1:3] == (side, side)
        assert before.min() < 0
        np.testing.assert_array_equal(taps[f"stage{stage}"], np.maximum(before, 0))


def test_another_width_scales_every_channel_count():
    shapes = models.tap_shapes(families.trained("mobilenetv1"), ["stem", "stage1", "pooled"])
    assert shapes == {"stem": (16, 16, 8), "stage1": (8, 8, 32), "pooled": (256,)}
    model = models.create("mobilenetv2", 10, (16, 16, 3), width=1)
    shapes = models.tap_shapes(model, ["stem", "stage4", "pooled"])
    assert shapes == {"stem": (8, 8, 32), "stage4": (1, 1, 320), "pooled": (1280,)}
