"""Further views of a batch: when they repeat themselves, what they show, what they refuse."""

import numpy as np
import pytest
import tensorflow as tf

import tfkd
from tfkd import data
from tfkd.data import randomness

SIDE, SIZE, BATCH = 6, 36, 8
STEPS = SIZE // BATCH
VIEWS = ("image_second", "image_third", "image_strong", "image_pair", "image_rotations")
# Classes of 1, 2, 3, ... 8 images.
LABELS = np.repeat(np.arange(8), np.arange(1, 9))


def sources(channels=3, width=SIDE):
    return np.random.default_rng(5).integers(1, 256, (SIZE, SIDE, width, channels), np.uint8)


def make(augment="crop_flip", images=None, batch_size=BATCH, seed=0):
    images = sources() if images is None else images
    return data.from_arrays(
        (images, LABELS), (images, LABELS), augment=augment, batch_size=batch_size, seed=seed
    )


def drawn(dataset, first, last, batch_keys, **settings):
    return list(dataset.train(first, last, batch_keys=batch_keys, **settings).as_numpy_iterator())


def by_image(batches, *keys):
    """Yields the position of each image and its views, image by image."""
    for batch in batches:
        yield from zip(batch["index"], *(batch[key] for key in keys))


def placement_of(image, source, pad=4):
    """Returns (top, left, mirrored) of the one crop of the padded source that is the image."""
    padded = np.pad(source, ((pad, pad), (pad, pad), (0, 0)))
    found = [
        (top, left, mirrored)
        for top in range(2 * pad + 1)
        for left in range(2 * pad + 1)
        for mirrored in (0, 1)
        if np.array_equal(
            padded[top : top + SIDE, left : left + SIDE][:, :: -1 if mirrored else 1], image
        )
    ]
    assert len(found) == 1
    return found[0]


def assert_even(counts):
    """Pearson's statistic of even counts has the mean n - 1 and the variance 2 (n - 1)."""
    freedom = len(counts) - 1
    statistic = ((counts - counts.mean()) ** 2 / counts.mean()).sum()
    # The 5 is for few degrees of freedom, where large values are less rare.
    assert statistic < freedom + 5 * np.sqrt(2 * freedom) + 5, counts


@pytest.fixture(scope="module")
def whole():
    """Every view of three epochs."""
    return drawn(make(), 0, 3 * STEPS, VIEWS)


def test_form_of_the_views(whole):
    for key in VIEWS:
        rows = 4 * BATCH if key == "image_rotations" else BATCH
        assert whole[0][key].shape == (rows, SIDE, SIDE, 3), key
        assert whole[0][key].dtype == np.uint8, key


def test_a_run_that_starts_later_sees_the_same_views(whole):
    first = STEPS + 2
    tf.random.set_seed(first)
    for left, right in zip(drawn(make(), first, 3 * STEPS, VIEWS), whole[first:], strict=True):
        for key in ("image", *VIEWS):
            np.testing.assert_array_equal(left[key], right[key], err_msg=key)


@pytest.mark.parametrize("pipelines, replicas", [(1, 2), (2, 2)])
def test_replicas_together_see_the_views_of_the_global_batch(whole, pipelines, replicas):
    local = replicas // pipelines
    first, last = STEPS - 1, STEPS + 1
    parts = [
        drawn(
            make(),
            first,
            last,
            VIEWS,
            input_context=tf.distribute.InputContext(pipelines, pipeline, replicas),
        )
        for pipeline in range(pipelines)
    ]
    for step in range(last - first):
        slices = [part[step * local + replica] for part in parts for replica in range(local)]
        for key in VIEWS:
            rows = (4 if key == "image_rotations" else 1) * BATCH // replicas
            assert all(len(each[key]) == rows for each in slices)
            np.testing.assert_array_equal(
                np.concatenate([each[key] for each in slices]), whole[first + step][key], key
            )


def test_no_view_changes_the_others(whole):
    for key in ("image_third", "image_pair", "image_rotations"):
        (alone,) = drawn(make(), 5, 6, (key,))
        np.testing.assert_array_equal(alone[key], whole[5][key])
        np.testing.assert_array_equal(alone["image"], whole[5]["image"])


