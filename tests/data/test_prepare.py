"""Preparing a set from a local archive, made here in the official layout; no network."""

import hashlib
import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from tensorflow_datasets.core.download import checksums

import tfkd
from tfkd import data
from tfkd.data.prepare import prepare

ROOT = Path(__file__).resolve().parents[2]
URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
NAMES = "airplane automobile bird cat deer dog frog horse ship truck".split()

pytestmark = pytest.mark.usefixtures("no_network")


def known_files():
    """What tensorflow-datasets knows of CIFAR-10's files, by address."""
    return tfds.builder("cifar10").url_infos


def facts_of(contents):
    digest = hashlib.sha256(contents).hexdigest()
    return checksums.UrlInfo(len(contents), digest, "cifar-10-binary.tar.gz")


def images_of(part):
    return np.random.default_rng(part).integers(0, 256, (10, 32, 32, 3), np.uint8)


@pytest.fixture
def archive(tmp_path, monkeypatch):
    """A CIFAR-10 binary archive of 60 images, known to tensorflow-datasets for this test."""
    path = tmp_path / "downloaded.tar.gz"
    with tarfile.open(path, "w:gz") as packed:

        def add(name, contents):
            entry = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            entry.size = len(contents)
            packed.addfile(entry, io.BytesIO(contents))

        add("batches.meta.txt", "\n".join(NAMES).encode() + b"\n")
        for part in range(6):
            # One byte of label, then the red, the green and the blue plane.
            planes = images_of(part).transpose(0, 3, 1, 2).reshape(10, -1)
            rows = np.concatenate([np.arange(10, dtype=np.uint8)[:, None], planes], 1)
            add(f"data_batch_{part}.bin" if part else "test_batch.bin", rows.tobytes())
    contents = path.read_bytes()
    monkeypatch.setitem(known_files(), URL, facts_of(contents))
    return path


def failure(*arguments):
    with pytest.raises(tfkd.TfkdError) as caught:
        prepare(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_local_archive_becomes_a_data_set(archive, tmp_path):
    directory = tmp_path / "sets"
    found = prepare("cifar10", [str(archive)], str(directory))
    assert found.is_dir() and directory in found.parents
    # Nothing is left but the set itself.
    assert [each.name for each in directory.iterdir()] == ["cifar10"]
    dataset = data.load("cifar10", directory=str(directory), batch_size=10)
    assert (dataset.info.train_size, dataset.info.test_size) == (50, 10)
    assert dataset.info.class_names == tuple(NAMES)
    batch = next(iter(dataset.test()))
    pictures = {image.tobytes(): label for label, image in enumerate(images_of(0))}
    read = {image.numpy().tobytes(): int(n) for image, n in zip(batch["image"], batch["label"])}
    assert read == pictures
    # The second time there is nothing to do, and the archive is not needed.
    assert prepare("cifar10", ["gone.tar.gz"], str(directory)) == found


def test_an_empty_folder_left_over_is_no_hindrance(archive, tmp_path):
    directory = tmp_path / "sets"
    builder = tfds.builder("cifar10", data_dir=str(directory))
    Path(builder.data_dir).mkdir(parents=True)
    prepare("cifar10", [str(archive)], str(directory))
    assert data.load("cifar10", directory=str(directory), batch_size=10).info.train_size == 50


def test_a_folder_of_something_else_is_named(archive, tmp_path):
    directory = tmp_path / "sets"
    folder = Path(tfds.builder("cifar10", data_dir=str(directory)).data_dir)
    folder.mkdir(parents=True)
    (folder / "mine.txt").write_text("keep me")
    assert str(folder) in failure("cifar10", [str(archive)], str(directory))
    assert (folder / "mine.txt").read_text() == "keep me"


def test_a_wrong_checksum_is_named(archive, tmp_path):
    contents = bytearray(archive.read_bytes())
    contents[100] ^= 1
    archive.write_bytes(contents)
    message = failure("cifar10", [str(archive)], str(tmp_path / "sets"))
    for word in (str(archive), "sha256", hashlib.sha256(contents).hexdigest()):
        assert word in message
    assert not (tmp_path / "sets").exists()


def test_a_truncated_archive_is_named(archive, tmp_path):
    size = archive.stat().st_size
    archive.write_bytes(archive.read_bytes()[:1000])
    message = failure("cifar10", [str(archive)], str(tmp_path / "sets"))
    for word in (str(archive), "1000 bytes", str(size)):
        assert word in message


def test_an_archive_that_cannot_be_unpacked_is_one_line(archive, tmp_path, monkeypatch):
    directory = str(tmp_path / "sets")
    sound = archive.read_bytes()
    archive.write_bytes(b"not an archive")
    monkeypatch.setitem(known_files(), URL, facts_of(b"not an archive"))
    assert "cannot be prepared" in failure("cifar10", [str(archive)], directory)
    # The failure leaves nothing behind that a second attempt would stumble over.
    archive.write_bytes(sound)
    monkeypatch.setitem(known_files(), URL, facts_of(sound))
    prepare("cifar10", [str(archive)], directory)
    assert data.load("cifar10", directory=directory, batch_size=10).info.train_size == 50


def test_a_missing_archive_is_named(tmp_path):
    message = failure("cifar10", [str(tmp_path / "gone.tar.gz")], str(tmp_path / "sets"))
    assert "gone.tar.gz: no such file" in message and "cifar-10-binary.tar.gz" in message


def test_an_unknown_set_is_named(archive, tmp_path):
    assert "did you mean 'cifar10'" in failure("cifra10", [str(archive)], str(tmp_path))


def test_a_file_of_the_wrong_size_or_name_is_named(tmp_path):
    file = tmp_path / "train-images-idx3-ubyte.gz"
    file.write_bytes(b"x")
    message = failure("mnist", [str(file)], str(tmp_path / "sets"))
    assert "train-images-idx3-ubyte.gz" in message and "1 bytes" in message
    other = tmp_path / "something.gz"
    other.write_bytes(b"x")
    assert "is no file of mnist" in failure("mnist", [str(other)], str(tmp_path / "sets"))


SCRIPT = """
import runpy, sys
from absl import flags
for arguments in (["--archive=x"], ["--name=cifar10"], ["--name=cifar10", "--archive=gone.tar.gz"]):
    sys.argv = [sys.argv[0], *arguments, "--directory=sets"]
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as end:
        print("status", end.code, file=sys.stderr)
    for name in ("name", "archive", "directory"):
        delattr(flags.FLAGS, name)
"""


def test_the_tool_prints_one_line_and_exits_with_2(tmp_path):
    tool = str(ROOT / "tools" / "prepare_data.py")
    found = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.argv = [{tool!r}]\n" + SCRIPT],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": str(ROOT)},
    )
    lines = [
        line for line in found.stderr.splitlines() if line.startswith(("prepare_data", "status"))
    ]
    assert "Traceback" not in found.stderr
    assert lines[1::2] == ["status 2"] * 3
    for line, word in zip(lines[::2], ("--name", "--archive", "gone.tar.gz"), strict=True):
        assert word in line
