"""USKD against the published numbers, and its properties."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.distillers import logit_oracles as oracles
from tests.distillers import runs
from tests.distillers.contexts import context_of, spec_of
from tfkd import models
from tfkd.core import Distiller
from tfkd.core.divergences import cross_entropy
from tfkd.distillers.uskd import (
    USKD,
    nontarget_loss,
    target_loss,
    target_squares,
    weak_loss,
    zipf_weights,
)
from tfkd.errors import TfkdError

STUDENT, WEAK = oracles.random_logits(seed=1), oracles.random_logits(seed=2)
LABELS = np.array([0, 4, 2, 1, 3, 2])
MIXED = 0.7 * np.eye(5)[LABELS] + 0.3 * np.eye(5)[(LABELS + 2) % 5]


def losses(student, weak, labels, variant="code"):
    """The three means over a batch."""
    mean_squares = tf.reduce_mean(target_squares(student, labels), axis=0)
    zipf = zipf_weights(student, weak, labels, variant)
    return (
        tf.reduce_mean(target_loss(student, labels, mean_squares)),
        tf.reduce_mean(nontarget_loss(student, labels, zipf)),
        tf.reduce_mean(weak_loss(weak, labels)),
    )


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("check", oracles.checks("uskd"), ids=oracles.label)
def test_published_numbers(check, dtype):
    def compute(given, params):
        student, weak, labels = given["student"], given["weak"], given["labels"]
        squares = target_squares(student, labels)[:, 0]
        zipf = zipf_weights(student, weak, labels, params["variant"])
        target, nontarget, of_weak = losses(student, weak, labels, params["variant"])
        others = ~np.eye(student.shape[1], dtype=bool)[labels.numpy()]
        ce = tf.reduce_mean(cross_entropy(labels, student))
        uskd = params["alpha"] * target + params["beta"] * nontarget + params["mu"] * of_weak
        return {
            "ce": ce,
            "target_weight": squares + 1 - tf.reduce_mean(squares),
            "target": target,
            "zipf_nontarget": zipf.numpy()[others].reshape(len(others), -1),
            "nontarget": nontarget,
            "weak": params["mu"] * of_weak,
            "uskd": uskd,
            "total": ce + uskd,
        }

    oracles.verify(check, compute, dtype)


def test_dense_labels_against_a_loop():
    """The mean over two images with two targets each, by the formula, one class at a time."""
    student, weak, labels = STUDENT[:2].numpy(), WEAK[:2].numpy(), MIXED[:2]
    p = np.exp(student) / np.exp(student).sum(1, keepdims=True)
    r = np.exp(weak) / np.exp(weak).sum(1, keepdims=True)
    targets = [np.argsort(-row)[:2] for row in labels]
    target, nontarget, of_weak = [], [], []
    for i in range(2):
        mean_squares = [np.mean([p[b][targets[b][k]] ** 2 for b in range(2)]) for k in range(2)]
        target.append(
            -sum(
                (p[i][c] ** 2 + labels[i][c] - mean_squares[k]) * np.log(p[i][c])
                for k, c in enumerate(targets[i])
            )
        )
        a = np.log(p[i])
        score = r[i] / (1 - r[i][targets[i]].sum() + 1e-6) + a / (1 - a[targets[i]].sum() + 1e-6)
        rank = {c: position + 1 for position, c in enumerate(np.argsort(-score))}
        others = [c for c in range(5) if c not in targets[i]]
        zipf = np.array([1 / rank[c] for c in others])
        log = np.log(p[i][others] / p[i][others].sum())
        nontarget.append(-np.sum(zipf / zipf.sum() * log))
        of_weak.append(-np.sum((0.9 * labels[i] + 0.02) * np.log(r[i])))
    found = losses(tf.constant(student), tf.constant(weak), labels)
    for value, wanted in zip(found, (target, nontarget, of_weak), strict=True):
        np.testing.assert_allclose(value, np.mean(wanted), rtol=1e-9)


@pytest.mark.parametrize("variant", ["code", "clean"])
def test_one_hot_labels_mean_what_class_numbers_do(variant):
    found = losses(STUDENT, WEAK, np.eye(5)[LABELS], variant)
    np.testing.assert_allclose(found, losses(STUDENT, WEAK, LABELS, variant), rtol=1e-12)


@pytest.mark.parametrize("labels", [LABELS, MIXED], ids=["numbers", "mixed"])
@pytest.mark.parametrize("variant", ["code", "clean"])
def test_offsets_of_logits_and_orders_of_classes_and_rows_do_not_matter(variant, labels):
    wanted = losses(STUDENT, WEAK, labels, variant)
    shifted = losses(STUDENT + 7.0, WEAK - 3.0, labels, variant)
    np.testing.assert_allclose(shifted, wanted, rtol=1e-9)
    classes, rows = np.array([3, 0, 4, 1, 2]), np.array([5, 2, 0, 1, 4, 3])
    names = labels[:, classes] if labels.ndim == 2 else np.argsort(classes)[labels]
    renamed = [tf.gather(logits, classes, axis=1) for logits in (STUDENT, WEAK)]
    np.testing.assert_allclose(losses(*renamed, names, variant), wanted, rtol=1e-9)
    moved = [tf.gather(logits, rows) for logits in (STUDENT, WEAK)]
    np.testing.assert_allclose(losses(*moved, labels[rows], variant), wanted, rtol=1e-9)


def test_only_the_weak_loss_trains_the_weak_head():
    gradients = [
        oracles.gradients(lambda z, r, k=k: losses(z, r, LABELS)[k], STUDENT, WEAK)
        for k in range(3)
    ]
    reached = [[gradient is not None for gradient in pair] for pair in gradients]
    assert reached == [[True, False], [True, False], [False, True]]


def test_two_targets_of_two_classes_leave_no_others():
    student, weak = STUDENT[:, :2], WEAK[:, :2]
    labels = np.tile([0.6, 0.4], (6, 1))
    np.testing.assert_array_equal(zipf_weights(student, weak, labels), np.zeros((6, 2)))
    assert losses(student, weak, labels)[1] == 0


@pytest.mark.parametrize("variant", ["code", "clean"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_extreme_logits_stay_finite(dtype, variant):
    student, weak = oracles.extreme_logits(dtype, 1), oracles.extreme_logits(dtype, 2)

    def total(student, weak):
        return tf.add_n(losses(student, weak, np.arange(8) % 5, variant))

    assert np.isfinite(total(student, weak))
    for gradient in oracles.gradients(total, student, weak):
        assert np.all(np.isfinite(tf.cast(gradient, tf.float32)))


def test_terms_are_weighted_means():
    rows = np.array([1, 2, 0, 1, 1, 0.5])
    objective = USKD(0.2, 0.3, 0.4, feature="stage2")
    feature = tf.constant(np.random.default_rng(4).normal(size=(6, 2, 2, 3)), tf.float32)
    objective.setup(spec_of({"stage2": (None, 2, 2, 3)}))
    outputs = {"student": {"logits": tf.cast(STUDENT, tf.float32), "stage2": feature}}
    found = objective.compute(context_of(outputs, LABELS, sample_weight=rows))
    kernel, bias = (variable.numpy() for variable in objective.head.trainable_variables)
    weak = (np.mean(feature, axis=(1, 2)) @ kernel + bias).astype("float64")
    squares = target_squares(STUDENT, LABELS).numpy()
    target = target_loss(STUDENT, LABELS, np.sum(rows[:, None] * squares, 0) / np.sum(rows))
    nontarget = nontarget_loss(STUDENT, LABELS, zipf_weights(STUDENT, weak, LABELS))
    for name, weight, values in (
        ("target", 0.2, target),
        ("nontarget", 0.3, nontarget),
        ("weak", 0.4, weak_loss(weak, LABELS)),
    ):
        wanted = weight * np.sum(rows * values.numpy()) / 6
        np.testing.assert_allclose(found[name], wanted, rtol=1e-5, err_msg=name)


def test_weak_head_is_no_part_of_the_student():
    distiller = runs.distiller_of(USKD(feature="stage2"))
    student = {id(variable) for variable in distiller.student.variables}
    head = distiller.objectives[0].head.trainable_variables
    assert len(head) == 2 and not student.intersection(id(variable) for variable in head)


def test_weak_head_trains_the_stage_that_it_reads():
    objective = USKD(target_weight=0.0, nontarget_weight=0.0, feature="stage2")
    distiller = runs.distiller_of(objective, student_loss_weight=0.0)
    with tf.GradientTape() as tape:
        context = distiller.forward(next(iter(runs.batches("sample_weight"))), training=True)
        total = distiller.combine(context).total
    stage = distiller.student.get_layer("stage2_conv").trainable_variables
    assert all(np.any(gradient != 0) for gradient in tape.gradient(total, stage))


@pytest.mark.parametrize("feature", ["stage3", "image_1"])
def test_unknown_stage_is_refused(feature):
    with pytest.raises(TfkdError, match=feature):
        runs.distiller_of(USKD(feature=feature))


@pytest.mark.parametrize(
    ("student", "stage"), [("resnet8", "stage2"), ("vgg8", "stage3"), ("mobilenetv2", "stage3")]
)
def test_weak_head_reads_the_stage_before_the_last(student, stage):
    model = models.create(student, 3, (32, 32, 3))
    objective = USKD()
    Distiller(None, model, objective)
    assert objective.feature == stage
    assert objective.requires.taps["student", "main"] == ["logits", stage]


def test_student_without_stages_needs_a_feature():
    image = keras.Input((4, 4, 1))
    logits = keras.layers.Dense(3, name="logits")(keras.layers.Flatten(name="flat")(image))
    model = keras.Model(image, logits)
    with pytest.raises(TfkdError, match="found 0 stages .* wanted two or more, or the name of"):
        Distiller(None, model, USKD())
    Distiller(None, model, USKD(feature="flat"))
