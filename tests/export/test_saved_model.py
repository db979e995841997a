"""What an exported folder computes, in this process and in one without tfkd and Keras."""

import dataclasses
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from tfkd import TfkdError, evaluation, export, models
from tfkd.export import named_outputs
from tfkd.models.saving import save_network

PLAIN_TENSORFLOW = """
import sys
sys.modules["tfkd"] = sys.modules["keras"] = None  # an import of either now fails
import numpy as np
import tensorflow as tf

signatures = tf.saved_model.load(sys.argv[1]).signatures
images = np.load(sys.argv[2])
normalized = (images.astype("float32") - np.float32([110, 120, 130])) / np.float32([50, 60, 70])
np.savez(
    sys.argv[3],
    raw=signatures["serving_default"](image=tf.constant(images))["logits"],
    one=signatures["serving_default"](image=tf.constant(images[:1]))["logits"],
    normalised=signatures["normalised"](image=tf.constant(normalized))["logits"],
)
"""


def assert_same_logits(found, expected):
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    np.testing.assert_array_equal(found.argmax(-1), expected.argmax(-1))


def operations(folder):
    """The names of the operations in a SavedModel."""
    proto = saved_model_pb2.SavedModel()
    proto.ParseFromString((folder / "saved_model.pb").read_bytes())
    graph = proto.meta_graphs[0].graph_def
    return {node.op for function in graph.library.function for node in function.node_def}


def two_layer_model(dtype="float32", outputs=1):
    image = keras.Input((8, 8, 3))
    hidden = keras.layers.Conv2D(4, 3, use_bias=False, dtype=dtype)(image)
    hidden = keras.layers.BatchNormalization(dtype=dtype)(hidden)
    hidden = keras.layers.Flatten(dtype=dtype)(keras.layers.ReLU(dtype=dtype)(hidden))
    heads = [keras.layers.Dense(3, dtype=dtype)(hidden) for _ in range(outputs)]
    return keras.Model(image, heads[0] if outputs == 1 else heads)


def test_plain_tensorflow_loads_it_without_tfkd_and_keras(network, images, expected, tmp_path):
    folder = export.save(network, tmp_path / "exported")
    np.save(tmp_path / "images.npy", images)
    arguments = [folder, tmp_path / "images.npy", tmp_path / "found.npz"]
    subprocess.run(
        [sys.executable, "-c", PLAIN_TENSORFLOW, *map(str, arguments)],
        cwd=tmp_path,
        env={key: value for key, value in os.environ.items() if key != "PYTHONPATH"},
        check=True,
    )
    found = np.load(tmp_path / "found.npz")
    assert_same_logits(found["raw"], expected)
    assert_same_logits(found["one"], expected[:1])
    assert_same_logits(found["normalised"], expected)


@pytest.mark.parametrize("fold", [True, False])
def test_folding_removes_batch_normalization_and_keeps_the_logits(
    network, images, expected, tmp_path, fold
):
    folder = export.save(network, tmp_path / "exported", fold=fold)
    normalizing = operations(folder) & {"FusedBatchNormV3", "Rsqrt"}
    assert bool(normalizing) is not fold
    outputs = tf.saved_model.load(str(folder)).signatures["serving_default"](
        image=tf.constant(images)
    )
    assert_same_logits(outputs["logits"].numpy(), expected)
    powers = np.exp(expected.astype(np.float64))
    np.testing.assert_allclose(
        outputs["probabilities"], powers / powers.sum(-1, keepdims=True), rtol=1e-4
    )


def test_the_exported_network_is_not_changed(network, tmp_path):
    before = [weight.copy() for weight in network.model.get_weights()]
    names = [layer.name for layer in network.model.layers]
    export.save(network, tmp_path / "exported")
    assert [layer.name for layer in network.model.layers] == names
    for weight, old in zip(network.model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, old)


