"""Negatives are of other classes, all of them equally likely, and functions of seed and image."""

import numpy as np
import pytest
import tensorflow as tf

from tfkd import TfkdError
from tfkd.distillers.shared.negatives import Negatives, published_count

LABELS = np.random.default_rng(0).permutation(np.repeat([7, 3, 4, 9], [3, 9, 12, 16]))
ANCHORS = np.array([np.flatnonzero(LABELS == each)[1] for each in (7, 3, 4, 9, 7, 9)])
COUNT, DRAWS = 13, 2000


def drawn(kind, seed, labels=LABELS, count=COUNT, index=ANCHORS):
    """How often each image takes each training image, by either draw."""
    negatives = Negatives(labels, count, "crd")
    index, seed = tf.constant(index, tf.int32), tf.convert_to_tensor(seed)
    if kind == "each":
        return negatives.of_each(index, seed)
    rows, weights = negatives.of_batch(index, seed)
    onehot = tf.one_hot(rows, len(labels))
    return weights @ onehot


def over_seeds(function, draws=DRAWS):
    """A function of seeds for many of them, in one compiled call."""
    seeds = tf.stack([tf.range(draws), tf.fill([draws], 5)], axis=1)
    mapped = tf.function(lambda: tf.map_fn(function, seeds, fn_output_signature=tf.float32))
    return mapped().numpy()


KINDS = pytest.mark.parametrize("kind", ["batch", "each"])


@KINDS
def test_every_image_has_so_many_different_ones_of_other_classes(kind):
    for seed in range(20):
        weights = drawn(kind, [seed, 1]).numpy()
        assert set(np.unique(weights)) == {0.0, 1.0}
        np.testing.assert_array_equal(weights.sum(axis=1), COUNT)
        own = LABELS[ANCHORS][:, None] == LABELS[None, :]
        assert not weights[own].any()


@KINDS
def test_all_images_of_other_classes_are_equally_likely(kind):
    found = over_seeds(lambda seed: drawn(kind, seed)).sum(axis=0)
    for anchor, taken in zip(ANCHORS, found):
        others = LABELS != LABELS[anchor]
        share = COUNT / others.sum()
        assert taken[~others].sum() == 0
        # Of draws without replacement; about chi-squared with one degree less than others.
        square = np.sum((taken[others] - DRAWS * share) ** 2) / (DRAWS * share * (1 - share))
        square *= (others.sum() - 1) / others.sum()
        degrees = others.sum() - 1
        assert abs(square - degrees) < 4 * np.sqrt(2 * degrees)


@KINDS
def test_pairs_of_images_are_drawn_as_without_replacement(kind):
    taken = over_seeds(lambda seed: drawn(kind, seed)[0])[:, LABELS != LABELS[ANCHORS[0]]]
    together, number = taken.T @ taken / DRAWS, taken.shape[1]
    share = COUNT * (COUNT - 1) / (number * (number - 1))
    error = np.sqrt(share * (1 - share) / DRAWS)
    pairs = together[~np.eye(number, dtype=bool)]
    # NumPy's permutations are off by up to 4.8 and 13 % in a dozen such samples.
    assert np.abs(pairs - share).max() < 6 * error
    assert abs(pairs.std() / error - 1) < 0.25


def test_images_of_one_batch_share_what_they_draw_or_do_not():
    def in_common(kind):
        weights = over_seeds(lambda seed: drawn(kind, seed)[:2], 500)
        return np.mean(np.sum(weights[:, 0] * weights[:, 1], axis=1))

    # Of 13 of 37 and 13 of 31, 28 of them the same images: independent draws meet in 4.1.
    assert in_common("batch") > 8
    assert abs(in_common("each") - 28 * (COUNT / 37) * (COUNT / 31)) < 0.3


@KINDS
def test_draw_is_a_function_of_seed_and_image(kind):
    whole = drawn(kind, [3, 4]).numpy()
    np.testing.assert_array_equal(drawn(kind, [3, 4]), whole)
    for other in ([3, 5], [4, 4]):
        assert np.any(drawn(kind, other).numpy() != whole)
    if kind == "batch":
        parts = [drawn(kind, [3, 4], index=part) for part in (ANCHORS[:2], ANCHORS[2:])]
        np.testing.assert_array_equal(np.concatenate(parts), whole)


@KINDS
def test_few_others_are_all_taken_and_weigh_as_many(kind):
    weights = drawn(kind, [0, 0], count=30).numpy()
    np.testing.assert_allclose(weights.sum(axis=1), 30, rtol=1e-6)
    for anchor, row in zip(ANCHORS, weights):
        others = LABELS != LABELS[anchor]
        assert not row[~others].any()
        if others.sum() < 30:
            np.testing.assert_allclose(row[others], 30 / others.sum(), rtol=1e-6)
        else:
            assert np.sum(row == 1) == 30
    more = drawn(kind, [0, 0], count=1000).numpy()
    np.testing.assert_allclose(more.sum(axis=1), 1000, rtol=1e-6)


def test_images_of_the_own_class_are_equally_likely():
    negatives = Negatives(LABELS, COUNT, "crd")
    index = tf.constant(ANCHORS, tf.int32)
    found = over_seeds(
        lambda seed: tf.one_hot(negatives.of_own_class(index, seed), len(LABELS)), 2000
    ).sum(axis=0)
    for anchor, taken in zip(ANCHORS, found):
        own = LABELS == LABELS[anchor]
        assert not taken[~own].any()
        expected = 2000 / own.sum()
        square, degrees = np.sum((taken[own] - expected) ** 2) / expected, own.sum() - 1
        assert square < degrees + 4 * np.sqrt(2 * degrees)


def test_published_count_and_its_share_of_smaller_sets():
    assert published_count(50_000) == published_count(1_281_167) == 16_384
    assert published_count(5_000) == 1_638
    assert published_count(1) == 1


def test_one_class_has_no_negatives():
    with pytest.raises(TfkdError, match="^crd: found 5 training images of one class, wanted"):
        Negatives(np.full(5, 3), 2, "crd")
