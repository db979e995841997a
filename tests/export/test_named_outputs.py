"""Exports of networks with several outputs, and of tasks other than classification."""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.export.conftest import lively
from tests.fixtures import multi_exit
from tfkd import TfkdError, export, models, tasks
from tfkd.export import exporters, named_outputs, verification
from tfkd.models.saving import in_precision, save_network

MULTI_LABEL = "tests/fixtures/multi_label.py:MultiLabel"
PLAIN_TENSORFLOW = """
import sys
sys.modules["tfkd"] = sys.modules["keras"] = None  # an import of either now fails
import numpy as np
import tensorflow as tf

loaded = tf.saved_model.load(sys.argv[1])
images = np.load(sys.argv[2])
np.savez(sys.argv[3], **loaded.signatures["serving_default"](image=tf.constant(images)))
"""


@pytest.fixture
def pixels():
    return np.random.default_rng(5).integers(0, 256, (6, 8, 8, 1), dtype=np.uint8)


@pytest.fixture
def several():
    """A network with eleven exits."""
    model = lively(multi_exit.build())
    return models.Network(model, models.Preprocess((80.0,), (90.0,)), name="several")


def in_plain_tensorflow(folder, pixels, tmp_path):
    """What an export gives in a process that has neither tfkd nor Keras."""
    np.save(tmp_path / "pixels.npy", pixels)
    arguments = [folder, tmp_path / "pixels.npy", tmp_path / "found.npz"]
    subprocess.run(
        [sys.executable, "-c", PLAIN_TENSORFLOW, *map(str, arguments)],
        cwd=tmp_path,
        env={key: value for key, value in os.environ.items() if key != "PYTHONPATH"},
        check=True,
    )
    return dict(np.load(arguments[-1]))


def in_this_process(folder, pixels):
    signatures = tf.saved_model.load(str(folder)).signatures
    outputs = signatures["serving_default"](image=tf.constant(pixels))
    return {name: output.numpy() for name, output in outputs.items()}


def softmax(logits):
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def classifier(**outputs):
    """A network of one layer for each output, given as its width and its activation."""
    image = keras.Input((8, 8, 1))
    hidden = keras.layers.Flatten()(image)
    made = {
        name: keras.layers.Dense(width, activation)(hidden)
        for name, (width, activation) in outputs.items()
    }
    return keras.Model(image, made)


def test_every_exit_is_served_by_its_name(several, pixels, tmp_path):
    save_network(several, tmp_path / "run")
    folder = export.save_run(tmp_path / "run", tmp_path / "exported")
    found = in_plain_tensorflow(folder, pixels, tmp_path)
    expected = several(pixels)
    assert set(found) == {*multi_exit.NAMES, "probabilities"}
    for name in multi_exit.NAMES:
        values = np.asarray(expected[name])
        np.testing.assert_allclose(found[name], values, rtol=0, atol=1e-5 * np.abs(values).max())
    assert len({found[name].tobytes() for name in multi_exit.NAMES}) == len(multi_exit.NAMES)
    np.testing.assert_allclose(found["probabilities"], softmax(found["logits"]), rtol=1e-5)


def test_every_exit_is_described(several, tmp_path):
    known = export.describe(export.save(several, tmp_path / "exported", verify=False))
    assert known["task"] == "multi_exit"
    assert known["outputs"] == dict.fromkeys((*multi_exit.NAMES, "probabilities"), [10])
    assert known["num_classes"] == 10
    costs = models.exit_costs(several.model)
    assert known["exits"] == {
        name: {"params": cost.params, "macs": cost.macs} for name, cost in costs.items()
    }
    assert known["macs"] >= known["exits"]["logits"]["macs"]


def test_the_weights_of_all_exits_are_constants_that_all_signatures_share(tmp_path):
    model = multi_exit.build(width=64)
    folder = export.save(model, tmp_path / "exported", verify=False)
    for function in tf.saved_model.load(str(folder)).signatures.values():
        assert not function.variables
    size = (folder / "saved_model.pb").stat().st_size
    # A second copy of the weights would be seen.
    assert size < 400_000 + 4 * model.count_params() < 8 * model.count_params()


def test_a_wrong_exit_is_noticed(several, tmp_path, monkeypatch):
    def wrong_fold(model):
        folded = models.stock(model)
        layer = folded.get_layer("head_of_exit7")
        layer.kernel.assign(1.001 * layer.kernel)
        return folded

    monkeypatch.setattr(models, "fold", wrong_fold)
    with pytest.raises(TfkdError, match="serving_default: found exit7 that differ by"):
        export.save(several, tmp_path / "exported")
    assert list(tmp_path.iterdir()) == []


