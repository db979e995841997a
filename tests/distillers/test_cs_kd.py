"""CS-KD: published numbers, and what the partner view may and may not do."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.distillers import logit_oracles as oracles
from tests.distillers import many_views as views
from tfkd.core import Distiller
from tfkd.core.divergences import cross_entropy
from tfkd.core.registry import create
from tfkd.distillers.cs_kd import CSKD, cs_kd_loss
from tfkd.errors import TfkdError
from tfkd.models import BatchNormalization


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("check", oracles.checks("cs_kd"), ids=oracles.label)
def test_published_numbers(check, dtype):
    def compute(given, params):
        label = tf.reduce_mean(cross_entropy(given["labels"], given["student"]))
        term = views.losses(CSKD(params["T"]), given)["cs_kd"]
        return {"ce": label, "cls": term, "total": label + params["lam"] * term}

    oracles.verify(check, compute, dtype)


def test_a_partner_that_says_the_same_teaches_nothing():
    logits = oracles.random_logits()
    np.testing.assert_allclose(cs_kd_loss(logits, logits), np.zeros(6), atol=1e-14)
    [gradient] = oracles.gradients(lambda student: cs_kd_loss(student, logits), logits)
    np.testing.assert_allclose(gradient, np.zeros((6, 5)), atol=1e-14)


def test_only_the_first_image_has_a_gradient():
    student, pair = oracles.gradients(
        cs_kd_loss, oracles.random_logits(seed=0), oracles.random_logits(seed=1)
    )
    assert pair is None
    assert np.abs(student).max() > 1e-3


def test_shifts_and_permutations_change_nothing():
    given = oracles.inputs("B")
    value = cs_kd_loss(given["student"], given["pair"])
    shifted = cs_kd_loss(given["student"] + 3.0, given["pair"] - 5.0)
    np.testing.assert_allclose(shifted, value, rtol=1e-12)
    rows = [2, 0, 3, 1]
    for change, wanted in (
        (views.moved(given, classes=[3, 0, 4, 2, 1]), value),
        (views.moved(given, rows=rows), tf.gather(value, rows)),
    ):
        np.testing.assert_allclose(
            cs_kd_loss(change["student"], change["pair"]), wanted, rtol=1e-12
        )


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_finite_at_extreme_logits(dtype):
    given = views.extreme(dtype)
    value = cs_kd_loss(given["student"], given["pair"])
    assert value.dtype == "float32"
    assert np.isfinite(value).all()
    [gradient] = oracles.gradients(
        lambda student: cs_kd_loss(student, given["pair"]), given["student"]
    )
    assert np.isfinite(tf.cast(gradient, "float32")).all()


def test_sample_weights_scale_their_rows():
    given = oracles.inputs("B")
    rows = cs_kd_loss(given["student"], given["pair"]).numpy()
    weights = np.array([1.0, 0.0, 2.0, 0.5])
    value = views.losses(CSKD(), given, sample_weight=tf.constant(weights))["cs_kd"]
    np.testing.assert_allclose(value, (rows * weights).sum() / 4, rtol=1e-12)


def test_both_sides_run_in_training_mode_the_image_first():
    image = keras.Input((1, 1, 2))
    normal = BatchNormalization(momentum=0.9)
    logits = keras.layers.Dense(3)(normal(keras.layers.Flatten()(image)))
    distiller = Distiller(None, keras.Model(image, logits), CSKD())
    distiller.compile(keras.optimizers.SGD(0.0))
    draw = np.random.default_rng(0)
    own, partners = (draw.normal(mean, 1.0, (6, 1, 1, 2)).astype("float32") for mean in (1.0, 5.0))
    distiller.train_on_batch({"image": own, "image_pair": partners, "label": np.zeros(6, "int32")})
    after_own = 0.1 * own.mean((0, 1, 2))
    wanted = 0.9 * after_own + 0.1 * partners.mean((0, 1, 2))
    np.testing.assert_allclose(normal.moving_mean, wanted, rtol=1e-5)


def test_one_and_two_replicas_agree(two_replicas):
    views.assert_replicas_agree(two_replicas, CSKD, "image_pair", teacher=False)


def test_trains_by_name_without_a_teacher():
    distiller = views.distiller_of(create("cs_kd", temperature=2.0), teacher=False)
    history = distiller.fit(views.batches("image_pair"), epochs=3, verbose=0).history
    total = np.add(history["student_loss"], history["cs_kd"])
    np.testing.assert_allclose(history["loss"], total, rtol=1e-5)
    assert history["loss"][-1] < history["loss"][0]
    assert min(history["cs_kd"]) > 0
    results = distiller.evaluate(views.batches(), verbose=0, return_dict=True)
    assert np.isfinite(results["loss"])


def test_a_batch_without_partners_is_refused():
    distiller = views.distiller_of(CSKD(), teacher=False)
    with pytest.raises(TfkdError, match="lacks image_pair"):
        distiller.fit(views.batches(), verbose=0)


@pytest.mark.parametrize("temperature", [0, -1.0, float("nan"), "4", None])
def test_a_wrong_temperature_is_refused(temperature):
    with pytest.raises(TfkdError, match="cs_kd: temperature"):
        CSKD(temperature)
