"""The pipelines of large images that the benchmark sets side by side, and their fast form."""

import os

import numpy as np
import pytest
import tensorflow as tf

from tfkd.data import load, measure_crops

SIZE = 16


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("pictures")
    measure_crops.write(place, images=24, shape=(36, 48))
    return place


def test_all_pipelines_yield_crops_of_one_kind(folder):
    found = measure_crops.pipelines(folder, batch_size=8, size=SIZE)
    means = {}
    assert set(found) == {
        f"{source}{form}" for source in ("plain", "folder", "records") for form in ("", "_fast")
    }
    for name in ("plain", "folder", "records"):
        batches = list(found[name].take(3).as_numpy_iterator())
        images = [each if isinstance(each, np.ndarray) else each["image"] for each in batches]
        assert {(each.shape, each.dtype.name) for each in images} == {((8, SIZE, SIZE, 3), "uint8")}
        means[name] = np.mean(images)
    assert max(means.values()) - min(means.values()) < 10


def test_fast_crops_of_records_are_of_the_same_rectangles(folder):
    """They go on at any step, and replicas share them, as those of full quality."""
    slow, fast = (
        load(
            "measured_pictures",
            directory=str(folder / "records"),
            augment=augment,
            image_size=SIZE,
            batch_size=8,
        )
        for augment in ("imagenet", "imagenet_fast")
    )
    walks = [list(each.train(0, 4).as_numpy_iterator()) for each in (slow, fast)]
    for left, right in zip(*walks, strict=True):
        np.testing.assert_array_equal(left["label"], right["label"])
        both = [each["image"].astype(float) for each in (left, right)]
        assert (both[0] != both[1]).any()
        # Without antialiasing the noise stays; other rectangles would have other pictures.
        smooth = [each.reshape(8, 4, 4, 4, 4, 3).mean((2, 4)).ravel() for each in both]
        assert np.corrcoef(*smooth)[0, 1] > 0.9
    context = tf.distribute.InputContext(1, 0, 2)
    halves = list(fast.train(3, 4, input_context=context).as_numpy_iterator())
    shared = np.concatenate([each["image"] for each in halves])
    np.testing.assert_array_equal(shared, walks[1][3]["image"])


def test_pictures_are_as_large_as_photographs_of_that_size(tmp_path):
    measure_crops.write(tmp_path, images=2)
    sizes = [os.stat(path).st_size for path in (tmp_path / "images").glob("*/*/*.jpg")]
    assert len(sizes) == 4 and 30_000 < min(sizes) and max(sizes) < 100_000
