"""A part of the training images, ``train_size``, and their labels, ``train_labels``."""

import numpy as np
import pytest

from tests.data.batches import images_and_labels
from tfkd import TfkdError, data


def labels_of(dataset):
    return np.concatenate(
        [batch["label"] for batch in dataset.train(last_step=dataset.steps_per_epoch)]
    )


def test_kept_images_are_alike_in_every_class_and_the_same_for_every_seed():
    full = data.load("digits", batch_size=1)
    parts = [data.load("digits", batch_size=100, train_size=500, seed=seed) for seed in (0, 7)]
    assert [part.info.train_size for part in parts] == [500, 500]
    assert (parts[0].info.test_size, parts[0].info.validation_size) == (360, 360)
    assert (parts[0].info.mean, parts[0].info.std) == (full.info.mean, full.info.std)
    shares = np.bincount(labels_of(full), minlength=10) * (500 / full.info.train_size)
    counts = [np.bincount(labels_of(part), minlength=10) for part in parts]
    np.testing.assert_array_equal(*counts)
    assert np.abs(counts[0] - shares).max() < 1
    images = [
        sorted(
            image.tobytes()
            for batch in part.train(last_step=part.steps_per_epoch)
            for image in np.asarray(batch["image"])
        )
        for part in (
            data.load("digits", batch_size=100, train_size=500, seed=seed, augment="none")
            for seed in (0, 7)
        )
    ]
    assert images[0] == images[1]


def test_index_counts_the_kept_images():
    dataset = data.load("digits", batch_size=100, train_size=200)
    batches = list(dataset.train(last_step=2, batch_keys=["index"]))
    assert sorted(np.concatenate([batch["index"] for batch in batches])) == list(range(200))


@pytest.mark.parametrize("settings", [{}, {"train_size": 200}, {"validation_size": 400}])
def test_training_labels_are_those_of_the_training_part_in_order(settings):
    dataset = data.load("digits", batch_size=100, **settings)
    _, labels = images_and_labels(dataset.train_evaluation())
    assert dataset.train_labels.dtype == np.int32
    np.testing.assert_array_equal(dataset.train_labels, labels)
    with pytest.raises(ValueError, match="read-only"):
        dataset.train_labels[0] = 1
    assert dataset.train_labels is dataset.train_labels


def test_train_size_may_be_the_whole_set():
    size = data.load("digits").info.train_size
    assert data.load("digits", train_size=size).info.train_size == size


@pytest.mark.parametrize("wanted", [0, -1, 5000, True])
def test_a_wrong_train_size_is_refused(wanted):
    with pytest.raises(TfkdError, match=f"train_size: found {wanted}, wanted a number of images"):
        data.load("digits", train_size=wanted)


def test_streamed_files_keep_the_same_images_as_files_in_memory(tmp_path):
    import tensorflow as tf

    for split in ("train", "test"):
        for place, name in enumerate(("cat", "dog")):
            folder = tmp_path / split / name
            folder.mkdir(parents=True)
            for number in range(6):
                pixels = np.full((4, 4, 3), 40 * number + 10 * place, np.uint8)
                tf.io.write_file(str(folder / f"{number}.png"), tf.io.encode_png(pixels))
    settings = dict(batch_size=2, train_size=4, augment="none")
    parts = [
        data.load(f"folder:{tmp_path}", **settings, in_memory_bytes=limit) for limit in (0, 2**30)
    ]
    found = [[np.asarray(batch["image"]) for batch in part.train(last_step=2)] for part in parts]
    np.testing.assert_array_equal(*found)
    assert sorted(labels_of(parts[0])) == [0, 0, 1, 1]


def test_a_sample_is_alike_in_every_class_and_always_the_same():
    dataset = data.load("digits", batch_size=64, seed=3).with_column("number", np.arange(1077))
    images, labels = images_and_labels(dataset.sample(200))
    assert len(images) == 200 and set(np.bincount(labels, minlength=10)) <= {19, 20, 21}
    again, _ = images_and_labels(data.load("digits", batch_size=100).sample(200))
    np.testing.assert_array_equal(images, again)
    whole, _ = images_and_labels(dataset.sample(5000))
    assert len(whole) == dataset.info.train_size == 1077
    assert dataset.train_evaluation().cardinality() == 17