def test_a_mixed_precision_network_is_exported_in_float32(tmp_path):
    mixed = two_layer_model("mixed_bfloat16")
    exact = two_layer_model()
    exact.set_weights(mixed.get_weights())
    images = np.random.default_rng(1).integers(0, 256, (7, 8, 8, 3), dtype=np.uint8)
    folder = export.save(mixed, tmp_path / "exported")
    outputs = tf.saved_model.load(str(folder)).signatures["serving_default"](
        image=tf.constant(images)
    )
    assert_same_logits(outputs["logits"].numpy(), exact.predict(images, verbose=0))


def test_weights_too_large_for_a_graph_lie_beside_it(
    network, images, expected, tmp_path, monkeypatch
):
    monkeypatch.setattr(named_outputs, "LARGEST_CONSTANTS", 0)
    folder = export.save(network, tmp_path / "exported")
    assert list((folder / "variables").glob("variables.data*"))
    outputs = tf.saved_model.load(str(folder)).signatures["serving_default"](
        image=tf.constant(images)
    )
    assert_same_logits(outputs["logits"].numpy(), expected)


def test_the_folder_says_what_it_holds(network, tmp_path):
    names = ["a", "b", "c", "d", "e"]
    known = export.describe(export.save(network, tmp_path / "exported", class_names=names))
    assert known["class_names"] == names
    assert known["outputs"] == {"logits": [5], "probabilities": [5]}
    assert (known["task"], known["exits"]) == ("classification", None)
    assert (known["name"], known["num_classes"], known["fold"]) == ("small", 5, True)
    assert known["input_shape"] == [16, 12, 3]
    # 3x3 convolutions of 3-16, 16-16, 16-16, 16-32, 32-32, 32-64, 64-64, shortcuts, scales, head.
    convolutions = 9 * (3 * 16 + 2 * 16 * 16 + 16 * 32 + 32 * 32 + 32 * 64 + 64 * 64)
    shortcuts = 16 * 32 + 32 * 64
    scales = 2 * (16 + 16 + 16 + 32 + 32 + 32 + 64 + 64 + 64)
    assert known["params"] == convolutions + shortcuts + scales + 64 * 5 + 5
    assert known["macs"] == models.cost(network.model).macs
    preprocess = models.Preprocess.from_config(known["preprocess"])
    assert preprocess == network.preprocess
    assert known["versions"]["tensorflow"] == tf.__version__


def test_a_wrong_fold_is_noticed_and_leaves_nothing(network, tmp_path, monkeypatch):
    def wrong_fold(model):
        folded = models.stock(model)
        kernel, bias = folded.layers[-1].get_weights()
        folded.layers[-1].set_weights([kernel * 1.001, bias])
        return folded

    monkeypatch.setattr(models, "fold", wrong_fold)
    with pytest.raises(TfkdError, match="serving_default.*differ by .* wanted at most 1e-05"):
        export.save(network, tmp_path / "exported")
    assert list(tmp_path.iterdir()) == []


def test_another_class_within_the_tolerance_is_noticed(tmp_path, monkeypatch):
    def with_bias(model, bias):
        model.layers[-1].set_weights([np.zeros((144, 3)), np.array(bias)])
        return model

    def wrong_fold(model):
        return with_bias(models.stock(model), [1.000004, 1, 0])

    monkeypatch.setattr(models, "fold", wrong_fold)
    with pytest.raises(TfkdError, match="found another class for 16 of 16 images"):
        export.save(with_bias(two_layer_model(), [1, 1.000004, 0]), tmp_path / "exported")


def test_a_network_for_any_image_size_is_exported_for_any(tmp_path):
    model = models.create("resnet8", num_classes=3, input_shape=(None, None, 3))
    folder = export.save(model, tmp_path / "exported")
    assert export.describe(folder)["input_shape"] == [None, None, 3]
    function = tf.saved_model.load(str(folder)).signatures["serving_default"]
    for shape in ((2, 8, 8, 3), (1, 20, 12, 3)):
        images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        found = function(image=tf.constant(images))["logits"].numpy()
        assert_same_logits(found, np.asarray(model(images.astype(np.float32), training=False)))


