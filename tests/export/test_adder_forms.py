"""Exports of adder networks: in stock operations for any TensorFlow, and with the compiled op."""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfkd import adder, evaluation, export, models, tasks
from tfkd.adder import compiled_ops
from tfkd.errors import TfkdError
from tfkd.export import verification

PLAIN_TENSORFLOW = """
import sys
sys.modules["tfkd"] = sys.modules["keras"] = None  # Any import of them fails from here on.
import numpy, tensorflow
loaded = tensorflow.saved_model.load(sys.argv[1])
outputs = loaded.signatures["serving_default"](image=numpy.load(sys.argv[2]))
numpy.save(sys.argv[3], outputs["logits"])
"""
WITH_TFKD = """
import sys, numpy, tfkd.adder
loaded = tfkd.adder.load(sys.argv[1])
outputs = loaded.signatures["serving_default"](image=numpy.load(sys.argv[2]))
numpy.save(sys.argv[3], outputs["logits"])
"""


@pytest.fixture(scope="module")
def adder_network():
    """A small adder network whose normalization has seen a batch, for pixels."""
    keras.utils.set_random_seed(0)
    model = models.create("resnet8", 3, (8, 8, 3), adder=True, widths=(4, 4, 4, 4))
    preprocess = models.Preprocess((110.0, 120.0, 130.0), (50.0, 60.0, 70.0))
    images = np.random.default_rng(1).integers(0, 256, (64, 8, 8, 3), dtype=np.uint8)
    for _ in range(40):
        model(preprocess(tf.constant(images)), training=True)
    return models.Network(model, preprocess, name="small adder")


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(5).integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def wanted(adder_network, pixels):
    return np.asarray(adder_network(tf.constant(pixels), training=False))


@pytest.fixture
def needs_op():
    if compiled_ops.operations() is None:
        pytest.skip("the op cannot be compiled here")


def in_a_fresh_process(script, folder, pixels, tmp_path):
    np.save(tmp_path / "pixels.npy", pixels)
    arguments = [folder, tmp_path / "pixels.npy", tmp_path / "found.npy"]
    finished = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env=dict(os.environ),
    )
    return finished, np.load(arguments[-1]) if finished.returncode == 0 else None


def test_the_plain_form_loads_with_tensorflow_alone(adder_network, pixels, wanted, tmp_path):
    folder = export.save(adder_network, tmp_path / "plain")
    assert export.describe(folder)["adder"] == "plain"
    finished, found = in_a_fresh_process(PLAIN_TENSORFLOW, folder, pixels, tmp_path)
    assert finished.returncode == 0, finished.stderr
    assert wanted.std() > 0.1
    np.testing.assert_allclose(found, wanted, atol=1e-4 * np.abs(wanted).max())


def test_the_op_form_loads_with_tfkd(adder_network, pixels, wanted, tmp_path, needs_op):
    folder = export.save(adder_network, tmp_path / "op", adder="op")
    assert export.describe(folder)["adder"] == "op"
    finished, found = in_a_fresh_process(WITH_TFKD, folder, pixels, tmp_path)
    assert finished.returncode == 0, finished.stderr
    np.testing.assert_allclose(found, wanted, atol=1e-4 * np.abs(wanted).max())
    finished, _ = in_a_fresh_process(PLAIN_TENSORFLOW, folder, pixels, tmp_path)
    assert "Op type not registered 'TfkdAdderConv2D'" in finished.stderr
    predict = evaluation.saved_model_predictor(folder)
    np.testing.assert_allclose(
        predict(tf.constant(pixels))["logits"], wanted, atol=1e-4 * np.abs(wanted).max()
    )


def test_another_adder_network_is_told_apart(adder_network, tmp_path):
    """The tolerance of adder networks leaves room for rounding only."""
    source = adder_network.model
    folder = export.save(adder_network, tmp_path / "plain")
    verification.verify(folder, adder_network, source, tasks.Classification())
    weights = source.get_weights()
    source.set_weights([1.0005 * each for each in weights])
    try:
        with pytest.raises(
            TfkdError, match=r"logits that differ by .* at most .* of max \|logits\|"
        ):
            verification.verify(folder, adder_network, source, tasks.Classification())
    finally:
        source.set_weights(weights)


def test_both_forms_have_a_speed(adder_network, tmp_path, needs_op):
    folder = export.save(adder_network, tmp_path / "plain", verify=False)
    before = sorted(path.name for path in folder.iterdir())
    speeds = export.speed_of_adder_forms(adder_network, folder)
    assert set(speeds) == {"plain", "op"}
    assert all(speed > 0 for speed in speeds.values())
    assert sorted(path.name for path in folder.iterdir()) == before


def test_without_a_compiler_only_the_plain_form_is_left(adder_network, tmp_path, monkeypatch):
    monkeypatch.setenv("TFKD_ADDER_OP", "off")
    with pytest.raises(TfkdError, match="found no compiled op .*, wanted a compiler .* 'plain'"):
        export.save(adder_network, tmp_path / "op", adder="op")
    assert list(tmp_path.iterdir()) == []
    folder = export.save(adder_network, tmp_path / "plain", verify=False)
    assert set(export.speed_of_adder_forms(adder_network, folder)) == {"plain"}
    with pytest.raises(TfkdError, match="found no compiled op on this machine"):
        adder.load(folder)


def test_other_networks_have_no_form(network, tmp_path):
    folder = export.save(network, tmp_path / "exported", adder="op")
    assert export.describe(folder)["adder"] is None
    assert not adder.has_adder_layers(network.model)
    with pytest.raises(
        TfkdError, match="unknown form of adder layers 'plan'; did you mean 'plain'"
    ):
        export.save(network, tmp_path / "other", adder="plan")


def test_a_folder_that_is_no_saved_model_is_not_loaded(tmp_path):
    with pytest.raises(TfkdError, match="found no saved_model.pb, wanted an export"):
        adder.load(tmp_path)
