"""HDKD: the derivative by the weights, what a step writes, and what the weights start from."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfkd
from tests.distillers import runs
from tests.distillers.contexts import context_of
from tests.distillers.exits import EXITS, network
from tfkd import models
from tfkd.distillers import HDKD, HDKDDistiller
from tfkd.distillers.hdkd.bilevel import hypergradient
from tfkd.distillers.hdkd.validation import balanced_loss
from tfkd.distillers.hdkd.weights import initial_weights, projected, restricted, support
from tfkd.distillers.shared.exit_losses import exit_losses, loss_names
from tfkd.training import config as configs
from tfkd.training import run

RATE = 0.2
DESCENT = {"weight_optimizer": "sgd", "weight_learning_rate": 1.0, "keep_sum": False}
"""Plain descent, which shows the derivative in the weights themselves."""

EXPERIMENTS = Path(__file__).parents[1] / "fixtures" / "contract_experiments.py"


def quadratics(theta, matrices, centers):
    """Losses ``(theta - c)' A (theta - c) / 2``."""
    return tf.stack(
        [
            0.5
            * tf.tensordot(theta - c, tf.linalg.matvec(tf.constant(a, theta.dtype), theta - c), 1)
            for a, c in zip(matrices, centers)
        ]
    )


@pytest.mark.parametrize(
    ("theta", "weights", "matrices", "centers", "upper", "moved", "wanted"),
    [
        pytest.param(
            [0.0], [0.5, 0.5], [[[1.0]], [[1.0]]], [[1.0], [-1.0]],
            lambda t: t - 1.0, [0.0], [-0.1, 0.1], id="A",
        ),
        pytest.param(
            [1.0, -2.0], [0.5, 1.0, 0.25],
            [[[2.0, 0], [0, 1.0]], [[1.0, 0], [0, 3.0]], [[1.0, 0.5], [0.5, 2.0]]],
            [[0.0, 0.0], [1.0, 1.0], [-1.0, 2.0]],
            lambda t: t * (1.0, 2.0) - (1.0, 0.0), [0.9, -0.825], [-0.31, -1.485, -1.155], id="B",
        ),
    ],
)  # fmt: skip
def test_derivative_of_quadratic_losses(theta, weights, matrices, centers, upper, moved, wanted):
    """Oracles A and B."""
    variable = tf.Variable(theta, dtype=tf.float64)
    tape = tf.GradientTape(persistent=True)
    with tape:
        losses = quadratics(tf.identity(variable), matrices, np.array(centers))
    seen = []

    def slopes_at(values):
        seen.extend(values)
        return [upper(each) for each in values]

    found = hypergradient(
        tape, losses, tf.constant(weights, tf.float64), [variable], 0.1, slopes_at
    )
    np.testing.assert_allclose(seen[0], moved, rtol=1e-12)
    np.testing.assert_allclose(found, wanted, rtol=1e-12)


def test_weights_stay_positive_and_keep_their_sum():
    stepped = np.array([0.5, 1.0, 0.25]) + 0.5 * np.array([0.31, 1.485, 1.155])
    np.testing.assert_allclose(projected(stepped, None), [0.655, 1.7425, 0.8275])
    wanted = [0.355426, 0.945543, 0.449031]
    np.testing.assert_allclose(projected(stepped, 1.75), wanted, atol=1e-6)
    np.testing.assert_allclose(projected([-0.5, 1.0, 3.0], 2.0), [0.0, 0.5, 1.5])


