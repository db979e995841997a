"""TF-KD in its three forms: published numbers, the scale, and which form needs what."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.distillers import logit_oracles as oracles
from tests.distillers import runs
from tests.distillers.contexts import losses
from tfkd.core.divergences import cross_entropy, kl_divergence
from tfkd.distillers.teacher_free import (
    FORMS,
    TeacherFree,
    self_distillation,
    smoothed_cross_entropy,
    virtual_probabilities,
    virtual_teacher_distillation,
)
from tfkd.errors import TfkdError

FUNCTIONS = {
    "self": lambda given: self_distillation(given["student"], given["teacher"]),
    "regularization": lambda given: virtual_teacher_distillation(given["student"], given["labels"]),
    "label_smoothing": lambda given: smoothed_cross_entropy(given["labels"], given["student"]),
}
"""What each form adds (or, for label smoothing, is) for each sample of a case."""

EACH_FORM = pytest.mark.parametrize("form", FORMS)
EACH_DTYPE = pytest.mark.parametrize("dtype", ["float64", "float32"])


def of_params(form, params, **settings):
    return TeacherFree(
        form,
        teacher_weight=params["alpha"],
        temperature=params["T"],
        multiplier=params["multiplier"],
        **settings,
    )


def computes_self(given, params):
    objective = of_params("self", params)
    found = losses(objective, given)
    return {
        "ce": found["label"] / (1.0 - params["alpha"]),
        "kd": found["distillation"] / params["alpha"],
        "total": found["label"] + found["distillation"],
    }


def computes_regularization(given, params):
    correct = params["correct_prob"]
    found = losses(of_params("regularization", params, correct_probability=correct), given)
    dtype, classes = given["student"].dtype, given["student"].shape[-1]
    virtual = virtual_probabilities(given["labels"], classes, correct, dtype)
    return {
        "ce": found["label"] / (1.0 - params["alpha"]),
        "reg": found["distillation"] / params["alpha"],
        "virtual_teacher": tf.nn.softmax(virtual / params["T"]),
        "total": found["label"] + found["distillation"],
    }


def computes_label_smoothing(given, params):
    objective = TeacherFree("label_smoothing", smoothing=params["alpha"])
    return {"total": losses(objective, given)["teacher_free"]}


@pytest.mark.parametrize("check", oracles.checks("tf_kd_self"), ids=oracles.label)
def test_published_numbers_of_the_form_with_a_twin(check):
    oracles.verify(check, computes_self, "float64")


@pytest.mark.parametrize("check", oracles.checks("tf_kd_self"), ids=oracles.label)
def test_published_numbers_of_the_form_with_a_twin_in_float32(check):
    """A divergence rounds to about 1e-7, which multiplier, T^2 and 1 / C then scale."""
    found = computes_self(oracles.inputs(check["case"], "float32"), check["params"])
    scale = check["params"]["multiplier"] * check["params"]["T"] ** 2 / 3
    for name, value in check["expected"].items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=2e-7 * scale, err_msg=name)


@EACH_DTYPE
@pytest.mark.parametrize("check", oracles.checks("tf_kd_reg"), ids=oracles.label)
def test_published_numbers_of_the_virtual_teacher(check, dtype):
    oracles.verify(check, computes_regularization, dtype)


@EACH_DTYPE
@pytest.mark.parametrize("check", oracles.checks("tf_kd_lsr"), ids=oracles.label)
def test_published_numbers_of_label_smoothing(check, dtype):
    oracles.verify(check, computes_label_smoothing, dtype)


def test_multiplier_of_all_classes_gives_the_usual_divergence():
    student, teacher = oracles.random_logits(seed=0), oracles.random_logits(seed=1)
    found = self_distillation(student, teacher, 4.0, multiplier=5.0)
    np.testing.assert_allclose(found, kl_divergence(teacher, student, 4.0), rtol=1e-12)
    np.testing.assert_allclose(self_distillation(student, student), np.zeros(6), atol=1e-12)


def test_smoothing_leaves_nothing_of_itself_on_the_label():
    target = virtual_probabilities(tf.constant([1]), 5, 0.9)
    np.testing.assert_allclose(target, [[0.025, 0.9, 0.025, 0.025, 0.025]], rtol=1e-6)
    given = oracles.inputs("B", "float32")
    ours = smoothed_cross_entropy(given["labels"], given["student"], smoothing=0.1)
    # Keras spreads over all five classes, the label included: its 0.125 is 0.1 here.
    theirs = keras.losses.CategoricalCrossentropy(
        from_logits=True, label_smoothing=0.125, reduction=None
    )
    wanted = theirs(tf.one_hot(given["labels"], 5), given["student"])
    np.testing.assert_allclose(ours, wanted, rtol=1e-5)


@pytest.mark.parametrize("form", ["regularization", "label_smoothing"])
def test_dense_labels_mix_what_the_classes_say(form):
    given = oracles.inputs("A")
    mixed = np.array([[0.7, 0.3, 0.0], [0.0, 0.4, 0.6]])
    found = FUNCTIONS[form]({**given, "labels": tf.constant(mixed)})
    student = given["student"].numpy()
    logs = student - np.log(np.exp(student).sum(-1, keepdims=True))
    if form == "label_smoothing":
        wanted = -((0.9 * mixed + 0.05 * (1 - mixed)) * logs).sum(-1)
    else:
        raised = np.exp((0.99 * mixed + 0.005 * (1 - mixed)) / 20.0)
        target = raised / raised.sum(-1, keepdims=True)
        wanted = 100.0 / 3 * (target * (np.log(target) - logs)).sum(-1)
    np.testing.assert_allclose(found, wanted, rtol=1e-10)


def test_sample_weights_scale_their_rows():
    given = oracles.inputs("B")
    weights = np.array([1.0, 0.0, 2.0, 0.5])
    found = losses(TeacherFree(), given, sample_weight=tf.constant(weights))
    label = cross_entropy(given["labels"], given["student"]).numpy()
    rows = FUNCTIONS["regularization"](given).numpy()
    np.testing.assert_allclose(found["label"], 0.9 * (label * weights).sum() / 4, rtol=1e-12)
    np.testing.assert_allclose(found["distillation"], 0.1 * (rows * weights).sum() / 4, rtol=1e-12)


def test_only_the_form_with_a_twin_needs_a_teacher():
    for form in FORMS:
        assert TeacherFree(form).requires.needs_teacher == (form == "self")
    with pytest.raises(TfkdError, match="need a teacher"):
        runs.distiller_of(TeacherFree("self"), teacher=False)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"form": "self", "correct_probability": 0.9}, "correct_probability=0.9 with form='self'"),
        ({"form": "regularization", "smoothing": 0.1}, "smoothing=0.1 with form='regularization'"),
        ({"form": "label_smoothing", "temperature": 2.0}, "has only smoothing"),
    ],
)
def test_setting_of_another_form_is_refused(settings, message):
    with pytest.raises(TfkdError, match=message):
        TeacherFree(**settings)


def test_setting_of_zero_is_not_taken_for_none():
    objective = TeacherFree("regularization", teacher_weight=0.0)
    assert (objective.teacher_weight, objective.temperature) == (0.0, 20.0)
