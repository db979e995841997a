"""Tiny-ImageNet from its official zip, made here in its layout: prepared whole or not at all."""

import os
import signal
import sys
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import tfkd
from tests.data.batches import images_and_labels
from tfkd import data
from tfkd.data import data_dir, tiny_imagenet
from tfkd.data.prepare import prepare

TOP = "tiny-imagenet-200"
# In the official file they are not in the order of their numbers.
WORDS = {"n02124075": "Egyptian cat", "n01443537": "goldfish, Carassius auratus"}
ORDER = sorted(WORDS)


def pixels(split, wnid, number):
    seed = [ord(letter) for letter in split + wnid] + [number]
    small = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), np.uint8)
    image = small.repeat(16, 0).repeat(16, 1)
    # Some of the official images are gray.
    return image[..., :1] if number == 1 else image


def jpeg(image):
    return tf.io.encode_jpeg(image).numpy()


def official(train=3, val=2):
    """Returns the files of an archive, by name."""
    files = {f"{TOP}/": b""}
    files[f"{TOP}/wnids.txt"] = "".join(f"{each}\n" for each in WORDS).encode()
    words = {"n00001740": "entity"} | WORDS
    files[f"{TOP}/words.txt"] = "".join(f"{k}\t{v}\n" for k, v in words.items()).encode()
    lines, count = [], 0
    for wnid in WORDS:
        boxes = []
        for number in range(train):
            name = f"{wnid}_{number}.JPEG"
            files[f"{TOP}/train/{wnid}/images/{name}"] = jpeg(pixels("train", wnid, number))
            boxes.append(f"{name}\t0\t0\t63\t63\n")
        files[f"{TOP}/train/{wnid}/{wnid}_boxes.txt"] = "".join(boxes).encode()
    for number in range(val):
        for wnid in WORDS:
            name = f"val_{count}.JPEG"
            files[f"{TOP}/val/images/{name}"] = jpeg(pixels("val", wnid, number))
            lines.append(f"{name}\t{wnid}\t0\t0\t63\t63\n")
            count += 1
    files[f"{TOP}/val/val_annotations.txt"] = "".join(lines).encode()
    files[f"{TOP}/test/images/test_0.JPEG"] = jpeg(pixels("test", ORDER[0], 0))
    return files


def write(path, files):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, contents in files.items():
            packed.writestr(name, contents)
    return str(path)


@pytest.fixture
def archive(tmp_path):
    return write(tmp_path / "downloaded.zip", official())


def failure(archive, directory):
    with pytest.raises(tfkd.TfkdError) as caught:
        prepare("tiny_imagenet", [str(archive)], str(directory))
    assert "\n" not in str(caught.value)
    # Nothing is left of it.
    assert not directory.exists() or list(directory.iterdir()) == []
    return str(caught.value)


@pytest.mark.parametrize("in_memory_bytes", [data.IN_MEMORY_BYTES, 0])
def test_the_archive_becomes_a_data_set(archive, tmp_path, in_memory_bytes):
    directory = tmp_path / "sets"
    place = prepare("tiny_imagenet", [archive], str(directory))
    assert place == directory / "tiny_imagenet"
    assert [each.name for each in directory.iterdir()] == ["tiny_imagenet"]
    dataset = data.load(
        "tiny_imagenet", directory=str(directory), batch_size=2, in_memory_bytes=in_memory_bytes
    )
    info = dataset.info
    assert info.class_names == tuple(WORDS[each] for each in ORDER)
    assert (info.train_size, info.validation_size, info.test_size) == (6, 0, 4)
    assert info.image_shape == (64, 64, 3)
    np.testing.assert_allclose(info.mean, np.multiply((0.4802, 0.4481, 0.3975), 255))
    np.testing.assert_allclose(info.std, np.multiply((0.2770, 0.2691, 0.2821), 255))
    assert (dataset.augmentation.pad, dataset.augmentation.flip) == (4, True)
    for split, walk, count in (
        ("train", dataset.train_evaluation(), 3),
        ("val", dataset.test(), 2),
    ):
        images, labels = images_and_labels(walk)
        np.testing.assert_array_equal(labels, np.repeat([0, 1], count))
        wanted = [
            tf.io.decode_jpeg(
                jpeg(pixels(split, wnid, number)), channels=3, dct_method="INTEGER_ACCURATE"
            )
            for wnid in ORDER
            for number in range(count)
        ]
        np.testing.assert_array_equal(images, wanted)
    # The second time there is nothing to do, and the archive is not needed.
    assert prepare("tiny_imagenet", ["gone.zip"], str(directory)) == place


