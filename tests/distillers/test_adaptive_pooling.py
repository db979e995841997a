"""Adaptive average pooling against the published numbers and a loop over its bins."""

import json
import math
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfkd.distillers.shared.adaptive_pooling import adaptive_average_pool, to_common_size
from tfkd.errors import TfkdError

ORACLE = json.loads((Path(__file__).parents[1] / "fixtures/oracles_features.json").read_text())[
    "reviewkd"
]["adaptive_pool"]
SIZES = [
    ((8, 8), (4, 4)),
    ((8, 8), (1, 1)),
    ((9, 4), (3, 2)),
    ((7, 7), (4, 4)),
    ((7, 8), (3, 4)),
    ((10, 6), (7, 6)),
    ((5, 3), (4, 2)),
    ((2, 3), (4, 7)),
    ((1, 1), (3, 2)),
    ((6, 2), (4, 5)),
]
EVERY_SIZE = pytest.mark.parametrize(("inputs", "outputs"), SIZES)


def bins(inputs, outputs):
    """First and last input, not included, of each output along an axis."""
    return [
        (math.floor(each * inputs / outputs), math.ceil((each + 1) * inputs / outputs))
        for each in range(outputs)
    ]


def by_loop(maps, size):
    """The mean of every bin, one at a time."""
    rows, columns = (bins(*pair) for pair in zip(maps.shape[1:3], size))
    return np.stack(
        [
            np.stack([maps[:, a:b, c:d].mean(axis=(1, 2)) for c, d in columns], axis=1)
            for a, b in rows
        ],
        axis=1,
    )


def random_maps(size, dtype="float64"):
    return tf.constant(np.random.default_rng(0).normal(size=(2, *size, 3)), dtype)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_published_numbers(dtype):
    size = ORACLE["inputs"]["size"]
    found = adaptive_average_pool(tf.constant(ORACLE["inputs"]["x"], dtype), (size, size))
    np.testing.assert_allclose(found, ORACLE["expected"]["y"], rtol=1e-6)


@EVERY_SIZE
def test_every_bin_is_a_mean(inputs, outputs):
    maps = random_maps(inputs)
    found = adaptive_average_pool(maps, outputs)
    assert found.shape == (2, *outputs, 3)
    np.testing.assert_allclose(found, by_loop(maps.numpy(), outputs), rtol=0, atol=1e-12)


@EVERY_SIZE
def test_gradient_spreads_a_mean_over_its_bin(inputs, outputs):
    maps = random_maps(inputs)
    weights = np.random.default_rng(1).normal(size=(2, *outputs, 3))
    with tf.GradientTape() as tape:
        tape.watch(maps)
        total = tf.reduce_sum(weights * adaptive_average_pool(maps, outputs))
    wanted = np.zeros(maps.shape)
    for i, (a, b) in enumerate(bins(inputs[0], outputs[0])):
        for j, (c, d) in enumerate(bins(inputs[1], outputs[1])):
            share = weights[:, i, j] / ((b - a) * (d - c))
            wanted[:, a:b, c:d] += share[:, None, None]
    np.testing.assert_allclose(tape.gradient(total, maps), wanted, rtol=0, atol=1e-12)


def test_maps_of_the_size_stay_as_they_are():
    maps = random_maps((3, 5))
    assert adaptive_average_pool(maps, (3, 5)) is maps


@pytest.mark.parametrize("outputs", [(4, 4), (3, 3)], ids=["divides", "overlaps"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_type_of_the_maps_is_kept(dtype, outputs):
    maps = random_maps((8, 8), dtype)
    found = adaptive_average_pool(maps, outputs)
    assert found.dtype == maps.dtype
    exact = adaptive_average_pool(tf.cast(maps, tf.float64), outputs)
    np.testing.assert_allclose(tf.cast(found, tf.float64), exact, atol=0.02)


@pytest.mark.parametrize("outputs", [(4, 4), (3, 5)])
def test_shape_is_known_for_batches_of_any_size(outputs):
    seen = []

    @tf.function(input_signature=[tf.TensorSpec((None, 8, 8, 2))])
    def pool(maps):
        found = adaptive_average_pool(maps, outputs)
        seen.append(tuple(found.shape))
        return found

    assert pool(tf.ones((3, 8, 8, 2))).shape == (3, *outputs, 2)
    assert seen == [(None, *outputs, 2)]


def test_common_size_is_the_smaller_one_along_each_axis():
    tall, wide = random_maps((8, 3)), random_maps((4, 6))
    first, second = to_common_size(tall, wide)
    np.testing.assert_array_equal(first, adaptive_average_pool(tall, (4, 3)))
    np.testing.assert_array_equal(second, adaptive_average_pool(wide, (4, 3)))


def test_unknown_size_is_refused():
    maps = keras.Input((None, 8, 2))
    with pytest.raises(TfkdError, match=r"shape \(None, None, 8, 2\), wanted a known height and"):
        adaptive_average_pool(maps, (2, 2))
