"""PKT against a loop over pairs, and its properties."""

import numpy as np
import pytest
import tensorflow as tf

from tests.distillers import pairs, runs
from tfkd.distillers.pkt import PKT, neighbor_probabilities, pkt_loss
from tfkd.errors import TfkdError

STUDENT = pairs.features(3, seed=1)
TEACHER = pairs.features(4, seed=2)


def by_loops(student, teacher, weights, divisor):
    """The published loss, one pair after the other."""
    rows = range(len(student))

    def probability(vectors, i, j):
        def similarity(k):
            lengths = [np.linalg.norm(vectors[each]) + 1e-7 for each in (i, k)]
            return (np.dot(vectors[i], vectors[k]) / np.prod(lengths) + 1) / 2

        return similarity(j) / sum(weights[k] * similarity(k) for k in rows)

    total = 0.0
    for i in rows:
        for j in rows:
            p, q = probability(teacher, i, j), probability(student, i, j)
            total += weights[i] * weights[j] * p * np.log((p + 1e-7) / (q + 1e-7))
    return total / divisor**2


def test_loss_is_the_mean_over_all_pairs():
    wanted = by_loops(STUDENT, TEACHER, np.ones(5), 5)
    np.testing.assert_allclose(pairs.value_of(PKT(), STUDENT, TEACHER), wanted, rtol=1e-9)
    found = tf.reduce_mean(pkt_loss(STUDENT, TEACHER))
    np.testing.assert_allclose(found, wanted, rtol=1e-9)


@pytest.mark.parametrize("training", [True, False])
def test_weights_enter_sums_and_pairs(training):
    weights = pairs.WEIGHTS
    wanted = by_loops(STUDENT, TEACHER, weights, 5)
    found = pairs.value_of(PKT(), STUDENT, TEACHER, training=training, weights=weights)
    np.testing.assert_allclose(found, wanted, rtol=1e-9)


def test_gradient_is_that_of_differences():
    pairs.check_gradient(PKT(), STUDENT, TEACHER)


def test_weights_count_samples():
    pairs.check_weights_count_samples(PKT(), STUDENT, TEACHER)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_rows_that_fill_a_batch_do_not_count(dtype):
    pairs.check_filled_rows_do_not_count(PKT(), STUDENT, pairs.features(3, seed=3), dtype)


def test_degenerate_features_stay_finite():
    pairs.check_degenerate_features(PKT(), (3,))


def test_half_precision():
    pairs.check_half_precision(PKT(), STUDENT, TEACHER)


def test_probabilities_of_neighbors():
    features = np.array([[1.0, 0.0], [0.0, 2.0], [-3.0, 0.0], [0.0, 0.0]])
    half = [[2, 1, 0, 1], [1, 2, 1, 1], [0, 1, 2, 1], [1, 1, 1, 1]]
    wanted = np.array(half) / np.sum(half, axis=1, keepdims=True)
    found = neighbor_probabilities(tf.constant(features))
    np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_nearly_equal_features_leave_more_than_rounding():
    """In float32, whose rounding of single logarithms is larger than the loss."""
    draw = np.random.default_rng(3)
    teacher = np.abs(draw.normal(size=(64, 16)))
    student = teacher + draw.normal(scale=1e-3, size=(64, 16))
    exact = pairs.value_of(PKT(), student, teacher).numpy()
    found = pairs.value_of(PKT(), student.astype("float32"), teacher.astype("float32"))
    assert 0 < exact < 1e-9
    np.testing.assert_allclose(found, exact, rtol=1e-3)


def test_only_directions_count():
    scaled = TEACHER * np.array([1.0, 2.0, 0.5, 3.0, 10.0])[:, None]
    np.testing.assert_allclose(pairs.value_of(PKT(), scaled, TEACHER), 0.0, atol=1e-12)
    assert pairs.value_of(PKT(), TEACHER + 1.0, TEACHER) > 1e-6


def test_tap_of_another_rank_is_refused():
    told = pairs.refusal_of(PKT(student_tap="stage2"), (None, 4, 4, 3), (None, 7))
    wanted = "a vector (batch, channels)"
    assert told == f"pkt: found student tap 'stage2' of shape 4 x 4 x 3, wanted {wanted}"
    assert not pairs.refusal_of(PKT(), (None, 3), (None, 7))


def test_missing_tap_is_refused_with_the_setting():
    with pytest.raises(TfkdError, match="^pkt: found no tap 'deep' .* wanted teacher_tap=NAME"):
        runs.distiller_of(PKT(teacher_tap="deep"))
