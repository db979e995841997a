"""Optimizers against the published update rules, written again in NumPy."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfkd.core.step import updates
from tfkd.errors import TfkdError, TfkdWarning
from tfkd.training import optimizers, schedules


def drop(rate, step):
    """A schedule that divides the rate by ten at a step."""
    return schedules.Step(rate, 1, milestones=(step,), decay_factor=0.1)


def torch_sgd(start, gradients, rates, momentum, nesterov, weight_decay=0.0):
    """torch.optim.SGD as its documentation states it, without dampening, in float64."""
    weights, buffer = np.array(start, np.float64), None
    for gradient, rate in zip(gradients, rates):
        gradient = gradient + weight_decay * weights
        buffer = gradient if buffer is None else momentum * buffer + gradient
        step = gradient + momentum * buffer if nesterov else buffer
        weights = weights - rate * (step if momentum else gradient)
    return weights


def caffe_sgd(start, gradients, rates, momentum, nesterov, weight_decay=0.0):
    """Caffe's SGDSolver and NesterovSolver, in float64."""
    weights, history = np.array(start, np.float64), np.zeros_like(start, dtype=np.float64)
    for gradient, rate in zip(gradients, rates):
        gradient = gradient + weight_decay * weights
        before, history = history, momentum * history + rate * gradient
        weights = weights - ((1 + momentum) * history - momentum * before if nesterov else history)
    return weights


def descend(optimizer, start, gradients):
    """Applies gradients one after the other and returns the weights."""
    variable = keras.Variable(np.array(start, np.float32))
    for gradient in gradients:
        optimizer.apply_gradients([(tf.constant(gradient, tf.float32), variable)])
    return variable.numpy()


@pytest.fixture
def problem():
    random = np.random.default_rng(1)
    return random.normal(size=(4, 3)), random.normal(size=(12, 4, 3)), [0.1] * 7 + [0.01] * 5


@pytest.mark.parametrize("momentum, nesterov", [(0.0, False), (0.9, False), (0.9, True)])
@pytest.mark.parametrize("style, rule", [("torch", torch_sgd), ("keras", caffe_sgd)])
def test_sgd_follows_its_published_rule_over_a_drop(problem, style, rule, momentum, nesterov):
    start, gradients, rates = problem
    optimizer = optimizers.SGD(
        drop(0.1, 7), momentum=momentum, nesterov=nesterov, momentum_style=style, weight_decay=0.02
    )
    found = descend(optimizer, start, gradients)
    expected = rule(start, gradients, rates, momentum, nesterov, weight_decay=0.02)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("momentum, nesterov", [(0.0, False), (0.9, False), (0.9, True)])
def test_keras_style_equals_keras_sgd(problem, momentum, nesterov):
    start, gradients, _ = problem
    ours = optimizers.SGD(
        drop(0.1, 7), momentum=momentum, nesterov=nesterov, momentum_style="keras"
    )
    theirs = keras.optimizers.SGD(drop(0.1, 7), momentum=momentum, nesterov=nesterov)
    np.testing.assert_allclose(
        descend(ours, start, gradients), descend(theirs, start, gradients), rtol=1e-6, atol=1e-7
    )


def test_momentum_styles_part_after_a_drop_of_the_rate():
    # f = w^2 / 2 from w = 1, rate 0.1 and momentum 0.9: ten steps, a tenth of the rate, ten more.
    found = {}
    for style in ("torch", "keras"):
        variable = keras.Variable(1.0)
        optimizer = optimizers.SGD(drop(0.1, 10), momentum=0.9, momentum_style=style)
        values = []
        for _ in range(20):
            optimizer.apply_gradients([(tf.convert_to_tensor(variable), variable)])
            values.append(float(variable.numpy()))
        found[style] = values
    np.testing.assert_allclose(found["torch"][:10], found["keras"][:10], rtol=1e-5)
    assert found["torch"][-1] == pytest.approx(-0.3583547, abs=1e-6)
    assert found["keras"][-1] == pytest.approx(-0.2923836, abs=1e-6)