def test_weights_that_are_not_numbers_are_refused(tmp_path):
    model = two_layer_model()
    model.layers[-1].set_weights([np.full((144, 3), np.nan), np.zeros(3)])
    with pytest.raises(TfkdError, match="differ by nan"):
        export.save(model, tmp_path / "exported")
    assert list(tmp_path.iterdir()) == []


def test_class_names_are_those_of_the_network(network, tmp_path):
    named = dataclasses.replace(network, class_names="abcde")
    settings = {"verify": False}
    known = export.describe(export.save(named, tmp_path / "own", **settings))
    assert known["class_names"] == list("abcde")
    for other in ("edcba", "vwxyz"):
        with pytest.raises(TfkdError, match="found other ones, or another order, than it has it"):
            export.save(named, tmp_path / "given", class_names=other)
    numbered = dataclasses.replace(network, class_names="01234")
    settings["class_names"] = ["v", "w", "x", "y", "z"]
    known = export.describe(export.save(numbered, tmp_path / "given", **settings))
    assert known["class_names"] == settings["class_names"]
    wrong = dataclasses.replace(network, class_names="abc")
    with pytest.raises(TfkdError, match="class names of 'small': found 3, wanted 5"):
        export.save(wrong, tmp_path / "wrong")


def test_class_names_must_be_as_many_as_classes(network, tmp_path):
    with pytest.raises(TfkdError, match="class names of 'small': found 2, wanted 5"):
        export.save(network, tmp_path / "exported", class_names=["a", "b"])


def test_outputs_without_names_are_refused(tmp_path):
    with pytest.raises(TfkdError, match="found outputs without a name each .a list of 2."):
        export.save(two_layer_model(outputs=2), tmp_path / "exported")


def test_a_model_of_two_images_is_refused(tmp_path):
    images = [keras.Input((4, 4, 1)), keras.Input((4, 4, 1))]
    hidden = keras.layers.Flatten()(keras.layers.Add()(images))
    model = keras.Model(images, keras.layers.Dense(3)(hidden))
    with pytest.raises(TfkdError, match="to export: found input .*, wanted one image"):
        export.save(model, tmp_path / "exported")


def test_probabilities_of_probabilities_are_refused(tmp_path):
    image = keras.Input((8, 8, 3))
    hidden = keras.layers.Dense(3, activation="softmax")(keras.layers.Flatten()(image))
    with pytest.raises(TfkdError, match="ends in softmax, wanted logits"):
        export.save(keras.Model(image, hidden), tmp_path / "exported")
    assert list(tmp_path.iterdir()) == []


def test_large_logits_are_no_fault(network, tmp_path):
    kernel, bias = network.model.layers[-1].get_weights()
    network.model.layers[-1].set_weights([1e5 * kernel, bias])
    export.save(network, tmp_path / "exported")


@pytest.mark.parametrize("name", ["a[1]", "a[b", "*", "wh?t", "{a,b}", "back\\slash"])
def test_folders_may_be_called_as_they_like(name, network, images, expected, tmp_path):
    place = tmp_path / name
    save_network(network, place / name)
    folder = export.save_run(place / name, place / f"{name} exported")
    found = evaluation.saved_model_predictor(folder)(images)["logits"].numpy()
    assert_same_logits(found, expected)
    assert export.images_per_second(folder, batch=1, calls=1) > 0


def test_a_model_that_calls_python_is_refused(tmp_path):
    class ThroughNumpy(keras.layers.Layer):
        def call(self, value):
            result = tf.numpy_function(lambda array: array, [value], tf.float32)
            return tf.ensure_shape(result, value.shape)

        def compute_output_shape(self, shape):
            return shape

    image = keras.Input((8, 8, 3))
    hidden = ThroughNumpy()(image)
    model = keras.Model(image, keras.layers.Dense(3)(keras.layers.Flatten()(hidden)))
    with pytest.raises(TfkdError, match="PyFunc"):
        export.save(model, tmp_path / "exported")
