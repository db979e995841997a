"""Applying gradients under replicas: clipping, loss scaling and the first bad step."""

import contextlib

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfkd
from tfkd.core.step.updates import apply_if, check_optimizer, gradients_are_finite

# What each of two replicas contributes to the gradient of two variables.
PARTS = [[[3.0, -1.0], [0.5]], [[1.0, 5.0], [-2.5]]]
WHOLE = [np.add(one, two).tolist() for one, two in zip(*PARTS)]


def apply(strategy, make_optimizer, parts, ok=(True, True, True), scale=1.0):
    """Applies the parts of a gradient once for each entry of ``ok``; returns the variables."""
    with strategy.scope() if strategy else contextlib.nullcontext():
        variables = [keras.Variable([1.0, 2.0]), keras.Variable([3.0])]
        optimizer = make_optimizer()
        optimizer.build(variables)

    def step(good):
        number = tf.distribute.get_replica_context().replica_id_in_sync_group
        gradients = [
            tf.gather(tf.constant([part[i] for part in parts]), number) * scale for i in range(2)
        ]
        apply_if(good, optimizer, list(zip(gradients, variables)))

    @tf.function
    def run(good):
        (strategy or tf.distribute.get_strategy()).run(step, args=(good,))

    for good in ok:
        run(tf.constant(good))
    return [np.array(variable) for variable in variables], optimizer


def momentum(**settings):
    return lambda: keras.optimizers.SGD(0.1, momentum=0.9, **settings)


def scaled(**settings):
    return lambda: keras.optimizers.LossScaleOptimizer(momentum(**settings)(), initial_scale=64.0)


@pytest.mark.parametrize(
    "settings",
    [{}, {"clipnorm": 1.5}, {"clipvalue": 0.7}, {"global_clipnorm": 2.0}],
    ids=str,
)
@pytest.mark.parametrize("kind", ["plain", "scaled", "factor"])
def test_two_replicas_apply_what_one_does(kind, settings, two_replicas):
    make = {
        "plain": momentum(**settings),
        "scaled": scaled(**settings),
        "factor": momentum(loss_scale_factor=64.0, **settings),
    }[kind]
    scale = 1.0 if kind == "plain" else 64.0
    expected, _ = apply(None, momentum(**settings), [WHOLE])
    one, _ = apply(None, make, [WHOLE], scale=scale)
    two, optimizer = apply(two_replicas, make, PARTS, scale=scale)
    for found in (one, two):
        for value, wanted in zip(found, expected):
            np.testing.assert_allclose(value, wanted, rtol=1e-5)
    assert int(optimizer.iterations.numpy()) == 3


def test_overflow_on_one_replica_is_overflow_on_both(two_replicas):
    parts = [PARTS[0], [[1.0, np.inf], [0.0]]]
    values, optimizer = apply(two_replicas, scaled(), parts, ok=(True,))
    for value, initial in zip(values, ([1.0, 2.0], [3.0])):
        np.testing.assert_array_equal(value, initial)
    assert float(optimizer.dynamic_scale.numpy()) == 32.0


def test_a_bad_step_is_not_applied(two_replicas):
    once, _ = apply(None, momentum(), [WHOLE], ok=(True,))
    bad, optimizer = apply(None, momentum(), [WHOLE], ok=(True, False, False))
    for found, expected in zip(bad, once):
        np.testing.assert_array_equal(found, expected)
    assert int(optimizer.iterations.numpy()) == 1
    spoilt = [PARTS[0], [[np.nan, 0.0], [np.inf]]]
    finite, _ = apply(two_replicas, momentum(), spoilt, ok=(False,))
    for value, initial in zip(finite, ([1.0, 2.0], [3.0])):
        np.testing.assert_array_equal(value, initial)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_finite_gradients(dtype):
    large = tf.fill([100], tf.constant(6e4, dtype))
    assert gradients_are_finite([large, -large])
    assert gradients_are_finite([])
    for bad in (np.nan, np.inf, -np.inf):
        assert not gradients_are_finite([large, tf.constant([1.0, bad, -bad], dtype)])


def test_gradient_accumulation_needs_one_replica(two_replicas):
    accumulating = momentum(gradient_accumulation_steps=2)()
    check_optimizer(accumulating, tf.distribute.get_strategy())
    check_optimizer(accumulating, tf.distribute.OneDeviceStrategy("/cpu:0"))
    for optimizer in (accumulating, keras.optimizers.LossScaleOptimizer(accumulating)):
        message = "gradient_accumulation_steps=2 under 2 mirrored replica"
        with pytest.raises(tfkd.TfkdError, match=message):
            check_optimizer(optimizer, two_replicas)
    check_optimizer(momentum()(), two_replicas)


@pytest.mark.parametrize(
    "settings, wanted",
    [
        # The first variable's gradient is (4, 4), the second's -2; the first is left out.
        ({"global_clipnorm": 1.0}, [[1 - 0.4, 2 - 0.4], [3 + 0.1]]),
        ({"clipnorm": 1.0}, [[1 - 0.4, 2 - 0.4], [3 + 0.1]]),
        ({"clipvalue": 0.5}, [[1 - 0.4, 2 - 0.4], [3 + 0.05]]),
        ({}, [[1 - 0.4, 2 - 0.4], [3 + 0.2]]),
    ],
    ids=str,
)
@pytest.mark.parametrize("replicas", [1, 2])
def test_normalized_gradients_are_not_clipped(replicas, settings, wanted, two_replicas):
    strategy = two_replicas if replicas == 2 else None
    with strategy.scope() if strategy else contextlib.nullcontext():
        variables = [keras.Variable([1.0, 2.0]), keras.Variable([3.0])]
        variables[0].gradient_is_normalized = True
        optimizer = keras.optimizers.SGD(0.1, **settings)
        optimizer.build(variables)

    def step():
        gradients = [tf.constant(part) / replicas for part in WHOLE]
        apply_if(tf.constant(True), optimizer, list(zip(gradients, variables)))

    tf.function(lambda: (strategy or tf.distribute.get_strategy()).run(step))()
    for found, each in zip(variables, wanted):
        np.testing.assert_allclose(np.array(found), each, atol=1e-6)
    assert {kind: getattr(optimizer, kind) for kind in settings} == settings


def test_loss_scaling_of_normalized_gradients_is_refused():
    variables = [keras.Variable([1.0, 2.0]), keras.Variable([3.0])]
    for make in (scaled(), momentum(loss_scale_factor=64.0)):
        check_optimizer(make(), 1, variables)
    variables[1].gradient_is_normalized = True
    check_optimizer(momentum(global_clipnorm=1.0)(), 2, variables)
    for make in (scaled(), momentum(loss_scale_factor=64.0)):
        with pytest.raises(tfkd.TfkdError, match="for adder layers: found loss scaling"):
            check_optimizer(make(), 1, variables)