def test_coupled_decay_is_the_gradient_of_half_the_squared_norm():
    start = np.array([1.0, -2.0, 3.0], np.float32)
    decayed = optimizers.SGD(0.1, momentum=0.9, nesterov=True, weight_decay=0.5)
    plain = optimizers.SGD(0.1, momentum=0.9, nesterov=True)
    first, second = keras.Variable(start), keras.Variable(start)
    regularizer = keras.regularizers.L2(0.5 / 2)
    for step in range(6):
        target = tf.constant([0.5, float(step), -1.0])
        for variable, optimizer, penalty in (
            (first, decayed, lambda _: 0.0),
            (second, plain, regularizer),
        ):
            with tf.GradientTape() as tape:
                tape.watch(variable.value)
                value = tf.convert_to_tensor(variable)
                loss = tf.reduce_sum((value - target) ** 2) + penalty(value)
            optimizer.apply_gradients([(tape.gradient(loss, variable.value), variable)])
    np.testing.assert_allclose(first.numpy(), second.numpy(), rtol=1e-5)
    assert not np.allclose(first.numpy(), start, atol=0.1)


@pytest.mark.parametrize("style", ["torch", "keras"])
def test_decoupled_decay_shrinks_beside_the_step(problem, style):
    start, gradients, rates = problem
    optimizer = optimizers.SGD(
        drop(0.1, 7),
        momentum=0.9,
        momentum_style=style,
        weight_decay=0.3,
        weight_decay_mode="decoupled",
    )
    found = descend(optimizer, start, gradients)
    weights, buffer = start.copy(), np.zeros_like(start)
    for gradient, rate in zip(gradients, rates):
        weights = weights * (1 - rate * 0.3)
        if style == "torch":
            buffer = 0.9 * buffer + gradient
            weights = weights - rate * buffer
        else:
            buffer = 0.9 * buffer - rate * gradient
            weights = weights + buffer
    np.testing.assert_allclose(found, weights, rtol=1e-5, atol=1e-6)
    reference = keras.optimizers.SGD(drop(0.1, 7), momentum=0.9, weight_decay=0.3)
    if style == "keras":
        np.testing.assert_allclose(found, descend(reference, start, gradients), rtol=1e-5)


def test_adam_decays_coupled_as_torch_and_adamw_as_keras(problem):
    start, gradients, _ = problem
    settings = {"name": "adam", "weight_decay": 0.05, "epsilon": 1e-8}
    found = descend(optimizers.create(settings, 0.01), start, gradients)
    weights, mean, square = start.copy(), 0.0, 0.0
    for step, gradient in enumerate(gradients, start=1):
        gradient = gradient + 0.05 * weights
        mean = 0.9 * mean + 0.1 * gradient
        square = 0.999 * square + 0.001 * gradient**2
        weights = weights - 0.01 * (mean / (1 - 0.9**step)) / (
            np.sqrt(square / (1 - 0.999**step)) + 1e-8
        )
    np.testing.assert_allclose(found, weights, rtol=2e-5, atol=1e-6)
    decoupled = optimizers.create({**settings, "name": "adamw"}, 0.01)
    reference = keras.optimizers.AdamW(0.01, weight_decay=0.05, epsilon=1e-8)
    np.testing.assert_allclose(
        descend(decoupled, start, gradients),
        descend(reference, start, gradients),
        rtol=1e-5,
        atol=1e-7,
    )


def test_rmsprop_is_that_of_keras(problem):
    start, gradients, _ = problem
    ours = optimizers.create(
        {"name": "rmsprop", "rho": 0.8, "momentum": 0.5, "weight_decay": 0.0}, 0.01
    )
    theirs = keras.optimizers.RMSprop(0.01, rho=0.8, momentum=0.5)
    np.testing.assert_allclose(
        descend(ours, start, gradients), descend(theirs, start, gradients), rtol=1e-6
    )


