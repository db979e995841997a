"""What an export may replace, and that it appears whole or not at all."""

import numpy as np
import pytest
import tensorflow as tf

from tfkd import TfkdError, export


@pytest.fixture
def written(network, tmp_path):
    """An earlier export."""
    return export.save(network, tmp_path / "exported", class_names=list("abcde"), verify=False)


def logits(folder, images):
    outputs = tf.saved_model.load(str(folder)).signatures["serving_default"](
        image=tf.constant(images)
    )
    return outputs["logits"].numpy()


def test_an_earlier_export_is_replaced(written, network, images):
    old = logits(written, images)
    network.model.set_weights([weight * 1.01 for weight in network.model.get_weights()])
    assert export.save(network, written) == written
    assert export.describe(written)["class_names"] is None
    assert np.abs(logits(written, images) - old).max() > 1e-3 * np.abs(old).max()
    assert [each.name for each in written.parent.iterdir()] == ["exported"]


def test_a_failed_export_leaves_the_earlier_one(written, network, images, monkeypatch):
    old = logits(written, images)

    def full_disk(*_, **__):
        raise tf.errors.ResourceExhaustedError(None, None, "No space left on device")

    monkeypatch.setattr(tf.saved_model, "save", full_disk)
    with pytest.raises(TfkdError, match="exported': cannot be written .No space left on device"):
        export.save(network, written)
    monkeypatch.undo()
    np.testing.assert_array_equal(logits(written, images), old)
    assert [each.name for each in written.parent.iterdir()] == ["exported"]


@pytest.mark.parametrize("name", ["notes.txt", "saved_model.pb", "tfkd.json"])
def test_a_folder_with_other_files_is_left_alone(network, tmp_path, name):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / name).write_text("{}")
    with pytest.raises(TfkdError, match="found a folder with other files, wanted a new folder"):
        export.save(network, folder)
    assert [(each.name, each.read_text()) for each in folder.iterdir()] == [(name, "{}")]


def test_only_exports_describe_themselves(tmp_path):
    with pytest.raises(TfkdError, match="no readable tfkd.json"):
        export.describe(tmp_path)
    for text, message in (
        ("{", "the file is no JSON"),
        ("[]", "wanted format"),
        ("{}", "wanted format"),
    ):
        (tmp_path / "tfkd.json").write_text(text)
        with pytest.raises(TfkdError, match=message):
            export.describe(tmp_path)
