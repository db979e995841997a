"""The residual networks of four stages: where they halve the image, stems, taps, widths."""

import keras
import numpy as np

from tests.models import families
from tfkd import models


def strides(model):
    return {
        layer.name: layer.strides[0]
        for layer in model.layers
        if isinstance(layer, keras.layers.Conv2D) and layer.strides[0] > 1
    }


def test_a_bottleneck_has_its_stride_on_the_3x3_convolution_and_on_the_shortcut():
    model = models.create("resnet50_cifar", 10, (8, 8, 3), width=2)
    wanted = {}
    for stage in (2, 3, 4):
        wanted[f"stage{stage}_block1_conv2"] = 2
        wanted[f"stage{stage}_block1_shortcut_conv"] = 2
    assert strides(model) == wanted
    assert model.get_layer("stage2_block1_conv2").kernel.shape == (3, 3, 4, 4)
    # The first stage keeps the size but not the channels.
    assert model.get_layer("stage1_block1_shortcut_conv").kernel.shape == (1, 1, 2, 8)
    assert models.tap_shapes(model, ["stage4", "pooled"]) == {
        "stage4": (1, 1, 64),
        "pooled": (64,),
    }


def test_the_stem_pools_what_lies_inside_the_image():
    model = families.trained("resnet18")
    taps = models.tapped(model, ["stem", "stem_pool"])(families.images("resnet18"))
    stem = taps["stem"].numpy()
    outside = ((0, 0), (1, 1), (1, 1), (0, 0))
    padded = np.pad(stem, outside, constant_values=-np.inf)
    expected = np.max(
        [
            padded[:, row : row + 16 : 2, column : column + 16 : 2]
            for row in range(3)
            for column in range(3)
        ],
        axis=0,
    )
    np.testing.assert_array_equal(taps["stem_pool"], expected)


def test_the_stem_pads_three_pixels_on_every_side():
    model = families.trained("resnet18")
    images = families.images("resnet18")
    found = models.tapped(model, ["stem_conv"])(images)["stem_conv"].numpy()
    kernel = model.get_layer("stem_conv").kernel.numpy()
    padded = np.pad(images, ((0, 0), (3, 3), (3, 3), (0, 0)))
    expected = sum(
        padded[:, row : row + 32 : 2, column : column + 32 : 2] @ kernel[row, column]
        for row in range(7)
        for column in range(7)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


def test_a_stage_ends_in_the_relu_of_its_pre_tap():
    names = [f"stage{stage}{suffix}" for stage in (1, 2, 3, 4) for suffix in ("", "_pre")]
    taps = models.tapped(families.trained("resnet18"), names)(families.images("resnet18"))
    for stage in (1, 2, 3, 4):
        before = taps[f"stage{stage}_pre"].numpy()
        assert before.min() < 0
        np.testing.assert_array_equal(taps[f"stage{stage}"], np.maximum(before, 0))