def small_network():
    inputs = keras.Input((6,))
    hidden = keras.layers.Dense(5, name="hidden")(inputs)
    hidden = keras.layers.BatchNormalization(
        name="norm", gamma_initializer="uniform", beta_initializer="uniform"
    )(hidden)
    outputs = keras.layers.Dense(3, name="logits", bias_initializer="uniform")(hidden)
    return keras.Model(inputs, outputs)


@pytest.mark.parametrize(
    "name, mode", [("sgd", "coupled"), ("sgd", "decoupled"), ("adamw", "decoupled")]
)
@pytest.mark.parametrize(
    "exclude, still",
    [
        (
            (),
            {
                "hidden/kernel",
                "hidden/bias",
                "norm/gamma",
                "norm/beta",
                "logits/kernel",
                "logits/bias",
            },
        ),
        (("bias",), {"hidden/kernel", "norm/gamma", "norm/beta", "logits/kernel"}),
        (("bias", "batch_normalization"), {"hidden/kernel", "logits/kernel"}),
        (["log*"], {"hidden/kernel", "hidden/bias", "norm/gamma", "norm/beta"}),
    ],
)
def test_excluded_variables_do_not_decay(name, mode, exclude, still):
    network = small_network()
    for variable in network.trainable_variables:
        variable.assign(np.full(variable.shape, 2.0))
    optimizer = optimizers.create(
        {"name": name, "weight_decay": 0.1, "weight_decay_mode": mode, "decay_exclude": exclude},
        0.5,
    )
    before = [variable.numpy() for variable in network.trainable_variables]
    optimizer.apply_gradients(
        [(tf.zeros(variable.shape), variable) for variable in network.trainable_variables]
    )
    moved = {
        variable.path
        for variable, old in zip(network.trainable_variables, before)
        if not np.array_equal(variable.numpy(), old)
    }
    assert moved == still
    for variable in network.trainable_variables:
        if variable.path in still:
            np.testing.assert_allclose(variable.numpy(), 2.0 * (1 - 0.5 * 0.1), rtol=1e-6)


