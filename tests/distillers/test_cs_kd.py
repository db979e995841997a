"""CS-KD: published numbers, and what the partner view may and may not do."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.distillers import logit_oracles as oracles
from tests.distillers.contexts import losses
from tfkd.core import Distiller
from tfkd.core.divergences import cross_entropy
from tfkd.distillers.cs_kd import CSKD, cs_kd_loss
from tfkd.models import BatchNormalization


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("check", oracles.checks("cs_kd"), ids=oracles.label)
def test_published_numbers(check, dtype):
    def compute(given, params):
        label = tf.reduce_mean(cross_entropy(given["labels"], given["student"]))
        term = losses(CSKD(params["T"]), given)["cs_kd"]
        return {"ce": label, "cls": term, "total": label + params["lam"] * term}

    oracles.verify(check, compute, dtype)


def test_partner_that_says_the_same_teaches_nothing():
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


def test_sample_weights_scale_their_rows():
    given = oracles.inputs("B")
    rows = cs_kd_loss(given["student"], given["pair"]).numpy()
    weights = np.array([1.0, 0.0, 2.0, 0.5])
    value = losses(CSKD(), given, sample_weight=tf.constant(weights))["cs_kd"]
    np.testing.assert_allclose(value, (rows * weights).sum() / 4, rtol=1e-12)


def test_image_and_then_its_partner_run_in_training_mode():
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
