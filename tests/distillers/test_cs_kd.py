"""CS-KD: published numbers, and what the partner view may and may not do."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfkd
from tests.distillers import logit_oracles_b as oracles
from tfkd.core import registry
from tfkd.core.divergences import cross_entropy
from tfkd.distillers.cs_kd import CSKD, cs_kd_loss
from tfkd.errors import TfkdError


@pytest.mark.parametrize("dtype", [tf.float64, tf.float32])
@pytest.mark.parametrize("check", oracles.checks("cs_kd"), ids=lambda check: check["case"])
def test_published_numbers(check, dtype):
    objective = CSKD(check["params"]["T"])
    weight = check["params"]["lam"]

    def total(tensors):
        label = tf.reduce_mean(cross_entropy(tensors["labels"], tensors["student"]))
        distillation = oracles.losses(objective, tensors)["cs_kd"]
        np.testing.assert_allclose(
            distillation, check["expected"]["cls"], **oracles.TOLERANCES[dtype]
        )
        return label + weight * distillation

    oracles.check_total(check, total, dtype=dtype)


def test_a_partner_that_says_the_same_teaches_nothing():
    logits = oracles.inputs("B")["student"]
    np.testing.assert_allclose(cs_kd_loss(logits, logits), np.zeros(4), atol=1e-15)
    [gradient] = oracles.gradients(
        lambda t: tf.reduce_sum(cs_kd_loss(t["student"], logits)), {"student": logits}, ["student"]
    )
    np.testing.assert_allclose(gradient, np.zeros((4, 5)), atol=1e-15)


def test_only_the_first_image_has_a_gradient():
    tensors = oracles.inputs("A")
    student, pair = oracles.gradients(
        lambda t: oracles.losses(CSKD(), t)["cs_kd"], tensors, ["student", "pair"]
    )
    assert pair is None
    assert np.abs(student).max() > 1e-3


def test_shifts_and_permutations_change_nothing():
    tensors = oracles.inputs("B")
    student, pair = tensors["student"], tensors["pair"]
    value = cs_kd_loss(student, pair)
    np.testing.assert_allclose(cs_kd_loss(student + 3.0, pair - 5.0), value, rtol=1e-12)
    order = [3, 0, 4, 2, 1]
    shuffled = cs_kd_loss(tf.gather(student, order, axis=1), tf.gather(pair, order, axis=1))
    np.testing.assert_allclose(shuffled, value, rtol=1e-12)
    rows = [2, 0, 3, 1]
    moved = cs_kd_loss(tf.gather(student, rows), tf.gather(pair, rows))
    np.testing.assert_allclose(moved, tf.gather(value, rows), rtol=1e-12)


@pytest.mark.parametrize("dtype", [tf.bfloat16, tf.float16, tf.float32])
def test_finite_at_extreme_logits(dtype):
    tensors = oracles.extreme(dtype)
    value = cs_kd_loss(tensors["student"], tensors["pair"])
    assert value.dtype == tf.float32
    assert np.isfinite(value).all()
    [gradient] = oracles.gradients(
        lambda t: tf.reduce_sum(cs_kd_loss(t["student"], t["pair"])), tensors, ["student"]
    )
    assert np.isfinite(tf.cast(gradient, tf.float32)).all()


def test_sample_weights_scale_their_rows():
    tensors = oracles.inputs("B")
    rows = cs_kd_loss(tensors["student"], tensors["pair"]).numpy()
    weights = np.array([1.0, 0.0, 2.0, 0.5])
    value = oracles.losses(CSKD(), tensors, sample_weight=tf.constant(weights))["cs_kd"]
    np.testing.assert_allclose(value, (rows * weights).sum() / 4, rtol=1e-12)


def test_both_sides_run_in_training_mode_the_image_first():
    image = keras.Input((1, 1, 2))
    hidden = keras.layers.Flatten()(image)
    normal = tfkd.models.BatchNormalization(momentum=0.9)
    student = keras.Model(image, keras.layers.Dense(3)(normal(hidden)))
    distiller = tfkd.Distiller(None, student, CSKD())
    distiller.compile(keras.optimizers.SGD(0.0))
    own, partners = np.random.default_rng(0).normal([[[[1.0]]], [[[5.0]]]], 1.0, (2, 6, 1, 2))
    distiller.train_on_batch(
        {
            "image": own[:, None].astype(np.float32),
            "image_pair": partners[:, None].astype(np.float32),
            "label": np.zeros(6, np.int32),
        }
    )
    after_own = 0.1 * own.mean((0, 1))
    wanted = 0.9 * after_own + 0.1 * partners.mean((0, 1))
    np.testing.assert_allclose(normal.moving_mean, wanted, rtol=1e-5)


def test_one_and_two_replicas_agree(two_replicas):
    oracles.check_replicas(CSKD, two_replicas, teacher=False)


def test_trains_by_name_without_a_teacher():
    distiller = oracles.distiller(lambda: registry.create("cs_kd", temperature=2.0), teacher=False)
    before = oracles.state(distiller)["student/0"]
    history = distiller.fit(oracles.batches(("image_pair",)), epochs=3, verbose=0).history
    total = np.array(history["student_loss"]) + np.array(history["cs_kd"])
    np.testing.assert_allclose(history["loss"], total, rtol=1e-5)
    assert history["loss"][-1] < history["loss"][0]
    assert np.abs(oracles.state(distiller)["student/0"] - before).max() > 1e-4


def test_a_batch_without_partners_is_refused():
    distiller = oracles.distiller(CSKD, teacher=False)
    with pytest.raises(TfkdError, match="lacks image_pair"):
        distiller.fit(oracles.batches(()), verbose=0)


@pytest.mark.parametrize("temperature", [0, -1.0, float("nan"), "4", None])
def test_a_wrong_temperature_is_refused(temperature):
    with pytest.raises(TfkdError, match="cs_kd: temperature"):
        CSKD(temperature)