def test_another_seed_gives_other_views(whole):
    other = drawn(make(seed=1), 0, 1, VIEWS)[0]
    for key in VIEWS:
        assert (other[key] != whole[0][key]).any(), key


def test_three_views_are_independent_crops_of_one_image():
    images = sources()
    keys = ("image", "image_second", "image_third")
    batches = drawn(make(), 0, 80, ("index", *keys[1:]))
    placements = np.array(
        [
            [placement_of(view, images[index]) for view in views]
            for index, *views in by_image(batches, *keys)
        ]
    ).reshape(80 * BATCH, -1)
    # 640 draws: a correlation of independent ones has a deviation of 0.04.
    correlations = np.corrcoef(placements.T)[np.triu_indices(9, 1)]
    assert np.abs(correlations).max() < 0.16
    for column in placements.T:
        assert_even(np.bincount(column))


def test_bits_of_an_example_follow_their_definition():
    def scrambled(state):
        state ^= state >> 30
        state = state * 0xBF58476D1CE4E5B9 % 2**64
        state ^= state >> 27
        state = state * 0x94D049BB133111EB % 2**64
        return state ^ state >> 31

    # The first number of the published SplitMix64 generator that starts from 0.
    golden = 0x9E3779B97F4A7C15
    assert scrambled(golden) == 0xE220A8397B1DCDAF

    seed, stream, epoch, indices, columns = 2**31 - 1, "pair", 70_000, [0, 1, 2**31 - 1], 3
    checksum = 0x95A1E69  # CRC-32 of "pair"
    wanted = []
    for index in indices:
        state = scrambled((seed << 32) + checksum)
        for number in (epoch, index):
            state = scrambled((state + number * golden) % 2**64)
        bits = [scrambled((state + n * golden) % 2**64) >> 32 for n in range(1, columns + 1)]
        wanted.append([each - 2**32 if each >= 2**31 else each for each in bits])
    found = randomness.example_bits(
        seed, stream, tf.constant(epoch, tf.int64), tf.constant(indices), columns
    )
    assert found.dtype == tf.int32
    np.testing.assert_array_equal(found, wanted)


def test_bits_of_examples_are_even_and_independent():
    bits = np.stack(
        [randomness.example_bits(0, "a", epoch, tf.range(4000), 2) for epoch in range(3)]
    )
    bits = np.concatenate([bits, [randomness.example_bits(0, "b", 0, tf.range(4000), 2)]])
    columns = bits.transpose(0, 2, 1).reshape(8, 4000)
    for column in columns:
        assert_even(np.bincount(column % 101))
        assert_even(np.bincount((column >> 24) + 128, minlength=256))
        assert abs(np.corrcoef(column[:-1], column[1:])[0, 1]) < 0.08
    assert np.abs(np.corrcoef(columns)[np.triu_indices(8, 1)]).max() < 0.08


