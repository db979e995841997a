"""DIST against the published numbers, and its properties."""

import numpy as np
import pytest
import tensorflow as tf

from tests.distillers import logit_oracles as oracles
from tests.distillers.contexts import context_of
from tfkd.core.divergences import cross_entropy
from tfkd.distillers.dist import DIST, inter_class_loss, intra_class_loss

STUDENT, TEACHER = oracles.random_logits(seed=1), oracles.random_logits(seed=2)
LABELS = np.array([0, 4, 2, 1, 3, 2])


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("check", oracles.checks("dist"), ids=oracles.label)
def test_published_numbers(check, dtype):
    def compute(given, params):
        logits = given["student"], given["teacher"], params["tau"]
        ce = tf.reduce_mean(cross_entropy(given["labels"], given["student"]))
        inter = tf.reduce_mean(inter_class_loss(*logits))
        intra = intra_class_loss(*logits)
        dist = params["beta"] * inter + params["gamma"] * intra
        total = params["ce_weight"] * ce + params["kd_weight"] * dist
        return {"ce": ce, "inter": inter, "intra": intra, "dist": dist, "total": total}

    oracles.verify(check, compute, dtype)


def correlation(first, second, weights=None):
    covariance = np.cov(first, second, aweights=weights)
    return covariance[0, 1] / np.sqrt(covariance[0, 0] * covariance[1, 1])


def test_losses_are_correlations():
    p, q = tf.nn.softmax(STUDENT).numpy(), tf.nn.softmax(TEACHER).numpy()
    rows = [1 - correlation(a, b) for a, b in zip(p, q)]
    np.testing.assert_allclose(inter_class_loss(STUDENT, TEACHER, 1.0), rows, rtol=1e-6)
    columns = [1 - correlation(a, b) for a, b in zip(p.T, q.T)]
    np.testing.assert_allclose(intra_class_loss(STUDENT, TEACHER, 1.0), np.mean(columns), rtol=1e-6)


def test_sample_weights_weigh_the_correlation():
    p, q = tf.nn.softmax(STUDENT / 2).numpy(), tf.nn.softmax(TEACHER / 2).numpy()
    weights = np.array([1.0, 2.0, 0.5, 1.0, 3.0, 1.0])
    columns = [1 - correlation(a, b, weights) for a, b in zip(p.T, q.T)]
    found = intra_class_loss(STUDENT, TEACHER, 2.0, weights)
    np.testing.assert_allclose(found, 4 * np.mean(columns), rtol=1e-5)
    some = intra_class_loss(STUDENT, TEACHER, 2.0, [1.0, 1, 1, 1, 0, 0])
    np.testing.assert_allclose(some, intra_class_loss(STUDENT[:4], TEACHER[:4], 2.0), rtol=1e-12)


def test_student_equal_to_its_teacher_has_almost_no_loss():
    """Almost, because of the published 1e-8 beside the norms."""
    np.testing.assert_allclose(inter_class_loss(TEACHER, TEACHER), np.zeros(6), atol=1e-4)
    np.testing.assert_allclose(intra_class_loss(TEACHER, TEACHER), 0, atol=1e-4)
    assert intra_class_loss(STUDENT, TEACHER) > 1.0


def test_single_sample_has_no_correlation():
    def loss(student):
        return intra_class_loss(student, TEACHER[:1])

    np.testing.assert_allclose(loss(STUDENT[:1]), 16.0)
    np.testing.assert_array_equal(oracles.gradients(loss, STUDENT[:1])[0], np.zeros((1, 5)))


def test_constant_predictions_have_no_correlation():
    """Equal logits give probabilities that differ by rounding alone: nothing to correlate."""
    logits = tf.constant([[0.3] * 5] * 6, tf.float32)
    teacher = tf.cast(TEACHER, tf.float32)
    for loss in (inter_class_loss, intra_class_loss):
        np.testing.assert_array_equal(np.unique(loss(logits, teacher)), [16.0])
        gradient = oracles.gradients(lambda z, loss=loss: loss(z, teacher), logits)[0]
        np.testing.assert_array_equal(gradient, np.zeros((6, 5)))


def test_settings_and_sample_weights_weigh_the_terms():
    weights = np.array([1, 2, 0, 1, 1, 1])
    context = context_of(
        {"student": {"logits": STUDENT}, "teacher": {"logits": TEACHER}},
        LABELS,
        sample_weight=weights,
    )
    losses = DIST(temperature=2.0, inter_weight=0.5, intra_weight=3.0).compute(context)
    inter = 0.5 * np.sum(weights * inter_class_loss(STUDENT, TEACHER, 2.0).numpy()) / 6
    np.testing.assert_allclose(losses["inter"], inter, rtol=1e-6)
    intra = 3.0 * intra_class_loss(STUDENT, TEACHER, 2.0, weights)
    np.testing.assert_allclose(losses["intra"], intra, rtol=1e-6)
