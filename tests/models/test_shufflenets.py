"""ShuffleNet V1 and V2: shuffles, groups, halves, the average that counts zeros, taps."""

import keras
import numpy as np
import pytest

from tests.models import families
from tfkd import models
from tfkd.models.layers import channel_ops


def shuffled(features, groups):
    """The channel shuffle of the papers, in NumPy."""
    parts = features.reshape(*features.shape[:-1], groups, -1)
    return np.swapaxes(parts, -1, -2).reshape(features.shape)


def taps_of(name, taps):
    found = models.tapped(families.trained(name), taps)(families.images(name))
    return {tap: tensor.numpy() for tap, tensor in found.items()}


@pytest.mark.parametrize("shape", [(3, 5), (None, 5), (3, None)])
def test_a_shuffle_takes_one_channel_of_every_group_in_turn(shape):
    image = keras.Input((*shape, 6))
    model = keras.Model(image, channel_ops.shuffle(image, 3, name="shuffle"))
    features = np.random.default_rng(0).normal(size=(2, 3, 5, 6)).astype(np.float32)
    found = model(features).numpy()
    np.testing.assert_array_equal(found, shuffled(features, 3))
    np.testing.assert_array_equal(found, features[..., [0, 2, 4, 1, 3, 5]])


def test_a_unit_of_the_first_version_is_the_published_one():
    name, prefix = "shufflev1", "stage2_block3"
    parts = ["relu1", "shuffle", "relu2", "conv3", "bn3", "add"]
    found = taps_of(name, [f"{prefix}_{part}" for part in parts] + ["stage2_block2_relu3"])
    part = {key.removeprefix(f"{prefix}_"): value for key, value in found.items()}
    np.testing.assert_array_equal(part["shuffle"], shuffled(part["relu1"], 3))
    np.testing.assert_allclose(
        part["add"], part["bn3"] + part["stage2_block2_relu3"], rtol=1e-5, atol=1e-5
    )
    kernel = families.trained(name).get_layer(f"{prefix}_conv3").kernel.numpy()[0, 0]
    expected = [
        part["relu2"][..., 40 * group : 40 * group + 40] @ kernel[:, 160 * group :][:, :160]
        for group in range(3)
    ]
    np.testing.assert_allclose(part["conv3"], np.concatenate(expected, -1), rtol=1e-4, atol=1e-4)


def test_the_halving_unit_concatenates_its_convolutions_and_an_average_that_counts_zeros():
    found = taps_of("shufflev1", ["stem", "stage1_block1_bn3", "stage1_block1_concat"])
    padded = np.pad(found["stem"], ((0, 0), (1, 1), (1, 1), (0, 0)))
    average = sum(
        padded[:, row : row + 8 : 2, column : column + 8 : 2]
        for row in range(3)
        for column in range(3)
    )
    expected = np.concatenate([found["stage1_block1_bn3"], average / 9], -1)
    np.testing.assert_allclose(found["stage1_block1_concat"], expected, rtol=1e-5, atol=1e-5)


def test_only_the_first_convolution_of_the_first_version_sees_all_channels():
    model = families.trained("shufflev1")
    names = models.tap_names(model)
    assert "stage1_block1_shuffle" not in names
    assert "stage2_block1_shuffle" in names
    assert model.get_layer("stage1_block1_conv1").kernel.shape == (1, 1, 24, 54)
    assert model.get_layer("stage1_block1_conv3").kernel.shape == (1, 1, 18, 216)
    assert model.get_layer("stage2_block1_conv1").kernel.shape == (1, 1, 80, 60)


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_a_stage_of_the_first_version_is_the_relu_of_its_pre_tap(stage):
    found = taps_of("shufflev1", [f"stage{stage}", f"stage{stage}_pre"])
    assert found[f"stage{stage}_pre"].min() < 0
    np.testing.assert_array_equal(found[f"stage{stage}"], np.maximum(found[f"stage{stage}_pre"], 0))


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_a_stage_of_the_second_version_is_its_pre_tap_after_relu_and_shuffle(stage):
    unit = {1: 4, 2: 8, 3: 4}[stage]
    kept = f"stage{stage}_block{unit - 1}_shuffle"
    names = [f"stage{stage}", f"stage{stage}_pre", kept, f"stage{stage}_block{unit}_bn3"]
    found = taps_of("shufflev2", names)
    half = found[kept][..., : found[kept].shape[-1] // 2]
    before = np.concatenate([half, found[f"stage{stage}_block{unit}_bn3"]], -1)
    np.testing.assert_array_equal(found[f"stage{stage}_pre"], before)
    # The half that passed is not touched by a ReLU, in the paper.
    after = np.concatenate([half, np.maximum(found[f"stage{stage}_block{unit}_bn3"], 0)], -1)
    np.testing.assert_array_equal(found[f"stage{stage}"], shuffled(after, 2))


def test_a_unit_of_the_second_version_works_on_the_second_half():
    names = ["stage1_block1_shuffle", "stage1_block2_conv1", "stage1_block2_bn3"]
    names += ["stage1_block2_shuffle"]
    found = taps_of("shufflev2", names)
    kernel = families.trained("shufflev2").get_layer("stage1_block2_conv1").kernel.numpy()[0, 0]
    kept, worked = np.split(found["stage1_block1_shuffle"], 2, -1)
    np.testing.assert_allclose(found["stage1_block2_conv1"], worked @ kernel, rtol=1e-4, atol=1e-4)
    after = np.concatenate([kept, np.maximum(found["stage1_block2_bn3"], 0)], -1)
    np.testing.assert_array_equal(found["stage1_block2_shuffle"], shuffled(after, 2))


def test_the_halving_unit_of_the_second_version_has_its_left_branch_first():
    names = ["stage1_block1_relu2", "stage1_block1_relu5", "stage1_block1_shuffle"]
    found = taps_of("shufflev2", names)
    both = np.concatenate([found[names[0]], found[names[1]]], -1)
    np.testing.assert_array_equal(found[names[2]], shuffled(both, 2))


@pytest.mark.parametrize(
    ("name", "layer", "inputs"),
    [
        ("shufflev1", "stage3_block2_conv1", 320),
        ("shufflev1", "stage3_block2_conv2", 9),
        ("shufflev2", "final_conv", 464),
        ("shufflev2", "stage3_block2_conv2", 9),
    ],
)
def test_convolutions_start_as_torch_leaves_them(name, layer, inputs):
    values = families.trained(name).get_layer(layer).kernel.numpy()
    bound = 1 / np.sqrt(inputs)
    assert np.abs(values).max() == pytest.approx(bound, rel=0.01)
    assert values.std() == pytest.approx(bound / np.sqrt(3), rel=0.05)
