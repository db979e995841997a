"""NKD against the published numbers, and its properties."""

import numpy as np
import pytest
import tensorflow as tf

from tests.distillers import logit_oracles as oracles
from tests.distillers.contexts import context_of
from tfkd.core.divergences import cross_entropy
from tfkd.distillers.nkd import NKD, nkd_loss, nkd_terms

STUDENT, TEACHER = oracles.random_logits(seed=1), oracles.random_logits(seed=2)
LABELS = np.array([0, 4, 2, 1, 3, 2])


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("check", oracles.checks("nkd"), ids=oracles.label)
def test_published_numbers(check, dtype):
    def compute(given, params):
        logits = given["student"], given["teacher"], given["labels"]
        temperature, gamma = params["T"], params["gamma"]
        ce = tf.reduce_mean(cross_entropy(given["labels"], given["student"]))
        nkd = tf.reduce_mean(nkd_loss(*logits, gamma, temperature))
        target, nontarget = nkd_terms(*logits, temperature)
        return {
            "ce": ce,
            "target": tf.reduce_mean(target),
            # The file holds the part before the factor T^2.
            "nontarget": tf.reduce_mean(nontarget) / temperature**2,
            "nkd": nkd,
            "total": params["ce_weight"] * ce + nkd,
        }

    oracles.verify(check, compute, dtype)


def test_dense_labels_mean_their_largest_class():
    dense = 0.7 * np.eye(5)[LABELS] + 0.3 * np.eye(5)[(LABELS + 1) % 5]
    found = nkd_loss(STUDENT, TEACHER, dense.astype("float32"))
    np.testing.assert_array_equal(found, nkd_loss(STUDENT, TEACHER, LABELS))


def test_student_equal_to_its_teacher_keeps_a_loss_but_no_nontarget_gradient():
    assert np.all(nkd_loss(TEACHER, TEACHER, LABELS) > 0.1)
    student = tf.identity(TEACHER)
    gradient = oracles.gradients(lambda z: nkd_terms(z, TEACHER, LABELS)[1], student)[0]
    np.testing.assert_allclose(gradient, np.zeros((6, 5)), atol=1e-12)


def test_teacher_confidence_carries_no_gradient():
    to_student, to_teacher = oracles.gradients(
        lambda z, v: nkd_terms(z, v, LABELS)[0], STUDENT, TEACHER
    )
    assert to_teacher is None
    assert np.all(to_student != 0)


def test_terms_are_weighted_means():
    context = context_of(
        {"student": {"logits": STUDENT}, "teacher": {"logits": TEACHER}},
        LABELS,
        sample_weight=[1, 2, 0, 1, 1, 1],
    )
    losses = NKD(temperature=2.0, nontarget_weight=3.0).compute(context)
    weights = np.array([1, 2, 0, 1, 1, 1]) / 6
    target, nontarget = nkd_terms(STUDENT, TEACHER, LABELS, 2.0)
    np.testing.assert_allclose(losses["target"], np.sum(weights * target), rtol=1e-6)
    np.testing.assert_allclose(losses["nontarget"], 3.0 * np.sum(weights * nontarget), rtol=1e-6)
