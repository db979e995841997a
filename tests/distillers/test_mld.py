"""MLD: published numbers of both variants, the levels against loops, and the whole batch."""

import numpy as np
import pytest
import tensorflow as tf

from tests.distillers import logit_oracles_b as oracles
from tfkd.core import registry
from tfkd.core.divergences import cross_entropy, kl_divergence
from tfkd.distillers.mld import (
    MLD,
    VARIANTS,
    batch_level,
    class_level,
    instance_level,
    mask_shares,
)
from tfkd.errors import TfkdError

EITHER = pytest.mark.parametrize("variant", VARIANTS)


def softmax(logits, temperature):
    raised = np.exp(np.asarray(logits) / temperature)
    return raised / raised.sum(-1, keepdims=True)


def total_of(losses):
    return tf.add_n(list(losses.values()))


@pytest.mark.parametrize("dtype", [tf.float64, tf.float32])
@pytest.mark.parametrize(
    "check",
    oracles.checks("mld"),
    ids=lambda check: f"{check['case']}-{check['params']['variant']}",
)
def test_published_numbers(check, dtype):
    params, expected = check["params"], check["expected"]
    objective = MLD(
        params["temps"], params["ce_weight"], params["kd_weight"], variant=params["variant"]
    )

    def total(tensors):
        losses = oracles.losses(objective, tensors)
        wanted = {
            "label": params["ce_weight"] * expected["ce"],
            "instance": params["kd_weight"] * expected["instance"],
            "batch": params["kd_weight"] * expected["batch"],
            "class": params["kd_weight"] * expected["cls"],
        }
        for name, value in wanted.items():
            np.testing.assert_allclose(losses[name], value, **oracles.TOLERANCES[dtype])
        return total_of(losses)

    oracles.check_total(check, total, ("student", "student_strong"), dtype)


@pytest.mark.parametrize("check", oracles.checks("mld", variant="code"), ids=lambda e: e["case"])
def test_published_shares_of_the_masks(check):
    samples, classes = mask_shares(oracles.inputs(check["case"])["teacher"])
    np.testing.assert_allclose(samples, check["expected"]["mask_mean"], atol=1e-9)
    np.testing.assert_allclose(classes, check["expected"]["class_mask_mean"], atol=1e-9)


