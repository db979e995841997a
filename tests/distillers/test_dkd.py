"""DKD against the published numbers, and its properties."""

import numpy as np
import pytest
import tensorflow as tf

from tests.distillers import logit_oracles as oracles
from tests.distillers.contexts import context_of
from tfkd.core.divergences import cross_entropy, kl_divergence
from tfkd.distillers.dkd import DKD, dkd_loss, dkd_terms, warmup_factor

STUDENT, TEACHER = oracles.random_logits(seed=1), oracles.random_logits(seed=2)
LABELS = np.array([0, 4, 2, 1, 3, 2])


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("check", oracles.checks("dkd"), ids=oracles.label)
def test_published_numbers(check, dtype):
    def compute(given, params):
        logits = given["student"], given["teacher"], given["labels"]
        ce = tf.reduce_mean(cross_entropy(given["labels"], given["student"]))
        weights = params["alpha"], params["beta"], params["T"]
        dkd = tf.reduce_mean(dkd_loss(*logits, *weights))
        target, nontarget = dkd_terms(*logits, params["T"])
        return {
            "ce": ce,
            "tckd": tf.reduce_mean(target),
            "nckd": tf.reduce_mean(nontarget),
            "dkd": dkd,
            "total": params["ce_weight"] * ce + params["warmup"] * dkd,
        }

    oracles.verify(check, compute, dtype)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_both_parts_together_are_plain_distillation(temperature):
    logits = STUDENT, TEACHER, LABELS, temperature
    rest = 1 - np.exp(-cross_entropy(LABELS, TEACHER / temperature))
    target, nontarget = dkd_terms(*logits)
    joined = target + rest * nontarget
    np.testing.assert_allclose(joined, kl_divergence(TEACHER, STUDENT, temperature), rtol=1e-12)


def test_left_out_class_has_no_part():
    """Against the published way to leave the label out, on logits of an ordinary size."""
    keep = ~np.eye(5, dtype=bool)[LABELS]
    student, teacher = (logits.numpy()[keep].reshape(6, 4) for logits in (STUDENT, TEACHER))
    _, found = dkd_terms(STUDENT, TEACHER, LABELS)
    np.testing.assert_allclose(found, kl_divergence(teacher, student, 4.0), rtol=1e-12)


def test_student_equal_to_its_teacher_has_no_loss():
    np.testing.assert_allclose(dkd_loss(TEACHER, TEACHER, LABELS), np.zeros(6), atol=1e-14)


def test_standardized_logits_lose_their_size():
    plain = dkd_loss(STUDENT, TEACHER, LABELS, standardize=True)
    scaled = dkd_loss(3.0 * STUDENT, 0.5 * TEACHER, LABELS, standardize=True)
    np.testing.assert_allclose(scaled, plain, rtol=1e-5)
    assert np.all(np.abs(plain - dkd_loss(STUDENT, TEACHER, LABELS)) > 1e-3)


def test_published_deviation_is_another_temperature():
    terms = dkd_terms(STUDENT, TEACHER, LABELS, 2.0, standardize=True, variant="code")
    factor = np.sqrt(STUDENT.shape[-1] / (STUDENT.shape[-1] - 1))
    clean = dkd_terms(STUDENT, TEACHER, LABELS, 2.0 * factor, standardize=True)
    for found, wanted in zip(terms, clean):
        np.testing.assert_allclose(found, wanted / factor**2, rtol=1e-6)


def test_warm_up_counts_epochs_from_one():
    factors = oracles.FILE["state"]["dkd_warmup"]["factor"]
    assert factors
    for epoch, factor in factors.items():
        found = warmup_factor(tf.constant(float(epoch) - 1), 20.0)
        np.testing.assert_allclose(found, factor, rtol=1e-6)
    assert float(warmup_factor(tf.constant(0.0), 0.0)) == 1.0
    np.testing.assert_allclose(DKD(warmup_epochs=4).schedule(tf.constant(1.0)), 0.5)


def test_terms_are_weighted_means():
    context = context_of(
        {"student": {"logits": STUDENT}, "teacher": {"logits": TEACHER}},
        LABELS,
        sample_weight=[1, 2, 0, 1, 1, 1],
    )
    objective = DKD(temperature=2.0, target_weight=0.5, nontarget_weight=3.0)
    losses = objective.compute(context)
    weights = np.array([1, 2, 0, 1, 1, 1]) / 6
    target, nontarget = dkd_terms(STUDENT, TEACHER, LABELS, 2.0)
    np.testing.assert_allclose(losses["target"], 0.5 * np.sum(weights * target), rtol=1e-6)
    np.testing.assert_allclose(losses["nontarget"], 3.0 * np.sum(weights * nontarget), rtol=1e-6)
