"""Validation batches beside the training batches, for methods that learn on both."""

import numpy as np
import pytest
import tensorflow as tf

import tfkd
from tfkd import data

SIZE, HELD, BATCH = 24, 17, 8
KEYS = ("heldout_image", "heldout_label")


def images_of(first, size):
    return np.random.default_rng(first).integers(0, 256, (size, 6, 5, 3), np.uint8)


def make(seed=0, held=HELD, **settings):
    train, validation = images_of(1, SIZE), images_of(2, held)
    return data.from_arrays(
        (train, np.arange(SIZE) % 4),
        (train[:3], np.arange(3)),
        validation=(validation, np.arange(held) % 4),
        augment="crop_flip",
        batch_size=BATCH,
        seed=seed,
        **settings,
    )


def drawn(dataset, first, last, batch_keys=KEYS, **settings):
    return list(dataset.train(first, last, batch_keys=batch_keys, **settings).as_numpy_iterator())


def positions(batch):
    """Returns where the held-out images of a batch are in the validation part."""
    known = {image.tobytes(): place for place, image in enumerate(images_of(2, HELD))}
    return [known[image.tobytes()] for image in batch["heldout_image"]]


def test_heldout_images_are_unaugmented_passes_over_the_validation_part():
    batches = drawn(make(), 0, 12)
    passes = np.array([positions(batch) for batch in batches]).reshape(6, -1)
    for one in passes:
        assert len(set(one)) == 2 * BATCH
    assert len({tuple(one) for one in passes}) == 6
    for batch in batches:
        np.testing.assert_array_equal(batch["heldout_label"], np.array(positions(batch)) % 4)
        assert batch["heldout_label"].dtype == np.int32


def test_heldout_images_depend_on_seed_and_step_and_change_nothing_else():
    whole = drawn(make(), 0, 9)
    for left, right in zip(drawn(make(), 5, 9), whole[5:], strict=True):
        for key in left:
            np.testing.assert_array_equal(left[key], right[key], err_msg=key)
    assert positions(drawn(make(seed=1), 0, 1)[0]) != positions(whole[0])
    for plain, batch in zip(drawn(make(), 0, 9, batch_keys=()), whole, strict=True):
        np.testing.assert_array_equal(plain["image"], batch["image"])
        np.testing.assert_array_equal(plain["label"], batch["label"])


def test_replicas_share_the_heldout_batch():
    (whole,) = drawn(make(), 3, 4)
    parts = drawn(make(), 3, 4, input_context=tf.distribute.InputContext(1, 0, 2))
    assert [len(part["heldout_image"]) for part in parts] == [4, 4]
    for key in KEYS:
        np.testing.assert_array_equal(np.concatenate([part[key] for part in parts]), whole[key])


def test_heldout_images_have_an_order_of_their_own():
    same = images_of(1, SIZE)
    dataset = data.from_arrays(
        (same, np.arange(SIZE)), (same, np.arange(SIZE)), validation=(same, np.arange(SIZE)),
        batch_size=BATCH,
    )  # fmt: skip
    (batch,) = drawn(dataset, 0, 1)
    assert (batch["label"] != batch["heldout_label"]).any()


def test_streamed_files_have_the_heldout_images_of_files_in_memory(tmp_path):
    for part, size in (("train", 4), ("val", 4), ("test", 1)):
        for name in "ab":
            (tmp_path / part / name).mkdir(parents=True)
            for number in range(size):
                image = tf.io.encode_png(images_of(len(part) + number, 1)[0])
                (tmp_path / part / name / f"{number}.png").write_bytes(image.numpy())
    loaded = [
        data.load(f"folder:{tmp_path}", batch_size=4, in_memory_bytes=limit)
        for limit in (0, data.IN_MEMORY_BYTES)
    ]
    for left, right in zip(*(drawn(each, 1, 4) for each in loaded), strict=True):
        for key in left:
            np.testing.assert_array_equal(left[key], right[key], err_msg=key)


def test_mixing_leaves_heldout_images_alone():
    (plain,) = drawn(make(), 2, 3)
    (mixed,) = drawn(make(mixup=1.0), 2, 3)
    for key in KEYS:
        np.testing.assert_array_equal(plain[key], mixed[key])


@pytest.mark.parametrize("held, words", [(7, ["7 validation"]), (None, ["no validation"])])
def test_too_few_validation_images_are_named(held, words):
    dataset = make(held=held) if held else data.from_arrays(
        (images_of(1, SIZE), np.arange(SIZE)), (images_of(1, 1), [0]), batch_size=BATCH
    )  # fmt: skip
    with pytest.raises(tfkd.TfkdError) as caught:
        dataset.train(batch_keys=["heldout_label"])
    message = str(caught.value)
    assert "\n" not in message
    for word in (*words, "heldout_image", "a batch of 8", "validation_split=0.1"):
        assert word in message