def test_a_variable_without_gradient_is_left_alone():
    first, second = keras.Variable([1.0]), keras.Variable([1.0])
    optimizer = optimizers.SGD(0.1, weight_decay=0.5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        optimizer.apply_gradients([(tf.constant([0.0]), first), (None, second)])
    assert first.numpy()[0] == pytest.approx(0.95)
    assert second.numpy()[0] == 1.0


def test_sparse_gradients_move_momentum_and_decay_of_every_row():
    table = keras.Variable(np.ones((3, 2), np.float32))
    optimizer = optimizers.SGD(0.1, momentum=0.5, weight_decay=0.1)
    for _ in range(2):
        slices = tf.IndexedSlices(tf.ones((1, 2)), tf.constant([1]), tf.constant([3, 2]))
        optimizer.apply_gradients([(slices, table)])
    dense = np.zeros((2, 3, 2))
    dense[:, 1] = 1.0
    np.testing.assert_allclose(
        table.numpy(), torch_sgd(np.ones((3, 2)), dense, [0.1, 0.1], 0.5, False, 0.1), rtol=1e-6
    )


def test_pattern_that_fits_nothing_warns():
    optimizer = optimizers.SGD(0.1, weight_decay=0.1, decay_exclude=["hiden/*"])
    with pytest.warns(TfkdWarning, match=r"'hiden/\*' fits none of 6 variables.*'hidden/kernel'"):
        optimizer.build(small_network().trainable_variables)


CASES = {
    "torch": {"name": "sgd", "momentum": 0.9, "weight_decay": 0.05, "decay_exclude": ["bias"]},
    "torch nesterov clipped": {
        "name": "sgd",
        "momentum": 0.9,
        "nesterov": True,
        "clip_norm": 0.1,
        "weight_decay": 0.05,
        "weight_decay_mode": "decoupled",
    },
    "keras": {"name": "sgd", "momentum": 0.9, "momentum_style": "keras", "weight_decay": 0.05},
    "plain": {"name": "sgd", "momentum": 0.0, "weight_decay": 0.0},
    "adamw clipped": {
        "name": "adamw",
        "weight_decay": 0.05,
        "clip_norm": 0.1,
        "decay_exclude": ["bias", "batch_normalization"],
    },
}


def train(settings, strategy, loss_scaling=False, steps=6):
    """Trains a small network for some steps in one tf.function; returns weights and buffers."""
    random = np.random.default_rng(3)
    images = tf.constant(random.normal(size=(8, 6)), tf.float32)
    targets = tf.constant(random.normal(size=(8, 3)), tf.float32)
    replicas = strategy.num_replicas_in_sync
    with strategy.scope():
        keras.utils.set_random_seed(5)
        network = small_network()
        optimizer = optimizers.create(settings, schedules.Step(0.05, 2, milestones=(2,)))
        if loss_scaling:
            optimizer = keras.optimizers.LossScaleOptimizer(optimizer, initial_scale=64.0)
        optimizer.build(network.trainable_variables)

    def step():
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        rows = tf.range(8 // replicas) + replica * (8 // replicas)
        with tf.GradientTape() as tape:
            error = network(tf.gather(images, rows), training=False) - tf.gather(targets, rows)
            loss = optimizer.scale_loss(tf.reduce_sum(error**2) / 8)
        variables = network.trainable_variables
        pairs = list(zip(tape.gradient(loss, variables), variables))
        if "clip_norm" in settings:
            # Keras alone clips before it sums over replicas.
            updates.apply_if(tf.constant(True), optimizer, pairs)
        else:
            optimizer.apply_gradients(pairs)

    @tf.function
    def run():
        for _ in tf.range(steps):
            strategy.run(step)

    run()
    return (
        [variable.numpy() for variable in network.trainable_variables],
        [variable.numpy() for variable in optimizer.variables],
    )


@pytest.mark.parametrize("settings", CASES.values(), ids=CASES.keys())
def test_two_replicas_take_the_steps_of_one(settings, two_replicas):
    one, one_state = train(settings, tf.distribute.get_strategy())
    two, two_state = train(settings, two_replicas)
    start, _ = train(settings, tf.distribute.get_strategy(), steps=0)
    for single, double, first in zip(one, two, start):
        np.testing.assert_allclose(double, single, rtol=2e-5, atol=2e-6)
        assert np.abs(single - first).max() > 1e-4
    for single, double in zip(one_state, two_state, strict=True):
        np.testing.assert_allclose(double, single, rtol=2e-4, atol=2e-6)


def test_loss_scaling_changes_nothing_but_the_scale(two_replicas):
    plain, _ = train(CASES["torch"], tf.distribute.get_strategy())
    for strategy in (tf.distribute.get_strategy(), two_replicas):
        scaled, _ = train(CASES["torch"], strategy, loss_scaling=True)
        for ours, expected in zip(scaled, plain):
            np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-6)


def test_loss_scaling_skips_a_step_that_is_not_finite():
    variable = keras.Variable([1.0])
    optimizer = keras.optimizers.LossScaleOptimizer(
        optimizers.SGD(0.1, momentum=0.9, weight_decay=0.1), initial_scale=4.0
    )
    optimizer.apply_gradients([(tf.constant([np.inf]), variable)])
    assert variable.numpy()[0] == 1.0
    optimizer.apply_gradients([(tf.constant([4.0]), variable)])
    # The scale was halved to 2: gradient 2, plus decay 0.1.
    assert variable.numpy()[0] == pytest.approx(1.0 - 0.1 * 2.1)


@pytest.mark.parametrize("style, rule", [("torch", torch_sgd), ("keras", caffe_sgd)])
def test_compiled_by_xla_the_steps_are_the_same(problem, style, rule):
    start, gradients, rates = problem
    optimizer = optimizers.SGD(
        drop(0.1, 7), momentum=0.9, nesterov=True, momentum_style=style, weight_decay=0.02
    )
    variable = keras.Variable(start.astype(np.float32))
    optimizer.build([variable])

    @tf.function(jit_compile=True)
    def step(gradient):
        optimizer.apply_gradients([(gradient, variable)])

    for gradient in gradients:
        step(tf.constant(gradient, tf.float32))
    np.testing.assert_allclose(
        variable.numpy(), rule(start, gradients, rates, 0.9, True, 0.02), rtol=1e-5, atol=1e-6
    )


def test_buffers_are_optimizer_variables_and_continue_a_run(problem):
    start, gradients, rates = problem
    variable = keras.Variable(start.astype(np.float32))
    first = optimizers.SGD(drop(0.1, 7), momentum=0.9)
    for gradient in gradients[:5]:
        first.apply_gradients([(tf.constant(gradient, tf.float32), variable)])
    assert [each.shape for each in first.variables] == [(), (4, 3)]
    second = optimizers.SGD(drop(0.1, 7), momentum=0.9)
    second.build([variable])
    for target, source in zip(second.variables, first.variables, strict=True):
        target.assign(source)
    for gradient in gradients[5:]:
        second.apply_gradients([(tf.constant(gradient, tf.float32), variable)])
    np.testing.assert_allclose(
        variable.numpy(), torch_sgd(start, gradients, rates, 0.9, False), rtol=1e-5, atol=1e-6
    )
    assert optimizers.SGD(0.1).variables[-1].name == "learning_rate"


@pytest.mark.parametrize("settings", CASES.values(), ids=CASES.keys())
def test_round_trip_through_the_serialized_form(settings, problem):
    start, gradients, _ = problem
    optimizer = optimizers.create(settings, drop(0.1, 7))
    twin = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert type(twin) is type(optimizer)
    assert twin.get_config() == optimizer.get_config()
    np.testing.assert_array_equal(
        descend(twin, start, gradients), descend(optimizer, start, gradients)
    )


def test_a_compiled_model_is_saved_and_goes_on_with_its_optimizer(tmp_path):
    network = small_network()
    network.compile(
        optimizers.SGD(drop(0.05, 3), momentum=0.9, weight_decay=0.01, decay_exclude=["bias"]),
        loss="mse",
    )
    images, targets = np.ones((4, 6), np.float32), np.zeros((4, 3), np.float32)
    network.fit(images, targets, epochs=2, verbose=0)
    network.save(tmp_path / "network.keras")
    twin = keras.models.load_model(tmp_path / "network.keras")
    for each in (network, twin):
        each.fit(images, targets, epochs=3, verbose=0)
    for ours, theirs in zip(network.weights, twin.weights, strict=True):
        np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-6)


