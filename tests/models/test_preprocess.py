"""Pixels to network inputs, and networks that carry their preprocessing."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfkd import models
from tfkd.errors import TfkdError

PIXELS = np.random.default_rng(0).integers(0, 256, (2, 4, 5, 3), np.uint8)


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.float32, np.float16])
def test_pixels_of_any_type_are_normalized_per_channel(dtype):
    mean, std = (10.0, 20.0, 30.0), (2.0, 4.0, 8.0)
    images = models.Preprocess(mean, std)(PIXELS.astype(dtype))
    assert images.dtype == tf.float32
    np.testing.assert_allclose(images, (PIXELS - np.array(mean)) / np.array(std), rtol=1e-6)


def test_none_only_casts():
    images = models.Preprocess.none()(PIXELS)
    assert images.dtype == tf.float32
    np.testing.assert_array_equal(images, PIXELS)


def test_one_value_serves_all_channels():
    images = models.Preprocess((127.5,), (127.5,))(PIXELS)
    np.testing.assert_allclose(images, PIXELS / 127.5 - 1, rtol=1e-6, atol=1e-6)


def test_preprocessing_works_inside_a_dataset_and_survives_json():
    preprocess = models.Preprocess((10, 20, 30), (2, 4, 8))
    again = models.Preprocess.from_config(json.loads(json.dumps(preprocess.to_config())))
    assert again == preprocess
    batches = tf.data.Dataset.from_tensor_slices(PIXELS).batch(2).map(again)
    np.testing.assert_array_equal(next(iter(batches)), preprocess(PIXELS))
    none = models.Preprocess.none()
    assert models.Preprocess.from_config(none.to_config()) == none


def test_another_number_of_channels_is_refused():
    with pytest.raises(TfkdError, match="found images of 3 channels; wanted 2"):
        models.Preprocess((1, 2), (3, 4))(PIXELS)


@pytest.mark.parametrize(
    ("mean", "std", "message"),
    [((1, 2), (3,), "2 means and 1 deviations"), ((1, 2), (3, 0), "above 0")],
)
def test_means_and_deviations_that_do_not_fit_are_refused(mean, std, message):
    with pytest.raises(TfkdError, match=message):
        models.Preprocess(mean, std)


def small_model():
    return keras.Sequential(
        [keras.Input((4, 5, 3)), keras.layers.Flatten(), keras.layers.Dense(2)], name="small"
    )


def test_a_network_runs_its_model_on_preprocessed_pixels():
    model = small_model()
    preprocess = models.Preprocess((10, 20, 30), (2, 4, 8))
    network = models.Network(model, preprocess)
    assert network.name == "small"
    np.testing.assert_array_equal(network(PIXELS), model(preprocess(PIXELS)))


def test_a_model_becomes_a_network_and_a_network_stays_itself():
    model = small_model()
    network = models.as_network(model)
    assert network.model is model
    assert network.preprocess == models.Preprocess.none()
    assert models.as_network(network) is network


def test_networks_of_no_model_are_refused():
    with pytest.raises(TfkdError, match="found str; wanted a keras.Model"):
        models.as_network("resnet20")
