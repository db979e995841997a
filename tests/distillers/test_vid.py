"""VID: the loss by hand, the variances that it learns, and its regressors."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.distillers.contexts import context_of
from tests.distillers.pair_features import check_every_pair, random_features, set_up
from tfkd.distillers.shared.adaptive_pooling import adaptive_average_pool
from tfkd.distillers.vid import VID, log_scale_of, vid_loss
from tfkd.errors import TfkdError

SHAPES = {"stage1": (None, 4, 4, 3), "stage2": (None, 4, 4, 4)}
WIDER = {"stage1": (None, 8, 8, 5), "stage2": (None, 2, 2, 6)}
LABELS = np.array([0, 1])


def maps(seed, *size):
    return tf.constant(np.random.default_rng(seed).normal(size=(2, *size)))


def test_loss_is_half_of_the_scaled_square_and_the_logarithm():
    mean, target, scale = maps(1, 3, 2, 4), maps(2, 3, 2, 4), maps(3, 2)[0] * 3
    scale = tf.concat([scale, -scale], axis=0)
    variance = np.log(1 + np.exp(scale)) + 1e-5
    wanted = []
    for row in range(2):
        values = [
            ((mean[row, i, j, c] - target[row, i, j, c]) ** 2 / variance[c] + np.log(variance[c]))
            / 2
            for i in range(3)
            for j in range(2)
            for c in range(4)
        ]
        wanted.append(np.mean(values))
    np.testing.assert_allclose(vid_loss(mean, target, scale), wanted, rtol=1e-9)


@pytest.mark.parametrize("variance", [2e-5, 0.01, 1.0, 5.0, 1000.0])
def test_start_of_a_variance(variance):
    scale = tf.constant([log_scale_of(variance)], tf.float64)
    zeros = tf.zeros((1, 1, 1, 1), tf.float64)
    found = vid_loss(zeros, zeros, scale)
    np.testing.assert_allclose(found, [np.log(variance) / 2], rtol=1e-9, atol=1e-12)


def test_best_variance_of_a_channel_is_its_mean_squared_error():
    mean, target = maps(1, 3, 3, 4), maps(2, 3, 3, 4)
    errors = np.mean((mean - target) ** 2, axis=(0, 1, 2))
    scale = tf.constant([log_scale_of(each) for each in errors])
    with tf.GradientTape() as tape:
        tape.watch(scale)
        loss = tf.reduce_mean(vid_loss(mean, target, scale))
    np.testing.assert_allclose(tape.gradient(loss, scale), np.zeros(4), atol=1e-12)


def test_gradient_to_what_is_predicted():
    mean, target = maps(1, 3, 3, 4), maps(2, 3, 3, 4)
    scale = tf.constant([log_scale_of(each) for each in (0.1, 1.0, 2.0, 5.0)], tf.float64)
    with tf.GradientTape() as tape:
        tape.watch(mean)
        loss = tf.reduce_sum(vid_loss(mean, target, scale))
    wanted = (mean - target) / [0.1, 1.0, 2.0, 5.0] / (3 * 3 * 4)
    np.testing.assert_allclose(tape.gradient(loss, mean), wanted, rtol=1e-9)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_maps_of_half_precision_are_compared_in_float32(dtype):
    mean, target = (tf.cast(maps(seed, 4, 4, 3), dtype) for seed in (1, 2))
    scale = tf.constant([-3.0, 0.0, 3.0])
    found = vid_loss(mean, target, scale)
    exact = vid_loss(*(tf.cast(each, tf.float64) for each in (mean, target, scale)))
    assert found.dtype == tf.float32
    np.testing.assert_allclose(found, exact, rtol=1e-5)


def test_regressors_and_variances_of_each_stage():
    objective = set_up(VID(initial_variance=2.0), SHAPES, WIDER)
    widths = [(3, 5), (4, 6)]
    for (inputs, channels), regressor, scale in zip(
        widths, objective.regressors, objective.log_scales, strict=True
    ):
        kernels = [tuple(each.shape) for each in regressor.trainable_variables]
        middle = (1, 1, channels, channels)
        assert kernels == [(1, 1, inputs, channels), middle, middle]
        variances = np.log(1 + np.exp(np.asarray(scale))) + 1e-5
        np.testing.assert_allclose(variances, np.full(channels, 2.0), rtol=1e-6)
    assert len(objective.trainable_variables) == 8 and not objective.non_trainable_variables
    starts = [np.asarray(each).ravel() for each in objective.regressors[0].trainable_variables]
    # Uniform as torch starts, and each from a seed of its own.
    assert all(np.abs(each).max() <= n**-0.5 for n, each in zip((3, 5, 5), starts))
    assert np.all(starts[1] != starts[2])


def test_term_is_the_sum_over_stages_of_weighted_means():
    objective = set_up(VID(), SHAPES, WIDER)
    own, theirs = random_features(SHAPES, 1), random_features(WIDER, 2)
    weights = np.array([0.5, 2.0], "float32")
    context = context_of({"student": own, "teacher": theirs}, LABELS, sample_weight=weights)
    wanted = 0.0
    for number, tap in enumerate(("stage1", "stage2")):
        # The teacher's first stage is larger, the student's second.
        size = (4, 4) if number == 0 else (2, 2)
        hidden = adaptive_average_pool(own[tap], size).numpy()
        target = adaptive_average_pool(theirs[tap], size)
        kernels = [each.numpy()[0, 0] for each in objective.regressors[number].trainable_variables]
        hidden = np.maximum(np.maximum(hidden @ kernels[0], 0) @ kernels[1], 0) @ kernels[2]
        loss = vid_loss(hidden, target, objective.log_scales[number].value)
        wanted += np.mean(weights * loss.numpy())
    np.testing.assert_allclose(objective.compute(context), wanted, rtol=1e-5)


def test_stages_of_every_pair_are_compared():
    check_every_pair(VID)


def test_variances_are_float32_where_regressors_are_not():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        objective = set_up(VID(), SHAPES, WIDER)
        own, theirs = (random_features(each, 1, "bfloat16") for each in (SHAPES, WIDER))
        loss = objective.compute(context_of({"student": own, "teacher": theirs}, LABELS))
    finally:
        keras.config.set_dtype_policy("float32")
    assert objective.regressors[0].compute_dtype == "bfloat16"
    assert loss.dtype == tf.float32 and np.isfinite(loss)
    assert {each.dtype for each in objective.variables} == {"float32"}


def test_features_that_cannot_be_compared_are_refused():
    shapes = {**SHAPES, "stage2": (None, 4)}
    with pytest.raises(TfkdError, match="vid: found student tap 'stage2' of shape 4, wanted a fea"):
        set_up(VID(), shapes, WIDER)
