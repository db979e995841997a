"""Networks and SavedModels as functions from raw pixels to named outputs."""

import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.fixtures import multi_exit
from tfkd import TfkdError, export, models, tasks
from tfkd.evaluation import ensemble, predictor, saved_model_predictor

MULTI_LABEL = "tests/fixtures/multi_label.py:MultiLabel"


@pytest.fixture
def network():
    image = keras.Input((6, 6, 3))
    hidden = keras.layers.Flatten()(keras.layers.Conv2D(4, 3)(image))
    hidden = keras.layers.Dropout(0.5)(keras.layers.BatchNormalization()(hidden))
    model = keras.Model(image, keras.layers.Dense(3)(hidden))
    return models.Network(model, models.Preprocess((100.0, 110.0, 120.0), (50.0, 60.0, 70.0)))


@pytest.fixture
def images():
    return np.random.default_rng(4).integers(0, 256, (5, 6, 6, 3), dtype=np.uint8)


@pytest.fixture
def expected(network, images):
    normalized = (images - np.float32([100, 110, 120])) / np.float32([50, 60, 70])
    return network.model.predict(normalized, verbose=0)


def export_of_keras(model, folder):
    """A SavedModel as Keras writes it, float32 in, one unnamed output."""
    model.export(folder, verbose=False)
    return folder


def test_a_network_normalizes_and_does_not_train(network, images, expected):
    predict = predictor(network)
    for pixels in (images, images.astype(np.float32), images.astype(np.int64)):
        found = predict(pixels)
        assert set(found) == {"logits"}
        np.testing.assert_allclose(found["logits"], expected, rtol=1e-5, atol=1e-5)
    before = network.model.get_weights()
    predict(images)
    for weight, old in zip(network.model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, old)


def test_a_model_takes_pixels_as_they_are(network, images):
    found = predictor(network.model)(images)["logits"]
    pixels = images.astype(np.float32)
    np.testing.assert_allclose(found, network.model.predict(pixels, verbose=0), rtol=1e-5)


def test_an_export_predicts_what_its_network_does(network, images, expected, tmp_path):
    predict = saved_model_predictor(export.save(network, tmp_path / "exported"))
    assert set(predict(images)) == {"logits", "probabilities"}
    np.testing.assert_allclose(predict(images)["logits"], expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(predict(images[:2])["logits"], expected[:2], rtol=1e-4, atol=1e-5)


def test_the_signature_on_normalized_images_can_be_chosen(network, images, expected, tmp_path):
    folder = export.save(network, tmp_path / "exported", verify=False)
    predict = saved_model_predictor(folder, "normalised")
    found = predict(network.preprocess(images))["logits"]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(TfkdError, match="'normalized'; did you mean 'normalised'"):
        saved_model_predictor(folder, "normalized")


def test_an_export_of_keras_predicts_as_well(network, images, tmp_path):
    predict = saved_model_predictor(export_of_keras(network.model, tmp_path / "exported"))
    pixels = images.astype(np.float32)
    found = predict(images)
    assert set(found) == {"logits"}
    np.testing.assert_allclose(
        found["logits"], network.model.predict(pixels, verbose=0), rtol=1e-4, atol=1e-4
    )


def saved(folder, serve, *inputs):
    """A SavedModel with a signature of one's own."""
    module = tf.Module()
    specification = [tf.TensorSpec((None, 2), tf.float32, name=name) for name in inputs]
    module.serve = tf.function(serve, specification)
    tf.saved_model.save(module, str(folder), signatures={"serving_default": module.serve})
    return folder


@pytest.mark.parametrize(
    "given, wanted",
    [
        ({"a": 1, "b": 2}, {"a": 1, "b": 2}),
        ({"scores": 1}, {"logits": 1}),
        ({"probabilities": 1}, {"logits": 1}),
        ({"logits": 1, "probabilities": 2, "exit1": 3},) * 2,
        ({"a": 1, "probabilities": 2}, {"a": 1, "probabilities": 2}),
    ],
)
def test_outputs_of_a_saved_model_keep_their_names(given, wanted, tmp_path):
    def serve(image):
        return {name: factor * image for name, factor in given.items()}

    found = saved_model_predictor(saved(tmp_path, serve, "image"))(np.ones((1, 2)))
    assert {name: float(output[0, 0]) for name, output in found.items()} == wanted


def test_floating_outputs_are_float32_and_others_as_they_are(tmp_path):
    def serve(image):
        return {"half": tf.cast(image, tf.bfloat16), "numbers": tf.cast(image, tf.int64)}

    found = saved_model_predictor(saved(tmp_path, serve, "image"))(np.ones((1, 2)))
    assert (found["half"].dtype, found["numbers"].dtype) == (tf.float32, tf.int64)


def test_a_signature_of_two_images_is_refused(tmp_path):
    folder = saved(tmp_path, lambda left, right: {"logits": left + right}, "left", "right")
    with pytest.raises(TfkdError, match=r"found inputs \['left', 'right'\].*wanted one image"):
        saved_model_predictor(folder)


def test_exits_are_predicted_by_name():
    model = multi_exit.lively(multi_exit.build())
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 1), dtype=np.uint8)
    found = predictor(model)(images)
    expected = model(images.astype(np.float32))
    assert set(found) == set(multi_exit.NAMES)
    for name in multi_exit.NAMES:
        largest = np.abs(expected[name]).max()
        np.testing.assert_allclose(found[name], expected[name], rtol=0, atol=1e-5 * largest)


