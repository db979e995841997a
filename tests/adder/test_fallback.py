"""The fallback in stock operations against NumPy, at every stride, padding and size."""

import numpy as np
import pytest
import tensorflow as tf

from tests.adder.adder_oracles import CASES, IMAGE, KERNEL, reference
from tfkd.adder import fallback

SHAPES = {
    # batch, height, width, channels; kernel; filters; strides; padding
    "3x3": ((3, 5, 6, 2), (3, 3), 4, (1, 1), (1, 1, 1, 1)),
    "strided, uneven": ((2, 8, 7, 3), (3, 3), 2, (2, 2), (1, 1, 1, 1)),
    "strided, odd": ((2, 7, 9, 3), (3, 3), 2, (2, 2), (1, 1, 1, 1)),
    "1x1 strided": ((2, 5, 4, 3), (1, 1), 5, (2, 2), (0, 0, 0, 0)),
    "oblong everything": ((2, 6, 9, 1), (2, 3), 3, (3, 2), (1, 0, 2, 1)),
    "larger than the image": ((1, 3, 2, 2), (5, 7), 2, (1, 1), (2, 2, 3, 3)),
    "one value": ((1, 1, 1, 1), (1, 1), 1, (1, 1), (0, 0, 0, 0)),
}


@pytest.mark.parametrize("stride", CASES)
def test_published_form_values(stride):
    settings = (stride, stride), (1, 1, 1, 1)
    outputs = fallback.convolution(tf.constant(IMAGE), tf.constant(KERNEL), *settings)
    ones = tf.ones_like(outputs)
    case = CASES[stride]
    np.testing.assert_allclose(outputs[0, ..., 0], case["outputs"], atol=1e-12)
    raw = fallback.filter_gradient(tf.constant(IMAGE), tf.constant(KERNEL), ones, *settings)
    np.testing.assert_allclose(raw[..., 0, 0], case["raw"], atol=1e-12)
    assert np.linalg.norm(raw) == pytest.approx(case["norm"], abs=1e-6)
    for_x = fallback.input_gradient(tf.constant(IMAGE), tf.constant(KERNEL), ones, *settings)
    np.testing.assert_allclose(for_x[0, ..., 0], case["input"], atol=1e-12)


@pytest.mark.parametrize("limits", [(2**16, 2**20), (40, 50)], ids=["whole", "in small parts"])
@pytest.mark.parametrize("case", SHAPES)
def test_equals_the_sum_over_patches(case, limits, monkeypatch):
    shape, kernel, count, *settings = SHAPES[case]
    monkeypatch.setattr(fallback, "_GROUP_SIZE", limits[0])
    monkeypatch.setattr(fallback, "_BLOCK_SIZE", limits[1])
    random = np.random.default_rng(len(case))
    x = random.normal(size=shape)
    filters = random.normal(size=(*kernel, shape[-1], count))
    gradients = {}

    def gradient_of(outputs):
        return gradients.setdefault(0, random.normal(size=outputs))

    wanted = reference(x, filters, gradient_of, *settings)
    arguments = tf.constant(x), tf.constant(filters), tf.constant(gradients[0])
    # The undecorated functions, so that each case reads the limits that are set now.
    found = (
        fallback.convolution.python_function(*arguments[:2], *settings),
        fallback.input_gradient.python_function(*arguments, *settings),
        fallback.filter_gradient(*arguments, *settings),
    )
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-10)


@pytest.mark.parametrize("strides", [(1, 1), (2, 2)])
def test_filter_gradient_of_images_of_any_size(strides):
    random = np.random.default_rng(0)
    x, filters = random.normal(size=(2, 7, 6, 3)), random.normal(size=(3, 3, 3, 4))
    zeros = 1, 1, 1, 1
    gradients = {}

    def gradient_of(outputs):
        return gradients.setdefault(0, random.normal(size=outputs))

    *_, wanted = reference(x, filters, gradient_of, strides, zeros)
    any_size = tf.TensorSpec((None, None, None, 3), tf.float64)

    @tf.function(input_signature=[any_size, tf.TensorSpec((None, None, None, 4), tf.float64)])
    def found(images, gradient):
        return fallback.filter_gradient(images, tf.constant(filters), gradient, strides, zeros)

    np.testing.assert_allclose(found(x, gradients[0]), wanted, atol=1e-10)


def test_an_empty_batch_has_empty_outputs():
    x, filters = tf.zeros((0, 4, 4, 2)), tf.zeros((3, 3, 2, 5))
    settings = (1, 1), (1, 1, 1, 1)
    outputs = fallback.convolution(x, filters, *settings)
    assert outputs.shape == (0, 4, 4, 5)
    assert fallback.input_gradient(x, filters, outputs, *settings).shape == x.shape
    np.testing.assert_array_equal(fallback.filter_gradient(x, filters, outputs, *settings), filters)


def test_holds_a_small_part_of_the_differences_at_once(monkeypatch):
    sizes = []
    absolute = tf.abs

    def watched(value):
        sizes.append(int(tf.size(value)))
        return absolute(value)

    monkeypatch.setattr(tf, "abs", watched)
    x, filters = tf.random.normal((8, 16, 16, 16)), tf.random.normal((3, 3, 16, 32))
    fallback.convolution.python_function(x, filters, (1, 1), (1, 1, 1, 1))
    assert sum(sizes) == 8 * 16 * 16 * filters.shape.num_elements()
    assert max(sizes) <= 2**20
