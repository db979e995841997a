"""Folders of images: layout, decoding, streaming, and everything that can be wrong with them."""

import shutil
import warnings

import numpy as np
import pytest
import tensorflow as tf

import tfkd
from tests.data.batches import images_and_labels
from tfkd import data

CLASSES = ("ant", "bee", "cat")
COUNTS = {"train": 6, "test": 3, "val": 2}


def pixels(part, name, number, shape=(10, 8, 3)):
    seed = [ord(letter) for letter in part + name] + [number]
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def write(path, image, suffix=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = suffix or path.suffix.lower()
    encode = tf.io.encode_png if kind == ".png" else tf.io.encode_jpeg
    path.write_bytes(encode(image).numpy())


def make(root, suffix=".png", splits=("train", "test"), shape=(10, 8, 3)):
    for part in splits:
        for name in CLASSES:
            for number in range(COUNTS.get(part, 2)):
                image = pixels(part, name, number, shape)
                write(root / part / name / f"{number:02d}{suffix}", image)
    return root


def load(root, **settings):
    return data.load(f"folder:{root}", **({"batch_size": 4} | settings))


def failure(root, **settings):
    """Returns the one line with which loading fails."""
    with pytest.raises(tfkd.TfkdError) as caught:
        load(root, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("in_memory_bytes", [data.IN_MEMORY_BYTES, 0])
def test_images_and_labels_come_in_the_order_of_the_names(tmp_path, in_memory_bytes):
    make(tmp_path, splits=("train", "test", "val"))
    (tmp_path / "train" / "ant" / "notes.txt").write_text("no image")
    (tmp_path / "train" / ".cache").mkdir()
    dataset = load(tmp_path, in_memory_bytes=in_memory_bytes)
    info = dataset.info
    assert info.class_names == CLASSES and info.num_classes == 3
    assert (info.train_size, info.validation_size, info.test_size) == (18, 6, 9)
    assert info.image_shape == (10, 8, 3)
    for part, walk in (
        ("train", dataset.train_evaluation()),
        ("test", dataset.test()),
        ("val", dataset.validation()),
    ):
        images, labels = images_and_labels(walk)
        count = COUNTS[part]
        wanted = [pixels(part, name, n) for name in CLASSES for n in range(count)]
        np.testing.assert_array_equal(images, wanted)
        np.testing.assert_array_equal(labels, np.repeat([0, 1, 2], count))
        if part == "train":
            np.testing.assert_allclose(info.mean, np.mean(wanted, (0, 1, 2)), rtol=1e-9)
            np.testing.assert_allclose(info.std, np.std(wanted, (0, 1, 2)), rtol=1e-9)


def test_jpegs_are_decoded_with_the_accurate_transform(tmp_path):
    make(tmp_path, ".jpg")
    images, _ = images_and_labels(load(tmp_path).test())
    contents = (tmp_path / "test" / "ant" / "00.jpg").read_bytes()
    accurate = tf.io.decode_jpeg(contents, dct_method="INTEGER_ACCURATE")
    np.testing.assert_array_equal(images[0], accurate)


def test_suffixes_in_capitals_and_misnamed_kinds_are_read(tmp_path):
    make(tmp_path)
    write(tmp_path / "test" / "ant" / "10.JPEG", pixels("test", "ant", 10))
    write(tmp_path / "test" / "ant" / "11.jpg", pixels("test", "ant", 11), suffix=".png")
    images, _ = images_and_labels(load(tmp_path).test())
    np.testing.assert_array_equal(images[4], pixels("test", "ant", 11))
    assert len(images) == 11


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
@pytest.mark.parametrize("in_memory_bytes", [data.IN_MEMORY_BYTES, 0])
def test_gray_images_have_one_channel(tmp_path, suffix, in_memory_bytes):
    make(tmp_path, suffix, shape=(6, 6, 1))
    dataset = load(tmp_path, in_memory_bytes=in_memory_bytes)
    assert dataset.info.image_shape == (6, 6, 1) and len(dataset.info.mean) == 1
    images, _ = images_and_labels(dataset.test())
    assert images.shape == (9, 6, 6, 1)
    if suffix == ".png":
        np.testing.assert_array_equal(images[0], pixels("test", "ant", 0, (6, 6, 1)))


def test_one_color_image_makes_a_gray_folder_a_color_one(tmp_path):
    make(tmp_path, shape=(6, 6, 1))
    write(tmp_path / "test" / "cat" / "05.png", pixels("test", "cat", 5, (6, 6, 3)))
    images, _ = images_and_labels(load(tmp_path).test())
    np.testing.assert_array_equal(images[-1], pixels("test", "cat", 5, (6, 6, 3)))
    gray = pixels("test", "ant", 0, (6, 6, 1))
    np.testing.assert_array_equal(images[0], np.repeat(gray, 3, axis=2))


def test_images_are_resized_on_request(tmp_path):
    make(tmp_path)
    write(tmp_path / "train" / "ant" / "07.png", np.full((31, 17, 3), 200, np.uint8))
    dataset = load(tmp_path, image_size=(5, 8))
    assert dataset.info.image_shape == (5, 8, 3)
    images, _ = images_and_labels(dataset.train_evaluation())
    np.testing.assert_array_equal(images[6], np.full((5, 8, 3), 200))
    # Images of the wanted size are not touched.
    same = load(tmp_path, image_size=[10, 8])
    np.testing.assert_array_equal(images_and_labels(same.test())[0][0], pixels("test", "ant", 0))


def test_validation_images_are_set_apart_from_the_training_images(tmp_path):
    make(tmp_path)
    for in_memory_bytes in (data.IN_MEMORY_BYTES, 0):
        dataset = load(tmp_path, validation_size=6, in_memory_bytes=in_memory_bytes)
        assert (dataset.info.train_size, dataset.info.validation_size) == (12, 6)
        apart, labels = images_and_labels(dataset.validation())
        np.testing.assert_array_equal(np.bincount(labels), [2, 2, 2])
        kept, _ = images_and_labels(dataset.train_evaluation())
        everything = sorted(image.tobytes() for image in (*apart, *kept))
        assert everything == sorted(
            pixels("train", name, number).tobytes() for name in CLASSES for number in range(6)
        )


def test_imagenets_layout_is_tested_on_its_validation_split(tmp_path):
    make(tmp_path, splits=("train", "val"))
    dataset = load(tmp_path)
    assert (dataset.info.test_size, dataset.info.validation_size) == (6, 0)
    np.testing.assert_array_equal(images_and_labels(dataset.test())[0][0], pixels("val", "ant", 0))


def test_the_validation_split_of_a_folder_can_be_left_out(tmp_path):
    make(tmp_path, splits=("train", "test", "validation"))
    assert load(tmp_path).info.validation_size == 6
    assert load(tmp_path, validation_size=0).info.validation_size == 0
    assert "only one" in failure(tmp_path, validation_split=0.5)


def test_a_streamed_folder_trains_on_the_same_batches_as_one_in_memory(tmp_path):
    make(tmp_path)
    memory, stream = (
        load(tmp_path, in_memory_bytes=limit, seed=3) for limit in (data.IN_MEMORY_BYTES, 0)
    )
    assert stream.info == memory.info
    batch_keys = ("index", "image_second", "image_pair")
    for first in (0, 5):
        walks = [
            list(each.train(first, 9, batch_keys=batch_keys).as_numpy_iterator())
            for each in (memory, stream)
        ]
        assert len(walks[0]) == 9 - first
        for left, right in zip(*walks, strict=True):
            for key in ("image", "label", *batch_keys):
                np.testing.assert_array_equal(left[key], right[key], err_msg=key)


def test_training_labels_of_a_stream_decode_no_image(tmp_path):
    make(tmp_path)
    dataset = load(tmp_path, in_memory_bytes=0)
    shutil.rmtree(tmp_path / "train")
    np.testing.assert_array_equal(dataset.train_labels, np.repeat([0, 1, 2], COUNTS["train"]))


def test_a_streamed_batch_is_shared_by_replicas(tmp_path):
    make(tmp_path)
    dataset = load(tmp_path, in_memory_bytes=0)
    whole = next(iter(dataset.train(3)))["image"]
    context = tf.distribute.InputContext(1, 0, 2)
    slices = [batch["image"] for batch in dataset.train(3, 4, input_context=context)]
    np.testing.assert_array_equal(np.concatenate(slices), whole)


def test_skipped_steps_decode_nothing(tmp_path):
    """A file that is gone is no hindrance to a run that is past it."""
    make(tmp_path)
    dataset = load(tmp_path, in_memory_bytes=0)
    batches = list(dataset.train(0, 4, batch_keys=("index",)).as_numpy_iterator())
    gone = set(batches[0]["index"]) - set(batches[3]["index"])
    for index in gone:
        (tmp_path / "train" / CLASSES[index // 6] / f"{index % 6:02d}.png").unlink()
    assert batches[3]["image"].shape == next(iter(dataset.train(3, 4)))["image"].shape


@pytest.mark.parametrize(
    "damage, suffix", [("cut", ".jpg"), ("cut", ".png"), ("empty", ".jpg"), ("text", ".png")]
)
def test_a_corrupt_image_is_named_and_skipped_only_on_request(tmp_path, damage, suffix, capfd):
    make(tmp_path, suffix)
    bad = tmp_path / "train" / "bee" / f"02{suffix}"
    contents = bad.read_bytes()
    bad.write_bytes({"cut": contents[: len(contents) // 2], "empty": b"", "text": b"hello"}[damage])
    message = failure(tmp_path)
    assert str(bad) in message and "cannot be decoded" in message
    # The decoder has nothing to add to that.
    assert "JPEG" not in capfd.readouterr().err
    for in_memory_bytes in (data.IN_MEMORY_BYTES, 0):
        with pytest.warns(tfkd.TfkdWarning, match="skipped 1 of 18 images") as caught:
            dataset = load(tmp_path, skip_corrupt=True, in_memory_bytes=in_memory_bytes)
        assert str(bad) in str(caught[0].message)
        _, labels = images_and_labels(dataset.train_evaluation())
        np.testing.assert_array_equal(np.bincount(labels), [6, 5, 6])


def test_a_sound_folder_warns_of_nothing(tmp_path):
    make(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error", tfkd.TfkdWarning)
        assert load(tmp_path, skip_corrupt=True).info.train_size == 18


@pytest.mark.parametrize("every", [False, True])
def test_a_corrupt_image_of_a_stream_is_named_when_it_is_read(tmp_path, every):
    make(tmp_path, ".jpg")
    dataset = load(tmp_path, in_memory_bytes=0)
    folder = tmp_path / "train"
    bad = sorted(folder.glob("*/*.jpg")) if every else [folder / "bee" / "03.jpg"]
    for path in bad:
        path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(tf.errors.InvalidArgumentError) as caught:
        list(dataset.train(0, 8))
    explained = data.explain(caught.value)
    assert isinstance(explained, tfkd.TfkdError) and "\n" not in str(explained)
    assert any(str(path) in str(explained) for path in bad)
    assert "cannot be decoded" in str(explained)


def test_an_image_of_another_size_in_a_stream_is_named_when_it_is_read(tmp_path):
    make(tmp_path)
    odd = tmp_path / "train" / "bee" / "03.png"
    dataset = load(tmp_path, in_memory_bytes=0)
    write(odd, pixels("x", "y", 0, (9, 8, 3)))
    with pytest.raises(tf.errors.InvalidArgumentError) as caught:
        list(dataset.train(0, 8))
    message = str(data.explain(caught.value))
    assert str(odd) in message and "9 x 8" in message and "image_size" in message


def test_other_failures_are_not_explained():
    assert data.explain(ValueError("something else")) is None


@pytest.mark.parametrize("skip_corrupt", [False, True])
def test_an_image_of_another_size_is_named(tmp_path, skip_corrupt):
    make(tmp_path)
    odd = tmp_path / "test" / "cat" / "01.png"
    write(odd, pixels("x", "y", 0, (10, 9, 3)))
    message = failure(tmp_path, skip_corrupt=skip_corrupt)
    for word in (str(odd), "10 x 9", "10 x 8", "image_size"):
        assert word in message


def test_a_class_of_which_nothing_can_be_decoded_is_named(tmp_path):
    make(tmp_path)
    for path in (tmp_path / "test" / "bee").iterdir():
        path.write_bytes(b"")
    with pytest.warns(tfkd.TfkdWarning, match="skipped 3 of 9"):
        message = failure(tmp_path, skip_corrupt=True)
    assert str(tmp_path / "test" / "bee") in message
    for path in (tmp_path / "train").glob("*/*"):
        path.write_bytes(b"")
    assert "cannot be decoded" in failure(tmp_path, skip_corrupt=True)


@pytest.mark.parametrize(
    "break_it, words",
    [
        (lambda root: shutil.rmtree(root), ["no such folder", "split/class"]),
        (lambda root: shutil.rmtree(root / "test"), ["no split 'test'", "train"]),
        (lambda root: shutil.rmtree(root / "train"), ["no split 'train'", "test"]),
        (lambda root: shutil.rmtree(root / "test" / "bee"), ["test", "no class 'bee'"]),
        (lambda root: shutil.rmtree(root / "train" / "bee"), ["test/bee", "training split"]),
        (
            lambda root: [path.unlink() for path in (root / "test" / "bee").iterdir()],
            ["test/bee", "no images", "*.jpg"],
        ),
        (
            lambda root: [shutil.rmtree(path) for path in (root / "train").iterdir()],
            ["train", "no class folders"],
        ),
        (
            lambda root: [shutil.rmtree(path) for path in root.iterdir()],
            ["no split 'train'", "found nothing"],
        ),
        (
            lambda root: [(root / name).mkdir() for name in ("val", "validation")],
            ["'val'", "'validation'"],
        ),
    ],
)
def test_a_wrong_layout_is_named(tmp_path, break_it, words):
    root = make(tmp_path / "set")
    break_it(root)
    message = failure(root)
    for word in words:
        assert word in message


def test_an_empty_path_is_refused():
    with pytest.raises(tfkd.TfkdError, match="no such folder"):
        data.load("folder:")