def test_balanced_loss_and_its_running_means():
    """Oracle D."""
    losses, running = [2.0, 1.0, 0.5], [2.5, 1.0, 0.4]
    value, slopes = balanced_loss(
        tf.constant(losses, tf.float64), tf.constant(running, tf.float64), 0.5
    )
    np.testing.assert_allclose(value, 0.936204, atol=1e-6)
    np.testing.assert_allclose(slopes, [0.196678, 0.25, 0.400907], atol=1e-6)
    objective = distiller_of().objectives[0]
    # The first losses are their own means.
    first, _, kept = objective.balanced(tf.constant(losses))
    wanted = np.mean(0.5 * np.array(losses) + 0.5 * np.log(2.0))
    np.testing.assert_allclose(first, wanted, rtol=1e-6)
    np.testing.assert_allclose(kept, losses, rtol=1e-6)
    objective.running.assign(running)
    np.testing.assert_allclose(
        objective.balanced(tf.constant(losses))[2], [2.495, 1.0, 0.401], rtol=1e-6
    )


@pytest.mark.parametrize(
    ("settings", "names", "weights"),
    [
        ({}, loss_names(EXITS), [0.5, 0.5, 0.5, 0.0, 0.5, 0.5]),
        ({"initial": "deep_supervision"}, loss_names(EXITS), [1.0, 1.0, 1.0, 0.0, 0.0, 0.0]),
        ({"initial": "dense"}, loss_names(EXITS), [0.5, 0.5, 0.5, 0.25, 0.25, 0.5]),
        ({"form": "hmsdnet"}, loss_names(EXITS)[:3], [2.5 / 3] * 3),
        (
            {"form": "hdbt", "initial": "deep_supervision"},
            (*loss_names(EXITS)[:3], *loss_names(EXITS)[4:]),
            [1.0, 1.0, 1.0, 0.0, 0.0],
        ),
    ],
)
def test_losses_that_have_a_weight_and_where_they_start(settings, names, weights):
    distiller = distiller_of(**settings)
    (objective,) = distiller.objectives
    assert objective.weight_names == names
    np.testing.assert_allclose(objective.gamma, weights, rtol=1e-6)
    # The terms are those of the other methods of exits; together they are the weighted losses.
    logits = {
        name: tf.constant(np.random.default_rng(seed).normal(size=(4, 4)), tf.float32)
        for seed, name in enumerate(EXITS)
    }
    context = context_of({"student": logits}, np.array([0, 1, 2, 3]))
    terms = objective.to_terms(objective.compute(context)).losses
    of_pairs = () if settings.get("form") == "hmsdnet" else ("exit1_kd", "exit2_kd")
    assert tuple(terms) == ("exit1_ce", "exit2_ce", "logits_ce", *of_pairs)
    means = np.mean(exit_losses([0, 1, 2, 3], list(logits.values()), 4.0), axis=1)
    chosen = [loss_names(EXITS).index(name) for name in names]
    np.testing.assert_allclose(sum(terms.values()), weights @ means[chosen], rtol=1e-5)


def test_support_and_starts_of_four_exits():
    np.testing.assert_array_equal(support("hdbt", 4), [0, 1, 2, 3, 6, 8, 9])
    np.testing.assert_array_equal(support("hmsdnet", 4), range(4))
    kept = restricted(initial_weights("dense", 4), support("hdbt", 4))
    np.testing.assert_allclose(kept, 1.2 * np.array([0.5] * 4 + [1 / 6, 1 / 4, 1 / 2]))


# Steps.


def distiller_of(eager=True, optimizer=None, kind=HDKDDistiller, **settings):
    """A distiller of a student of fixed weights with three exits; few steps need no compiling."""
    keras.utils.set_random_seed(3)
    distiller = kind(None, network(), HDKD(**settings))
    distiller.compile(optimizer or keras.optimizers.SGD(RATE), run_eagerly=eager)
    return distiller


def batches(count=1, rows=8, **changes):
    """Batches with held-out images, which differ from the others."""
    images, draw = count * rows, np.random.default_rng(5)
    data = {
        "image": draw.normal(size=(images, 8, 8, 3)).astype("float32"),
        "label": draw.integers(0, 4, images).astype("int32"),
        "sample_weight": draw.uniform(0.5, 1.5, images).astype("float32"),
        "heldout_image": draw.normal(0.5, 1.5, size=(images, 8, 8, 3)).astype("float32"),
        "heldout_label": draw.integers(0, 4, images).astype("int32"),
        **changes,
    }
    return tf.data.Dataset.from_tensor_slices(data).batch(rows)


