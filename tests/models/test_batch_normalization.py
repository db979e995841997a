"""The batch normalization layer on one device, against the textbook form in NumPy."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfkd.errors import TfkdError
from tfkd.models import BatchNormalization

SHAPES = [(6, 5), (4, 3, 5), (4, 3, 2, 5), (3, 2, 2, 3, 5)]
GAMMA = np.array([0.5, -1.0, 2.0, 1.5, 0.1])
BETA = np.array([1.0, 0.0, -2.0, 0.3, 0.2])


def batch(shape, seed=0):
    return np.random.default_rng(seed).normal(2.0, 3.0, shape).astype(np.float32)


def with_parameters(layer, shape):
    layer.build(shape)
    layer.gamma.assign(GAMMA)
    layer.beta.assign(BETA)
    return layer


def textbook(inputs, epsilon=1e-5):
    """Normalized inputs, mean and unbiased variance over all axes but the last, in float64."""
    rows = inputs.astype(np.float64).reshape(-1, inputs.shape[-1])
    normalized = (rows - rows.mean(0)) / np.sqrt(rows.var(0) + epsilon)
    return normalized.reshape(inputs.shape), rows.mean(0), rows.var(0, ddof=1)


@pytest.mark.parametrize("shape", SHAPES)
def test_training_normalizes_by_the_batch(shape):
    inputs = batch(shape)
    layer = with_parameters(BatchNormalization(), shape)
    outputs = layer(inputs, training=True)
    normalized, _, _ = textbook(inputs)
    assert outputs.shape == shape
    np.testing.assert_allclose(outputs, GAMMA * normalized + BETA, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_moving_statistics_follow_with_the_unbiased_variance(shape):
    layer = BatchNormalization(momentum=0.8)
    mean, variance = np.zeros(5), np.ones(5)
    for seed in range(3):
        inputs = batch(shape, seed)
        layer(inputs, training=True)
        _, batch_mean, batch_variance = textbook(inputs)
        mean = 0.8 * mean + 0.2 * batch_mean
        variance = 0.8 * variance + 0.2 * batch_variance
    np.testing.assert_allclose(layer.moving_mean, mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(layer.moving_variance, variance, rtol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_gradients_are_the_textbook_ones(shape):
    inputs, weights = batch(shape), batch(shape, seed=1)
    layer = with_parameters(BatchNormalization(), shape)
    source = tf.constant(inputs)
    with tf.GradientTape() as tape:
        tape.watch(source)
        loss = tf.reduce_sum(layer(source, training=True) * weights)
    found = tape.gradient(loss, [source, *layer.trainable_variables])
    normalized, _, _ = textbook(inputs)
    rows, upstream = normalized.reshape(-1, 5), weights.astype(np.float64).reshape(-1, 5)
    deviation = np.sqrt(inputs.astype(np.float64).reshape(-1, 5).var(0) + 1e-5)
    to_inputs = (upstream - upstream.mean(0) - rows * (upstream * rows).mean(0)) * GAMMA / deviation
    expected = [to_inputs.reshape(shape), (upstream * rows).sum(0), upstream.sum(0)]
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4)


def test_float64_inputs_are_computed_in_float64():
    inputs = np.random.default_rng(0).normal(size=(4, 3, 3, 5))
    layer = BatchNormalization(dtype="float64")
    outputs = layer(inputs, training=True)
    normalized, mean, variance = textbook(inputs)
    np.testing.assert_allclose(outputs, normalized, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(layer.moving_mean, 0.1 * mean, rtol=1e-10)
    np.testing.assert_allclose(layer.moving_variance, 0.9 + 0.1 * variance, rtol=1e-10)
    expected = (inputs - 0.1 * mean) / np.sqrt(0.9 + 0.1 * variance + 1e-5)
    np.testing.assert_allclose(layer(inputs, training=False), expected, rtol=1e-10, atol=1e-12)


def test_float64_gradients_agree_with_finite_differences():
    inputs = np.random.default_rng(0).normal(size=(4, 2, 2, 3))
    weights = np.random.default_rng(1).normal(size=(4, 2, 2, 3))
    layer = BatchNormalization(dtype="float64")
    source = tf.constant(inputs)
    with tf.GradientTape() as tape:
        tape.watch(source)
        loss = tf.reduce_sum(layer(source, training=True) ** 2 * weights)
    gradient = tape.gradient(loss, source).numpy()

    def value(at):
        return (textbook(at)[0] ** 2 * weights).sum()

    for index in [(0, 0, 0, 0), (1, 1, 0, 2), (3, 0, 1, 1)]:
        step = np.zeros_like(inputs)
        step[index] = 1e-5
        difference = (value(inputs + step) - value(inputs - step)) / 2e-5
        assert gradient[index] == pytest.approx(difference, rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("epsilon", [1e-7, 1e-5, 1e-2])
def test_epsilon_is_taken_as_given(epsilon):
    # A variance near epsilon shows it; TensorFlow's own wrapper would raise the least to 1.001e-5.
    inputs = batch((8, 4, 4, 5)) * np.float32(1e-3)
    outputs = BatchNormalization(epsilon=epsilon)(inputs, training=True)
    np.testing.assert_allclose(outputs, textbook(inputs, epsilon)[0], rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("shape", SHAPES)
def test_inference_uses_the_moving_statistics_and_leaves_them(shape):
    layer = with_parameters(BatchNormalization(), shape)
    mean, variance = np.arange(5.0), np.arange(1.0, 6.0)
    layer.moving_mean.assign(mean)
    layer.moving_variance.assign(variance)
    inputs = batch(shape)
    expected = GAMMA * (inputs - mean) / np.sqrt(variance + 1e-5) + BETA
    for keywords in ({}, {"training": False}):
        np.testing.assert_allclose(layer(inputs, **keywords), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(layer.moving_mean, mean.astype(np.float32))
    np.testing.assert_array_equal(layer.moving_variance, variance.astype(np.float32))


def test_a_frozen_layer_runs_in_inference_mode_even_in_training():
    inputs = batch((4, 3, 3, 5))
    layer = BatchNormalization()
    expected = layer(inputs, training=False)
    layer.trainable = False
    np.testing.assert_array_equal(layer(inputs, training=True), expected)
    np.testing.assert_array_equal(layer.moving_mean, np.zeros(5))


def test_without_scale_and_center_there_is_only_normalization():
    inputs = batch((4, 3, 3, 5))
    layer = BatchNormalization(center=False, scale=False)
    outputs = layer(inputs, training=True)
    assert len(layer.trainable_variables) == 0
    np.testing.assert_allclose(outputs, textbook(inputs)[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("dtype", "tolerance"), [("bfloat16", 0.02), ("float16", 0.003)])
@pytest.mark.parametrize("shape", [(6, 5), (4, 3, 3, 5)])
def test_half_precision_inputs_have_float32_statistics(dtype, tolerance, shape):
    inputs = tf.cast(batch(shape), dtype)
    layer = BatchNormalization(dtype=f"mixed_{dtype}")
    outputs = layer(inputs, training=True)
    normalized, mean, _ = textbook(tf.cast(inputs, tf.float32).numpy())
    assert outputs.dtype == dtype
    assert layer.moving_mean.dtype == "float32"
    np.testing.assert_allclose(layer.moving_mean, 0.1 * mean, rtol=1e-4)
    np.testing.assert_allclose(tf.cast(outputs, tf.float32), normalized, atol=3 * tolerance)
    assert layer(inputs, training=False).dtype == dtype


def test_a_function_computes_what_eager_mode_computes():
    inputs = batch((4, 3, 3, 5))
    eager, traced = BatchNormalization(), BatchNormalization()
    traced.build(inputs.shape)
    function = tf.function(lambda images: traced(images, training=True))
    np.testing.assert_allclose(function(inputs), eager(inputs, training=True), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(traced.moving_mean, eager.moving_mean, rtol=1e-6)


def test_batch_normalization_compiles_with_xla():
    inputs = batch((4, 3, 3, 5))
    eager, compiled = BatchNormalization(), BatchNormalization()
    compiled.build(inputs.shape)
    function = tf.function(lambda images: compiled(images, training=True), jit_compile=True)
    np.testing.assert_allclose(function(inputs), eager(inputs, training=True), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(compiled.moving_variance, eager.moving_variance, rtol=1e-5)


def test_second_derivatives_agree_between_the_fused_and_the_composed_form():
    inputs, weights = batch((4, 3, 3, 5)), batch((4, 3, 3, 5), seed=1)
    found = []
    for dtype in ("float32", "float64"):
        layer = BatchNormalization(dtype=dtype)
        source = tf.constant(inputs, dtype)
        with tf.GradientTape() as outer:
            outer.watch(source)
            with tf.GradientTape() as inner:
                inner.watch(source)
                loss = tf.reduce_sum(layer(source, training=True) ** 3 * weights)
            norm = tf.reduce_sum(inner.gradient(loss, source) ** 2)
        found.append(outer.gradient(norm, source).numpy())
    np.testing.assert_allclose(*found, rtol=1e-3, atol=1e-3 * np.abs(found[1]).max())


def test_the_configuration_makes_an_equal_layer():
    layer = BatchNormalization(
        momentum=0.7, epsilon=3e-4, synchronized=False, scale=False, name="n"
    )
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert type(again) is BatchNormalization
    assert again.get_config() == layer.get_config()
    assert (again.momentum, again.epsilon, again.synchronized) == (0.7, 3e-4, False)


def test_unsupported_settings_of_batch_normalization_are_refused():
    with pytest.raises(TfkdError, match="found axis=1 .* wanted the last axis"):
        BatchNormalization(axis=1)(batch((4, 3, 3, 5)))
    with pytest.raises(TfkdError, match="found renorm=True"):
        BatchNormalization(renorm=True)
    with pytest.raises(TfkdError, match="found a mask"):
        BatchNormalization()(batch((4, 3, 5)), mask=np.ones((4, 3), bool))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_batch_that_is_not_finite_leaves_the_moving_statistics(dtype):
    layer = BatchNormalization(dtype=dtype)
    good = np.random.default_rng(0).normal(size=(4, 3, 3, 2)).astype(dtype)
    layer(good, training=True)
    kept = [layer.moving_mean.numpy(), layer.moving_variance.numpy()]
    bad = good.copy()
    bad[0, 0, 0] = np.nan
    assert np.isnan(layer(bad, training=True)).any(), "the outputs tell"
    np.testing.assert_array_equal(layer.moving_mean, kept[0])
    np.testing.assert_array_equal(layer.moving_variance, kept[1])
