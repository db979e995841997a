"""Batch normalization under two replicas against the same batch on one device."""

import numpy as np
import pytest
import tensorflow as tf

from tfkd import models
from tfkd.models import BatchNormalization

SHAPE = (8, 3, 3, 4)
INPUTS = np.random.default_rng(0).normal(1.0, 2.0, SHAPE).astype(np.float32)
# The two halves differ in mean and spread, so that local statistics are far from the batch's.
INPUTS[4:] = INPUTS[4:] * 3 + 2
WEIGHTS = np.random.default_rng(1).normal(size=SHAPE).astype(np.float32)


def step(layer, inputs, weights, training=True):
    """Outputs and the gradients of sum(outputs * weights) to inputs, gamma and beta."""
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        outputs = layer(inputs, training=training)
        loss = tf.reduce_sum(tf.cast(outputs, tf.float32) * weights)
    return outputs, *tape.gradient(loss, [inputs, layer.gamma.value, layer.beta.value])


def on_one(layer, inputs=INPUTS, weights=WEIGHTS):
    return [each.numpy() for each in step(layer, tf.constant(inputs), tf.constant(weights))]


def on_two(strategy, layer, inputs=INPUTS, weights=WEIGHTS, sizes=(4, 4), training=True):
    """The same with the rows split over the replicas; gradients of parameters are summed."""

    def part(whole):
        parts = tf.split(tf.constant(whole), sizes)
        return strategy.experimental_distribute_values_from_function(
            lambda context: parts[context.replica_id_in_sync_group]
        )

    @tf.function
    def run(inputs, weights):
        return strategy.run(step, args=(layer, inputs, weights, training))

    results = run(part(inputs), part(weights))
    results = [strategy.experimental_local_results(each) for each in results]
    outputs, to_inputs, to_gamma, to_beta = results
    return [
        tf.concat(outputs, 0).numpy(),
        tf.concat(to_inputs, 0).numpy(),
        sum(to_gamma).numpy(),
        sum(to_beta).numpy(),
    ]


def built(strategy, shape=SHAPE, **settings):
    with strategy.scope():
        layer = BatchNormalization(**settings)
        layer.build(shape)
        layer.gamma.assign([0.5, -1.0, 2.0, 1.5])
        layer.beta.assign([1.0, 0.0, -2.0, 0.3])
    return layer


def replicas_of(strategy, variable):
    return [each.numpy() for each in strategy.experimental_local_results(variable.value)]


@pytest.mark.parametrize("sizes", [(4, 4), (6, 2)])
@pytest.mark.parametrize("shape", [SHAPE, (8, 4)])
def test_two_replicas_compute_what_one_does(two_replicas, sizes, shape):
    inputs, weights = INPUTS, WEIGHTS
    if len(shape) == 2:
        inputs, weights = INPUTS[:, 0, 0], WEIGHTS[:, 0, 0]
    one = built(tf.distribute.get_strategy(), shape)
    two = built(two_replicas, shape)
    expected = on_one(one, inputs, weights)
    found = on_two(two_replicas, two, inputs, weights, sizes)
    for alone, shared in zip(expected, found, strict=True):
        np.testing.assert_allclose(shared, alone, rtol=1e-4, atol=2e-5)
    for name in ("moving_mean", "moving_variance"):
        for replica in replicas_of(two_replicas, getattr(two, name)):
            np.testing.assert_allclose(replica, getattr(one, name), rtol=1e-5, atol=1e-6)


def test_local_statistics_normalize_each_half_and_average_what_moves(two_replicas):
    layer = built(two_replicas, synchronized=False)
    outputs, *_ = on_two(two_replicas, layer)
    halves = [built(tf.distribute.get_strategy()) for _ in range(2)]
    expected = [
        on_one(half, inputs, weights)[0]
        for half, inputs, weights in zip(
            halves, np.split(INPUTS, 2), np.split(WEIGHTS, 2), strict=True
        )
    ]
    np.testing.assert_allclose(outputs, np.concatenate(expected), rtol=1e-4, atol=1e-5)
    for name in ("moving_mean", "moving_variance"):
        mean = sum(getattr(half, name).numpy() for half in halves) / 2
        for replica in replicas_of(two_replicas, getattr(layer, name)):
            np.testing.assert_allclose(replica, mean, rtol=1e-5, atol=1e-6)


