"""The kernels of PKKD against the published form's numbers, and their bounds."""

import math

import numpy as np
import pytest
import tensorflow as tf

from tfkd.distillers.pkkd.kernels import (
    HIGHEST,
    LOWEST,
    kernel_response,
    root_mean_square,
    standardized_channels,
)

ADDER, CONVOLUTION = np.array([-4.0, -2.0, 0.0]), np.array([-1.0, 0.5, 2.0])


@pytest.mark.parametrize("dtype, tolerance", [("float64", 1e-6), ("float32", 1e-6)])
def test_published_numbers(dtype, tolerance):
    """Oracle C: values, loss and gradients at sigma^2 = 2, computed apart from tfkd in float64."""
    adder, sigma_squared = tf.constant(ADDER, dtype), tf.constant(2.0, dtype)
    with tf.GradientTape() as tape:
        tape.watch([adder, sigma_squared])
        log_tau = tf.math.log(2.0 * sigma_squared)
        student = kernel_response(adder, log_tau)
        teacher = kernel_response(
            tf.constant(CONVOLUTION, dtype), tf.constant(math.log(4.0), dtype)
        )
        loss = tf.reduce_mean(tf.math.squared_difference(student, teacher))
    gradients = tape.gradient(loss, [adder, sigma_squared])
    near = {"rtol": 0, "atol": tolerance}
    np.testing.assert_allclose(student, [0.367879, 0.606531, 1.0], **near)
    np.testing.assert_allclose(teacher, [0.778801, 1.133148, 1.648721], **near)
    np.testing.assert_allclose(loss, 0.289007, **near)
    np.testing.assert_allclose(gradients[0], [-0.025195, -0.053235, -0.108120], **near)
    np.testing.assert_allclose(gradients[1], -0.103625, **near)


def test_gradient_of_the_scale_is_that_of_finite_differences():
    def total(log_tau):
        return tf.reduce_sum(kernel_response(ADDER, tf.constant(log_tau, tf.float64)) ** 2)

    log_tau = tf.constant(0.7, tf.float64)
    with tf.GradientTape() as tape:
        tape.watch(log_tau)
        value = tf.reduce_sum(kernel_response(ADDER, log_tau) ** 2)
    difference = (total(0.7 + 1e-6) - total(0.7 - 1e-6)) / 2e-6
    np.testing.assert_allclose(tape.gradient(value, log_tau), difference, rtol=1e-6)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_extreme_outputs_stay_finite_and_without_gradient(dtype):
    outputs = tf.constant([-6e4, -100.0, 100.0, 6e4], dtype)
    with tf.GradientTape() as tape:
        tape.watch(outputs)
        found = kernel_response(outputs, tf.constant(0.0))
    assert found.dtype == tf.float32
    np.testing.assert_allclose(found, np.exp([LOWEST, LOWEST, HIGHEST, HIGHEST]), rtol=1e-6)
    np.testing.assert_array_equal(tf.cast(tape.gradient(found, outputs), tf.float32), np.zeros(4))


def test_half_precision_is_left_before_the_exponential():
    outputs = tf.constant(np.linspace(-300, -200, 50), tf.bfloat16)
    found = kernel_response(outputs, tf.constant(math.log(144.0)))
    wanted = np.exp(outputs.numpy().astype("float64") / 144.0)
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_size_of_outputs():
    features = np.random.default_rng(0).normal(1.0, 2.0, (6, 4, 3, 2))
    found = root_mean_square(tf.constant(features))
    np.testing.assert_allclose(found, np.sqrt(np.mean(features**2)), rtol=1e-12)
    chosen = root_mean_square(tf.constant(features), tf.constant([1, 1, 0, 0, 0, 0]))
    np.testing.assert_allclose(chosen, np.sqrt(np.mean(features[:2] ** 2)), rtol=1e-12)
    assert np.isfinite(np.log(root_mean_square(tf.zeros((2, 2, 2, 1)))))


def test_channels_are_standardized():
    features = np.random.default_rng(0).normal(3.0, [1.0, 5.0], (6, 4, 3, 2))
    found = standardized_channels(tf.constant(features)).numpy()
    np.testing.assert_allclose(found.mean((0, 1, 2)), [0, 0], atol=1e-12)
    np.testing.assert_allclose(found.var((0, 1, 2)), [1, 1], rtol=1e-4)
    chosen = standardized_channels(tf.constant(features), tf.constant([1, 1, 1, 0, 0, 0]))
    np.testing.assert_allclose(chosen[:3], standardized_channels(tf.constant(features[:3])))
    constant = standardized_channels(tf.ones((2, 2, 2, 1)))
    np.testing.assert_array_equal(constant, np.zeros((2, 2, 2, 1)))
