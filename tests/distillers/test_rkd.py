"""RKD against loops over pairs and triplets, and its properties."""

import numpy as np
import pytest
import tensorflow as tf

from tests.distillers import pairs, runs
from tfkd.distillers.rkd import RKD, distances, rkd_angle_loss, rkd_distance_loss
from tfkd.errors import TfkdError

STUDENT = pairs.features(3, seed=1)
TEACHER = pairs.features(4, seed=2)
PAIRS, TRIPLETS = (
    RKD(distance_weight=1.0, angle_weight=0.0),
    RKD(distance_weight=0.0, angle_weight=1.0),
)
EVERY = pytest.mark.parametrize(
    "objective", [PAIRS, TRIPLETS, RKD()], ids=["pairs", "triplets", "both"]
)


def smooth(x):
    return x**2 / 2 if abs(x) < 1 else abs(x) - 0.5


def distance_by_loops(student, teacher, weights, divisor):
    """The loss of distances, one pair after the other."""
    rows = range(len(student))

    def relative(vectors, i, j):
        lengths, counts = 0.0, 0.0
        for k in rows:
            for m in rows:
                length = np.linalg.norm(vectors[k] - vectors[m])
                lengths += weights[k] * weights[m] * length
                counts += weights[k] * weights[m] * (length > 0)
        return np.linalg.norm(vectors[i] - vectors[j]) / (lengths / counts)

    total = 0.0
    for i in rows:
        for j in rows:
            difference = relative(student, i, j) - relative(teacher, i, j)
            total += weights[i] * weights[j] * smooth(difference)
    return total / divisor**2


def angle_by_loops(student, teacher, weights, divisor):
    """The loss of angles, one triplet after the other."""
    rows = range(len(student))

    def unit(side):
        return side / max(np.linalg.norm(side), 1e-12)

    def cosine(vectors, i, j, k):
        return np.dot(unit(vectors[j] - vectors[i]), unit(vectors[k] - vectors[i]))

    total = 0.0
    for i in rows:
        for j in rows:
            for k in rows:
                difference = cosine(student, i, j, k) - cosine(teacher, i, j, k)
                total += weights[i] * weights[j] * weights[k] * smooth(difference)
    return total / divisor**3


def test_losses_are_the_means_over_all_pairs_and_triplets():
    given, ones = (STUDENT, TEACHER), np.ones(5)
    distance, angle = distance_by_loops(*given, ones, 5), angle_by_loops(*given, ones, 5)
    np.testing.assert_allclose(tf.reduce_mean(rkd_distance_loss(*given)), distance, rtol=1e-12)
    np.testing.assert_allclose(tf.reduce_mean(rkd_angle_loss(*given)), angle, rtol=1e-12)
    found = pairs.value_of(RKD(), *given)
    np.testing.assert_allclose(found, 25 * distance + 50 * angle, rtol=1e-12)


def test_angle_that_turns_round_counts_linearly():
    """The cosines differ by more than 1."""
    student = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 0.1]])
    teacher = np.array([[0.0, 0.0], [1.0, 0.0], [-1.0, 0.1]])
    found = rkd_angle_loss(tf.constant(student), tf.constant(teacher))
    np.testing.assert_allclose(found[0, 1, 2], 2 / np.hypot(1.0, 0.1) - 0.5, rtol=1e-12)
    wanted = angle_by_loops(student, teacher, np.ones(3), 3)
    np.testing.assert_allclose(tf.reduce_mean(found), wanted, rtol=1e-12)


@pytest.mark.parametrize("training", [True, False])
def test_weights_enter_means(training):
    weights = pairs.WEIGHTS
    for objective, loops in ((PAIRS, distance_by_loops), (TRIPLETS, angle_by_loops)):
        found = pairs.value_of(objective, STUDENT, TEACHER, training=training, weights=weights)
        wanted = loops(STUDENT, TEACHER, weights, 5)
        np.testing.assert_allclose(found, wanted, rtol=1e-12)


