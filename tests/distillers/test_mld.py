"""MLD: published numbers of both variants, the levels against loops, and the whole batch."""

import numpy as np
import pytest
import tensorflow as tf

from tests.distillers import logit_oracles as oracles
from tests.distillers import runs
from tests.distillers.contexts import VIEWS, losses
from tfkd.core.divergences import cross_entropy, kl_divergence
from tfkd.distillers.mld import (
    MLD,
    batch_level,
    class_level,
    instance_level,
    mask_shares,
)
from tfkd.distillers.shared.standardization import standardized
from tfkd.errors import TfkdError

EITHER = pytest.mark.parametrize("variant", ["code", "clean"])


def softmax(logits, temperature):
    raised = np.exp(np.asarray(logits) / temperature)
    return raised / raised.sum(-1, keepdims=True)


def total(objective, given):
    return tf.add_n(list(losses(objective, given).values()))


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("check", oracles.checks("mld"), ids=oracles.label)
def test_published_numbers(check, dtype):
    def compute(given, params):
        weights = params["ce_weight"], params["kd_weight"]
        objective = MLD(params["temps"], *weights, variant=params["variant"])
        found = losses(objective, given)
        numbers = {
            "ce": found["label"] / weights[0],
            "instance": found["instance"] / weights[1],
            "batch": found["batch"] / weights[1],
            "cls": found["class"] / weights[1],
            "total": tf.add_n(list(found.values())),
        }
        if params["variant"] == "code":
            shares = mask_shares(given["teacher"])
            numbers.update(zip(("mask_mean", "class_mask_mean"), shares))
        return numbers

    oracles.verify(check, compute, dtype)


