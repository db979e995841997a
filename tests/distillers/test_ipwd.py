"""IPWD against the numbers of its reconstruction, and its properties."""

import numpy as np
import pytest
import tensorflow as tf

from tests.distillers import logit_oracles as oracles
from tests.distillers import runs
from tests.distillers.contexts import context_of, spec_of
from tfkd.core.divergences import cross_entropy, kl_divergence
from tfkd.distillers.ipwd import IPWD, ipwd_loss, propensity_weights
from tfkd.errors import TfkdError

STUDENT, TEACHER = oracles.random_logits(seed=1), oracles.random_logits(seed=2)
HEAD = oracles.random_logits(seed=3)
LABELS = np.array([0, 4, 2, 1, 3, 2])


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("check", oracles.checks("ipwd"), ids=oracles.label)
def test_published_numbers(check, dtype):
    def compute(given, params):
        student, head, labels = given["student"], given["aux"], given["labels"]
        weights = propensity_weights(
            student, head, labels, params["orientation"], params["standardize"]
        )
        if params["normalize"]:
            weights /= tf.reduce_mean(weights)
        ce = tf.reduce_mean(cross_entropy(labels, student))
        ce_aux = tf.reduce_mean(cross_entropy(labels, head))
        kd = tf.reduce_mean(ipwd_loss(student, given["teacher"], weights, params["T"]))
        total = params["ce_weight"] * ce + params["aux_weight"] * ce_aux + params["kd_weight"] * kd
        return {"ce": ce, "ce_aux": ce_aux, "weights": weights, "kd": kd, "total": total}

    oracles.verify(check, compute, dtype)


def test_equal_heads_double_plain_distillation():
    weights = propensity_weights(STUDENT, STUDENT, LABELS)
    np.testing.assert_allclose(weights, np.full(6, 2.0), rtol=1e-12)
    loss = ipwd_loss(STUDENT, TEACHER, weights)
    np.testing.assert_allclose(loss, 2 * kl_divergence(TEACHER, STUDENT, 4.0), rtol=1e-12)


def test_size_and_offset_of_logits_and_order_of_classes_do_not_matter():
    weights = propensity_weights(STUDENT, HEAD, LABELS).numpy()
    np.testing.assert_allclose(
        propensity_weights(3 * STUDENT + 7.0, HEAD - 3.0, LABELS), weights, rtol=1e-6
    )
    classes = np.array([3, 0, 4, 1, 2])
    renamed = propensity_weights(
        tf.gather(STUDENT, classes, axis=1),
        tf.gather(HEAD, classes, axis=1),
        np.argsort(classes)[LABELS],
    )
    np.testing.assert_allclose(renamed, weights, rtol=1e-12)
    for dtype in ("uint8", "int64"):
        np.testing.assert_array_equal(
            propensity_weights(STUDENT, HEAD, LABELS.astype(dtype)), weights
        )


def test_orientations_are_reciprocal():
    one = propensity_weights(STUDENT, HEAD, LABELS, "cls_over_kd", standardize=False) - 1
    other = propensity_weights(STUDENT, HEAD, LABELS, "kd_over_cls", standardize=False) - 1
    np.testing.assert_allclose(one * other, np.ones(6), rtol=1e-9)


def test_weights_carry_no_gradient():
    found = oracles.gradients(lambda z, h: propensity_weights(z, h, LABELS), STUDENT, HEAD)
    assert found == [None, None]


@pytest.mark.parametrize("standardize", [False, True])
@pytest.mark.parametrize("orientation", ["cls_over_kd", "kd_over_cls"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_extreme_logits_stay_finite(dtype, orientation, standardize):
    student, teacher = oracles.extreme_logits(dtype, 1), oracles.extreme_logits(dtype, 2)
    head = oracles.extreme_logits(dtype, 3)

    def loss(student):
        weights = propensity_weights(student, head, np.arange(8) % 5, orientation, standardize)
        return ipwd_loss(student, teacher, weights)

    assert np.all(np.isfinite(loss(student)))
    if standardize:
        # The raw ratio reaches 1e11, beyond what a float16 gradient can hold.
        assert np.all(np.isfinite(tf.cast(oracles.gradients(loss, student)[0], tf.float32)))


def objective_and_context(sample_weight=None, training=True, padding=0, **settings):
    """An objective with its head, and a step of six images with a feature of three channels.

    ``padding`` adds rows of other values to them.
    """
    objective = IPWD(**settings)
    objective.setup(spec_of({"pooled": (None, 2, 2, 3)}))
    feature = tf.constant(np.random.default_rng(4).normal(size=(6, 2, 2, 3)), tf.float32)

    def padded(value):
        value = tf.cast(value, tf.float32)
        return tf.concat([value, 3 - 2 * value[:padding]], 0) if padding else value

    outputs = {
        "student": {"logits": padded(STUDENT), "pooled": padded(feature)},
        "teacher": {"logits": padded(TEACHER)},
    }
    labels = np.concatenate([LABELS, np.zeros(padding, int)])
    context = context_of(outputs, labels, sample_weight=sample_weight, training=training)
    return objective, context, outputs["student"]["pooled"]


def test_terms_are_weighted_means():
    rows = np.array([1.0, 2, 0, 1, 1, 0.5])
    objective, context, feature = objective_and_context(
        sample_weight=rows, normalize=True, kd_weight=0.7, head_weight=1.5
    )
    losses = objective.compute(context)
    kernel, bias = (variable.numpy() for variable in objective.head.trainable_variables)
    head = np.mean(feature, axis=(1, 2)) @ kernel + bias
    weights = propensity_weights(STUDENT, head.astype("float64"), LABELS).numpy()
    weights /= np.sum(rows * weights) / np.sum(rows)
    kd = 0.7 * np.sum(rows * weights * kl_divergence(TEACHER, STUDENT, 4.0).numpy()) / 6
    np.testing.assert_allclose(losses["kd"], kd, rtol=1e-5)
    label = 1.5 * np.sum(rows * cross_entropy(LABELS, head).numpy()) / 6
    np.testing.assert_allclose(losses["head"], label, rtol=1e-5)


def test_rows_of_weight_zero_have_no_part_in_evaluation():
    alone, context, _ = objective_and_context(normalize=True, training=False)
    wanted = alone.compute(context)
    filled, context, _ = objective_and_context([1] * 6 + [0, 0], False, 2, normalize=True)
    context.batch["filler"] = tf.constant([False] * 6 + [True] * 2)
    for name, value in filled.compute(context).items():
        np.testing.assert_allclose(value, wanted[name], rtol=1e-6)


def test_gradient_of_the_head_may_stop_before_the_features():
    for detach in (False, True):
        objective, context, feature = objective_and_context(detach_features=detach)
        with tf.GradientTape() as tape:
            tape.watch(feature)
            total = tf.add_n(list(objective.compute(context).values()))
        gradients = tape.gradient(total, [feature, *objective.head.trainable_variables])
        assert (gradients[0] is None) == detach
        assert all(np.any(gradient != 0) for gradient in gradients[1:])


def test_head_is_no_part_of_the_student():
    distiller = runs.distiller_of(IPWD())
    student = {id(variable) for variable in distiller.student.variables}
    head = distiller.objectives[0].head.trainable_variables
    assert len(head) == 2 and not student.intersection(id(variable) for variable in head)


def test_unknown_feature_is_refused():
    with pytest.raises(TfkdError, match="poled"):
        runs.distiller_of(IPWD(feature="poled"))
