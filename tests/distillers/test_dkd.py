"""DKD against the published numbers, and its properties."""

import numpy as np
import pytest
import tensorflow as tf

from tests.distillers import logit_oracles as oracles
from tfkd.core.divergences import cross_entropy, kl_divergence
from tfkd.distillers.dkd import DKD, dkd_loss, dkd_terms, warmup_factor
from tfkd.errors import TfkdError

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


def test_a_student_equal_to_its_teacher_has_no_loss():
    np.testing.assert_allclose(dkd_loss(TEACHER, TEACHER, LABELS), np.zeros(6), atol=1e-14)


def test_what_does_not_matter():
    loss = dkd_loss(STUDENT, TEACHER, LABELS).numpy()
    shifted = dkd_loss(STUDENT + 7.0, TEACHER - 3.0, LABELS)
    np.testing.assert_allclose(shifted, loss, rtol=1e-12)
    classes = np.array([3, 0, 4, 1, 2])
    renamed = dkd_loss(
        tf.gather(STUDENT, classes, axis=1),
        tf.gather(TEACHER, classes, axis=1),
        np.argsort(classes)[LABELS],
    )
    np.testing.assert_allclose(renamed, loss, rtol=1e-12)
    for dtype in ("uint8", "int64"):
        np.testing.assert_array_equal(dkd_loss(STUDENT, TEACHER, LABELS.astype(dtype)), loss)
    np.testing.assert_array_equal(dkd_loss(STUDENT, TEACHER, LABELS[:, None]), loss)


@pytest.mark.parametrize("standardize", [False, True])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_extreme_logits_stay_finite(dtype, standardize):
    student, teacher = oracles.extreme_logits(dtype, 1), oracles.extreme_logits(dtype, 2)
    labels = np.arange(8) % 5

    def loss(student):
        return dkd_loss(student, teacher, labels, standardize=standardize)

    assert loss(student).dtype == tf.float32
    assert np.all(np.isfinite(loss(student)))
    assert np.all(np.isfinite(tf.cast(oracles.gradients(loss, student)[0], tf.float32)))


def test_standardised_logits_lose_their_size():
    plain = dkd_loss(STUDENT, TEACHER, LABELS, standardize=True)
    scaled = dkd_loss(3.0 * STUDENT, 0.5 * TEACHER, LABELS, standardize=True)
    np.testing.assert_allclose(scaled, plain, rtol=1e-5)
    assert np.all(np.abs(plain - dkd_loss(STUDENT, TEACHER, LABELS)) > 1e-3)


def test_warm_up_counts_epochs_from_one():
    factors = oracles.FILE["state"]["dkd_warmup"]["factor"]
    assert factors
    for epoch, factor in factors.items():
        found = warmup_factor(tf.constant(float(epoch) - 1), 20.0)
        np.testing.assert_allclose(found, factor, rtol=1e-6)
    assert float(warmup_factor(tf.constant(0.0), 0.0)) == 1.0


def test_terms_are_weighted_means():
    context = oracles.context_of(
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


def test_fits_from_the_registry():
    distiller = oracles.assert_fits("dkd", warmup_epochs=4)
    objective = distiller.objectives[0]
    np.testing.assert_allclose(objective.schedule(tf.constant(1.0)), 0.5)


def test_one_and_two_replicas_agree(two_replicas):
    oracles.assert_replicas_agree(two_replicas, "dkd", warmup_epochs=3, standardize=True)


def test_no_gradient_reaches_the_teacher():
    oracles.assert_teacher_is_left_alone("dkd")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": 0.0}, "temperature: found 0.0"),
        ({"target_weight": -1.0}, "target_weight: found -1.0"),
        ({"nontarget_weight": "8"}, "nontarget_weight: found '8'"),
        ({"warmup_epochs": -1}, "warmup_epochs: found -1"),
        ({"standardize": "no"}, "standardize: found 'no'"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(TfkdError, match=message):
        DKD(**settings)


def test_dense_labels_are_refused():
    distiller = oracles.distiller_of("dkd")
    with pytest.raises(TfkdError, match="dkd works on class numbers"):
        distiller.fit(oracles.batches(dense=True), verbose=0)
