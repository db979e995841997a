"""Digests of the images and labels of a part."""

import os

import numpy as np
import pytest
import tensorflow as tf

import tfkd
from tfkd import data

SIZE = 12


def images_and_classes():
    images = np.random.default_rng(0).integers(0, 256, (SIZE, 4, 6, 3), np.uint8)
    return images, np.arange(SIZE) % 3


def digest_of(images, labels, **settings):
    return data.from_arrays((images, labels), (images[:3], labels[:3]), **settings).digest()


def test_the_digest_of_arrays_depends_on_every_pixel_and_label_and_on_their_order():
    images, labels = images_and_classes()
    digests = [digest_of(images, labels)]
    assert digest_of(images.copy(), labels.astype(np.int64), seed=3, name="x") == digests[0]
    images[7, 2, 3, 1] ^= 1
    digests.append(digest_of(images, labels))
    labels[5] = 0
    digests.append(digest_of(images, labels))
    digests.append(digest_of(images[::-1], labels[::-1]))
    digests.append(digest_of(images.reshape(SIZE, 6, 4, 3), labels))
    digests.append(digest_of(images, labels, validation_size=3))
    assert len(set(digests)) == len(digests)


def test_every_part_has_its_digest():
    dataset = data.load("digits")
    digests = [dataset.digest(part) for part in ("train", "validation", "test")]
    assert len(set(digests)) == 3 and dataset.digest() == digests[0]
    with pytest.raises(tfkd.TfkdError, match="unknown part 'tset'; did you mean 'test'"):
        dataset.digest("tset")
    with pytest.raises(tfkd.TfkdError, match="no validation part"):
        data.load("digits", validation_size=0).digest("validation")


@pytest.mark.parametrize("in_memory_bytes", [data.IN_MEMORY_BYTES, 0])
def test_the_digest_of_files_changes_with_them(tmp_path, in_memory_bytes):
    images, _ = images_and_classes()
    for part in ("train", "test"):
        for number, image in enumerate(images):
            path = tmp_path / part / "ab"[number % 2] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(tf.io.encode_png(image).numpy())

    def digest(**settings):
        settings = {"batch_size": 2, "in_memory_bytes": in_memory_bytes} | settings
        return data.load(f"folder:{tmp_path}", **settings).digest()

    digests = [digest(), digest(image_size=5), digest(train_size=6)]
    assert digest() == digests[0]
    path = tmp_path / "train" / "a" / "4.png"
    before = path.stat()
    path.write_bytes(tf.io.encode_png(255 - images[4]).numpy())
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    digests.append(digest())
    assert len(set(digests)) == len(digests)