def test_a_partner_is_of_the_same_class_and_drawn_evenly():
    """Images of value 10 * (position + 1) all over, so that a crop still tells its source."""
    images = np.broadcast_to(
        np.arange(1, SIZE + 1, dtype=np.uint8)[:, None, None, None] * 7, (SIZE, SIDE, SIDE, 1)
    )
    batches = drawn(make("none", images.copy()), 0, 150 * STEPS, ("index", "image_pair"))
    counts = np.zeros((SIZE, SIZE), int)
    for index, pair in by_image(batches, "image_pair"):
        counts[index, pair[0, 0, 0] // 7 - 1] += 1
    for label in range(8):
        members = np.flatnonzero(LABELS == label)
        within = counts[np.ix_(members, members)]
        assert within.sum() == counts[members].sum()
        if label:
            # Each image meets each of its class alike, itself among them.
            for row in within:
                assert_even(row)


def test_a_partner_depends_on_seed_epoch_and_index_alone():
    def partners(batch_size, epoch, seed=0):
        dataset = make("none", batch_size=batch_size, seed=seed)
        steps = dataset.steps_per_epoch
        batches = drawn(dataset, epoch * steps, (epoch + 1) * steps, ("index", "image_pair"))
        return {index: pair.tobytes() for index, pair in by_image(batches, "image_pair")}

    first, second, third = partners(4, 2), partners(9, 2), partners(9, 3)
    assert first == second and len(first) == SIZE
    several = [index for index in first if LABELS[index] > 3]
    assert 0.3 < np.mean([first[index] != third[index] for index in several]) < 1


def test_a_partner_is_augmented_on_its_own():
    images = sources()
    batches = drawn(make(), 0, 30 * STEPS, ("index", "image_pair"))
    placements = []
    for index, image, pair in by_image(batches, "image", "image_pair"):
        if LABELS[index] == 0:  # the class of one image, which is its own partner
            placements.append(
                [*placement_of(image, images[index]), *placement_of(pair, images[index])]
            )
    placements = np.array(placements)
    assert len(placements) > 20
    assert (placements[:, :3] != placements[:, 3:]).any(1).mean() > 0.9


@pytest.mark.parametrize("channels", [1, 3])
def test_rotations_are_counter_clockwise_turns(channels):
    images = sources(channels)
    for batch in drawn(make("none", images), 0, 2, ("index", "image_rotations")):
        for row, index in enumerate(batch["index"]):
            for turn in range(4):
                np.testing.assert_array_equal(
                    batch["image_rotations"][4 * row + turn], np.rot90(images[index], turn)
                )


def test_rotations_are_mirrored_once_and_cropped_one_by_one():
    images = sources()
    placements = []
    for batch in drawn(make(), 0, 60, ("index", "image_rotations")):
        for row, index in enumerate(batch["index"]):
            views = batch["image_rotations"][4 * row : 4 * row + 4]
            # A turn of the mirrored image is neither a turn nor a crop of the plain one.
            mirrored, plain = images[index][:, ::-1], images[index]
            found = []
            for flip, source in enumerate((plain, mirrored)):
                crops = [crop_of(view, np.rot90(source, turn)) for turn, view in enumerate(views)]
                if all(crops):
                    found.append([flip, *np.ravel(crops)])
            assert len(found) == 1
            placements += found
    placements = np.array(placements)
    for column in placements.T:
        assert_even(np.bincount(column))
    correlations = np.corrcoef(placements.T)[np.triu_indices(9, 1)]
    assert np.abs(correlations).max() < 0.2  # 480 draws: a deviation of 0.046


def crop_of(view, source, pad=4):
    """Returns (top, left) of a view in its padded source, or None."""
    padded = np.pad(source, ((pad, pad), (pad, pad), (0, 0)))
    offsets = range(2 * pad + 1)
    for top in offsets:
        for left in offsets:
            if np.array_equal(padded[top : top + SIDE, left : left + SIDE], view):
                return top, left
    return None


@pytest.mark.parametrize(
    "augment, may_turn, may_move", [("crop", False, True), ("flip", True, False)]
)
def test_rotations_vary_as_the_augmentation_says(augment, may_turn, may_move):
    images = sources()
    turned = moved = False
    for batch in drawn(make(augment), 0, 3, ("index", "image_rotations")):
        for index, view in zip(batch["index"], batch["image_rotations"][::4]):
            place = crop_of(view, images[index]) or crop_of(view, images[index][:, ::-1])
            moved |= place != (4, 4)
            turned |= crop_of(view, images[index]) is None
    assert (turned, moved) == (may_turn, may_move)


@pytest.mark.parametrize(
    "images, key, words",
    [
        (sources(width=5), "image_rotations", ["6 x 5", "square", "image_size"]),
        (sources(channels=2), "image_strong", ["2 channels", "1 or 3"]),
        (sources(), "image_storng", ["did you mean 'image_strong'", "image_pair", "index"]),
    ],
)
def test_impossible_views_are_named(images, key, words):
    with pytest.raises(tfkd.TfkdError) as caught:
        make(images=images).train(batch_keys=["index", key])
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message
