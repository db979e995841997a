"""TF-KD in its three forms: published numbers, the scale, and which form needs what."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.distillers import logit_oracles_b as oracles
from tfkd.core import registry
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
    "self": lambda t: self_distillation(t["student"], t["teacher"]),
    "regularization": lambda t: virtual_teacher_distillation(t["student"], t["labels"]),
    "label_smoothing": lambda t: smoothed_cross_entropy(t["labels"], t["student"]),
}

DTYPES = pytest.mark.parametrize("dtype", [tf.float64, tf.float32])


def settings(check):
    params = check["params"]
    return {
        "teacher_weight": params["alpha"],
        "temperature": params["T"],
        "multiplier": params["multiplier"],
    }


@DTYPES
@pytest.mark.parametrize(
    "check", oracles.checks("tf_kd_self"), ids=lambda each: f"{each['case']}-{each['params']['T']}"
)
def test_published_numbers_of_the_form_with_a_twin(check, dtype):
    objective = TeacherFree("self", **settings(check))

    def total(tensors):
        losses = oracles.losses(objective, tensors)
        expected, weight = check["expected"], objective.teacher_weight
        tolerances = oracles.TOLERANCES[dtype]
        np.testing.assert_allclose(losses["label"], (1 - weight) * expected["ce"], **tolerances)
        np.testing.assert_allclose(losses["distillation"], weight * expected["kd"], **tolerances)
        return losses["label"] + losses["distillation"]

    oracles.check_total(check, total, dtype=dtype)


@DTYPES
@pytest.mark.parametrize(
    "check", oracles.checks("tf_kd_reg"), ids=lambda each: f"{each['case']}-{each['params']['T']}"
)
def test_published_numbers_of_the_virtual_teacher(check, dtype):
    correct = check["params"]["correct_prob"]
    objective = TeacherFree(
        "regularization", correct_probability=correct, **settings(check)
    )

    def total(tensors):
        losses = oracles.losses(objective, tensors)
        expected, weight = check["expected"], objective.teacher_weight
        tolerances = oracles.TOLERANCES[dtype]
        classes = tensors["student"].shape[-1]
        virtual = virtual_probabilities(tensors["labels"], classes, correct, dtype)
        target = tf.nn.softmax(virtual / objective.temperature)
        np.testing.assert_allclose(target, expected["virtual_teacher"], **tolerances)
        np.testing.assert_allclose(losses["label"], (1 - weight) * expected["ce"], **tolerances)
        np.testing.assert_allclose(losses["distillation"], weight * expected["reg"], **tolerances)
        return losses["label"] + losses["distillation"]

    oracles.check_total(check, total, dtype=dtype)


@DTYPES
@pytest.mark.parametrize("check", oracles.checks("tf_kd_lsr"), ids=lambda each: each["case"])
def test_published_numbers_of_label_smoothing(check, dtype):
    objective = TeacherFree("label_smoothing", smoothing=check["params"]["alpha"])
    oracles.check_total(
        check, lambda tensors: oracles.losses(objective, tensors)["teacher_free"], dtype=dtype
    )


def test_a_multiplier_of_all_classes_gives_the_usual_divergence():
    tensors = oracles.inputs("B")
    found = self_distillation(tensors["student"], tensors["teacher"], 4.0, multiplier=5.0)
    wanted = kl_divergence(tensors["teacher"], tensors["student"], 4.0)
    np.testing.assert_allclose(found, wanted, rtol=1e-12)
    same = self_distillation(tensors["student"], tensors["student"], 4.0)
    np.testing.assert_allclose(same, np.zeros(4), atol=1e-12)


def test_smoothing_leaves_nothing_of_itself_on_the_label():
    target = virtual_probabilities(tf.constant([1]), 5, 0.9)
    np.testing.assert_allclose(target, [[0.025, 0.9, 0.025, 0.025, 0.025]], rtol=1e-6)
    tensors = oracles.inputs("B")
    onehot = tf.one_hot(tensors["labels"], 5)
    ours = smoothed_cross_entropy(tensors["labels"], tensors["student"], smoothing=0.1)
    # Keras spreads e over all classes, the label included: e = 0.125 there is 0.1 here.
    keras_loss = keras.losses.CategoricalCrossentropy(
        from_logits=True, label_smoothing=0.125, reduction=None
    )
    np.testing.assert_allclose(
        ours, keras_loss(onehot, tf.cast(tensors["student"], tf.float32)), rtol=1e-5
    )


@pytest.mark.parametrize("form", FORMS)
def test_labels_of_any_form_give_the_same_value(form):
    tensors = oracles.inputs("B")
    wanted = FUNCTIONS[form](tensors)
    for labels in (
        *(tf.cast(tensors["labels"], dtype) for dtype in (tf.uint8, tf.int64)),
        tensors["labels"][:, None],
        tf.one_hot(tensors["labels"], 5),
    ):
        np.testing.assert_allclose(FUNCTIONS[form]({**tensors, "labels": labels}), wanted, rtol=1e-12)


@pytest.mark.parametrize("form", ["regularization", "label_smoothing"])
def test_dense_labels_mix_the_losses_of_the_classes(form):
    """Label smoothing is linear in the label; the virtual teacher takes the mixed probabilities."""
    tensors = oracles.inputs("A")
    mixed = tf.constant([[0.7, 0.3, 0.0], [0.0, 0.4, 0.6]], tf.float64)
    found = FUNCTIONS[form]({**tensors, "labels": mixed}).numpy()
    student = tensors["student"].numpy()
    logs = student - np.log(np.exp(student).sum(-1, keepdims=True))
    if form == "label_smoothing":
        wanted = -((0.9 * mixed + 0.05 * (1 - mixed)) * logs).numpy().sum(-1)
    else:
        raised = np.exp((0.99 * mixed + 0.005 * (1 - mixed)).numpy() / 20.0)
        target = raised / raised.sum(-1, keepdims=True)
        wanted = 100.0 / 3 * (target * (np.log(target) - logs)).sum(-1)
    np.testing.assert_allclose(found, wanted, rtol=1e-12)


@pytest.mark.parametrize("form", FORMS)
def test_shifts_and_permutations_change_nothing(form):
    tensors = oracles.inputs("B")
    value = FUNCTIONS[form](tensors)
    shifted = {**tensors, "student": tensors["student"] + 3, "teacher": tensors["teacher"] - 7}
    np.testing.assert_allclose(FUNCTIONS[form](shifted), value, rtol=1e-10)
    order = [3, 0, 4, 2, 1]
    moved = {name: tf.gather(tensors[name], order, axis=1) for name in ("student", "teacher")}
    moved["labels"] = tf.constant([order.index(label) for label in tensors["labels"].numpy()])
    np.testing.assert_allclose(FUNCTIONS[form](moved), value, rtol=1e-12)
    rows = [2, 0, 3, 1]
    moved = {name: tf.gather(tensors[name], rows) for name in ("student", "teacher", "labels")}
    np.testing.assert_allclose(FUNCTIONS[form](moved), tf.gather(value, rows), rtol=1e-12)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", [tf.bfloat16, tf.float16, tf.float32])
def test_finite_at_extreme_logits(form, dtype):
    tensors = oracles.extreme(dtype)
    value = FUNCTIONS[form](tensors)
    assert value.dtype == tf.float32
    assert np.isfinite(value).all()
    [gradient] = oracles.gradients(
        lambda t: tf.reduce_sum(FUNCTIONS[form](t)), tensors, ["student"]
    )
    assert np.isfinite(tf.cast(gradient, tf.float32)).all()


def test_sample_weights_scale_their_rows():
    tensors = oracles.inputs("B")
    weights = np.array([1.0, 0.0, 2.0, 0.5])
    losses = oracles.losses(TeacherFree(), tensors, sample_weight=tf.constant(weights))
    label = cross_entropy(tensors["labels"], tensors["student"]).numpy()
    rows = FUNCTIONS["regularization"](tensors).numpy()
    np.testing.assert_allclose(losses["label"], 0.9 * (label * weights).sum() / 4, rtol=1e-12)
    np.testing.assert_allclose(losses["distillation"], 0.1 * (rows * weights).sum() / 4, rtol=1e-12)


def test_the_forms_need_what_they_say():
    assert TeacherFree("self").requires.teacher
    assert not TeacherFree("regularization").requires.teacher
    assert not TeacherFree("label_smoothing").requires.teacher
    with pytest.raises(TfkdError, match="need a teacher"):
        oracles.distiller(lambda: TeacherFree("self"), teacher=False)


@pytest.mark.parametrize("form", FORMS)
def test_one_and_two_replicas_agree(form, two_replicas):
    # The published multipliers make gradients of many times the usual size.
    extra = {} if form == "label_smoothing" else {"multiplier": float(oracles.CLASSES)}
    oracles.check_replicas(
        lambda: TeacherFree(form, **extra), two_replicas, teacher=form == "self"
    )


@pytest.mark.parametrize("form", FORMS)
def test_trains_by_name_and_replaces_the_label_loss(form):
    distiller = oracles.distiller(
        lambda: registry.create("teacher_free", form=form),
        teacher=form == "self",
        learning_rate=0.01,
    )
    history = distiller.fit(oracles.batches(()), epochs=3, verbose=0).history
    assert history["student_loss"] == [0.0] * 3
    np.testing.assert_allclose(history["loss"], history["distillation_loss"], rtol=1e-6)
    if form != "label_smoothing":
        parts = [history["teacher_free/label"], history["teacher_free/distillation"]]
        np.testing.assert_allclose(history["loss"], np.sum(parts, axis=0), rtol=1e-5)
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


def test_settings_of_zero_are_not_taken_for_none():
    objective = TeacherFree("regularization", teacher_weight=0.0)
    assert objective.teacher_weight == 0.0
    assert objective.temperature == 20.0