def test_clip_norm_bounds_the_gradient_of_all_variables_together():
    first, second = keras.Variable([0.0]), keras.Variable([0.0])
    optimizer = optimizers.create({"name": "sgd", "clip_norm": 1.0}, 1.0)
    optimizer.apply_gradients([(tf.constant([3.0]), first), (tf.constant([4.0]), second)])
    assert (first.numpy()[0], second.numpy()[0]) == pytest.approx((-0.6, -0.8))


def test_fields_of_another_optimizer_are_set_aside():
    settings = {
        "name": "adam",
        "momentum": 0.9,
        "nesterov": False,
        "momentum_style": "torch",
        "weight_decay": 1e-4,
        "beta_2": None,
    }
    with pytest.warns(TfkdWarning, match="'adam' makes no use of momentum$"):
        optimizer = optimizers.create(settings, 0.1)
    assert optimizer.get_config()["beta_2"] == 0.999
    assert optimizer.get_config()["weight_decay"] == 1e-4


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"name": "sdg"}, "unknown name of optimizer 'sdg'; did you mean 'sgd'"),
        (
            {"name": "sgd", "nestorov": True},
            "unknown setting of optimizer 'nestorov'; did you mean 'nesterov'",
        ),
        ({"name": 3}, "optimizer: name: found 3, wanted 'sgd' or 'adam' or 'adamw' or 'rmsprop'"),
        (["sgd"], r"optimizer: found \['sgd'\], wanted a dict of settings"),
        ({"name": "sgd", "momentum": 1.0}, "momentum: found 1.0, wanted a number >= 0 and < 1"),
        ({"name": "sgd", "momentum": True}, "momentum: found True, wanted a number"),
        (
            {"name": "sgd", "momentum": 0.0, "nesterov": True},
            "nesterov is True with momentum 0; wanted a momentum",
        ),
        ({"name": "sgd", "nesterov": "yes"}, "nesterov: found 'yes', wanted True or False"),
        (
            {"name": "sgd", "momentum_style": "caffe"},
            "unknown momentum_style of optimizer 'caffe'.*known: keras, torch",
        ),
        (
            {"name": "sgd", "weight_decay": -1e-4},
            "weight_decay: found -0.0001, wanted a number >= 0",
        ),
        (
            {"name": "sgd", "weight_decay_mode": "l2"},
            "unknown weight_decay_mode of optimizer 'l2'.*known: coupled, decoupled",
        ),
        ({"name": "sgd", "decay_exclude": 1}, "decay_exclude: found 1, wanted a list of strings"),
        (
            {"name": "sgd", "decay_exclude": ["biases"]},
            "unknown decay_exclude 'biases'; did you mean 'bias'",
        ),
        ({"name": "sgd", "clip_norm": 0}, "clip_norm: found 0, wanted a number > 0"),
        ({"name": "adam", "beta_1": 1}, "beta_1: found 1, wanted a number >= 0 and < 1"),
        ({"name": "adam", "epsilon": 0}, "epsilon: found 0, wanted a number > 0"),
        (
            {"name": "adamw", "weight_decay_mode": "coupled"},
            "'adamw' has weight_decay_mode 'coupled'; wanted",
        ),
    ],
)
def test_wrong_settings_are_named(settings, message):
    with pytest.raises(TfkdError, match=message) as caught:
        optimizers.create(settings, 0.1)
    assert "\n" not in str(caught.value)