def test_outputs_without_names_are_refused(network):
    image = keras.Input((8, 8, 1))
    hidden = keras.layers.Flatten()(image)
    model = keras.Model(image, [keras.layers.Dense(3)(hidden), keras.layers.Dense(3)(hidden)])
    with pytest.raises(TfkdError, match="found outputs without a name each .a list of 2.") as found:
        predictor(model)
    assert "\n" not in str(found.value)


def dense(classes, task="classification", **outputs):
    image = keras.Input((2, 2, 1))
    hidden = keras.layers.Flatten()(image)
    made = {name: keras.layers.Dense(classes)(hidden) for name in ("logits", *outputs)}
    return models.Network(keras.Model(image, made), task=task)


def test_an_ensemble_is_joined_by_the_task_of_its_networks():
    images = np.arange(8, dtype=np.uint8).reshape(2, 2, 2, 1)
    networks = [dense(3), dense(3, exit1=None)]
    found = ensemble(networks)(images)
    assert set(found) == {"logits"}
    each = [tf.nn.softmax(predictor(network)(images)["logits"]) for network in networks]
    np.testing.assert_allclose(tf.nn.softmax(found["logits"]), (each[0] + each[1]) / 2, rtol=1e-5)


def test_an_ensemble_of_one_is_that_network():
    images = np.arange(8, dtype=np.uint8).reshape(2, 2, 2, 1)
    network = dense(3, exit1=None)
    found, expected = ensemble([network])(images), predictor(network)(images)
    assert set(found) == {"exit1", "logits"}
    for name in found:
        np.testing.assert_array_equal(found[name], expected[name])


@pytest.mark.parametrize("given", [True, False])
def test_a_task_that_cannot_join_refuses_an_ensemble(given):
    networks = [dense(4, "classification" if given else MULTI_LABEL) for _ in range(2)]
    task = tasks.find(MULTI_LABEL)() if given else None
    with pytest.raises(
        TfkdError, match="task 'multi_label': found 2 teachers, wanted one"
    ) as found:
        ensemble(networks, task)(np.zeros((1, 2, 2, 1), np.uint8))
    assert "\n" not in str(found.value)


def test_a_folder_without_a_saved_model_is_named(network, tmp_path):
    with pytest.raises(TfkdError, match="found no such folder"):
        saved_model_predictor(tmp_path / "missing")
    with pytest.raises(TfkdError, match="found a folder without saved_model.pb"):
        saved_model_predictor(tmp_path)


@pytest.mark.parametrize("cut", ["saved_model.pb", "variables/variables.data-00000-of-00001"])
def test_a_saved_model_cut_short_is_named(network, tmp_path, cut):
    whole = export_of_keras(network.model, tmp_path / "whole")
    size = (whole / cut).stat().st_size
    for part in (0, 0.5):
        folder = tmp_path / f"part{part}"
        shutil.copytree(whole, folder)
        with (folder / cut).open("r+b") as file:
            file.truncate(int(part * size))
        with pytest.raises(TfkdError, match="wanted a whole one") as caught:
            saved_model_predictor(folder)
        assert "\n" not in str(caught.value)
