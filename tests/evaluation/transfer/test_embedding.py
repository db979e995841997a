"""Images of another set as a network sees them: resized, with the channels that it takes."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.data.batches import images_and_labels
from tests.fixtures import shades
from tfkd import TfkdError, data, models
from tfkd.evaluation import features, transfer


def network(channels=3, side=16):
    keras.utils.set_random_seed(0)
    image = keras.Input((side, side, channels))
    maps = keras.layers.Conv2D(5, 3, activation="relu", name="maps")(image)
    pooled = keras.layers.GlobalAveragePooling2D(name="pooled")(maps)
    model = keras.Model(image, keras.layers.Dense(7, name="logits")(pooled))
    return models.Network(model, models.Preprocess((80.0,), (60.0,)), "tiny")


def by_hand(given, pixels):
    seen = (tf.cast(pixels, tf.float32) - 80.0) / 60.0
    return models.tapped(given.model, ["pooled"])(seen)["pooled"]


def test_gray_digits_become_large_and_of_three_equal_channels(tmp_path):
    given = network()
    found = transfer.embeddings(given, "digits", cache=tmp_path)
    large = data.load("digits", image_size=16)
    for part, values, labels in (
        (large.train_evaluation(), found.train, found.train_labels),
        (large.test(), found.test, found.test_labels),
    ):
        images, wanted = images_and_labels(part)
        np.testing.assert_array_equal(labels, wanted)
        expected = by_hand(given, np.repeat(images, 3, axis=-1))
        np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-6)
    assert found.class_names == tuple(map(str, range(10)))
    # One folder for each part; a second probe finds them.
    assert len(list(tmp_path.iterdir())) == 2
    some = transfer.embeddings(given, "digits", cache=tmp_path, classes=["4", "7"])
    assert set(some.test_labels) == {0, 1} and some.class_names == ("4", "7")
    np.testing.assert_array_equal(
        some.test[some.test_labels == 1], found.test[found.test_labels == 7]
    )


def test_colors_become_gray_where_the_network_takes_gray(tmp_path):
    given = network(channels=1, side=8)
    found = transfer.embeddings(given, shades.write(tmp_path / "data"), batch_size=4)
    images, labels = images_and_labels(data.load(f"folder:{tmp_path}/data", batch_size=4).test())
    np.testing.assert_array_equal(found.test_labels, labels)
    gray = np.round(images @ np.array([0.2989, 0.587, 0.114]))[..., None]
    np.testing.assert_allclose(found.test, by_hand(given, gray), atol=0.02)
    # Nobody else is given other channels than the images have.
    with pytest.raises(TfkdError, match=r"found images \(8, 8, 3\) of folder:.*wanted \(8, 8, 1\)"):
        features(given, ["pooled"], data.load(f"folder:{tmp_path}/data", batch_size=4))


def test_the_center_is_cut_out_for_a_network_that_was_evaluated_on_centers(tmp_path):
    given = dataclasses.replace(network(side=7), crop=data.CENTER)
    name = shades.write(tmp_path / "data")
    centers = data.load(name, image_size=7, augment="imagenet", batch_size=4)
    images, _ = images_and_labels(centers.test())
    found = transfer.embeddings(given, name, batch_size=4)
    np.testing.assert_allclose(found.test, by_hand(given, images), rtol=1e-5, atol=1e-6)
    whole = transfer.embeddings(dataclasses.replace(given, crop=None), name, batch_size=4)
    assert np.abs(found.test - whole.test).max() > 1e-3
    assert len(transfer.embeddings(given, "digits", classes=["1", "2"]).test) > 0


def test_a_network_of_any_size_is_told_the_size_and_the_crop(tmp_path):
    given, name = network(side=None), shades.write(tmp_path / "data")
    with pytest.raises(TfkdError, match="found a network of any image size, wanted image_size"):
        transfer.embeddings(given, name)
    large = data.load(name, image_size=11, augment="imagenet", batch_size=4)
    images, _ = images_and_labels(large.test())
    found = transfer.embeddings(given, name, image_size=11, crop=data.CENTER, batch_size=4)
    np.testing.assert_allclose(found.test, by_hand(given, images), rtol=1e-5, atol=1e-6)


def test_another_head_on_the_same_features_finds_them(tmp_path):
    given = network()
    other = keras.layers.Dense(7, name="logits")(given.model.get_layer("pooled").output)
    model = keras.Model(given.model.input, other, name=given.model.name)
    for each in (given, dataclasses.replace(given, model=model, name="tiny (another head)")):
        transfer.embeddings(each, "digits", classes=["1", "2"], cache=tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_feature_that_is_no_vector_or_not_finite_is_refused():
    with pytest.raises(TfkdError, match="tap 'maps' of 'tiny': found features of shape"):
        transfer.embeddings(network(), "digits", tap="maps")
    broken = network()
    broken.model.get_layer("maps").bias.assign([np.nan] * 5)
    with pytest.raises(TfkdError, match="features of 'tiny' on digits: found values that are not"):
        transfer.embeddings(broken, "digits")
