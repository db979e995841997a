"""Logit standardization: the z-score itself, and plain distillation on it."""

import numpy as np
import pytest
import tensorflow as tf

from tests.distillers import logit_oracles as oracles
from tests.distillers.contexts import context_of
from tfkd.core.divergences import kl_divergence
from tfkd.distillers.dkd import DKD
from tfkd.distillers.kd import KD, kd_loss
from tfkd.distillers.shared.standardization import standardized
from tfkd.errors import TfkdError

STUDENT, TEACHER = oracles.random_logits(seed=1), oracles.random_logits(seed=2)


DIVISORS = {"clean": 0, "code": 1}
"""What the deviation takes from the number of classes before it divides by it."""


def z_scores(logits, variant="clean"):
    logits = logits.numpy()
    deviation = logits.std(-1, ddof=DIVISORS[variant], keepdims=True)
    return (logits - logits.mean(-1, keepdims=True)) / (deviation + 1e-7)


@pytest.mark.parametrize("variant", DIVISORS)
def test_rows_have_mean_zero_and_deviation_one(variant):
    found = standardized(STUDENT, variant=variant)
    np.testing.assert_allclose(found, z_scores(STUDENT, variant), rtol=1e-12)
    np.testing.assert_allclose(np.mean(found, -1), np.zeros(6), atol=1e-12)
    np.testing.assert_allclose(np.std(found, -1, ddof=DIVISORS[variant]), np.ones(6), atol=1e-6)


def test_size_and_offset_of_a_row_are_forgotten():
    found = standardized(STUDENT * 40.0 + 3.0)
    np.testing.assert_allclose(found, standardized(STUDENT), atol=1e-6)


def test_equal_logits_become_zeros_without_gradient():
    logits = tf.constant([[0.0] * 5, [30.1] * 5, [1.0, 2.0, 3.0, 4.0, 6.0]])
    with tf.GradientTape() as tape:
        tape.watch(logits)
        found = standardized(logits)
        first = tf.reduce_sum(found[:, 0])
    np.testing.assert_array_equal(found[:2], np.zeros((2, 5)))
    gradient = tape.gradient(first, logits)
    np.testing.assert_array_equal(gradient[:2], np.zeros((2, 5)))
    assert np.all(np.abs(gradient[2]) > 1e-3)


def test_distillation_compares_z_scores():
    found = kd_loss(STUDENT, TEACHER, 2.0, standardize=True)
    wanted = kl_divergence(z_scores(TEACHER), z_scores(STUDENT), 2.0)
    np.testing.assert_allclose(found, wanted, rtol=1e-12)
    assert np.all(np.abs(found - kd_loss(STUDENT, TEACHER, 2.0)) > 1e-3)


@pytest.mark.parametrize("method", [KD, DKD])
def test_variant_without_z_scores_is_refused(method):
    with pytest.raises(TfkdError, match="variant='code' with standardize=False, .*wanted stand"):
        method(variant="code")


def test_student_that_differs_by_size_and_offset_has_no_loss():
    loss = kd_loss(5.0 * TEACHER - 1.0, TEACHER, 2.0, standardize=True)
    np.testing.assert_allclose(loss, np.zeros(6), atol=1e-12)


def test_objective_compares_z_scores_where_it_is_asked_to():
    context = context_of(
        {"student": {"logits": STUDENT}, "teacher": {"logits": TEACHER}}, np.arange(6) % 5
    )
    for option in (False, True):
        wanted = np.mean(kd_loss(STUDENT, TEACHER, 2.0, standardize=option))
        found = KD(temperature=2.0, standardize=option).compute(context)
        np.testing.assert_allclose(found, wanted, rtol=1e-12)
    published = kl_divergence(z_scores(TEACHER, "code"), z_scores(STUDENT, "code"), 2.0)
    found = KD(temperature=2.0, standardize=True, variant="code").compute(context)
    np.testing.assert_allclose(found, np.mean(published), rtol=1e-12)
    assert abs(found - wanted) > 1e-3
