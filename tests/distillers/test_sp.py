"""SP against a loop over pairs, and its properties."""

import numpy as np
import pytest
import tensorflow as tf

from tests.distillers import pairs, runs
from tests.distillers.pair_features import set_up, shapes_of
from tfkd.distillers.sp import SP, similarities, sp_loss
from tfkd.errors import TfkdError

STUDENT = pairs.features(2, 2, 3, seed=1)
TEACHER = pairs.features(2, 2, 4, seed=2)


def named(**settings):
    """A loss of the last maps, without networks in which to look for stages."""
    return SP(**{"student_tap": "pre_pool", "teacher_tap": "pre_pool", **settings})


def by_loops(student, teacher, weights, divisor):
    """The paper's loss, one pair after the other."""
    rows = range(len(student))

    def similarity(maps, i, j):
        products = [np.sum(maps[i] * maps[k]) for k in rows]
        return products[j] / np.sqrt(sum(weights[k] * products[k] ** 2 for k in rows))

    total = 0.0
    for i in rows:
        for j in rows:
            difference = similarity(teacher, i, j) - similarity(student, i, j)
            total += weights[i] * weights[j] * difference**2
    return total / divisor**2


def test_loss_is_the_mean_over_all_pairs():
    wanted = by_loops(STUDENT, TEACHER, np.ones(5), 5)
    np.testing.assert_allclose(pairs.value_of(named(), STUDENT, TEACHER), wanted, rtol=1e-12)
    flat = [each.reshape(5, -1) for each in (STUDENT, TEACHER)]
    np.testing.assert_allclose(tf.reduce_mean(sp_loss(*flat)), wanted, rtol=1e-12)


@pytest.mark.parametrize("training", [True, False])
def test_weights_enter_lengths_and_pairs(training):
    weights = pairs.WEIGHTS
    wanted = by_loops(STUDENT, TEACHER, weights, 5)
    found = pairs.value_of(named(), STUDENT, TEACHER, training=training, weights=weights)
    np.testing.assert_allclose(found, wanted, rtol=1e-12)


def test_gradient_is_that_of_differences():
    pairs.check_gradient(named(), STUDENT, TEACHER)


def test_weights_count_samples():
    pairs.check_weights_count_samples(named(), STUDENT, TEACHER)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_rows_that_fill_a_batch_do_not_count(dtype):
    pairs.check_filled_rows_do_not_count(named(), STUDENT, pairs.features(2, 2, 3, seed=3), dtype)


def test_degenerate_features_stay_finite():
    pairs.check_degenerate_features(named(), (2, 2, 3))


def test_half_precision():
    pairs.check_half_precision(named(), STUDENT, TEACHER)


def test_rows_have_length_one_or_none():
    features = STUDENT.reshape(5, -1)
    features[3] = 0.0
    lengths = np.linalg.norm(similarities(tf.constant(features)), axis=1)
    np.testing.assert_allclose(lengths, [1, 1, 1, 0, 1], rtol=1e-12)


def test_only_the_relations_between_samples_count():
    turn, _ = np.linalg.qr(np.random.default_rng(3).normal(size=(16, 16)))
    turned = 7.0 * TEACHER.reshape(5, 16) @ turn
    np.testing.assert_allclose(pairs.value_of(named(), turned, TEACHER), 0.0, atol=1e-25)


@pytest.mark.parametrize(
    ("student", "wanted"),
    [
        ("resnet20", (8, 8, 64)),
        ("vgg8", (4, 4, 512)),
        ("mobilenetv2", (2, 2, 160)),
        ("shufflev2", (4, 4, 464)),
    ],
)
def test_last_stage_is_read_as_published(student, wanted):
    own, theirs = shapes_of(student), shapes_of("resnet50_cifar")
    objective = set_up(SP(), own, theirs)
    [[tap], [hint]] = objective.requires.taps.values()
    assert (own[tap], theirs[hint]) == ((None, *wanted), (None, 4, 4, 2048))
    assert (objective.student_tap, objective.teacher_tap) == (None, None)


def test_features_of_any_shape_are_compared():
    distiller = runs.distiller_of(SP(student_tap="pooled", teacher_tap="stage1"), eager=True)
    history = distiller.fit(runs.batches(), steps_per_epoch=1, verbose=0).history
    assert history["sp"][0] > 0


def test_tap_without_values_is_refused():
    told = pairs.refusal_of(named(teacher_tap="norm"), (None, 4, 4, 3), (None,))
    wanted = "a feature with values for each sample (teacher_tap=...)"
    assert told == f"sp: found teacher tap 'norm' of shape scalar, wanted {wanted}"
    assert not pairs.refusal_of(named(), (None, 4, 4, 3), (None, 7, 64))


def test_missing_tap_is_refused_with_the_setting():
    with pytest.raises(TfkdError, match="^sp: found no tap 'deep' .* wanted teacher_tap=NAME"):
        runs.distiller_of(SP(teacher_tap="deep"))
