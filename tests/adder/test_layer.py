"""The Keras layer: shapes, configuration, saving, precision, replicas, optimizers."""

import contextlib
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.adder import adder_oracles as oracles
from tfkd import models
from tfkd.adder import AdderConv2D
from tfkd.errors import TfkdError

RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.normal(size=(8, 6, 6, 2)).astype("float32")
TARGETS = RANDOM.normal(size=(8, 3)).astype("float32")


def network(policy="float32", eta=0.2):
    """Two adder layers with normalization, and a linear layer."""
    image = keras.Input((6, 6, 2))
    features = AdderConv2D(4, 3, strides=2, eta=eta, dtype=policy, name="first")(image)
    features = models.BatchNormalization(dtype=policy)(features)
    features = AdderConv2D(4, (3, 1), padding="valid", eta=eta, dtype=policy, name="second")(
        features
    )
    features = models.BatchNormalization(dtype=policy)(features)
    features = keras.layers.GlobalAveragePooling2D(dtype="float32")(features)
    return keras.Model(image, keras.layers.Dense(3)(features))


@pytest.mark.parametrize("stride", oracles.CASES)
def test_same_padding_is_symmetric_at_every_stride(stride):
    layer = AdderConv2D(1, 3, strides=stride)
    layer.build((None, 4, 4, 1))
    layer.kernel.assign(oracles.KERNEL)
    found = layer(oracles.IMAGE.astype("float32"))
    np.testing.assert_allclose(found[0, ..., 0], oracles.CASES[stride]["outputs"], atol=1e-5)


@pytest.mark.parametrize(
    "settings, shape, wanted",
    [
        ({"kernel_size": 3}, (None, 8, 7, 2), (None, 8, 7, 5)),
        ({"kernel_size": 3, "strides": 2}, (4, 8, 7, 2), (4, 4, 4, 5)),
        ({"kernel_size": (5, 1), "strides": (1, 3)}, (1, 8, 7, 2), (1, 8, 3, 5)),
        ({"kernel_size": 1, "strides": 2}, (1, 8, 7, 2), (1, 4, 4, 5)),
        ({"kernel_size": (2, 4), "padding": "valid"}, (2, None, 9, 2), (2, None, 6, 5)),
    ],
)
def test_output_shape(settings, shape, wanted):
    layer = AdderConv2D(5, **settings)
    assert layer.compute_output_shape(shape) == wanted
    assert layer(keras.KerasTensor(shape)).shape == wanted
    batch = tf.zeros([size or 3 for size in shape])
    assert layer(batch).shape == tuple(size or of for size, of in zip(wanted, layer(batch).shape))


def test_the_bias_is_added():
    layer = AdderConv2D(2, 1, use_bias=True, bias_initializer=keras.initializers.Constant(3.0))
    plain = AdderConv2D(2, 1)
    plain.build(IMAGES.shape)
    layer.build(IMAGES.shape)
    layer.kernel.assign(plain.kernel)
    np.testing.assert_allclose(layer(IMAGES), plain(IMAGES) + 3, atol=1e-6)


def test_filters_start_normal_with_deviation_one():
    layer = AdderConv2D(64, 3)
    layer.build((None, 8, 8, 64))
    kernel = layer.kernel.numpy()
    assert kernel.mean() == pytest.approx(0, abs=0.02)
    assert kernel.std() == pytest.approx(1, abs=0.02)


def test_configuration_makes_an_equal_layer():
    layer = AdderConv2D(
        3,
        (3, 5),
        strides=(2, 1),
        padding="valid",
        use_bias=True,
        eta=0.1,
        kernel_initializer="glorot_normal",
        bias_initializer="ones",
        kernel_regularizer=keras.regularizers.L2(0.25),
        bias_regularizer="l1",
        name="adder",
        dtype="mixed_bfloat16",
    )
    again = AdderConv2D.from_config(layer.get_config())
    assert again.get_config() == layer.get_config()
    assert (again.strides, again.eta, again.kernel_regularizer.l2) == ((2, 1), 0.1, 0.25)
    assert AdderConv2D.from_config({**layer.get_config(), "eta": None}).eta is None


def test_a_saved_network_loads_in_another_process_that_imports_tfkd(tmp_path):
    model = network()
    model.save(tmp_path / "network.keras")
    np.save(tmp_path / "images.npy", IMAGES)
    script = (
        "import sys, keras, tfkd, numpy as np; folder = sys.argv[1]; "
        "model = keras.models.load_model(folder + '/network.keras'); "
        "np.save(folder + '/found.npy', model(np.load(folder + '/images.npy')))"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True)
    found = np.load(tmp_path / "found.npy")
    np.testing.assert_allclose(found, model(IMAGES), rtol=1e-5, atol=1e-5)