def test_a_task_of_ones_own_serves_its_probabilities(pixels, tmp_path):
    model = classifier(logits=(4, None))
    network = models.Network(model, task=MULTI_LABEL, class_names=["a", "b", "c", "d"])
    save_network(network, tmp_path / "run")
    folder = export.save_run(tmp_path / "run", tmp_path / "exported")
    found = in_plain_tensorflow(folder, pixels, tmp_path)
    logits = np.asarray(model(pixels)["logits"])
    assert set(found) == {"logits", "probabilities"}
    largest = np.abs(logits).max()
    np.testing.assert_allclose(found["logits"], logits, rtol=0, atol=1e-5 * largest)
    expected = 1 / (1 + np.exp(-found["logits"].astype(np.float64)))
    np.testing.assert_allclose(found["probabilities"], expected, rtol=1e-5, atol=1e-30)
    assert np.abs(found["probabilities"] - softmax(found["logits"])).max() > 0.1
    known = export.describe(folder)
    assert (known["task"], known["num_classes"]) == (MULTI_LABEL, 4)
    assert known["class_names"] == ["a", "b", "c", "d"]


def test_a_close_pair_of_attributes_is_no_other_class(tmp_path, monkeypatch):
    def with_bias(model, bias):
        model.layers[-1].set_weights([np.zeros((64, 3)), np.array(bias)])
        return model

    def almost(model):
        return with_bias(models.stock(model), [1.000004, 1, 0])

    monkeypatch.setattr(models, "fold", almost)
    model = with_bias(classifier(logits=(3, None)), [1, 1.000004, 0])
    export.save(models.Network(model, task=MULTI_LABEL), tmp_path / "exported")
    with pytest.raises(TfkdError, match="another class"):
        export.save(models.Network(model), tmp_path / "classifier")


class AsTheyAre(tasks.find(MULTI_LABEL)):
    """A task that derives nothing."""

    served = tasks.Task.served


def test_other_outputs_are_served_as_they_are(pixels, tmp_path):
    reference = f"{__file__}:AsTheyAre"
    model = classifier(boxes=(4, None), scores=(2, "softmax"))
    network = models.Network(model, task=reference, class_names=["one", "two", "three"])
    folder = export.save(network, tmp_path / "exported")
    found, expected = in_this_process(folder, pixels), model(pixels)
    assert set(found) == {"boxes", "scores"}
    for name, values in found.items():
        np.testing.assert_allclose(values, expected[name], rtol=1e-4, atol=1e-3)
    known = export.describe(folder)
    assert known["outputs"] == {"boxes": [4], "scores": [2]}
    assert (known["task"], known["num_classes"]) == (reference, None)
    assert known["class_names"] == ["one", "two", "three"]


def test_outputs_of_another_task_are_refused(tmp_path):
    with pytest.raises(TfkdError, match="has the outputs boxes, wanted 'logits' among them"):
        export.save(classifier(boxes=(4, None)), tmp_path / "exported")
    with pytest.raises(TfkdError, match="found different class counts .exit1 2, logits 3."):
        export.save(classifier(exit1=(2, None), logits=(3, None)), tmp_path / "exported")
    with pytest.raises(TfkdError, match="unknown task 'multi_exist'; did you mean 'multi_exit'"):
        network = models.Network(classifier(logits=(3, None)), task="multi_exist")
        export.save(network, tmp_path / "exported")
    assert list(tmp_path.iterdir()) == []


def test_derived_outputs_are_verified(tmp_path):
    network = models.Network(classifier(logits=(4, None)), task=MULTI_LABEL)
    folder = export.save(network, tmp_path / "exported")
    model = in_precision(network.model)
    verification.verify(folder, network, model, tasks.find(MULTI_LABEL)())
    with pytest.raises(TfkdError, match="found probabilities that differ by"):
        verification.verify(folder, network, model, tasks.Classification())
    with pytest.raises(TfkdError, match="found the outputs logits, probabilities, wanted logits"):
        verification.verify(folder, network, model, AsTheyAre())


@pytest.mark.parametrize(
    "outputs, kind",
    [
        (["logits"], "logits"),
        (["logits", "boxes"], "logits"),
        (["exit1", "logits"], "exits"),
        (["boxes", "scores"], "outputs"),
    ],
)
def test_the_kind_of_outputs_chooses_the_exporter(outputs, kind, tmp_path, monkeypatch):
    written = []

    class Mine(named_outputs.NamedOutputs):
        def write(self, exported, folder):
            written.append(sorted(models.outputs(exported.model)))
            return super().write(exported, folder)

    model = classifier(**dict.fromkeys(outputs, (3, None)))
    network = models.Network(model, task=f"{__file__}:AsTheyAre")
    export.save(network, tmp_path / "first", verify=False)
    assert written == []
    monkeypatch.setattr(exporters, "_EXPORTERS", dict(exporters._EXPORTERS))
    exporters.register(kind)(Mine)
    export.save(network, tmp_path / "second", verify=False)
    assert written == [sorted(outputs)]