@pytest.mark.parametrize(("rows", "classes"), [(1, 4), (6, 5), (7, 10), (64, 9)])
def test_mask_shares_are_those_of_percentiles(rows, classes):
    logits = np.random.default_rng(rows).normal(0.0, 2.0, (rows, classes))
    logits[rows // 2 :] = logits[: rows - rows // 2]
    teacher = softmax(logits, 1.0)
    highest, mass = teacher.max(-1), teacher.sum(0)
    samples, over_classes = mask_shares(tf.constant(logits))
    wanted = (np.round(highest, 12) <= np.round(np.percentile(highest, 50), 12)).mean()
    np.testing.assert_allclose(samples, wanted, rtol=1e-12)
    wanted = (np.round(mass, 12) <= np.round(np.percentile(mass, 50), 12)).mean()
    np.testing.assert_allclose(over_classes, wanted, rtol=1e-12)


def test_levels_are_those_of_loops():
    given = oracles.inputs("B")
    temperatures = (4.0, 1.5)
    student, teacher = given["student"], given["teacher"]
    instance, rows, over_classes = np.zeros(4), np.zeros(4), 0.0
    for temperature, factor in zip(temperatures, (0.25, 2.0)):
        p, q = softmax(student, temperature), softmax(teacher, temperature)
        instance += factor * kl_divergence(teacher, student, temperature).numpy()
        for a in range(4):
            for b in range(4):
                rows[a] += (q[a] @ q[b] - p[a] @ p[b]) ** 2
        for c in range(5):
            for d in range(5):
                over_classes += (q[:, c] @ q[:, d] - p[:, c] @ p[:, d]) ** 2 / 5
    found = instance_level(student, teacher, temperatures, (0.25, 2.0))
    np.testing.assert_allclose(found, instance, rtol=1e-10)
    np.testing.assert_allclose(batch_level(student, teacher, temperatures), rows, rtol=1e-10)
    np.testing.assert_allclose(
        class_level(student, teacher, temperatures), over_classes, rtol=1e-10
    )


@EITHER
def test_student_equal_to_its_teacher_has_label_losses_alone(variant):
    given = oracles.inputs("B")
    given.update(teacher=given["student"], teacher_strong=given["student_strong"])
    found = losses(MLD(variant=variant), given)
    for name in ("instance", "batch", "class"):
        np.testing.assert_allclose(found[name], 0.0, atol=1e-12)
    both = [cross_entropy(given["labels"], given[each]) for each in ("student", "student_strong")]
    np.testing.assert_allclose(found["label"], 0.1 * np.mean(np.add(*both)), rtol=1e-12)


def test_variant_code_drops_levels_of_the_strong_view():
    """The strong view's gradient is that of its label loss and of three instance levels."""
    given = oracles.inputs("B")
    [found] = oracles.gradients(
        lambda strong: total(MLD(), {**given, "student_strong": strong}), given["student_strong"]
    )

    def kept(strong):
        teacher = given["teacher_strong"]
        levels = [kl_divergence(teacher, strong, temperature) for temperature in (4.0, 3.0, 5.0)]
        return (0.1 * cross_entropy(given["labels"], strong) + 0.9 * tf.add_n(levels)) / 4

    [wanted] = oracles.gradients(kept, given["student_strong"])
    np.testing.assert_allclose(found, wanted, rtol=1e-10)


@EITHER
@pytest.mark.parametrize("deviation", ["code", "clean"])
def test_standardization_enters_the_instance_level_alone(variant, deviation):
    given = oracles.inputs("B")
    scores = {name: standardized(given[name], variant=deviation) for name in VIEWS}
    raw = losses(MLD(variant=variant), given)
    found = losses(MLD(variant=variant, standardize=True, deviation=deviation), given)
    for name in ("label", "batch", "class"):
        np.testing.assert_allclose(found[name], raw[name], rtol=1e-12)
    if variant == "clean":
        wanted = losses(MLD(variant=variant), {**scores, "labels": given["labels"]})
        np.testing.assert_allclose(found["instance"], wanted["instance"], rtol=1e-12)
    else:
        share, _ = mask_shares(given["teacher"])
        factors = share + tf.constant([0, 0, 0, 1, 1], "float64")
        rows = instance_level(scores["student"], scores["teacher"], factors=factors)
        rows += instance_level(
            scores["student_strong"], scores["teacher_strong"], temperatures=(4.0, 3.0, 5.0)
        )
        np.testing.assert_allclose(found["instance"], 0.9 * np.mean(rows), rtol=1e-12)


def test_a_deviation_without_standardization_is_refused():
    told = "deviation='code' with standardize=False, .*wanted standardize=True"
    with pytest.raises(TfkdError, match=told):
        MLD(deviation="code")


def test_sample_weights_scale_rows_but_not_the_class_level():
    given = oracles.inputs("B")
    weights = np.array([1.0, 0.0, 2.0, 0.5])
    plain = losses(MLD(variant="clean"), given)
    found = losses(MLD(variant="clean"), given, sample_weight=tf.constant(weights))
    pairs = [("student", "teacher"), ("student_strong", "teacher_strong")]
    for name, level in (("instance", instance_level), ("batch", batch_level)):
        rows = sum(level(given[student], given[teacher]).numpy() for student, teacher in pairs)
        np.testing.assert_allclose(found[name], 0.9 * (rows * weights).sum() / 4, rtol=1e-12)
    np.testing.assert_allclose(found["class"], plain["class"], rtol=1e-12)


def test_accuracy_is_that_of_the_weak_view():
    distiller = runs.distiller_of(MLD(), learning_rate=0.0, eager=True)
    batches = runs.batches("image_strong")
    history = distiller.fit(batches, epochs=1, verbose=0).history
    right = [
        tf.argmax(distiller.student(batch["image"], training=True), -1).numpy() == batch["label"]
        for batch in batches
    ]
    np.testing.assert_allclose(history["accuracy"], [np.mean(right)], rtol=1e-6)


def test_training_lowers_every_level():
    distiller = runs.distiller_of(MLD(variant="clean", temperatures=(1.0, 2.0)))
    history = distiller.fit(runs.batches("image_strong"), epochs=6, verbose=0).history
    for name in ("loss", "mld/instance", "mld/batch", "mld/class"):
        assert history[name][-1] < history[name][0], name


def test_empty_list_of_temperatures_is_refused():
    with pytest.raises(TfkdError, match=r"^mld: temperatures: found \(\), wanted a list"):
        MLD(temperatures=())