def values(variables):
    return [np.array(each) for each in variables]


class ByHand:
    """The same step with K backward passes, on a network of its own.

    ``running`` are the running means of V; None makes them those of the first step.
    """

    def __init__(self, distiller, batch, rate=RATE, running=None):
        self.model = keras.models.clone_model(distiller.student)
        self.model.set_weights(distiller.student.get_weights())
        self.batch, self.rate, self.running = batch, rate, running
        self.first = values(self.model.variables)
        with tf.GradientTape(persistent=True) as tape:
            outputs = self.model(batch["image"], training=True)
            logits = [outputs[name] for name in EXITS]
            losses = exit_losses(batch["label"], logits, 4.0)
            losses = tf.reduce_mean(batch["sample_weight"] * losses, axis=1)
            parts = tf.unstack(losses)
        variables = self.model.trainable_variables
        self.losses = losses.numpy()
        self.slopes = [tape.gradient(part, variables) for part in parts]
        self.statistics = values(self.model.non_trainable_variables)

    def stepped(self, weights):
        """The trainable variables after a step with these weights."""
        start = dict(zip([v.path for v in self.model.variables], self.first))
        return [
            start[variable.path]
            - self.rate * sum(w * s[number].numpy() for w, s in zip(weights, self.slopes))
            for number, variable in enumerate(self.model.trainable_variables)
        ]

    def upper(self, weights, gradient=False):
        """V after that step, or its slopes."""
        for variable, value in zip(self.model.trainable_variables, self.stepped(weights)):
            variable.assign(value)
        with tf.GradientTape() as tape:
            outputs = self.model(self.batch["heldout_image"], training=True)
            each = [
                tf.reduce_mean(
                    keras.losses.sparse_categorical_crossentropy(
                        self.batch["heldout_label"], outputs[name], from_logits=True
                    )
                )
                for name in EXITS
            ]
            if self.running is None:
                self.running = [float(loss) for loss in each]
            value = tf.add_n(
                [
                    0.5 * loss + 0.5 * tf.nn.softplus(loss / mean - 1.0)
                    for loss, mean in zip(each, self.running)
                ]
            ) / len(each)
        if gradient:
            return tape.gradient(value, self.model.trainable_variables)
        return float(value)

    def hypergradient(self, weights):
        """The derivative of V by each weight."""
        upper = self.upper(weights, gradient=True)
        return [
            -self.rate * sum(float(tf.reduce_sum(u * g)) for u, g in zip(upper, each))
            for each in self.slopes
        ]


