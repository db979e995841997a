"""What must hold for a network of every family: stock copies, files, heads, gradients, sizes."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.models import families
from tfkd import models
from tfkd.errors import TfkdError

every_family = pytest.mark.parametrize("name", families.FAMILIES)
# Their shapes must be known, of the shuffles' only one side.
FIXED = ("vgg16_bn_imagenet", "shufflev1", "shufflev2")


@pytest.fixture
def bfloat16_policy():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    yield
    keras.config.set_dtype_policy(before)


@functools.cache
def stock(name):
    return models.stock(families.trained(name))


@every_family
def test_a_stock_copy_has_the_same_logits_and_taps(name):
    model, copy = families.trained(name), stock(name)
    assert all(type(layer).__module__.startswith("keras.") for layer in copy.layers)
    assert models.tap_names(copy) == models.tap_names(model)
    images = families.images(name)
    logits = model(images, training=False)
    assert families.difference(logits, copy(images, training=False)) <= 1e-5


# These have every class of layer between them.
@pytest.mark.parametrize("name", ["shufflev1", "shufflev2", "mobilenetv1", "vgg16_bn_imagenet"])
def test_the_file_of_a_stock_copy_has_the_same_logits_and_taps(name, tmp_path):
    stock(name).save(tmp_path / "student.keras")
    loaded = keras.saving.load_model(tmp_path / "student.keras")
    assert models.tap_names(loaded) == models.tap_names(stock(name))
    images = families.images(name)
    logits = stock(name)(images, training=False)
    np.testing.assert_array_equal(loaded(images, training=False), logits)


@every_family
def test_logits_are_linear_in_pooled_and_the_head_starts_at_pre_pool(name):
    model = families.trained(name)
    taps = models.tapped(model, ["pre_pool", "pooled", "logits"])(families.images(name))
    kernel, bias = (weight.numpy() for weight in model.get_layer("logits").weights)
    expected = taps["pooled"].numpy() @ kernel + bias
    assert families.difference(expected, taps["logits"]) <= 1e-5
    found = models.head(model)(taps["pre_pool"], training=False)
    assert families.difference(taps["logits"], found) <= 1e-5


@every_family
def test_a_half_precision_network_trains_every_variable_and_gives_float32_logits(
    name, bfloat16_policy
):
    side, _ = families.FAMILIES[name]
    open_shape = (side if name in FIXED else None, None if name != FIXED[0] else side, 3)
    model = families.fresh(name, shape=open_shape)
    tapped = models.tapped(model, ["pre_pool", "logits"])
    for size in (side,) if None not in open_shape[:1] else (side, side + 7):
        with tf.GradientTape() as tape:
            taps = tapped(np.ones((2, size, size, 3), np.float32), training=True)
            loss = tf.reduce_mean(taps["logits"] ** 2)
        assert (taps["pre_pool"].dtype, taps["logits"].dtype) == (tf.bfloat16, tf.float32)
        assert taps["logits"].shape == (2, families.CLASSES)
        gradients = tape.gradient(loss, [each.value for each in model.trainable_variables])
        assert all(np.isfinite(each).all() for each in gradients)


@every_family
def test_one_pixel_less_than_the_smallest_image_is_refused(name):
    smallest = {"resnet8": 4, "wrn_16_1": 4, "shufflev1": 8, "shufflev2": 8, "vgg8": 8}
    side = smallest.get(name, families.FAMILIES[name][0])
    with pytest.raises(TfkdError, match=f"{name}.*wanted an image of {side}x{side} pixels or more"):
        families.fresh(name, shape=(side, side - 1, 3))


@pytest.mark.parametrize("name", FIXED)
def test_where_sides_must_be_fixed_open_ones_are_refused(name):
    with pytest.raises(TfkdError, match=f"{name}.*found input_shape=.*None.*wanted a fixed height"):
        families.fresh(name, shape=(None, None, 3))


@pytest.mark.parametrize(
    ("name", "argument", "value"),
    [
        ("resnet18", "width", 0),
        ("resnet50_cifar", "width", 2.5),
        ("mobilenetv1", "width", 0.01),
        ("mobilenetv2", "width", "wide"),
        ("vgg16_imagenet", "hidden", 0),
        ("wrn", "depth", 15),
        ("wrn", "width", 0),
    ],
)
def test_a_wrong_argument_is_named(name, argument, value):
    with pytest.raises(TfkdError, match=f"{name}.*found {argument}={value!r}; wanted"):
        models.create(name, 10, (64, 64, 3), **{argument: value})
