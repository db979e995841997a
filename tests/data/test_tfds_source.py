"""Sets of tensorflow-datasets: names, preparation, reading, streaming; no network."""

import gzip
import os
import pathlib
import shutil

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

import tfkd
from tests.data.batches import images_and_labels
from tfkd import data
from tfkd.data import record_index

TRAIN, TEST, CLASSES = 100, 9, 3


def image(number, shape):
    return np.random.default_rng(number).integers(0, 256, shape, np.uint8)


class TinyPictures(tfds.core.GeneratorBasedBuilder):
    """A set of a few pictures, written in several files."""

    VERSION = tfds.core.Version("1.0.0")
    SHAPE = (5, 4, 3)
    SPLITS = {"train": TRAIN, "test": TEST}
    KEYS = ("image", "label")

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=self.SHAPE),
                    "label": tfds.features.ClassLabel(names=list("xyz")),
                }
            ),
            supervised_keys=self.KEYS,
        )

    def _split_generators(self, dl_manager):
        return {name: self._generate_examples(name, size) for name, size in self.SPLITS.items()}

    def _generate_examples(self, name, size):
        for number in range(size):
            shape = tuple(each or 5 + number % 3 for each in self.SHAPE)
            picture = image(number + 1000 * (name != "train"), shape)
            yield number, {"image": picture, "label": number % CLASSES}


class TinySizes(TinyPictures):
    """The same with pictures of several sizes, and a validation split in the place of test."""

    SHAPE = (None, None, 3)
    SPLITS = {"train": TRAIN, "validation": TEST}


class TinyLoose(TinyPictures):
    """The same without supervised keys."""

    KEYS = None


