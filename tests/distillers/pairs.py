"""What a loss over pairs of samples keeps, whichever it is."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from tests.distillers.contexts import context_of, spec_of
from tfkd.core import Objective
from tfkd.errors import TfkdError

ROWS = 5
WEIGHTS = np.array([2.0, 0.5, 0.0, 1.0, 3.0])


def features(*shape: int, seed: int) -> np.ndarray:
    """Features of five samples in float64, none of them negative, as behind a ReLU."""
    return np.abs(np.random.default_rng(seed).normal(size=(ROWS, *shape)))


def value_of(
    objective: Objective, student, teacher, *, training: bool = True, weights=None, filler=None
):
    """The sum of the losses of an objective, of features in the place of its taps."""
    outputs = {
        "student": {objective.student_tap: tf.convert_to_tensor(student)},
        "teacher": {objective.teacher_tap: tf.convert_to_tensor(teacher)},
    }
    labels = np.zeros(len(student), "int32")
    context = context_of(outputs, labels, training=training, sample_weight=weights, filler=filler)
    losses = objective.to_terms(objective.compute(context)).losses
    return tf.add_n(list(losses.values()))


def gradient_of(objective: Objective, student, teacher, **further) -> tf.Tensor:
    """The gradient of :func:`value_of` to the student's features."""
    return value_and_gradient(objective, student, teacher, **further)[1]


def value_and_gradient(objective: Objective, student, teacher, **further):
    """:func:`value_of`, and its gradient to the student's features."""
    student = tf.convert_to_tensor(student)
    with tf.GradientTape() as tape:
        tape.watch(student)
        value = value_of(objective, student, teacher, **further)
    return value, tape.gradient(value, student)


def check_gradient(objective: Objective, student: np.ndarray, teacher: np.ndarray) -> None:
    """Compares the gradient of a weighted batch with differences of the loss."""
    step, found = 1e-5, gradient_of(objective, student, teacher, weights=WEIGHTS)
    differences = np.zeros_like(student)
    for place in np.ndindex(*student.shape):
        moved = [student.copy(), student.copy()]
        moved[0][place] += step
        moved[1][place] -= step
        above, below = (value_of(objective, each, teacher, weights=WEIGHTS) for each in moved)
        differences[place] = (above - below) / (2 * step)
    assert np.max(np.abs(found)) > 1e-4
    np.testing.assert_allclose(found, differences, rtol=1e-6, atol=1e-9)
    np.testing.assert_array_equal(found[2], np.zeros_like(student[2]))


def check_weights_count_samples(objective: Objective, student, teacher) -> None:
    """Checks that a sample of weight 2 is two samples, and one of weight 0 none.

    The means of both have the same number of samples.
    """
    weights = np.array([2, 1, 0, 1, 1])
    rows = np.repeat(np.arange(ROWS), weights)
    found = value_of(objective, student, teacher, training=False, weights=weights.astype(float))
    wanted = value_of(objective, student[rows], teacher[rows], training=False)
    np.testing.assert_allclose(found, wanted, rtol=1e-9)


def check_filled_rows_do_not_count(objective: Objective, student, teacher, dtype: str) -> None:
    """Checks that rows of weight 0 are as if they were not there, whatever stands in them."""
    student, teacher = student.astype(dtype), teacher.astype(dtype)
    wanted = value_of(objective, student[:3], teacher[:3], training=False)
    weights = np.array([1, 1, 1, 0, 0], dtype)
    for fill in (0.0, student[:2], -student[:2], 10.0):
        filled = student.copy(), teacher.copy()
        for each in filled:
            each[3:] = fill
        found, slope = value_and_gradient(
            objective, *filled, training=False, weights=weights, filler=weights == 0
        )
        np.testing.assert_allclose(found, wanted, rtol=1e-9 if dtype == "float64" else 1e-4)
        assert np.all(np.isfinite(slope))
        np.testing.assert_array_equal(slope[3:], np.zeros_like(slope[3:]))


def check_degenerate_features(objective: Objective, shape: tuple[int, ...]) -> None:
    """Checks that features of zeros and features that coincide leave all finite."""
    usual = np.random.default_rng(0).normal(size=(ROWS, *shape)).astype("float32")
    some_zero, same, nearly = usual.copy(), usual.copy(), usual.copy()
    some_zero[1:3], same[1:3] = 0.0, usual[0]
    nearly[1] = nearly[0] + 1e-7
    cases = {
        "zeros": np.zeros_like(usual),
        "some zeros": some_zero,
        "one point": np.ones_like(usual) * usual[0],
        "some coincide": same,
        "nearly coincide": nearly,
        "large": usual * 1e4,
        "small": usual * 1e-15,
    }
    for name, case in cases.items():
        for dtype in ("float32", "bfloat16"):
            for student, teacher in ((case, usual), (usual, case), (case, case)):
                given = tf.cast(student, dtype), tf.cast(teacher, dtype)
                value, slope = value_and_gradient(objective, *given)
                slope = np.abs(tf.cast(slope, tf.float32))
                assert value.dtype == tf.float32 and np.isfinite(value), name
                assert np.all(np.isfinite(slope)), name
                # A tiny feature has a steep slope; where there is none, nothing may blow up.
                assert name == "small" or np.max(slope) < 1e3, name


def check_half_precision(objective: Objective, student, teacher) -> None:
    """Checks that features in half precision are compared in float32."""
    half = [tf.cast(each, tf.bfloat16) for each in (student, teacher)]
    full = [tf.cast(each, tf.float32) for each in half]
    np.testing.assert_array_equal(value_of(objective, *half), value_of(objective, *full))


def refusal_of(objective: Objective, student: tuple, teacher: tuple) -> str:
    """What an objective says of taps of these shapes; empty where it takes them."""
    spec = spec_of({objective.student_tap: student}, {objective.teacher_tap: teacher})
    try:
        objective.setup(spec)
    except TfkdError as error:
        return str(error)
    return ""
