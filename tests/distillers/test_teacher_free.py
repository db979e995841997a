"""TF-KD in its three forms: published numbers, the scale, and which form needs what."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.distillers import logit_oracles as oracles
from tests.distillers import many_views as views
from tfkd.core.divergences import cross_entropy, kl_divergence
from tfkd.core.registry import create
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
    found = views.losses(objective, given)
    return {
        "ce": found["label"] / (1.0 - params["alpha"]),
        "kd": found["distillation"] / params["alpha"],
        "total": found["label"] + found["distillation"],
    }


def computes_regularization(given, params):
    correct = params["correct_prob"]
    found = views.losses(of_params("regularization", params, correct_probability=correct), given)
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
    return {"total": views.losses(objective, given)["teacher_free"]}


@pytest.mark.parametrize("check", oracles.checks("tf_kd_self"), ids=oracles.label)
def test_published_numbers_of_the_form_with_a_twin(check):
    oracles.verify(check, computes_self, "float64")


@pytest.mark.parametrize("check", oracles.checks("tf_kd_self"), ids=oracles.label)
def test_the_form_with_a_twin_in_float32(check):
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


def test_a_multiplier_of_all_classes_gives_the_usual_divergence():
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


@EACH_FORM
def test_labels_of_any_form_give_the_same_value(form):
    given = oracles.inputs("B")
    wanted = FUNCTIONS[form](given)
    labels = given["labels"]
    for each in (
        tf.cast(labels, "uint8"),
        tf.cast(labels, "int64"),
        labels[:, None],
        tf.one_hot(labels, 5),
    ):
        np.testing.assert_allclose(FUNCTIONS[form]({**given, "labels": each}), wanted, rtol=1e-12)


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


@EACH_FORM
def test_shifts_and_permutations_change_nothing(form):
    given = oracles.inputs("B")
    value = FUNCTIONS[form](given)
    shifted = {**given, "student": given["student"] + 3.0, "teacher": given["teacher"] - 7.0}
    rows = [2, 0, 3, 1]
    for change, wanted in (
        (shifted, value),
        (views.moved(given, classes=[3, 0, 4, 2, 1]), value),
        (views.moved(given, rows=rows), tf.gather(value, rows)),
    ):
        np.testing.assert_allclose(FUNCTIONS[form](change), wanted, rtol=1e-10)


@EACH_FORM
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_finite_at_extreme_logits(form, dtype):
    given = views.extreme(dtype)
    value = FUNCTIONS[form](given)
    assert value.dtype == "float32"
    assert np.isfinite(value).all()
    [gradient] = oracles.gradients(
        lambda student: FUNCTIONS[form]({**given, "student": student}), given["student"]
    )
    assert np.isfinite(tf.cast(gradient, "float32")).all()


def test_sample_weights_scale_their_rows():
    given = oracles.inputs("B")
    weights = np.array([1.0, 0.0, 2.0, 0.5])
    found = views.losses(TeacherFree(), given, sample_weight=tf.constant(weights))
    label = cross_entropy(given["labels"], given["student"]).numpy()
    rows = FUNCTIONS["regularization"](given).numpy()
    np.testing.assert_allclose(found["label"], 0.9 * (label * weights).sum() / 4, rtol=1e-12)
    np.testing.assert_allclose(found["distillation"], 0.1 * (rows * weights).sum() / 4, rtol=1e-12)


def test_the_teacher_is_left_alone():
    oracles.assert_teacher_is_left_alone("teacher_free", form="self")


def test_only_the_form_with_a_twin_needs_a_teacher():
    for form in FORMS:
        assert TeacherFree(form).requires.needs_teacher == (form == "self")
    with pytest.raises(TfkdError, match="need a teacher"):
        views.distiller_of(TeacherFree("self"), teacher=False)


@EACH_FORM
def test_one_and_two_replicas_agree(form, two_replicas):
    oracles.assert_replicas_agree(two_replicas, "teacher_free", form=form, teacher=form == "self")


@EACH_FORM
def test_trains_by_name_and_replaces_the_label_loss(form):
    distiller = views.distiller_of(
        create("teacher_free", form=form), teacher=form == "self", learning_rate=0.01
    )
    history = distiller.fit(views.batches(), epochs=3, verbose=0).history
    # The cross-entropy is logged, but only the method's own terms are in the total.
    assert history["loss"] == history["distillation_loss"] and min(history["student_loss"]) > 0
    np.testing.assert_allclose(history["loss"], history["distillation_loss"], rtol=1e-6)
    if form != "label_smoothing":
        parts = np.add(history["teacher_free/label"], history["teacher_free/distillation"])
        np.testing.assert_allclose(history["loss"], parts, rtol=1e-5)
    assert history["loss"][-1] < history["loss"][0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"form": "selfish"}, "form of teacher_free 'selfish'.*self"),
        ({"form": "self", "temperature": 0.0}, "teacher_free: temperature"),
        ({"form": "self", "multiplier": -1.0}, "teacher_free: multiplier"),
        ({"form": "self", "teacher_weight": 1.5}, "teacher_weight: found 1.5.* from 0 to 1"),
        ({"form": "regularization", "correct_probability": "all"}, "correct_probability"),
        ({"form": "self", "correct_probability": 0.9}, "correct_probability=0.9 with form='self'"),
        ({"form": "regularization", "smoothing": 0.1}, "smoothing=0.1 with form='regularization'"),
        ({"form": "label_smoothing", "temperature": 2.0}, "has only smoothing"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(TfkdError, match=message):
        TeacherFree(**settings)


def test_a_setting_of_zero_is_not_taken_for_none():
    objective = TeacherFree("regularization", teacher_weight=0.0)
    assert (objective.teacher_weight, objective.temperature) == (0.0, 20.0)