@EVERY
def test_gradient_is_that_of_differences(objective):
    pairs.check_gradient(objective, STUDENT, TEACHER)


def test_gradient_has_the_gradient_of_differences():
    """As a virtual step of the student needs it."""
    step, student = 1e-5, tf.constant(STUDENT)
    direction = np.random.default_rng(4).normal(size=STUDENT.shape)
    with tf.GradientTape() as tape:
        tape.watch(student)
        slope = pairs.gradient_of(RKD(), student, TEACHER)
    found = tape.gradient(slope, student, output_gradients=tf.constant(direction))
    above, below = (
        pairs.gradient_of(RKD(), STUDENT + sign * step * direction, TEACHER) for sign in (1, -1)
    )
    np.testing.assert_allclose(found, (above - below) / (2 * step), rtol=1e-5, atol=1e-5)


@EVERY
def test_weights_count_samples(objective):
    pairs.check_weights_count_samples(objective, STUDENT, TEACHER)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@EVERY
def test_rows_that_fill_a_batch_do_not_count(objective, dtype):
    pairs.check_filled_rows_do_not_count(objective, STUDENT, pairs.features(3, seed=3), dtype)


def test_degenerate_features_stay_finite():
    pairs.check_degenerate_features(RKD(), (3,))


def test_half_precision():
    pairs.check_half_precision(RKD(), STUDENT, TEACHER)


def test_features_that_coincide_but_for_rounding_have_no_distance():
    features = np.random.default_rng(0).normal(10.0, 1.0, (6, 32)).astype("float32")
    features[3] = features[1]
    features[4] = features[1] * (1 + 1e-7)
    found = distances(tf.constant(features)).numpy()
    wanted = np.linalg.norm(features[:, None] - features[None], axis=-1)
    np.testing.assert_array_equal(found[np.ix_([1, 3, 4], [1, 3, 4])], np.zeros((3, 3)))
    far = wanted > 1e-3
    np.testing.assert_allclose(found[far], wanted[far], rtol=1e-5)
    assert np.all(found[~far] == 0)


def test_distant_origin_costs_little_precision():
    """Features behind a ReLU have a large mean; their differences are what counts."""
    student, teacher = 100.0 + STUDENT, 100.0 + TEACHER
    exact = pairs.value_of(RKD(), student, teacher)
    found = pairs.value_of(RKD(), student.astype("float32"), teacher.astype("float32"))
    np.testing.assert_allclose(found, exact, rtol=1e-3)


def test_place_direction_and_scale_do_not_count():
    turn, _ = np.linalg.qr(np.random.default_rng(3).normal(size=(4, 4)))
    moved = 7.0 * TEACHER @ turn + 3.0
    np.testing.assert_allclose(pairs.value_of(RKD(), moved, TEACHER), 0.0, atol=1e-20)


def test_weight_of_zero_forms_no_triplets():
    student = tf.zeros((2048, 2))
    student += tf.range(2048.0)[:, None]
    assert np.isfinite(pairs.value_of(PAIRS, student, -student))


def test_single_sample_has_no_relations():
    for objective in (PAIRS, TRIPLETS):
        assert pairs.value_of(objective, STUDENT[:1], TEACHER[:1]) == 0
        slope = pairs.gradient_of(objective, STUDENT[:1], TEACHER[:1])
        np.testing.assert_array_equal(slope, np.zeros((1, 3)))


def test_tap_of_another_rank_is_refused():
    told = pairs.refusal_of(RKD(teacher_tap="stage2"), (None, 3), (None, 4, 4, 7))
    wanted = "a vector (batch, channels)"
    assert told == f"rkd: found teacher tap 'stage2' of shape 4 x 4 x 7, wanted {wanted}"
    assert not pairs.refusal_of(RKD(), (None, 3), (None, 7))


def test_missing_tap_is_refused_with_the_setting():
    with pytest.raises(TfkdError, match="^rkd: found no tap 'deep' .* wanted teacher_tap=NAME"):
        runs.distiller_of(RKD(teacher_tap="deep"))