def test_a_wrong_learning_rate_is_named():
    with pytest.raises(TfkdError, match="learning_rate: found nan, wanted a number >= 0"):
        optimizers.SGD(float("nan"))


def test_settings_that_are_not_given_take_the_defaults_of_a_config():
    optimizer = optimizers.create({}, 0.1)
    assert (optimizer.momentum, optimizer.weight_decay) == (0.9, 5e-4)
    assert (optimizer.momentum_style, optimizer.weight_decay_mode) == ("torch", "coupled")
    settings = optimizers.OptimizerSettings(name="rmsprop", weight_decay=0.0)
    assert optimizers.create(settings, 0.1).get_config()["momentum"] == 0.0


@pytest.mark.parametrize(
    "argument, message",
    [
        ({"momentum": 1.0}, "momentum: found 1.0, wanted a number >= 0 and < 1"),
        ({"nesterov": 1, "momentum": 0.9}, "nesterov: found 1, wanted True or False"),
        ({"momentum_style": "caffe"}, "unknown momentum_style 'caffe'"),
        ({"weight_decay": -1.0}, "weight_decay: found -1.0, wanted a number >= 0"),
        ({"weight_decay_mode": "l2"}, "unknown weight_decay_mode 'l2'"),
        ({"decay_exclude": ["biases"]}, "unknown decay_exclude 'biases'; did you mean 'bias'"),
    ],
)
def test_wrong_arguments_of_the_class_are_named(argument, message):
    with pytest.raises(TfkdError, match=message):
        optimizers.SGD(0.1, **argument)
