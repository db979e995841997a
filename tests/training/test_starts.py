"""What a start measures is not measured again when the run goes on."""

import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfkd import evaluation, models
from tfkd.data import decoding, loading
from tfkd.evaluation import reports
from tfkd.models.saving import save_network
from tfkd.training import run


def write(path, seed):
    image = np.random.default_rng(seed).integers(0, 256, (12, 10, 3), np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(tf.io.encode_png(image).numpy())


@pytest.fixture
def config(tmp_path, experiment):
    """A student of a teacher that has no names for its classes, on images that stream."""
    for number in range(16):
        write(tmp_path / "data" / "train" / "abcd"[number % 4] / f"{number}.png", number)
        write(tmp_path / "data" / "test" / "abcd"[number % 4] / f"{number}.png", number)
    image = keras.Input((8, 8, 3))
    pooled = keras.layers.GlobalAveragePooling2D(name="pooled")(image)
    model = keras.Model(image, keras.layers.Dense(4, name="logits")(pooled))
    save_network(models.Network(model), tmp_path / "teacher")
    return experiment(
        "distilled",
        data__name=f"folder:{tmp_path / 'data'}",
        data__augment="imagenet",
        data__image_size=8,
        teacher__config=None,
        teacher__workdir=str(tmp_path / "teacher"),
        train__batch_size=8,
        train__checkpoint_seconds=0.0,
    )


def test_a_restart_measures_neither_the_teacher_nor_the_images_again(
    config, stopped, tmp_path, monkeypatch, capsys
):
    folder, measured = tmp_path / "run", []
    scores, chunks = evaluation.scores, decoding.read_chunks
    monkeypatch.setattr(evaluation, "scores", lambda *a: measured.append("teacher") or scores(*a))
    monkeypatch.setattr(decoding, "read_chunks", lambda *a: measured.append("images") or chunks(*a))
    stopped(config, folder, after=1)
    shutil.copytree(folder, tmp_path / "before")
    # On the test images, and on training images, as nothing says what its classes are.
    assert measured == ["images", "teacher", "teacher"]
    (line,) = [each for each in capsys.readouterr().out.splitlines() if " test" in each][:1]

    loading._from_folder.cache_clear()
    with pytest.warns(UserWarning, match="hardly more than a guess"):
        result = run(config, folder)
    assert len(measured) == 3
    assert f"{line} (measured before)" in capsys.readouterr().out
    assert len(result["inputs"]["data"]["statistics"][0]) == 3

    # Nor does an evaluation ask for them; how images were cropped is on record.
    loading._from_folder.cache_clear()
    assert reports.report(run=folder)["images"] == 16 and len(measured) == 3
    assert models.load_network(folder).crop == "center"

    # On other images the teacher is measured again.
    write(tmp_path / "data" / "test" / "a" / "more.png", 99)
    config.accept_changes = True
    monkeypatch.setattr(evaluation, "scores", None)
    with pytest.raises(TypeError):
        run(config, tmp_path / "before")