def test_a_large_mean_does_not_spoil_the_shared_variance(two_replicas):
    inputs = INPUTS / 10 + np.float32(1000)
    layer = built(two_replicas)
    layer.moving_mean.assign(np.full(4, 1000.0))
    outputs, *_ = on_two(two_replicas, layer, inputs)
    rows = inputs.astype(np.float64).reshape(-1, 4)
    normalized = (rows - rows.mean(0)) / np.sqrt(rows.var(0) + 1e-5)
    expected = layer.gamma.numpy() * normalized + layer.beta.numpy()
    np.testing.assert_allclose(outputs.reshape(-1, 4), expected, rtol=1e-3, atol=1e-3)


def test_inference_and_frozen_layers_leave_the_statistics(two_replicas):
    layer = built(two_replicas)
    outputs, *_ = on_two(two_replicas, layer, training=False)
    expected = built(tf.distribute.get_strategy())(INPUTS, training=False)
    np.testing.assert_allclose(outputs, expected, rtol=1e-5, atol=1e-5)
    layer.trainable = False
    outputs, *_ = on_two(two_replicas, layer)
    np.testing.assert_allclose(outputs, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(layer.moving_mean.numpy(), np.zeros(4))


def test_half_precision_is_shared_too(two_replicas):
    inputs = INPUTS.astype(np.float16)
    one = built(tf.distribute.get_strategy(), dtype="mixed_float16")
    two = built(two_replicas, dtype="mixed_float16")
    expected, found = on_one(one, inputs)[0], on_two(two_replicas, two, inputs)[0]
    assert found.dtype == np.float16
    np.testing.assert_allclose(found, expected, atol=0.01)


def test_an_open_scope_outside_of_replicas_sees_one_whole_batch(two_replicas):
    layer = built(two_replicas)
    with two_replicas.scope():
        outputs = layer(INPUTS, training=True)
    one = built(tf.distribute.get_strategy())
    np.testing.assert_allclose(outputs, one(INPUTS, training=True), rtol=1e-5, atol=1e-5)
    for replica in replicas_of(two_replicas, layer.moving_variance):
        np.testing.assert_allclose(replica, one.moving_variance, rtol=1e-6)


def test_a_network_takes_the_same_step_on_one_and_two_replicas(two_replicas):
    images = np.random.default_rng(2).normal(size=(8, 8, 8, 3)).astype(np.float32)
    labels = np.arange(8) % 5

    def gradients(model, images, labels):
        with tf.GradientTape() as tape:
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(
                labels, model(images, training=True)
            )
            loss = tf.reduce_sum(losses) / 8
        return tape.gradient(loss, model.trainable_variables)

    one = models.create("resnet8", 5, (8, 8, 3))
    with two_replicas.scope():
        two = models.create("resnet8", 5, (8, 8, 3))
    two.set_weights(one.get_weights())
    expected = gradients(one, tf.constant(images), tf.constant(labels))

    def part(context, whole):
        return tf.split(tf.constant(whole), 2)[context.replica_id_in_sync_group]

    parts = [
        two_replicas.experimental_distribute_values_from_function(
            lambda context, whole=whole: part(context, whole)
        )
        for whole in (images, labels)
    ]
    run = tf.function(lambda *batch: two_replicas.run(gradients, args=(two, *batch)))
    for alone, shared in zip(expected, run(*parts), strict=True):
        total = sum(two_replicas.experimental_local_results(shared))
        np.testing.assert_allclose(total, alone, rtol=1e-3, atol=1e-4)
    for alone, shared in zip(one.weights, two.weights, strict=True):
        np.testing.assert_allclose(shared, alone, rtol=1e-4, atol=1e-5)


def test_means_much_larger_than_the_spread_lose_no_digits(two_replicas):
    """As behind adder layers, in the first step, when the moving mean is still 0."""
    inputs = (500.0 + INPUTS).astype(np.float32)
    layer = built(two_replicas)
    found = on_two(two_replicas, layer, inputs)
    wanted = on_one(built(tf.distribute.get_strategy()), inputs)
    for ours, theirs in zip(found, wanted):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5 * np.abs(theirs).max())
    rows = inputs.reshape(-1, 4).astype("float64")
    moved = 0.9 + 0.1 * rows.var(axis=0, ddof=1)
    np.testing.assert_allclose(layer.moving_variance, moved, rtol=1e-5)
    np.testing.assert_allclose(layer.moving_mean, 0.1 * rows.mean(axis=0), rtol=1e-6)