def test_step_is_that_of_the_algorithm():
    """One step: h against K backward passes and finite differences, and all that is written."""
    distiller = distiller_of(initial="dense", **DESCENT)
    (objective,) = distiller.objectives
    data = batches()
    hand = ByHand(distiller, next(iter(data)))
    before = objective.gamma.numpy().astype("float64")
    history = distiller.fit(data, verbose=0).history
    found = before - objective.gamma
    wanted = hand.hypergradient(before)
    assert np.abs(wanted).min() > 1e-4
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-6)
    differences = []
    for number in range(len(before)):
        moved = 0.5 * np.eye(len(before))[number]
        differences.append(hand.upper(before + moved) - hand.upper(before - moved))
    np.testing.assert_allclose(found, differences, rtol=0.02, atol=2e-5)
    np.testing.assert_allclose(objective.running, hand.running, rtol=1e-5)
    np.testing.assert_allclose(history["hdkd/validation_loss"], [hand.upper(before)], rtol=1e-5)
    # The update is made with the new weights, and no other pass leaves a trace in the statistics.
    new = objective.gamma.numpy()
    for variable, value in zip(distiller.student.trainable_variables, hand.stepped(new)):
        np.testing.assert_allclose(variable, value, rtol=1e-4, atol=1e-6)
    for variable, value in zip(distiller.student.non_trainable_variables, hand.statistics):
        np.testing.assert_allclose(variable, value, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(history["loss"], [new @ hand.losses], rtol=1e-5)
    logged = [history[f"hdkd/weight/{name}"][0] for name in objective.weight_names]
    np.testing.assert_allclose(logged, new, rtol=1e-6)


def test_rate_of_the_virtual_step_is_the_current_one():
    rates = keras.optimizers.schedules.PiecewiseConstantDecay([0], [RATE, RATE / 4])
    distiller = distiller_of(optimizer=keras.optimizers.SGD(rates), initial="dense", **DESCENT)
    (objective,) = distiller.objectives
    data, seen = batches(2), []

    class Second(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            if batch == 1:
                running = [float(each) for each in objective.running.numpy()]
                hand = ByHand(distiller, list(data)[1], RATE / 4, running)
                seen.append((hand, objective.gamma.numpy().astype("float64")))

    distiller.fit(data, callbacks=[Second()], verbose=0)
    ((hand, before),) = seen
    wanted = hand.hypergradient(before)
    np.testing.assert_allclose(before - objective.gamma, wanted, rtol=1e-3, atol=1e-6)


def test_loss_of_the_virtual_step_has_the_weight_of_the_method():
    found = []
    for weight in (1.0, 0.25):
        keras.utils.set_random_seed(3)
        distiller = HDKDDistiller(None, network(), HDKD(**DESCENT), weight)
        distiller.compile(keras.optimizers.SGD(RATE / weight), run_eagerly=True)
        distiller.fit(batches(), verbose=0)
        gamma = np.array(distiller.objectives[0].gamma)
        found.append([gamma, *values(distiller.student.variables)])
    for first, second in zip(*found):
        np.testing.assert_allclose(second, first, rtol=1e-4, atol=1e-6)


def test_weights_learn_at_every_third_step():
    """Compiled, where the other steps leave the passes out; the last batch is a smaller one."""
    distiller = distiller_of(eager=False, initial="dense", update_every=3)
    (objective,) = distiller.objectives
    kept = []

    class Keep(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            kept.append((np.array(objective.gamma), np.array(distiller.student.variables[0])))

    images = [np.concatenate(list(part)) for part in zip(*map(dict.values, batches(4)))]
    data = dict(zip(batches(1).element_spec, (each[:29] for each in images)))
    distiller.fit(tf.data.Dataset.from_tensor_slices(data).batch(8), callbacks=[Keep()], verbose=0)
    first = initial_weights("dense", 3)
    moved = [np.any(a != b) for (a, _), (b, _) in zip([(np.float32(first), 0), *kept], kept)]
    assert moved == [True, False, False, True]
    assert int(objective.optimizers[0].iterations) == 2
    np.testing.assert_allclose(objective.gamma.numpy().sum(), first.sum(), rtol=1e-6)
    assert all(np.any(a != b) for (_, a), (_, b) in zip(kept, kept[1:]))


@pytest.mark.parametrize(("dtype", "running"), [("bfloat16", 1), ("float16", 1), ("float16", 1e6)])
def test_mixed_precision(dtype, running):
    """Also where V counts losses as shares of so large a mean that its slopes are about 1e-7."""
    settings = DESCENT | {"weight_learning_rate": running, "absolute_share": 0.0}
    found = {}
    for policy in ("float32", f"mixed_{dtype}"):
        keras.config.set_dtype_policy(policy)
        try:
            distiller = distiller_of(initial="dense", **settings)
        finally:
            keras.config.set_dtype_policy("float32")
        (objective,) = distiller.objectives
        objective.running.assign([running] * 3)
        history = distiller.fit(batches(), verbose=0).history
        assert all(np.isfinite(logged).all() for logged in history.values())
        found[policy] = np.array(objective.gamma)
        assert found[policy].min() > 0
    exact, low = (each - initial_weights("dense", 3) for each in found.values())
    assert np.abs(exact).max() > 1e-3
    np.testing.assert_allclose(low, exact, atol=0.1 * np.abs(exact).max())


def test_weights_that_would_all_be_negative_stay():
    """Without any the network would not learn, and their sum could not be restored."""
    (objective,) = distiller_of(**DESCENT | {"keep_sum": True}).objectives
    before, value, running = np.array(objective.gamma), tf.ones(()), tf.ones(3)
    objective.learn(tf.fill([6], 10.0), value, running, scaled=False)
    np.testing.assert_array_equal(objective.gamma, before)
    np.testing.assert_array_equal(objective.running, running)
    objective.learn(tf.constant([10.0] * 5 + [-10.0]), value, running, scaled=False)
    np.testing.assert_allclose(objective.gamma, [0, 0, 0, 0, 0, before.sum()])


def test_step_that_overflows_leaves_the_weights_alone():
    """Under a loss scale such a step is left out; without one it ends the run, and is named.

    The optimizer of the weights does not see it either.
    """
    images = np.full((8, 8, 8, 3), np.nan, "float32")
    for scaled in (True, False):
        optimizer = keras.optimizers.SGD(RATE)
        if scaled:
            optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
        distiller = distiller_of(optimizer=optimizer)
        (objective,) = distiller.objectives
        learner = objective.optimizers[0]
        for moment in learner.variables:
            moment.assign(keras.ops.ones_like(moment))
        before = values([*objective.variables[:2], *learner.variables])
        if scaled:
            distiller.fit(batches(heldout_image=images), verbose=0)
        else:
            with pytest.raises(tfkd.NonFiniteLoss, match="loss 'hdkd/validation_loss' is not fin"):
                distiller.fit(batches(heldout_image=images), verbose=0)
        assert np.isfinite(float(objective.validation_loss)) == scaled
        # The weights, the running means, and what the optimizer keeps.
        after = values([*objective.variables[:2], *learner.variables])
        for first, second in zip(before, after, strict=True):
            np.testing.assert_array_equal(second, first)


def test_what_cannot_be_is_refused():
    with pytest.raises(tfkd.TfkdError, match="hdkd: found one exit in network 'student', wanted"):
        HDKDDistiller(None, runs.network("student"), HDKD())
    with pytest.raises(tfkd.TfkdError, match="a training step of its own: found Distiller, wanted"):
        distiller_of(kind=tfkd.Distiller)
    with pytest.raises(tfkd.TfkdError, match="found 0 losses that learn their weights, wanted one"):
        HDKDDistiller(None, runs.network("student"))
    adder = models.multi_exit(models.create("resnet8", 4, (8, 8, 3), adder=True), ["stage1"])
    with pytest.raises(tfkd.TfkdError, match="hdkd: found adder layers in network .*, wanted conv"):
        HDKDDistiller(None, adder, HDKD())
    distiller = distiller_of()
    images = next(iter(batches()))
    message = "the batch lacks heldout_image, heldout_label, which the distillation losses need"
    with pytest.raises(tfkd.TfkdError, match=message):
        distiller.fit(images["image"].numpy(), images["label"].numpy(), verbose=0)
    of_head = {"trainable": lambda each: each.student.trainable_variables[-1:]}
    for own in (of_head, {"objectives": ()}):
        with pytest.raises(tfkd.TfkdError, match="stage 'head': found a network, variables or ob"):
            distiller.enter_stage(tfkd.Stage("head", 1, **own))


# Runs.


@pytest.mark.parametrize("found", [0, 100])
def test_run_without_enough_held_out_images_is_refused(found, tmp_path):
    config = configs.override(configs.load(f"{EXPERIMENTS}:hdkd"), data__validation_size=found)
    message = (
        f"heldout_image, heldout_label: found {found or 'no'} validation images of digits, wanted "
        "at least a batch of 180"
    )
    with pytest.raises(tfkd.TfkdError, match=message):
        run(config, tmp_path / "run", "one")
    assert list(tmp_path.iterdir()) == []