def test_tiny_imagenet_is_resized_and_split_like_any_other_set(archive, tmp_path):
    prepare("tiny_imagenet", [archive], str(tmp_path / "sets"))
    dataset = data.load(
        "tiny_imagenet",
        directory=str(tmp_path / "sets"),
        image_size=32,
        validation_size=2,
        batch_size=4,
    )
    assert dataset.info.image_shape == (32, 32, 3)
    assert (dataset.info.train_size, dataset.info.validation_size) == (4, 2)
    # Half of the size: the blocks of 16 x 16 equal pixels become blocks of 8 x 8.
    image = images_and_labels(dataset.test())[0][0].astype(int)
    wanted = pixels("val", ORDER[0], 0).astype(int)[::2, ::2]
    assert np.median(np.abs(image - wanted)) < 8


def test_classes_are_chosen_by_words_or_numbers(archive, tmp_path):
    place = prepare("tiny_imagenet", [archive], str(tmp_path / "sets"))
    settings = {"directory": str(tmp_path / "sets"), "batch_size": 4}
    words = WORDS[ORDER[0]], WORDS[ORDER[1]]
    some = data.load("tiny_imagenet", classes=[words[1], ORDER[0]], **settings)
    assert some.info.class_names == words
    with pytest.raises(tfkd.TfkdError, match="unknown class of tiny_imagenet 'Egyptian'; did you"):
        data.load("tiny_imagenet", classes=["Egyptian", ORDER[0]], **settings)
    (place / "classes.txt").write_text("".join(f"{each}\tcrane\n" for each in ORDER))
    with pytest.raises(tfkd.TfkdError, match="found 'crane', which n.* and n.* are called"):
        data.load("tiny_imagenet", classes=["crane", ORDER[0]], **settings)


def test_an_unprepared_set_fails_with_two_ways_out(tmp_path):
    with pytest.raises(tfkd.TfkdError) as caught:
        data.load("tiny_imagenet", directory=str(tmp_path))
    message = str(caught.value)
    for words in (
        str(tmp_path / "tiny_imagenet"),
        "tools/prepare_data.py --name=tiny_imagenet --archive=tiny-imagenet-200.zip",
        "folder:PATH",
    ):
        assert words in message
    assert "data.download" not in message and "\n" not in message
    with pytest.raises(tfkd.TfkdError, match="did you mean 'tiny_imagenet'"):
        data.load("tiny-imagenet", directory=str(tmp_path))


def change(name, contents):
    """Returns a change of the archive: one file of it with other contents, None to leave it out."""

    def changed(files):
        name_in_files = f"{TOP}/{name}" if not name.startswith(("/", "..")) else name
        files[name_in_files] = contents
        return {key: value for key, value in files.items() if value is not None}

    return changed


IMAGE = f"train/{ORDER[0]}/images/{ORDER[0]}_0.JPEG"


@pytest.mark.parametrize(
    "changed, words",
    [
        (change("wnids.txt", None), ["has no tiny-imagenet-200/wnids.txt"]),
        (change("wnids.txt", b""), ["is not in wnids.txt"]),
        (change("wnids.txt", b"\n".join([*map(str.encode, ORDER), b"n7"])), ["'n7'", "no images"]),
        (change("words.txt", b"n00001740\tentity\n"), ["words.txt", "n02124075"]),
        (change("val/val_annotations.txt", None), ["val/val_annotations.txt"]),
        (change("val/val_annotations.txt", b"val_0.JPEG n01443537\n"), ["columns"]),
        (change("val/val_annotations.txt", b"val_0.JPEG\tn01443537\n"), ["has no class"]),
        (change("val/images/val_0.JPEG", None), ["has no val/images/val_0.JPEG"]),
        (change("val/val_annotations.txt", b"\xff\xfe"), ["cannot be unpacked"]),
        (change(IMAGE, b"<html>not found</html>"), [IMAGE, "no JPEG"]),
        (change("../evil.txt", b"x"), ["'../evil.txt'", "leads out"]),
        (change("/tmp/evil.txt", b"x"), ["'/tmp/evil.txt'", "leads out"]),
        (change("train/../../../evil.JPEG", b"x"), ["evil.JPEG", "leads out"]),
        (lambda files: {"readme.txt": b"another archive"}, ["has no tiny-imagenet-200"]),
    ],
)
def test_a_wrong_archive_is_named(tmp_path, changed, words):
    path = write(tmp_path / "wrong.zip", changed(official()))
    message = failure(path, tmp_path / "sets")
    for word in (path, *words):
        assert word in message
    assert not list(tmp_path.rglob("evil*"))


