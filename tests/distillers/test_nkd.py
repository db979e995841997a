"""NKD against the published numbers, and its properties."""

import numpy as np
import pytest
import tensorflow as tf

from tests.distillers import logit_oracles as oracles
from tfkd.core.divergences import cross_entropy
from tfkd.distillers.nkd import NKD, nkd_loss, nkd_terms
from tfkd.errors import TfkdError

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


def test_what_does_not_matter():
    loss = nkd_loss(STUDENT, TEACHER, LABELS).numpy()
    shifted = nkd_loss(STUDENT + 7.0, TEACHER - 3.0, LABELS)
    np.testing.assert_allclose(shifted, loss, rtol=1e-12)
    classes = np.array([3, 0, 4, 1, 2])
    renamed = nkd_loss(
        tf.gather(STUDENT, classes, axis=1),
        tf.gather(TEACHER, classes, axis=1),
        np.argsort(classes)[LABELS],
    )
    np.testing.assert_allclose(renamed, loss, rtol=1e-12)
    for dtype in ("uint8", "int64"):
        np.testing.assert_array_equal(nkd_loss(STUDENT, TEACHER, LABELS.astype(dtype)), loss)
    np.testing.assert_array_equal(nkd_loss(STUDENT, TEACHER, LABELS[:, None]), loss)


def test_dense_labels_mean_their_largest_class():
    dense = 0.7 * np.eye(5)[LABELS] + 0.3 * np.eye(5)[(LABELS + 1) % 5]
    found = nkd_loss(STUDENT, TEACHER, dense.astype("float32"))
    np.testing.assert_array_equal(found, nkd_loss(STUDENT, TEACHER, LABELS))


def test_a_student_equal_to_its_teacher_keeps_a_loss_but_no_nontarget_gradient():
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


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_extreme_logits_stay_finite(dtype):
    student, teacher = oracles.extreme_logits(dtype, 1), oracles.extreme_logits(dtype, 2)

    def loss(student):
        return nkd_loss(student, teacher, np.arange(8) % 5)

    assert loss(student).dtype == tf.float32
    assert np.all(np.isfinite(loss(student)))
    assert np.all(np.isfinite(tf.cast(oracles.gradients(loss, student)[0], tf.float32)))


def test_terms_are_weighted_means():
    context = oracles.context_of(
        {"student": {"logits": STUDENT}, "teacher": {"logits": TEACHER}},
        LABELS,
        sample_weight=[1, 2, 0, 1, 1, 1],
    )
    losses = NKD(temperature=2.0, nontarget_weight=3.0).compute(context)
    weights = np.array([1, 2, 0, 1, 1, 1]) / 6
    target, nontarget = nkd_terms(STUDENT, TEACHER, LABELS, 2.0)
    np.testing.assert_allclose(losses["target"], np.sum(weights * target), rtol=1e-6)
    np.testing.assert_allclose(losses["nontarget"], 3.0 * np.sum(weights * nontarget), rtol=1e-6)


def test_fits_from_the_registry():
    oracles.assert_fits("nkd")


def test_fits_on_dense_labels():
    history = oracles.distiller_of("nkd").fit(oracles.batches(dense=True), verbose=0).history
    wanted = oracles.distiller_of("nkd").fit(oracles.batches(), verbose=0).history
    np.testing.assert_allclose(history["total_loss"], wanted["total_loss"], rtol=1e-6)


def test_one_and_two_replicas_agree(two_replicas):
    oracles.assert_replicas_agree(two_replicas, "nkd")


def test_no_gradient_reaches_the_teacher():
    oracles.assert_teacher_is_left_alone("nkd")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": -1.0}, "temperature: found -1.0"),
        ({"nontarget_weight": -3.5}, "nontarget_weight: found -3.5"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(TfkdError, match=message):
        NKD(**settings)
