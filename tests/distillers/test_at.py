"""AT: attention maps and their difference against numbers by hand, and its stages."""

import numpy as np
import pytest
import tensorflow as tf

from tests.distillers.contexts import context_of
from tests.distillers.pair_features import check_every_pair, random_features, set_up
from tfkd.distillers.at import AT, at_loss, attention_map
from tfkd.distillers.shared.adaptive_pooling import adaptive_average_pool
from tfkd.errors import TfkdError

SHAPES = {"stage1": (None, 4, 4, 3), "stage2": (None, 2, 2, 4)}
WIDER = {"stage1": (None, 8, 8, 5), "stage2": (None, 2, 2, 6)}
LABELS = np.array([0, 1])


def by_hand(maps, power):
    """The normalized strength of each position, one at a time."""
    batch, height, width, channels = maps.shape
    found = np.zeros((batch, height * width))
    for row in range(batch):
        for place in range(height * width):
            pixel = maps[row, place // width, place % width]
            found[row, place] = sum(abs(value) ** power for value in pixel) / channels
        found[row] /= np.sqrt(np.sum(found[row] ** 2))
    return found


def maps(seed, *size, dtype="float64"):
    return tf.constant(np.random.default_rng(seed).normal(size=(2, *size)), dtype)


@pytest.mark.parametrize("power", [1.0, 2.0, 3.0])
def test_loss_is_the_mean_squared_difference_of_normalized_maps(power):
    student, teacher = maps(1, 3, 2, 4), maps(2, 3, 2, 5)
    own, theirs = (by_hand(each.numpy(), power) for each in (student, teacher))
    np.testing.assert_allclose(attention_map(student, power), own, rtol=1e-12)
    found = at_loss(student, teacher, power)
    np.testing.assert_allclose(found, np.mean((own - theirs) ** 2, axis=1), rtol=1e-12)


@pytest.mark.parametrize("sizes", [((6, 6), (3, 3)), ((3, 3), (6, 6)), ((7, 7), (4, 4))])
def test_larger_map_is_averaged_before_its_attention_is_formed(sizes):
    student, teacher = maps(1, *sizes[0], 4), maps(2, *sizes[1], 5)
    size = min(sizes)
    pooled = [adaptive_average_pool(each, size) for each in (student, teacher)]
    own, theirs = (by_hand(each.numpy(), 2.0) for each in pooled)
    wanted = np.mean((own - theirs) ** 2, axis=1)
    np.testing.assert_allclose(at_loss(student, teacher), wanted, rtol=1e-12)


def test_only_where_a_map_is_strong_matters():
    student, teacher = maps(1, 4, 4, 3), maps(2, 4, 4, 3)
    wanted = at_loss(student, teacher)
    for changed in (3.0 * student, -student, student[..., ::-1]):
        np.testing.assert_allclose(at_loss(changed, teacher), wanted, rtol=1e-12)
    assert np.all(at_loss(student, 2.0 * student) < 1e-30)
    assert np.all(wanted > 1e-3)


@pytest.mark.parametrize("power", [1.0, 2.0, 3.0])
def test_map_of_zeros_has_no_gradient(power):
    student, teacher = tf.zeros((2, 4, 4, 3)), maps(2, 4, 4, 3, dtype="float32")
    with tf.GradientTape() as tape:
        tape.watch(student)
        loss = at_loss(student, teacher, power)
    # The teacher's squares sum to 1 over 16 positions.
    np.testing.assert_allclose(loss, [1 / 16, 1 / 16], rtol=1e-6)
    np.testing.assert_array_equal(tape.gradient(loss, student), np.zeros((2, 4, 4, 3)))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_maps_of_half_precision_are_compared_in_float32(dtype):
    student, teacher = maps(1, 8, 8, 3, dtype=dtype), maps(2, 4, 4, 5, dtype=dtype)
    found = at_loss(student, teacher)
    exact = at_loss(tf.cast(student, tf.float64), tf.cast(teacher, tf.float64))
    assert found.dtype == tf.float32
    np.testing.assert_allclose(found, exact, rtol=1e-5)


def test_term_is_the_sum_over_stages_of_weighted_means():
    objective = set_up(AT(), SHAPES, WIDER)
    own, theirs = random_features(SHAPES, 1), random_features(WIDER, 2)
    weights = np.array([0.5, 2.0], "float32")
    context = context_of({"student": own, "teacher": theirs}, LABELS, sample_weight=weights)
    wanted = sum(
        np.mean(weights * at_loss(own[tap], theirs[tap]).numpy()) for tap in ("stage1", "stage2")
    )
    np.testing.assert_allclose(objective.compute(context), wanted, rtol=1e-6)
    assert not objective.variables


def test_named_taps_and_power_enter():
    objective = set_up(AT(("stage1",), ("stage2",), 4.0), SHAPES, WIDER)
    own, theirs = random_features(SHAPES, 1), random_features(WIDER, 2)
    context = context_of({"student": own, "teacher": theirs}, LABELS)
    wanted = np.mean(at_loss(own["stage1"], theirs["stage2"], 4.0))
    np.testing.assert_allclose(objective.compute(context), wanted, rtol=1e-6)
    assert objective.requires.taps == {
        ("student", "main"): ["stage1"],
        ("teacher", "main"): ["stage2"],
    }


def test_stages_of_every_pair_are_compared():
    check_every_pair(AT)


@pytest.mark.parametrize(
    ("taps", "shapes", "message"),
    [
        (
            ("pooled",),
            {**SHAPES, "pooled": (None, 4)},
            "at: found student tap 'pooled' of shape 4, wanted a feature map",
        ),
        (
            ("stage1", "stage2"),
            {**SHAPES, "stage1": (None, None, None, 3)},
            "at: found student tap 'stage1' of shape [?] x [?] x 3 and teacher tap 'stage1' of "
            "shape 8 x 8 x 5, wanted maps of known height and width",
        ),
    ],
)
def test_features_that_cannot_be_compared_are_refused(taps, shapes, message):
    with pytest.raises(TfkdError, match=message):
        set_up(AT(student_taps=taps), shapes, WIDER)
