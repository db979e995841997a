"""Networks and SavedModels as functions from raw pixels to logits."""

import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfkd import TfkdError, export, models
from tfkd.evaluation import predictor, saved_model_predictor


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
    normalised = (images - np.float32([100, 110, 120])) / np.float32([50, 60, 70])
    return network.model.predict(normalised, verbose=0)


def export_of_keras(model, folder):
    """A SavedModel as Keras writes it, float32 in, one unnamed output."""
    model.export(folder, verbose=False)
    return folder


def test_a_network_normalises_and_does_not_train(network, images, expected):
    predict = predictor(network)
    for pixels in (images, images.astype(np.float32), images.astype(np.int64)):
        np.testing.assert_allclose(predict(pixels), expected, rtol=1e-5, atol=1e-5)
    before = network.model.get_weights()
    predict(images)
    for weight, old in zip(network.model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, old)


def test_a_model_takes_pixels_as_they_are(network, images):
    found = predictor(network.model)(images)
    pixels = images.astype(np.float32)
    np.testing.assert_allclose(found, network.model.predict(pixels, verbose=0), rtol=1e-5)


def test_an_export_predicts_what_its_network_does(network, images, expected, tmp_path):
    predict = saved_model_predictor(export.save(network, tmp_path / "exported"))
    np.testing.assert_allclose(predict(images), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(predict(images[:2]), expected[:2], rtol=1e-4, atol=1e-5)


def test_the_signature_on_normalised_images_can_be_chosen(network, images, expected, tmp_path):
    folder = export.save(network, tmp_path / "exported", verify=False)
    predict = saved_model_predictor(folder, "normalised")
    found = predict(network.preprocess(images))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(TfkdError, match="'normalized'; did you mean 'normalised'"):
        saved_model_predictor(folder, "normalized")


def test_an_export_of_keras_predicts_as_well(network, images, tmp_path):
    predict = saved_model_predictor(export_of_keras(network.model, tmp_path / "exported"))
    pixels = images.astype(np.float32)
    np.testing.assert_allclose(
        predict(images), network.model.predict(pixels, verbose=0), rtol=1e-4, atol=1e-4
    )


def test_several_outputs_without_logits_are_refused(network, tmp_path):
    module = tf.Module()
    specification = [tf.TensorSpec((None, 2), tf.float32, name="image")]
    module.serve = tf.function(lambda image: {"a": image, "b": image}, specification)
    tf.saved_model.save(module, str(tmp_path), signatures={"serving_default": module.serve})
    with pytest.raises(TfkdError, match=r"outputs \['a', 'b'\], wanted one image and one output"):
        saved_model_predictor(tmp_path)


def test_what_is_not_a_saved_model_is_named(network, tmp_path):
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