def test_regularization_is_added_to_the_normalized_gradient():
    plain = AdderConv2D(3, 3)
    decayed = AdderConv2D(3, 3, kernel_regularizer=keras.regularizers.L2(0.5))
    found = []
    for layer in (plain, decayed):
        layer.build(IMAGES.shape)
        layer.kernel.assign(plain.kernel)
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.square(layer(IMAGES))) + sum(layer.losses)
        found.append(tape.gradient(loss, layer.kernel.value))
    np.testing.assert_allclose(found[1], found[0] + plain.kernel, atol=1e-5)


def test_every_kernel_gradient_has_the_published_size():
    model = network()
    for scale in (1.0, 1e-6):
        with tf.GradientTape() as tape:
            loss = scale * tf.reduce_mean(tf.square(model(IMAGES, training=True) - TARGETS))
        kernels = [model.get_layer(name).kernel for name in ("first", "second")]
        for gradient in tape.gradient(loss, [kernel.value for kernel in kernels]):
            assert np.sqrt(np.mean(np.square(gradient))) == pytest.approx(0.2, rel=1e-5)


def step(model):
    """The values of a model's weights after one step of plain gradient descent by Keras' fit."""
    model.compile(keras.optimizers.SGD(0.1), loss="mse")
    model.fit(IMAGES, TARGETS, batch_size=8, shuffle=False, verbose=0)
    return model.get_weights()


def test_two_replicas_make_the_step_of_one(two_replicas):
    found, start = [], network().get_weights()
    for scope in (contextlib.nullcontext(), two_replicas.scope()):
        with scope:
            model = network()
            model.set_weights(start)
            model.compile(keras.optimizers.SGD(0.1, momentum=0.9), loss="mse")
        # Images that pull the replicas' kernels to different sides.
        images = IMAGES * np.linspace(-2, 2, 8, dtype="float32")[:, None, None, None]
        model.fit(images, TARGETS, batch_size=8, epochs=2, shuffle=False, verbose=0)
        found.append(model.get_weights())
    one, two = found
    assert np.abs(one[0] - start[0]).max() > 1e-2
    for first, second in zip(one, two, strict=True):
        np.testing.assert_allclose(second, first, rtol=2e-5, atol=2e-5)


def test_bfloat16_sums_in_float32_over_float32_filters():
    model = network("mixed_bfloat16")
    layer = model.get_layer("first")
    assert layer.kernel.dtype == "float32"
    x = tf.cast(IMAGES, "bfloat16")
    wanted = AdderConv2D.from_config({**layer.get_config(), "dtype": "float32"})
    wanted.build(IMAGES.shape)
    wanted.kernel.assign(layer.kernel)
    assert layer(x).dtype == tf.bfloat16
    rounded = tf.cast(wanted(tf.cast(x, "float32")), "bfloat16")
    np.testing.assert_array_equal(layer(x), rounded)
    before = model.get_weights()
    after = step(model)
    moved = np.sqrt(np.mean(np.square(after[0] - before[0])))
    assert moved == pytest.approx(0.1 * 0.2, rel=1e-4)


def test_float16_infers_but_does_not_train():
    model = network("mixed_float16")
    assert np.isfinite(model(IMAGES, training=False)).all()
    with pytest.raises(TfkdError, match="found training in float16, .* wanted float32 or mixed_bf"):
        step(model)
    step(network("mixed_float16", eta=None))


def test_xla_is_never_tried():
    layer = AdderConv2D(2, 3)
    assert layer.supports_jit is False
    model = network()
    with pytest.warns(UserWarning, match="doesn't support `jit_compile=True`"):
        model.compile(keras.optimizers.SGD(0.1), loss="mse", jit_compile=True)
    assert model.jit_compile is False


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"filters": 0}, "found filters=0, wanted whole numbers >= 1"),
        ({"filters": 2.5}, "found filters=2.5"),
        ({"kernel_size": (3, 3, 3)}, r"found kernel_size=\(3, 3, 3\)"),
        ({"kernel_size": 4}, "found kernel_size=.4, 4. with padding 'same', wanted odd sizes"),
        ({"strides": -1}, "found strides=-1"),
        ({"padding": "sam"}, "unknown padding of layer 'adder' 'sam'; did you mean 'same'"),
        ({"eta": 0.0}, "found eta=0.0, wanted > 0 or None"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(TfkdError, match=message):
        AdderConv2D(**{"filters": 2, "kernel_size": 3, "name": "adder", **settings})


def test_images_that_do_not_fit_are_refused():
    layer = AdderConv2D(2, 5, padding="valid", name="adder")
    with pytest.raises(TfkdError, match=r"found images \(4, 9\), wanted at least \(5, 5\)"):
        layer(keras.KerasTensor((None, 4, 9, 1)))
    with pytest.raises(TfkdError, match="wanted a fixed number of channels"):
        AdderConv2D(2, 3)(keras.KerasTensor((None, 4, 9, None)))
    layer = AdderConv2D(2, 3)
    layer.build((None, 9, 9, 3))
    with pytest.raises(ValueError, match="axis -1 of input shape to have value 3"):
        layer(tf.zeros((1, 9, 9, 2)))
