"""WSLD against the published numbers, and its properties."""

import numpy as np
import pytest
import tensorflow as tf

from tests.distillers import logit_oracles as oracles
from tests.distillers.contexts import context_of
from tfkd.core.divergences import cross_entropy
from tfkd.distillers.wsld import WSLD, sample_weights, wsld_loss

STUDENT, TEACHER = oracles.random_logits(seed=1), oracles.random_logits(seed=2)
LABELS = np.array([0, 4, 2, 1, 3, 2])


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("check", oracles.checks("wsld"), ids=oracles.label)
def test_published_numbers(check, dtype):
    def compute(given, params):
        logits = given["student"], given["teacher"], given["labels"]
        ce = tf.reduce_mean(cross_entropy(given["labels"], given["student"]))
        soft = tf.reduce_mean(wsld_loss(*logits, params["T"]))
        return {
            "ce": ce,
            "weights": sample_weights(*logits),
            "soft": soft,
            "total": params["ce_weight"] * ce + params["alpha"] * soft,
        }

    oracles.verify(check, compute, dtype)


def test_samples_that_the_student_knows_weigh_less():
    """Weights by hand, from label losses of 2 x log(2), log(2) and almost 0."""
    even = np.log([[0.5, 0.5], [0.5, 0.5], [0.5, 0.5]])
    student = np.log([[0.25, 0.75], [0.5, 0.5], [1 - 1e-9, 1e-9]])
    found = sample_weights(student, even, np.zeros(3, "int32"))
    np.testing.assert_allclose(found, [1 - np.exp(-2), 1 - np.exp(-1), 0], atol=1e-6)
    confident = sample_weights(even, np.array([[0.0, 50.0]] * 3), np.ones(3, "int32"))
    np.testing.assert_allclose(confident, np.ones(3), atol=1e-6)


def test_weights_carry_no_gradient():
    found = oracles.gradients(lambda z, v: sample_weights(z, v, LABELS), STUDENT, TEACHER)
    assert found == [None, None]
    weights = sample_weights(STUDENT, TEACHER, LABELS).numpy()[:, None]
    q, p = tf.nn.softmax(TEACHER / 4), tf.nn.softmax(STUDENT / 4)
    gradient = oracles.gradients(lambda z: wsld_loss(z, TEACHER, LABELS), STUDENT)[0]
    np.testing.assert_allclose(gradient, 4 * weights * (p - q), rtol=1e-9)


def test_term_is_a_weighted_mean():
    context = context_of(
        {"student": {"logits": STUDENT}, "teacher": {"logits": TEACHER}},
        LABELS,
        sample_weight=[1, 2, 0, 1, 1, 1],
    )
    wanted = np.sum([1, 2, 0, 1, 1, 1] * wsld_loss(STUDENT, TEACHER, LABELS, 2.0).numpy()) / 6
    np.testing.assert_allclose(WSLD(temperature=2.0).compute(context), wanted, rtol=1e-6)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_weights_of_extreme_logits_stay_between_0_and_1(dtype):
    student, teacher = oracles.extreme_logits(dtype, 1), oracles.extreme_logits(dtype, 2)
    weights = sample_weights(student, teacher, np.arange(8) % 5)
    assert np.all((weights >= 0) & (weights <= 1))
