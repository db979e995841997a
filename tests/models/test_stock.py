"""Copies in stock Keras layers, and that they load without tfkd."""

import subprocess
import sys

import keras
import numpy as np
import pytest

from tfkd import models
from tfkd.adder import AdderConv2D
from tfkd.errors import TfkdError

LOAD_WITHOUT_TFKD = """
import sys
sys.modules["tfkd"] = None  # Any import of it fails from here on.
import keras, numpy
model = keras.saving.load_model(sys.argv[1])
numpy.save(sys.argv[3], model(numpy.load(sys.argv[2]), training=False))
"""


def trained_a_little(model, images):
    """The model after its statistics have seen a few batches."""
    for _ in range(3):
        model(images, training=True)
    return model


@pytest.fixture
def images():
    return np.random.default_rng(0).normal(size=(4, 8, 8, 3)).astype(np.float32)


def test_a_stock_copy_has_the_same_outputs_weights_and_names(images):
    model = trained_a_little(models.create("resnet20", 10, (8, 8, 3)), images)
    copy = models.stock(model)
    assert all(type(layer).__module__.startswith("keras.") for layer in copy.layers)
    assert models.tap_names(copy) == models.tap_names(model)
    for one, other in zip(model.weights, copy.weights, strict=True):
        np.testing.assert_array_equal(one, other)
        assert one is not other
    expected = model(images, training=False).numpy()
    found = copy(images, training=False).numpy()
    assert np.abs(found - expected).max() <= 1e-6 * np.abs(expected).max()


def test_nested_and_frozen_layers_stay_nested_and_frozen(images):
    inner = models.create("resnet8", 10, (8, 8, 3))
    inner.get_layer("stem_conv").trainable = False
    image = keras.Input((8, 8, 3))
    model = trained_a_little(keras.Model(image, keras.layers.Dense(3)(inner(image))), images)
    copy = models.stock(model)
    assert not copy.get_layer("resnet8").get_layer("stem_conv").trainable
    assert len(copy.trainable_variables) == len(model.trainable_variables)
    expected = model(images, training=False).numpy()
    np.testing.assert_allclose(copy(images, training=False), expected, rtol=1e-5, atol=1e-6)


def test_an_adapted_normalization_layer_is_copied_with_its_statistics(images):
    normalization = keras.layers.Normalization()
    normalization.adapt(images * 3 + 1)
    image = keras.Input((8, 8, 3))
    model = keras.Model(image, normalization(image))
    np.testing.assert_allclose(models.stock(model)(images), model(images), rtol=1e-6)


def test_the_saved_copy_loads_in_a_process_without_tfkd(images, tmp_path):
    model = trained_a_little(models.create("resnet8", 10, (8, 8, 3)), images)
    models.stock(model).save(tmp_path / "student.keras")
    np.save(tmp_path / "images.npy", images)
    files = [str(tmp_path / name) for name in ("student.keras", "images.npy", "logits.npy")]
    subprocess.run([sys.executable, "-c", LOAD_WITHOUT_TFKD, *files], check=True, cwd=tmp_path)
    expected = model(images, training=False).numpy()
    found = np.load(tmp_path / "logits.npy")
    assert np.abs(found - expected).max() <= 1e-6 * np.abs(expected).max()


def test_a_layer_of_tfkd_inside_a_wrapper_is_named():
    image = keras.Input((2, 8, 8, 3))
    wrapped = keras.layers.TimeDistributed(models.BatchNormalization(name="norm"))
    with pytest.raises(TfkdError, match="'norm' of tfkd's class BatchNormalization"):
        models.stock(keras.Model(image, wrapped(image)))


def test_a_python_function_inside_a_wrapper_is_copied_and_stays_refused_in_files(tmp_path):
    doubled = keras.layers.TimeDistributed(keras.layers.Lambda(lambda images: images * 2))
    image = keras.Input((2, 3))
    model = keras.Model(image, doubled(image))
    images = np.ones((1, 2, 3), np.float32)
    np.testing.assert_array_equal(models.stock(model)(images), 2 * images)
    model.save(tmp_path / "model.keras")
    with pytest.raises(ValueError, match="disallowed by default"):
        keras.saving.load_model(tmp_path / "model.keras")


def test_an_error_of_a_layer_is_told_as_it_is():
    class Unclonable(keras.layers.Layer):
        @classmethod
        def from_config(cls, config):
            raise TypeError("not from a config")

        def call(self, inputs):
            return inputs

    image = keras.Input((3,))
    model = keras.Model(image, Unclonable(name="own")(image))
    with pytest.raises(TfkdError, match=r"'own': .* cannot be cloned \(not from a config\);"):
        models.stock(model)


def test_a_look_at_a_model_leaves_the_numbers_of_unnamed_layers_alone(tmp_path):
    """In a process of its own, as only the first look could change them."""
    script = (
        "import keras; from tfkd import models; "
        "assert not models.is_functional(keras.layers.Dense(1, name='own')); "
        "image = keras.Input((1,)); output = keras.layers.Dense(1)(image); "
        "print(image.name, output.name, keras.Model(image, output).name)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True
    )
    assert done.stdout.split() == ["keras_tensor", "keras_tensor_1", "functional"]


def test_a_subclassed_model_is_refused():
    class Subclassed(keras.Model):
        def call(self, inputs):
            return inputs

    with pytest.raises(TfkdError, match="found Subclassed.*wanted a functional"):
        models.stock(Subclassed())


def test_adder_layers_stay(tmp_path):
    model = models.create("resnet8", 3, (8, 8, 1), adder=True, widths=(4, 4, 4, 4))
    copy = models.stock(model)
    kinds = {layer.name: type(layer) for layer in copy.layers}
    assert kinds["stage1_block1_conv1"] is AdderConv2D
    assert kinds["stage1_block1_bn1"] is keras.layers.BatchNormalization
    copy.save(tmp_path / "network.keras")
    again = keras.models.load_model(tmp_path / "network.keras")
    images = np.random.default_rng(0).normal(size=(4, 8, 8, 1)).astype("float32")
    taps = [
        models.tapped(each, ["stage1_block1_conv1", "logits"])(images) for each in (model, again)
    ]
    for name, wanted in taps[0].items():
        np.testing.assert_allclose(taps[1][name], wanted, rtol=1e-5, atol=1e-5)