@pytest.mark.parametrize(("rows", "classes"), [(1, 4), (6, 5), (7, 10), (64, 9)])
def test_the_shares_against_percentiles(rows, classes):
    logits = np.random.default_rng(rows).normal(0.0, 2.0, (rows, classes))
    logits[rows // 2 :] = logits[: rows - rows // 2]
    teacher = softmax(logits, 1.0)
    highest, mass = teacher.max(-1), teacher.sum(0)
    samples, over_classes = mask_shares(tf.constant(logits))
    wanted = (np.round(highest, 12) <= np.round(np.percentile(highest, 50), 12)).mean()
    np.testing.assert_allclose(samples, wanted, rtol=1e-12)
    wanted = (np.round(mass, 12) <= np.round(np.percentile(mass, 50), 12)).mean()
    np.testing.assert_allclose(over_classes, wanted, rtol=1e-12)


def test_the_levels_against_loops():
    tensors = oracles.inputs("B")
    temperatures = (4.0, 1.5)
    student, teacher = tensors["student"], tensors["teacher"]
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
def test_a_student_that_is_the_teacher_has_label_losses_alone(variant):
    tensors = oracles.inputs("B")
    tensors.update(teacher=tensors["student"], teacher_strong=tensors["student_strong"])
    losses = oracles.losses(MLD(variant=variant), tensors)
    for name in ("instance", "batch", "class"):
        np.testing.assert_allclose(losses[name], 0.0, atol=1e-12)
    both = [cross_entropy(tensors["labels"], tensors[n]) for n in ("student", "student_strong")]
    np.testing.assert_allclose(losses["label"], 0.1 * np.mean(np.sum(both, 0)), rtol=1e-12)


@EITHER
def test_shifts_and_permutations_change_nothing(variant):
    tensors = oracles.inputs("B")
    names = ("student", "teacher", "student_strong", "teacher_strong")

    def losses(changed):
        return oracles.losses(MLD(variant=variant), {**tensors, **changed})

    wanted = losses({})
    order, rows = [3, 0, 4, 2, 1], [2, 0, 3, 1]
    label = tf.constant([order.index(label) for label in tensors["labels"].numpy()])
    changes = [
        {name: tensors[name] + 3.0 * shift for shift, name in enumerate(names)},
        {**{name: tf.gather(tensors[name], order, axis=1) for name in names}, "labels": label},
        {name: tf.gather(tensors[name], rows) for name in (*names, "labels")},
    ]
    for change in changes:
        found = losses(change)
        for name in wanted:
            np.testing.assert_allclose(found[name], wanted[name], rtol=1e-9, err_msg=name)


@EITHER
def test_no_gradient_reaches_the_teacher_through_the_distiller(variant):
    distiller = oracles.distiller(lambda: MLD(variant=variant))
    before = [np.asarray(each) for each in distiller.teachers[0].weights]
    distiller.fit(oracles.batches(("image_strong",)), verbose=0)
    for old, new in zip(before, distiller.teachers[0].weights):
        np.testing.assert_array_equal(old, np.asarray(new))
    student = {id(variable) for variable in distiller.student.trainable_variables}
    assert {id(variable) for variable in distiller.trained_variables} == student


def test_the_code_ignores_what_it_throws_away():
    """The strong view's gradient is that of its label loss and of three instance levels."""
    tensors = oracles.inputs("B")
    [found] = oracles.gradients(
        lambda t: total_of(oracles.losses(MLD(), t)), tensors, ["student_strong"]
    )

    def kept(tensors):
        strong, teacher = tensors["student_strong"], tensors["teacher_strong"]
        levels = [kl_divergence(teacher, strong, temperature) for temperature in (4.0, 3.0, 5.0)]
        label = cross_entropy(tensors["labels"], strong)
        return tf.reduce_mean(0.1 * label + 0.9 * tf.add_n(levels))

    [wanted] = oracles.gradients(kept, tensors, ["student_strong"])
    np.testing.assert_allclose(found, wanted, rtol=1e-10)


@EITHER
@pytest.mark.parametrize("dtype", [tf.bfloat16, tf.float16, tf.float32])
def test_finite_at_extreme_logits(variant, dtype):
    tensors = oracles.extreme(dtype)

    def total(tensors):
        return total_of(oracles.losses(MLD(variant=variant), tensors))

    assert np.isfinite(total(tensors))
    for gradient in oracles.gradients(total, tensors, ["student", "student_strong"]):
        assert np.isfinite(tf.cast(gradient, tf.float32)).all()


@pytest.mark.parametrize("dtype", [tf.uint8, tf.int64])
def test_labels_of_any_integer_type_give_the_same_value(dtype):
    tensors = oracles.inputs("B")
    wanted = oracles.losses(MLD(), tensors)["label"]
    tensors["labels"] = tf.cast(tensors["labels"], dtype)
    np.testing.assert_array_equal(oracles.losses(MLD(), tensors)["label"], wanted)


def test_sample_weights_scale_rows_but_not_the_class_level():
    tensors = oracles.inputs("B")
    weights = np.array([1.0, 0.0, 2.0, 0.5])
    plain = oracles.losses(MLD(variant="clean"), tensors)
    losses = oracles.losses(
        MLD(variant="clean"), tensors, sample_weight=tf.constant(weights)
    )
    pairs = [
        (tensors["student"], tensors["teacher"]),
        (tensors["student_strong"], tensors["teacher_strong"]),
    ]
    for name, level in (("instance", instance_level), ("batch", batch_level)):
        rows = sum(level(student, teacher).numpy() for student, teacher in pairs)
        np.testing.assert_allclose(losses[name], 0.9 * (rows * weights).sum() / 4, rtol=1e-12)
    np.testing.assert_allclose(losses["class"], plain["class"], rtol=1e-12)


@EITHER
def test_one_and_two_replicas_agree(variant, two_replicas):
    oracles.check_replicas(lambda: MLD(variant=variant), two_replicas)


def test_trains_by_name_and_reports_the_weak_view():
    distiller = oracles.distiller(lambda: registry.create("mld"), learning_rate=0.0)
    history = distiller.fit(oracles.batches(("image_strong",)), epochs=1, verbose=0).history
    assert history["student_loss"] == [0.0]
    names = [f"mld/{name}" for name in MLD.terms]
    np.testing.assert_allclose(
        history["loss"], np.sum([history[name] for name in names], axis=0), rtol=1e-5
    )
    right = [
        tf.argmax(distiller.student(batch["image"], training=True), -1).numpy() == batch["label"]
        for batch in oracles.batches(())
    ]
    np.testing.assert_allclose(history["accuracy"], [np.mean(right)], rtol=1e-6)


def test_training_lowers_every_level():
    distiller = oracles.distiller(lambda: MLD(variant="clean", temperatures=(1.0, 2.0)))
    history = distiller.fit(oracles.batches(("image_strong",)), epochs=6, verbose=0).history
    for name in ("loss", "mld/instance", "mld/batch", "mld/class"):
        assert history[name][-1] < history[name][0], name


def test_a_batch_without_the_strong_view_is_refused():
    with pytest.raises(TfkdError, match="lacks image_strong"):
        oracles.distiller(MLD).fit(oracles.batches(()), verbose=0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"variant": "cleaner"}, "variant of mld 'cleaner'.*clean"),
        ({"temperatures": ()}, "mld: temperatures"),
        ({"temperatures": (4.0, 0.0)}, "mld: temperatures"),
        ({"temperatures": 4.0}, "mld: temperatures"),
        ({"temperatures": "43526"}, "mld: temperatures"),
        ({"label_weight": -0.1}, "mld: label_weight"),
        ({"distillation_weight": float("inf")}, "mld: distillation_weight"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(TfkdError, match=message):
        MLD(**settings)
