"""The pipelines of large images that the benchmark sets side by side, and their fast form."""

import os

import numpy as np
import pytest
import tensorflow as tf

from tfkd.data import load, measure_crops

SIZE, KEYS = 16, ("index", "image_second")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("pictures")
    measure_crops.write(place, images=24, shape=(36, 48))
    return place


@pytest.fixture(scope="module")
def sets(folder):
    """The same pictures from files and from records, in both forms."""
    names = {f"folder:{folder}/images": None, "measured_pictures": str(folder / "records")}
    return {
        (place is None, augment): load(
            name, directory=place, augment=augment, image_size=SIZE, batch_size=8
        )
        for augment in ("imagenet", "imagenet_fast")
        for name, place in names.items()
    }


def test_all_pipelines_yield_crops_of_one_kind(folder):
    found = measure_crops.pipelines(folder, batch_size=8, size=SIZE)
    means = {}
    for name, pipeline in found.items():
        batches = list(pipeline.take(6).as_numpy_iterator())
        images = [each if isinstance(each, np.ndarray) else each["image"] for each in batches]
        assert {(each.shape, each.dtype.name) for each in images} == {((8, SIZE, SIZE, 3), "uint8")}
        means[name] = np.mean(images)
    assert max(means.values()) - min(means.values()) < 10


@pytest.mark.parametrize("is_folder", [True, False])
def test_fast_crops_are_of_the_same_rectangles(is_folder, sets):
    """They go on at any step, and replicas share them, as those of full quality."""
    slow, fast = (
        list(sets[is_folder, augment].train(0, 4, batch_keys=KEYS).as_numpy_iterator())
        for augment in ("imagenet", "imagenet_fast")
    )
    for left, right in zip(slow, fast, strict=True):
        np.testing.assert_array_equal(left["index"], right["index"])
        for key in ("image", "image_second"):
            both = [each[key].astype(float) for each in (left, right)]
            assert (both[0] != both[1]).any()
            # Without antialiasing the noise stays; other rectangles would have other pictures.
            smooth = [each.reshape(8, 4, 4, 4, 4, 3).mean((2, 4)).ravel() for each in both]
            assert np.corrcoef(*smooth)[0, 1] > 0.9
    dataset = sets[is_folder, "imagenet_fast"]
    (later,) = dataset.train(3, 4, batch_keys=KEYS).as_numpy_iterator()
    context = tf.distribute.InputContext(1, 0, 2)
    shared = list(dataset.train(3, 4, batch_keys=KEYS, input_context=context).as_numpy_iterator())
    for key, value in later.items():
        np.testing.assert_array_equal(value, fast[3][key], err_msg=key)
        np.testing.assert_array_equal(np.concatenate([each[key] for each in shared]), value)


def test_files_and_records_of_the_same_images_have_the_same_centers(sets):
    found = []
    for is_folder in (True, False):
        (batch,) = sets[is_folder, "imagenet"].test().as_numpy_iterator()
        real = ~batch["filler"]
        pairs = zip(batch["image"][real], batch["label"][real])
        found.append(sorted((image.tobytes(), int(label)) for image, label in pairs))
    assert found[0] == found[1] and len(found[0]) == 2


def test_pictures_are_as_large_as_photographs_of_that_size(tmp_path):
    measure_crops.write(tmp_path, images=2)
    sizes = [os.stat(path).st_size for path in (tmp_path / "images").glob("*/*/*.jpg")]
    assert len(sizes) == 4 and 30_000 < min(sizes) and max(sizes) < 100_000