@pytest.mark.parametrize(
    "damage",
    [lambda whole: whole[: len(whole) // 2], lambda whole: b"", lambda whole: b"text" * 99],
)
def test_a_truncated_archive_is_named(archive, tmp_path, damage):
    path = Path(archive)
    path.write_bytes(damage(path.read_bytes()))
    message = failure(path, tmp_path / "sets")
    assert str(path) in message and "tiny-imagenet-200.zip" in message


def test_a_damaged_archive_is_named(archive, tmp_path):
    path = Path(archive)
    contents = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as packed:
        start = packed.getinfo(f"{TOP}/{IMAGE}").header_offset
    contents[start + 150] ^= 255
    path.write_bytes(contents)
    assert "cannot be unpacked" in failure(path, tmp_path / "sets")


def test_a_missing_archive_and_too_many_are_named(archive, tmp_path):
    assert "gone.zip: no such file" in failure(tmp_path / "gone.zip", tmp_path / "sets")
    with pytest.raises(tfkd.TfkdError, match="found 2 archives, wanted one"):
        prepare("tiny_imagenet", [archive, archive], str(tmp_path / "sets"))


def test_a_folder_of_something_else_is_left_alone(archive, tmp_path):
    mine = tmp_path / "sets" / "tiny_imagenet" / "mine.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("keep me")
    with pytest.raises(tfkd.TfkdError, match="cannot be prepared"):
        prepare("tiny_imagenet", [archive], str(tmp_path / "sets"))
    assert mine.read_text() == "keep me"
    assert [each.name for each in (tmp_path / "sets").iterdir()] == ["tiny_imagenet"]


def killed_at_the_fourth_image(archive, directory):
    """Prepares the set in a copy of this process; returns how that ended."""
    usual, written = Path.write_bytes, []

    def write_bytes(path, contents):
        written.append(path)
        if len(written) == 4:
            os.kill(os.getpid(), signal.SIGKILL)
        return usual(path, contents)

    child = os.fork()
    if not child:
        try:
            Path.write_bytes = write_bytes
            tiny_imagenet.prepare(archive, str(directory))
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_killed_preparation_leaves_no_half_set(archive, tmp_path):
    directory = tmp_path / "sets"
    assert killed_at_the_fourth_image(archive, directory) == -signal.SIGKILL
    assert len(list(directory.rglob("*.JPEG"))) == 3
    with pytest.raises(tfkd.TfkdError, match="not prepared"):
        data.load("tiny_imagenet", directory=str(directory))
    prepare("tiny_imagenet", [archive], str(directory))
    assert [each.name for each in directory.iterdir()] == ["tiny_imagenet"]
    dataset = data.load("tiny_imagenet", directory=str(directory), batch_size=2)
    assert dataset.info.train_size == 6


def test_a_second_preparation_waits_for_the_first(archive, tmp_path):
    directory = tmp_path / "sets"
    done = []
    second = threading.Thread(
        target=lambda: done.append(prepare("tiny_imagenet", [archive], str(directory)))
    )
    with data_dir.workplace(directory, "tiny_imagenet") as work:
        second.start()
        second.join(1)
        assert not done and list(work.iterdir()) == []
    second.join()
    assert done == [directory / "tiny_imagenet"]


def test_the_progress_is_shown_on_a_terminal_only(archive, tmp_path, capfd, monkeypatch):
    prepare("tiny_imagenet", [archive], str(tmp_path / "one"))
    assert capfd.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    prepare("tiny_imagenet", [archive], str(tmp_path / "two"))
    assert "10/10" in capfd.readouterr().err


def test_the_default_folder_is_that_of_tensorflow_datasets(archive, tmp_path, monkeypatch):
    import tensorflow_datasets as tfds

    monkeypatch.setattr(tfds.core.constants, "DATA_DIR", str(tmp_path / "own"))
    assert prepare("tiny_imagenet", [archive]) == tmp_path / "own" / tiny_imagenet.NAME
    assert data.load("tiny_imagenet", batch_size=2).info.num_classes == 2
