"""STL-10 and ImageNet through tensorflow-datasets, from archives made here like the official."""

import hashlib
import io
import tarfile

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from tensorflow_datasets.core.download import checksums

import tfkd
from tests.data.batches import images_and_labels
from tfkd import data
from tfkd.data import decoding, presets
from tfkd.data.prepare import prepare

STL10 = "http://ai.stanford.edu/~acoates/stl10/stl10_binary.tar.gz"
STL10_CLASSES = "airplane bird car cat deer dog horse monkey ship truck".split()
SYNSETS = ("n01440764", "n01443537")
VALIDATION = 4

pytestmark = pytest.mark.usefixtures("no_network")


def pack(path, files):
    with tarfile.open(path, "w:gz" if str(path).endswith("gz") else "w") as packed:
        for name, contents in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(contents)
            packed.addfile(entry, io.BytesIO(contents))
    return path.read_bytes()


def by_pixels(images, labels):
    return {image.tobytes(): int(label) for image, label in zip(images, labels)}


def stl10_images(split, size):
    seed = len(split)
    return np.random.default_rng(seed).integers(0, 256, (size, 96, 96, 3), np.uint8)


@pytest.fixture(scope="module")
def stl10(tmp_path_factory):
    """The folder of a prepared STL-10 of a few images."""
    root = tmp_path_factory.mktemp("stl10")
    files = {"stl10_binary/class_names.txt": "".join(f"{c}\n" for c in STL10_CLASSES).encode()}
    for split, size in (("train", 20), ("test", 10), ("unlabeled", 2)):
        # Planes of columns; labels from 1 on.
        planes = stl10_images(split, size).transpose(0, 3, 2, 1)
        files[f"stl10_binary/{split}_X.bin"] = planes.tobytes()
        if split != "unlabeled":
            labels = np.arange(size, dtype=np.uint8) % 10 + 1
            files[f"stl10_binary/{split}_y.bin"] = labels.tobytes()
    contents = pack(root / "stl10_binary.tar.gz", files)
    facts = checksums.UrlInfo(
        len(contents), hashlib.sha256(contents).hexdigest(), "stl10_binary.tar.gz"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(tfds.builder("stl10").url_infos, STL10, facts)
        prepare("stl10", [str(root / "stl10_binary.tar.gz")], str(root / "sets"))
    return str(root / "sets")


def test_stl10_is_its_labeled_part(stl10):
    dataset = data.load("stl10", directory=stl10, batch_size=4)
    info = dataset.info
    assert info.class_names == tuple(STL10_CLASSES) and info.image_shape == (96, 96, 3)
    assert (info.train_size, info.validation_size, info.test_size) == (20, 0, 10)
    np.testing.assert_allclose(info.mean, np.multiply((0.4467, 0.4398, 0.4066), 255))
    np.testing.assert_allclose(info.std, np.multiply((0.2603, 0.2566, 0.2713), 255))
    assert (dataset.augmentation.pad, dataset.augmentation.flip) == (4, True)
    found = by_pixels(*images_and_labels(dataset.test()))
    assert found == by_pixels(stl10_images("test", 10), np.arange(10))


@pytest.mark.parametrize("in_memory_bytes", [data.IN_MEMORY_BYTES, 0])
def test_stl10_at_the_size_of_cifar(stl10, in_memory_bytes):
    dataset = data.load(
        "stl10", directory=stl10, image_size=32, batch_size=10, in_memory_bytes=in_memory_bytes
    )
    assert dataset.info.image_shape == (32, 32, 3)
    found = by_pixels(*images_and_labels(dataset.test()))
    # Bilinear and antialiased: a triangle of 3 pixels to each side, by hand.
    weights = np.zeros((32, 96))
    for row in range(32):
        distance = np.abs(np.arange(96) + 0.5 - (row + 0.5) * 3) / 3
        weights[row] = np.maximum(0, 1 - distance)
    weights /= weights.sum(1, keepdims=True)
    wanted = np.einsum("ih,nhwc,jw->nijc", weights, stl10_images("test", 10).astype(float), weights)
    images = np.array([np.frombuffer(each, np.uint8).reshape(32, 32, 3) for each in found])
    for label, image in zip(found.values(), images):
        assert np.abs(image - wanted[label]).max() < 0.51


def smooth(number, height, width):
    rows, columns = np.mgrid[:height, :width] / np.array([height, width])[:, None, None]
    waves = [np.sin(3 * rows + number), np.cos(4 * columns), np.sin(2 * rows + columns)]
    return np.uint8(127.5 + 100 * np.stack(waves, -1))


def jpeg(number):
    return tf.io.encode_jpeg(smooth(number, 40 + 3 * number, 60)).numpy()


@pytest.fixture(scope="module")
def imagenet_archives(tmp_path_factory):
    """Two archives: one of archives, one a synset; one of images, whose labels the set knows."""
    root = tmp_path_factory.mktemp("imagenet")
    inner = {}
    for number, synset in enumerate(SYNSETS):
        files = {f"{synset}_{n}.JPEG": jpeg(4 * number + n) for n in range(4)}
        inner[f"{synset}.tar"] = pack(root / f"{synset}.tar", files)
    pack(root / "ILSVRC2012_img_train.tar", inner)
    validation = {f"ILSVRC2012_val_0000000{n + 1}.JPEG": jpeg(n) for n in range(VALIDATION)}
    pack(root / "ILSVRC2012_img_val.tar", validation)
    return [str(root / f"ILSVRC2012_img_{each}.tar") for each in ("train", "val")]


@pytest.fixture(scope="module")
def imagenet(imagenet_archives, tmp_path_factory):
    directory = str(tmp_path_factory.mktemp("sets"))
    prepare("imagenet2012", imagenet_archives, directory)
    return directory


def test_imagenet_is_tested_on_its_validation_split(imagenet):
    dataset = data.load("imagenet2012", directory=imagenet, batch_size=4)
    info = dataset.info
    assert info.num_classes == 1000 and info.class_names[:2] == SYNSETS
    assert info.image_shape == (224, 224, 3)
    assert (info.train_size, info.validation_size, info.test_size) == (8, 0, VALIDATION)
    np.testing.assert_allclose(info.mean, np.multiply((0.485, 0.456, 0.406), 255))
    np.testing.assert_allclose(info.std, np.multiply((0.229, 0.224, 0.225), 255))
    assert dataset.augmentation.resized and dataset.augmentation.flip


def test_imagenets_crops_from_records(imagenet):
    def make(**settings):
        settings = {"image_size": 16, "batch_size": 4} | settings
        return data.load("imagenet2012", directory=imagenet, **settings)

    images, _ = images_and_labels(make().test())
    form = decoding.Form(16, 16, 3, resize=True, center=True)
    wanted = [decoding.fit(tf.io.decode_jpeg(jpeg(n)), form) for n in range(VALIDATION)]
    for image in images:
        assert min(np.abs(image - np.float32(each)).max() for each in wanted) <= 3
    whole = list(make().train(0, 4, batch_keys=("index",)).as_numpy_iterator())
    later = list(make().train(1, 4, batch_keys=("index",)).as_numpy_iterator())
    for left, right in zip(later, whole[1:], strict=True):
        for key in left:
            np.testing.assert_array_equal(left[key], right[key], err_msg=key)
    epochs = [
        {i: image for batch in half for i, image in zip(batch["index"], batch["image"])}
        for half in (whole[:2], whole[2:])
    ]
    assert set(epochs[0]) == set(epochs[1]) == set(range(8))
    assert all((epochs[0][index] != epochs[1][index]).any() for index in range(8))
    _, labels = images_and_labels(make().train_evaluation())
    for batch in whole:
        np.testing.assert_array_equal(batch["label"], labels[batch["index"]])
    held = make(validation_size=4)
    assert (held.info.train_size, held.info.validation_size) == (4, 4)
    batch = next(iter(held.train(batch_keys=("heldout_image", "heldout_label"))))
    apart = by_pixels(*images_and_labels(held.validation()))
    assert by_pixels(batch["heldout_image"].numpy(), batch["heldout_label"]) == apart


def test_imagenet_with_another_augmentation(imagenet):
    dataset = data.load(
        "imagenet2012", directory=imagenet, augment="crop_flip", image_size=32, batch_size=4
    )
    assert next(iter(dataset.train()))["image"].shape == (4, 32, 32, 3)


def failure(*arguments):
    with pytest.raises(tfkd.TfkdError) as caught:
        prepare(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_imagenets_archives_are_checked(imagenet_archives, tmp_path):
    train, val = imagenet_archives
    place = str(tmp_path / "sets")
    message = failure("imagenet2012", [train], place)
    assert "wanted also ILSVRC2012_img_val.tar" in message
    other = tmp_path / "train.tar"
    other.write_bytes(b"x")
    assert f"{other}: is no file of imagenet2012" in failure("imagenet2012", [str(other)], place)
    gone = tmp_path / "ILSVRC2012_img_val.tar"
    assert f"{gone}: no such file" in failure("imagenet2012", [train, str(gone)], place)
    gone.write_bytes(b"not a tar archive")
    assert f"{gone}: is no tar archive" in failure("imagenet2012", [train, str(gone)], place)
    # A train archive that was cut: found out on the way, and nothing is left.
    cut = tmp_path / "ILSVRC2012_img_train.tar"
    cut.write_bytes(open(train, "rb").read()[:9000])
    assert "cannot be prepared" in failure("imagenet2012", [str(cut), val], place)
    with pytest.raises(tfkd.TfkdError, match="not prepared") as caught:
        data.load("imagenet2012", directory=place)
    for word in ("--archive=ILSVRC2012_img_train.tar --archive=ILSVRC2012_img_val.tar", "folder:"):
        assert word in str(caught.value)
    assert "data.download" not in str(caught.value)


def test_presets_know_configurations_and_versions():
    assert presets.preset("emnist/letters").augment == "crop"
    assert presets.preset("cifar10:3.0.2").mean == (0.4914, 0.4822, 0.4465)
    assert presets.preset("something").augment == "crop_flip"
    assert presets.preset("something").statistics is None
