"""Crops and mirror images against a plain NumPy search."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

import tfkd
from tfkd import data
from tfkd.data import augmentation as augmentations

HEIGHT, WIDTH = 7, 6


def source_images(size=40, channels=3):
    return np.random.default_rng(1).integers(1, 256, (size, HEIGHT, WIDTH, channels), np.uint8)


def views(augment, images, steps=30, seed=0):
    labels = np.zeros(len(images), int)
    dataset = data.from_arrays(
        (images, labels), (images, labels), augment=augment, batch_size=40, seed=seed
    )
    for batch in dataset.train(0, steps, batch_keys=("index",)).as_numpy_iterator():
        yield from zip(batch["index"], batch["image"])


def placement_of(image, source, pad):
    """Returns every (top, left, mirrored) that yields the image from its source."""
    padded = np.pad(source, ((pad, pad), (pad, pad), (0, 0)))
    return [
        (top, left, mirrored)
        for top in range(2 * pad + 1)
        for left in range(2 * pad + 1)
        for mirrored in (0, 1)
        if np.array_equal(
            padded[top : top + HEIGHT, left : left + WIDTH][:, :: -1 if mirrored else 1], image
        )
    ]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    "augment, pad, flip",
    [("crop_flip", 4, True), ("crop", 4, False), ("flip", 0, True), ("shift", 1, False)],
)
def test_every_view_is_a_crop_of_its_source_and_all_placements_occur(augment, pad, flip, channels):
    images = source_images(channels=channels)
    counts = {}
    for index, image in views(augment, images):
        found = placement_of(image, images[index], pad)
        assert len(found) == 1
        counts[found[0]] = counts.get(found[0], 0) + 1
    offsets = range(2 * pad + 1)
    possible = set(itertools.product(offsets, offsets, (0, 1) if flip else (0,)))
    assert set(counts) == possible
    # 1,200 views, evenly spread: Pearson's statistic has mean n - 1 and variance 2 (n - 1).
    expected = 1200 / len(possible)
    statistic = sum((count - expected) ** 2 / expected for count in counts.values())
    freedom = len(possible) - 1
    assert statistic < freedom + 5 * np.sqrt(2 * freedom) + 1


def test_no_augmentation_leaves_images_alone():
    images = source_images()
    for index, image in views("none", images, steps=2):
        np.testing.assert_array_equal(image, images[index])


def test_offsets_of_the_rows_of_a_batch_are_independent():
    images = source_images()
    placements = np.array(
        [placement_of(image, images[index], 4)[0] for index, image in views("crop_flip", images)]
    )
    # 1,200 draws: a correlation of independent ones has a deviation of 0.03.
    correlations = np.corrcoef(placements.T)[np.triu_indices(3, 1)]
    assert np.abs(correlations).max() < 0.12
    after = [np.corrcoef(column[:-1], column[1:])[0, 1] for column in placements.T]
    assert np.abs(after).max() < 0.12


@pytest.mark.parametrize("augment", ["crop_flip", "flip", "crop"])
def test_decoded_batches_are_cropped_like_the_table(augment):
    """The two ways to cut, for memory and for streams, agree to the bit."""
    chosen = augmentations.named(augment)
    images = source_images(16)
    placement = augmentations.draw(chosen, 5, "image", 3, 16, 0, 16)
    streamed = augmentations.crop_pixels(tf.constant(images), placement, chosen).numpy()
    for position, image in enumerate(streamed):
        wanted = (
            int(placement.top[position]),
            int(placement.left[position]),
            int(placement.mirrored[position]),
        )
        assert placement_of(image, images[position], chosen.pad) == [wanted]


def test_views_of_other_names_are_drawn_independently():
    chosen = augmentations.named("crop_flip")
    first, second = (
        augmentations.draw(chosen, 0, stream, 7, 64, 0, 64) for stream in ("image", "second")
    )
    assert (first.top != second.top).numpy().any()
    again = augmentations.draw(chosen, 0, "image", 7, 64, 0, 64)
    np.testing.assert_array_equal(first.left, again.left)
    part = augmentations.draw(chosen, 0, "image", 7, 64, 16, 8)
    np.testing.assert_array_equal(part.left, first.left[16:24])


def test_unknown_augmentation_names_the_nearest():
    images = source_images(4)
    with pytest.raises(tfkd.TfkdError, match="crop_flp.*did you mean 'crop_flip'"):
        data.from_arrays(
            (images, np.zeros(4, int)), (images, np.zeros(4, int)), augment="crop_flp", batch_size=2
        )
