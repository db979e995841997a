"""Distances between class distributions against plain NumPy in float64."""

import numpy as np
import pytest
import tensorflow as tf

from tfkd.core import divergences

RANDOM = np.random.default_rng(0)
LOGITS = RANDOM.normal(scale=3, size=(6, 5))
OTHER = RANDOM.normal(scale=3, size=(6, 5))
LABELS = RANDOM.integers(0, 5, 6)


def softmax(logits):
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("dtype", ["uint8", "int32", "int64", "float32"])
@pytest.mark.parametrize("shape", [(6,), (6, 1)])
def test_cross_entropy_of_class_numbers(dtype, shape):
    expected = -np.log(softmax(LOGITS)[np.arange(6), LABELS])
    labels = LABELS.astype(dtype).reshape(shape)
    np.testing.assert_allclose(divergences.cross_entropy(labels, LOGITS), expected, rtol=1e-9)


def test_cross_entropy_of_distributions():
    target = softmax(OTHER)
    expected = -(target * np.log(softmax(LOGITS))).sum(axis=1)
    np.testing.assert_allclose(divergences.cross_entropy(target, LOGITS), expected, rtol=1e-9)
    np.testing.assert_allclose(divergences.soft_cross_entropy(target, LOGITS), expected, rtol=1e-9)
    one_hot = np.eye(5)[LABELS]
    np.testing.assert_allclose(
        divergences.cross_entropy(one_hot, LOGITS),
        divergences.cross_entropy(LABELS, LOGITS),
        rtol=1e-9,
    )


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_kl_divergence(temperature):
    q, p = softmax(OTHER / temperature), softmax(LOGITS / temperature)
    expected = temperature**2 * (q * np.log(q / p)).sum(axis=1)
    found = divergences.kl_divergence(OTHER, LOGITS, temperature)
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_kl_is_cross_entropy_less_the_entropy_of_the_target():
    target = softmax(OTHER)
    entropy = -(target * np.log(target)).sum(axis=1)
    found = divergences.kl_divergence(OTHER, LOGITS)
    expected = divergences.soft_cross_entropy(target, LOGITS) - entropy
    np.testing.assert_allclose(found, expected, rtol=1e-9)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_mean_of_probabilities(count):
    several = RANDOM.normal(scale=3, size=(count, 6, 5))
    joint = divergences.mean_of_probabilities(list(several))
    expected = np.mean([softmax(each) for each in several], axis=0)
    np.testing.assert_allclose(tf.nn.softmax(joint), expected, rtol=1e-9)
    np.testing.assert_allclose(tf.exp(joint), expected, rtol=1e-9)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_computed_in_float32(dtype):
    logits = tf.constant([[1e4, -1e4, 0.0]], dtype)
    for value in (
        divergences.cross_entropy([1], logits),
        divergences.soft_cross_entropy([[0.5, 0.5, 0.0]], logits),
        divergences.kl_divergence(-logits, logits),
        divergences.mean_of_probabilities([logits, -logits]),
    ):
        assert value.dtype == tf.float32
        assert np.isfinite(value).all()
