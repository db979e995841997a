"""KD against the published formula: numbers, gradients, extremes and properties."""

import json
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfkd
from tfkd.core.divergences import cross_entropy
from tfkd.distillers import KD, kd_loss

ORACLES = json.loads((Path(__file__).parents[1] / "fixtures" / "oracles_logits.json").read_text())
CHECKS = ORACLES["methods"]["kd"]["checks"]
IDS = [f"{check['case']}-T{check['params']['T']:g}" for check in CHECKS]


def inputs(check, dtype):
    case = ORACLES["cases"][check["case"]]
    student, teacher = (tf.constant(case[key], dtype) for key in ("student", "teacher"))
    return student, teacher, tf.constant(case["labels"])


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-9), ("float32", 1e-5)])
@pytest.mark.parametrize("check", CHECKS, ids=IDS)
def test_published_numbers(check, dtype, tolerance):
    student, teacher, labels = inputs(check, dtype)
    params, expected = check["params"], check["expected"]
    with tf.GradientTape() as tape:
        tape.watch(student)
        label_loss = tf.reduce_mean(cross_entropy(labels, student))
        kd = tf.reduce_mean(kd_loss(student, teacher, params["T"]))
        total = params["ce_weight"] * label_loss + params["kd_weight"] * kd
    for name, found in (("ce", label_loss), ("kd", kd), ("total", total)):
        assert found.dtype == dtype
        np.testing.assert_allclose(found, expected[name], atol=tolerance, rtol=0)
    gradient = tape.gradient(total, student)
    np.testing.assert_allclose(gradient, check["grad_student"], atol=tolerance, rtol=0)


def slices(classes, first, name):
    """A network that shows a part of its input as its logits."""
    pixels = keras.Input((1, 1, 2 * classes))
    flat = keras.layers.Flatten()(pixels)
    return keras.Model(pixels, flat[:, first : first + classes], name=name)


@pytest.mark.parametrize("check", CHECKS, ids=IDS)
def test_published_numbers_through_the_distiller(check):
    student, teacher, labels = inputs(check, "float32")
    both = np.concatenate([student, teacher], axis=1)[:, None, None, :]
    classes, params = student.shape[1], check["params"]
    distiller = tfkd.Distiller(
        slices(classes, classes, "teacher"),
        slices(classes, 0, "student"),
        KD(temperature=params["T"]),
        params["kd_weight"],
        params["ce_weight"],
    )
    distiller.compile()
    found = distiller.evaluate(both, labels.numpy(), verbose=0, return_dict=True)
    expected = check["expected"]
    names = {"student_loss": "ce", "total_loss": "total", "loss": "total"}
    for name, key in names.items():
        np.testing.assert_allclose(found[name], expected[key], atol=1e-5)
    for name in ("kd", "distillation_loss"):
        wanted = params["kd_weight"] * expected["kd"]
        np.testing.assert_allclose(found[name], wanted, atol=1e-5)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_extreme_logits_give_finite_values_of_the_right_size(dtype, temperature):
    student = tf.constant([[1e4, -1e4, 0.0], [-1e4, 1e4, 1e4], [0.0, 0.0, 0.0]], dtype)
    teacher = tf.constant([[-1e4, 1e4, 0.0], [-1e4, -1e4, 1e4], [1e4, 0.0, -1e4]], dtype)
    with tf.GradientTape() as tape:
        tape.watch(student)
        loss = kd_loss(student, teacher, temperature)
    assert loss.dtype == tf.float32
    assert np.isfinite(loss).all()
    assert np.isfinite(tf.cast(tape.gradient(loss, student), tf.float32)).all()
    # The first sample: all of the teacher's mass lies where the student has none.
    np.testing.assert_allclose(loss[0], temperature**2 * 2e4 / temperature, rtol=1e-2)


@pytest.mark.parametrize("temperature", [0.5, 4.0, 20.0])
def test_divergence_is_positive_and_forgets_offsets_and_orders(temperature):
    generator = np.random.default_rng(0)
    student, teacher = generator.normal(scale=3, size=(2, 6, 5))
    loss = kd_loss(student, teacher, temperature)
    assert loss.shape == (6,)
    assert (loss.numpy() > 0).all()
    np.testing.assert_allclose(kd_loss(teacher, teacher, temperature), 0, atol=1e-12)
    moved = student + generator.normal(size=(6, 1)), teacher + generator.normal(size=(6, 1))
    np.testing.assert_allclose(kd_loss(*moved, temperature), loss, rtol=1e-9)
    order = generator.permutation(5)
    np.testing.assert_allclose(
        kd_loss(student[:, order], teacher[:, order], temperature), loss, rtol=1e-9
    )
    rows = generator.permutation(6)
    np.testing.assert_allclose(
        kd_loss(student[rows], teacher[rows], temperature), loss.numpy()[rows], rtol=1e-12
    )


def test_high_temperature_is_half_the_squared_difference_of_centered_logits():
    student, teacher = np.random.default_rng(1).normal(size=(2, 6, 5))
    difference = student - teacher
    difference -= difference.mean(axis=1, keepdims=True)
    expected = (difference**2).sum(axis=1) / (2 * 5)
    np.testing.assert_allclose(kd_loss(student, teacher, 1e4), expected, rtol=1e-3)
