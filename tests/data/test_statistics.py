"""Mean and deviation of sets that stream: measured when they are asked for, and kept."""

import numpy as np
import pytest
import tensorflow as tf

import tfkd
from tfkd import data
from tfkd.data import decoding, loading, statistics


@pytest.fixture
def folder(tmp_path):
    for part in ("train", "test"):
        for number in range(6):
            image = np.random.default_rng(number).integers(0, 256, (4, 5, 3), np.uint8)
            path = tmp_path / "set" / part / "ab"[number % 2] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(tf.io.encode_png(image).numpy())
    return tmp_path / "set"


def load(folder):
    # As another process would.
    loading._from_folder.cache_clear()
    return data.load(f"folder:{folder}", batch_size=2, in_memory_bytes=0)


def test_they_are_measured_once_on_a_machine(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("TFKD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(statistics, "_KEPT_FROM", 1)
    read, whole = [], decoding.read_chunks
    monkeypatch.setattr(decoding, "read_chunks", lambda *args: read.append(args) or whole(*args))
    dataset = load(folder)
    list(dataset.train(0, 3)), list(dataset.test())
    assert not read
    values = dataset.info.mean, dataset.info.std
    images = np.concatenate([batch["image"] for batch in dataset.train_evaluation()])
    np.testing.assert_allclose(values, [images.mean((0, 1, 2)), images.std((0, 1, 2))], rtol=1e-6)
    again = load(folder).info
    assert (again.mean, again.std) == values and len(read) == 1

    # Damaged findings are none, and those of other images are not taken.
    (kept,) = (tmp_path / "cache" / "statistics").iterdir()
    kept.write_text("{")
    assert load(folder).info.mean == values[0] and len(read) == 2
    (folder / "train" / "a" / "0.png").write_bytes(tf.io.encode_png(255 - images[0]).numpy())
    assert load(folder).info.mean != values[0] and len(read) == 3
    # Where nothing can be kept, they are measured all the same.
    monkeypatch.setenv("TFKD_CACHE", "/dev/null/nowhere")
    assert load(folder).info.mean != values[0] and len(read) == 4


def test_a_damaged_image_among_them_is_named(folder):
    dataset = load(folder)
    bad = folder / "train" / "b" / "3.png"
    bad.write_bytes(bad.read_bytes()[:60])
    with pytest.raises(tfkd.TfkdError, match=f"{bad}: cannot be decoded"):
        list(dataset.info.std)