class TinyHeld(TinyPictures):
    """The same with three splits."""

    SPLITS = {"train": TRAIN, "test": TEST, "validation": 6}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A data folder with the tiny sets prepared."""
    directory = str(tmp_path_factory.mktemp("prepared"))
    settings = tfds.download.DownloadConfig(num_shards=5, try_download_gcs=False)
    for kind in (TinyPictures, TinySizes, TinyLoose, TinyHeld):
        kind(data_dir=directory).download_and_prepare(download_config=settings)
    return directory


def load(folder, name="tiny_pictures", **settings):
    return data.load(name, directory=folder, **({"batch_size": 8} | settings))


def failure(name, **settings):
    with pytest.raises(tfkd.TfkdError) as caught:
        data.load(name, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_a_set_that_is_not_prepared_fails_at_once_with_three_ways_out(name, tmp_path, no_network):
    message = failure(name, directory=str(tmp_path))
    archive = name.replace("cifar", "cifar-") + "-binary.tar.gz"
    for words in (
        str(tmp_path),
        "--config.data.download=True",
        f"tools/prepare_data.py --name={name} --archive={archive}",
        "folder:PATH",
    ):
        assert words in message
    assert list(tmp_path.iterdir()) == []


def test_a_failed_download_is_one_line(tmp_path, monkeypatch):
    def fail(*arguments, **settings):
        raise ConnectionError("no route\nto the host")

    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", fail)
    message = failure("cifar10", directory=str(tmp_path), download=True)
    assert "cifar10: download failed: ConnectionError: no route" in message


@pytest.mark.parametrize(
    "name, words",
    [
        ("cifra10", ["cifra10", "did you mean 'cifar10'"]),
        ("digit", ["did you mean 'digits'"]),
        ("no such thing at all", ["no such thing", "folder:PATH"]),
        ("", ["''", "digits"]),
        ("cifar10/plain", ["cifar10/plain"]),
        ("ag_news_subset", ["not a set of image classification"]),
    ],
)
def test_a_wrong_name_is_named(name, words, tmp_path, no_network):
    message = failure(name, directory=str(tmp_path))
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    "name, classes, mean, std",
    [
        ("cifar10", 10, (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
        ("cifar100", 100, (0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)),
    ],
)
def test_cifar_presets(name, classes, mean, std):
    with tfds.testing.mock_data(num_examples=40):
        dataset = data.load(name, batch_size=8, validation_size=10)
    info = dataset.info
    assert (info.num_classes, info.image_shape) == (classes, (32, 32, 3))
    assert (info.train_size, info.validation_size, info.test_size) == (30, 10, 40)
    np.testing.assert_allclose(info.mean, np.multiply(mean, 255))
    np.testing.assert_allclose(info.std, np.multiply(std, 255))
    assert (dataset.augmentation.pad, dataset.augmentation.flip) == (4, True)


def test_house_numbers_are_not_mirrored():
    with tfds.testing.mock_data(num_examples=20):
        dataset = data.load("svhn_cropped", batch_size=8)
    assert (dataset.augmentation.pad, dataset.augmentation.flip) == (4, False)


@pytest.mark.parametrize("in_memory_bytes", [data.IN_MEMORY_BYTES, 0])
def test_a_prepared_set_is_read_whole(folder, in_memory_bytes, no_network):
    dataset = load(folder, in_memory_bytes=in_memory_bytes)
    info = dataset.info
    assert (info.train_size, info.validation_size, info.test_size) == (TRAIN, 0, TEST)
    assert info.class_names == ("x", "y", "z") and info.image_shape == (5, 4, 3)
    for walk, first, size in ((dataset.train_evaluation(), 0, TRAIN), (dataset.test(), 1000, TEST)):
        images, labels = images_and_labels(walk)
        wanted = {image(first + n, (5, 4, 3)).tobytes(): n % CLASSES for n in range(size)}
        assert {each.tobytes(): label for each, label in zip(images, labels)} == wanted
        assert len(images) == size
    images = np.array([image(n, (5, 4, 3)) for n in range(TRAIN)])
    np.testing.assert_allclose(info.mean, images.mean((0, 1, 2)), rtol=1e-9)


def test_an_example_has_the_same_index_in_memory_and_from_records(folder):
    """The index of an example is the same in memory and from records."""
    memory = images_and_labels(load(folder).train_evaluation())
    stream = images_and_labels(load(folder, in_memory_bytes=0).train_evaluation())
    np.testing.assert_array_equal(memory[0], stream[0])
    np.testing.assert_array_equal(memory[1], stream[1])


def test_streamed_records_train_on_the_same_batches_as_those_in_memory(folder):
    """They are shuffled as a whole, and validation images are the same, alike in every class."""
    memory, stream = (
        load(folder, in_memory_bytes=limit, augment="none", validation_size=13)
        for limit in (data.IN_MEMORY_BYTES, 0)
    )
    keys = ("index", "image_pair")
    walks = [
        list(each.train(9, 25, batch_keys=keys).as_numpy_iterator()) for each in (memory, stream)
    ]
    for left, right in zip(*walks, strict=True):
        for key in ("image", "label", *keys):
            np.testing.assert_array_equal(left[key], right[key], err_msg=key)
    apart = [images_and_labels(each.validation()) for each in (memory, stream)]
    np.testing.assert_array_equal(apart[0][0], apart[1][0])
    assert sorted(np.bincount(apart[1][1])) == [4, 4, 5]


def places(dataset):
    """Returns the file of each training record, its number there, and where it begins."""
    index = dataset._sources["train"]._index
    return [index.paths[file] for file in index.file], index.number, index.start


def reason(call):
    """Returns the one line about a streamed image that cannot be had."""
    with pytest.raises(tf.errors.InvalidArgumentError) as caught:
        call()
    message = str(data.explain(caught.value))
    assert "\n" not in message
    return message


def overwrite(path, place, content):
    """Changes a file and leaves its size and time as they were."""
    facts = os.stat(path)
    with open(path, "r+b") as file:
        file.seek(place, os.SEEK_SET if place >= 0 else os.SEEK_END)
        file.write(content)
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))


@pytest.fixture
def copied(folder, tmp_path):
    """A copy of the prepared sets that may be damaged."""
    shutil.copytree(folder, tmp_path / "sets")
    return str(tmp_path / "sets")


def test_a_step_reads_its_own_records_and_names_one_that_is_damaged(copied):
    dataset = load(copied, in_memory_bytes=0, augment="none")
    whole = list(dataset.train(0, 4, batch_keys=("index",)).as_numpy_iterator())
    bad = whole[0]["index"][3]
    assert bad not in whole[3]["index"]
    files, numbers, starts = places(dataset)
    overwrite(files[bad], int(starts[bad]) + 40, b"damage")
    (later,) = dataset.train(3, 4).as_numpy_iterator()
    np.testing.assert_array_equal(later["image"], whole[3]["image"])
    named = f"record {numbers[bad]} of {files[bad]}: cannot be decoded, found a damaged record"
    assert reason(lambda: list(dataset.train(0, 1))).startswith(named)
    # Whoever wants all labels reads it too, before training.
    message = failure(
        "tiny_pictures", directory=copied, in_memory_bytes=0, batch_size=8, validation_size=13
    )
    assert message.startswith(named)


def test_records_of_a_file_that_was_exchanged_meanwhile_are_not_taken_for_others(copied):
    dataset = load(copied, "tiny_sizes", in_memory_bytes=0, image_size=5, batch_size=1)
    first, *others = dict.fromkeys(places(dataset)[0])
    with open(first, "rb") as file:
        header = file.read(8)
    other = next(each for each in others if pathlib.Path(each).read_bytes()[:8] != header)
    shutil.copy(other, first)
    message = reason(lambda: next(iter(dataset.train_evaluation())))
    assert message.startswith(f"record 0 of {first}: ")
    # Cut at the end of a record, where no checksum tells.
    end = next(
        start for file, number, start in zip(*places(dataset)) if (file, number) == (other, 19)
    )
    os.truncate(other, int(end))
    with pytest.raises(tfkd.TfkdError, match="found 99 records, wanted 100"):
        _ = dataset.train_labels


def test_places_and_labels_of_records_are_kept_while_their_files_stay(
    copied, tmp_path, monkeypatch
):
    monkeypatch.setenv("TFKD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(record_index, "_KEPT_FROM", 1)
    settings = {"in_memory_bytes": 0, "augment": "none", "validation_size": 13}
    dataset = load(copied, **settings)
    for kept in (tmp_path / "cache" / "records").iterdir():
        kept.write_bytes(kept.read_bytes()[:50])
    load(copied, **settings)
    # A length and a label that a second look would find damaged.
    files, _, starts = places(dataset)
    overwrite(files[1], int(starts[1]), b"x" * 40)
    again = load(copied, **settings)
    np.testing.assert_array_equal(again.train_labels, dataset.train_labels)
    assert again.identity() == dataset.identity()
    # It belongs to these files alone.
    end = pathlib.Path(files[1]).read_bytes()[-4:]
    facts = os.stat(files[1])
    for change, back in (
        (lambda: overwrite(files[1], -4, b"last"), lambda: overwrite(files[1], -4, end)),
        (
            lambda: os.utime(files[1], ns=(0, 0)),
            lambda: os.utime(files[1], ns=(0, facts.st_mtime_ns)),
        ),
    ):
        change()
        message = failure("tiny_pictures", directory=copied, batch_size=8, **settings)
        assert message.startswith(f"{files[1]}: found 1 whole records, wanted 20")
        back()
        load(copied, **settings)


@pytest.mark.parametrize(
    "changed, found",
    [
        (lambda contents: contents[:-1], "found 19 whole records, wanted 20"),
        (lambda contents: contents + b"x", "found 1 bytes behind 20 records"),
        (gzip.compress, "found a file compressed by gzip"),
    ],
)
def test_a_file_of_records_that_is_not_whole_is_named(changed, found, copied):
    path = sorted(pathlib.Path(copied).glob("tiny_pictures/*/*train*"))[2]
    path.write_bytes(changed(path.read_bytes()))
    message = failure("tiny_pictures", directory=copied, in_memory_bytes=0)
    assert message.startswith(f"{path}: {found}") and "prepare the set anew" in message


@pytest.mark.parametrize(
    "features, found",
    [
        ({"other": tf.train.Feature()}, "found records without image and label"),
        (
            {
                "image": tf.train.Feature(bytes_list=tf.train.BytesList(value=[b"x"])),
                "label": tf.train.Feature(int64_list=tf.train.Int64List(value=[-1])),
            },
            "has no labels (found -1)",
        ),
    ],
)
def test_records_of_another_kind_are_refused_before_training(features, found, copied):
    for path in pathlib.Path(copied).glob("tiny_pictures/*/*test*"):
        count = len(list(tf.data.TFRecordDataset(str(path))))
        example = tf.train.Example(features=tf.train.Features(feature=features))
        with tf.io.TFRecordWriter(str(path)) as writer:
            for _ in range(count):
                writer.write(example.SerializeToString())
    message = failure("tiny_pictures", directory=copied, in_memory_bytes=0)
    assert message.startswith("tiny_pictures: the split 'test'") and found in message


def test_that_no_record_is_skipped_is_said(folder):
    with pytest.warns(tfkd.TfkdWarning, match="skip_corrupt: no image of tiny_pictures is left"):
        load(folder, skip_corrupt=True)


def test_streamed_records_keep_the_rules_of_training_batches(folder):
    dataset = load(folder, in_memory_bytes=0, augment="none")
    steps = dataset.steps_per_epoch
    assert steps == TRAIN // 8
    whole = list(dataset.train(0, 3 * steps, batch_keys=("index",)).as_numpy_iterator())
    epochs = np.array([batch["index"] for batch in whole]).reshape(3, -1)
    for epoch in epochs:
        assert len(set(epoch)) == steps * 8 and set(epoch) <= set(range(TRAIN))
        # Shuffled: neighbors are seldom neighbors in the files.
        assert np.mean(np.abs(np.diff(epoch)) == 1) < 0.2
    assert (epochs[0] != epochs[1]).any()
    images, labels = images_and_labels(dataset.train_evaluation())
    for batch in whole:
        np.testing.assert_array_equal(batch["image"], images[batch["index"]])
        np.testing.assert_array_equal(batch["label"], labels[batch["index"]])
    for first in (1, steps, steps + 3):
        later = list(dataset.train(first, first + 2, batch_keys=("index",)).as_numpy_iterator())
        for left, right in zip(later, whole[first : first + 2], strict=True):
            np.testing.assert_array_equal(left["index"], right["index"])
            np.testing.assert_array_equal(left["image"], right["image"])


def test_streamed_records_are_augmented_and_shared(folder):
    dataset = load(folder, in_memory_bytes=0, augment="shift")
    plain = load(folder, in_memory_bytes=0, augment="none")
    one, none = (next(iter(each.train(2)))["image"].numpy() for each in (dataset, plain))
    assert (one != none).any()
    parts = []
    for pipeline in range(2):
        context = tf.distribute.InputContext(2, pipeline, 4)
        parts += [batch["image"].numpy() for batch in dataset.train(2, 3, input_context=context)]
    assert [len(part) for part in parts] == [2, 2, 2, 2]
    np.testing.assert_array_equal(np.concatenate(parts), one)


def test_streamed_records_have_all_views(folder):
    dataset = load(folder, in_memory_bytes=0, image_size=5)
    keys = ("index", "image_second", "image_strong", "image_rotations", "image_pair")
    whole = list(dataset.train(3, 6, batch_keys=keys).as_numpy_iterator())
    (later,) = dataset.train(5, 6, batch_keys=keys).as_numpy_iterator()
    for key, value in later.items():
        np.testing.assert_array_equal(value, whole[2][key], err_msg=key)


@pytest.mark.parametrize("in_memory_bytes", [data.IN_MEMORY_BYTES, 0])
def test_validation_images_are_set_apart(folder, in_memory_bytes):
    dataset = load(folder, validation_split=0.2, in_memory_bytes=in_memory_bytes)
    assert (dataset.info.train_size, dataset.info.validation_size) == (80, 20)
    kept, apart = (
        images_and_labels(dataset.train_evaluation())[0],
        images_and_labels(dataset.validation())[0],
    )
    found = {each.tobytes() for each in (*kept, *apart)}
    assert found == {image(n, (5, 4, 3)).tobytes() for n in range(TRAIN)}
    index = next(iter(dataset.train(batch_keys=("index",))))["index"].numpy()
    assert index.max() < 80


@pytest.mark.parametrize("in_memory_bytes", [data.IN_MEMORY_BYTES, 0])
def test_fewer_training_images(folder, in_memory_bytes):
    dataset = load(
        folder, train_size=30, batch_size=10, augment="none", in_memory_bytes=in_memory_bytes
    )
    batches = list(dataset.train(last_step=6, batch_keys=("index",)))
    epochs = [
        np.concatenate([each["index"] for each in half]) for half in (batches[:3], batches[3:])
    ]
    for epoch in epochs:
        assert sorted(epoch) == list(range(30))
    found = {each.tobytes() for batch in batches for each in batch["image"].numpy()}
    assert len(found) == 30
    assert found <= {image(n, (5, 4, 3)).tobytes() for n in range(TRAIN)}


def spoil_images(folder):
    """Puts something that cannot be decoded in the place of every image of the prepared set."""
    for path in folder.glob("tiny_pictures/*/*.tfrecord*"):
        records = []
        for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
            example = tf.train.Example.FromString(record)
            example.features.feature["image"].bytes_list.value[0] = b"no image"
            records.append(example.SerializeToString())
        with tf.io.TFRecordWriter(str(path)) as writer:
            for record in records:
                writer.write(record)


@pytest.mark.parametrize("in_memory_bytes", [data.IN_MEMORY_BYTES, 0])
@pytest.mark.parametrize("settings", [{}, {"train_size": 30}, {"validation_size": 13}])
def test_training_labels_are_those_of_the_training_part_in_order(folder, settings, in_memory_bytes):
    dataset = load(folder, in_memory_bytes=in_memory_bytes, **settings)
    _, labels = images_and_labels(dataset.train_evaluation())
    assert dataset.train_labels.dtype == np.int32 and len(set(labels)) == CLASSES
    np.testing.assert_array_equal(dataset.train_labels, labels)


def test_training_labels_of_records_decode_no_image_and_are_read_once(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "sets")
    dataset = load(str(tmp_path / "sets"), in_memory_bytes=0)
    _, labels = images_and_labels(dataset.train_evaluation())
    spoil_images(tmp_path / "sets")
    with pytest.raises(tf.errors.InvalidArgumentError):
        next(iter(dataset.train_evaluation()))
    np.testing.assert_array_equal(dataset.train_labels, labels)
    shutil.rmtree(tmp_path / "sets")
    assert dataset.with_column("value", labels).train_labels is dataset.train_labels


def test_the_digest_of_records_changes_with_them(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "sets")

    def digest(part="train", **settings):
        return load(str(tmp_path / "sets"), in_memory_bytes=0, **settings).digest(part)

    digests = [digest(), digest("test"), digest(train_size=30), digest(image_size=6)]
    assert digest(seed=3, batch_size=2) == digests[0]
    dataset = load(str(tmp_path / "sets"), in_memory_bytes=0)
    spoil_images(tmp_path / "sets")
    digests.append(dataset.digest())
    assert len(set(digests)) == len(digests)


@pytest.mark.parametrize("settings", [{}, {"train_size": 30}, {"validation_size": 13}])
def test_streamed_records_have_columns(folder, settings):
    dataset = load(folder, in_memory_bytes=0, augment="none", **settings)
    size = dataset.info.train_size
    values = np.random.default_rng(0).normal(size=(size, 2))
    dataset = dataset.with_column("value", values, test=values[:TEST])
    keys = ("index", "value")
    whole = list(dataset.train(0, 20, batch_keys=keys).as_numpy_iterator())
    images, _ = images_and_labels(dataset.train_evaluation())
    for batch in whole:
        np.testing.assert_array_equal(batch["value"], values[batch["index"]])
        np.testing.assert_array_equal(batch["image"], images[batch["index"]])
    (later,) = dataset.train(17, 18, batch_keys=keys).as_numpy_iterator()
    np.testing.assert_array_equal(later["value"], whole[17]["value"])
    context = tf.distribute.InputContext(1, 0, 2)
    shards = dataset.train(17, 18, batch_keys=keys, input_context=context).as_numpy_iterator()
    np.testing.assert_array_equal(
        np.concatenate([each["value"] for each in shards]), later["value"]
    )
    for part, count in ((dataset.train_evaluation(), size), (dataset.test(), TEST)):
        found = np.concatenate([batch["value"] for batch in part.as_numpy_iterator()])
        np.testing.assert_array_equal(found[:count], values[:count])


def test_some_classes_are_kept_of_a_set_in_memory_and_of_one_that_streams(folder):
    whole = load(folder)
    images, labels = images_and_labels(whole.train_evaluation())
    some = load(folder, classes=["z", "x"], validation_size=10)
    assert some.info.class_names == ("x", "z")
    assert some.info.train_size == np.isin(labels, [0, 2]).sum() - 10
    kept, numbers = images_and_labels(some.train_evaluation())
    places = [np.flatnonzero((images == image).all(axis=(1, 2, 3)))[0] for image in kept]
    np.testing.assert_array_equal(labels[places], np.array([0, 2])[numbers])
    stream = load(folder, classes=["z", "x"], validation_size=10, in_memory_bytes=0)
    for left, right in zip((kept, numbers), images_and_labels(stream.train_evaluation())):
        np.testing.assert_array_equal(left, right)
    np.testing.assert_array_equal(stream.train_labels, numbers)
    assert stream.info.validation_size == 10


def test_images_of_several_sizes_need_a_size(folder):
    assert "image_size" in failure("tiny_sizes", directory=folder)
    for in_memory_bytes in (data.IN_MEMORY_BYTES, 0):
        dataset = load(folder, "tiny_sizes", image_size=6, in_memory_bytes=in_memory_bytes)
        assert dataset.info.image_shape == (6, 6, 3)
        # Without a test split, the validation split is tested on.
        assert (dataset.info.test_size, dataset.info.validation_size) == (TEST, 0)
        images, _ = images_and_labels(dataset.test())
        pictures = {image(1000 + n, (6, 6, 3)).tobytes() for n in range(1, TEST, 3)}
        assert pictures <= {each.tobytes() for each in images}


def test_a_set_with_a_validation_split_of_its_own(folder):
    assert load(folder, "tiny_held").info.validation_size == 6
    assert load(folder, "tiny_held", validation_size=0).info.validation_size == 0
    assert "only one" in failure("tiny_held", directory=folder, validation_size=3)


def test_a_set_that_is_not_of_classification_is_refused(folder):
    assert "image classification" in failure("tiny_loose", directory=folder)


def test_a_batch_larger_than_the_set_is_refused(folder):
    # Only for training: a large batch is as good as any to evaluate with.
    dataset = load(folder, batch_size=101)
    with pytest.raises(tfkd.TfkdError, match="101.*at most 100"):
        dataset.train()
