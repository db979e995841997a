"""Convolutional networks, tfkd's and others, converted to adder layers."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfkd
from tfkd import models
from tfkd.adder import AdderConv2D
from tfkd.errors import TfkdError, TfkdWarning

layers = keras.layers


def kinds(model):
    """The class of every layer but inputs, sub-models included, by its name."""
    flat = model._flatten_layers(include_self=False)
    return {
        layer.name: type(layer).__name__
        for layer in flat
        if not isinstance(layer, (layers.InputLayer, keras.Model))
    }


def test_a_converted_network_is_the_adder_form_of_the_registry():
    shape = (8, 8, 3)
    convolutional = models.create("resnet8", 3, shape, logit_normalization=True)
    converted = tfkd.adder.convert(convolutional)
    wanted = models.create("resnet8", 3, shape, adder=True)
    counts = [models.cost(each) for each in (converted, wanted)]
    assert counts[0].params == counts[1].params
    assert (counts[0].macs, counts[0].additions) == (counts[1].macs, counts[1].additions)
    found = {name: kind for name, kind in kinds(converted).items() if kind != "ZeroPadding2D"}
    assert found == kinds(wanted)
    # With the weights of the adder form it is the adder form, its padding at stride 2 included.
    for layer in wanted.layers:
        converted.get_layer(layer.name).set_weights(layer.get_weights())
    images = tf.random.normal((4, *shape))
    # Borders that a layer of its own pads are summed in another order; the statistics of a batch of
    # four magnify the rounding.
    for training, tolerance in ((False, 1e-6), (True, 1e-4)):
        np.testing.assert_allclose(
            converted(images, training=training), wanted(images, training=training), atol=tolerance
        )


def test_kept_layers_keep_their_weights_and_new_ones_start_fresh():
    model = models.create("resnet8", 3, (8, 8, 3))
    for layer in model.layers:
        layer.set_weights([np.full_like(value, 0.5) for value in layer.get_weights()])
    converted = tfkd.adder.convert(model)
    for name in ("stem_conv", "stem_bn", "logits"):
        for value in converted.get_layer(name).get_weights():
            np.testing.assert_array_equal(value, np.full_like(value, 0.5))
    kernel = converted.get_layer("stage1_block1_conv1").kernel.numpy()
    assert kernel.std() == pytest.approx(1, abs=0.1)
    np.testing.assert_array_equal(converted.get_layer("stage1_block1_bn1").gamma, np.ones(16))
    assert all(np.all(value == 0.5) for layer in model.layers for value in layer.get_weights())


def user_model():
    """No normalization, activations in the convolutions, a sub-model, and a 1x1 classifier."""
    image = keras.Input((9, 9, 3))
    features = layers.Conv2D(4, 3, padding="same", activation="relu", name="first")(image)
    inner = keras.Input((9, 9, 4))
    hidden = layers.Conv2D(6, 3, strides=2, padding="same", activation="relu", name="second")(inner)
    hidden = layers.Conv2D(6, 3, groups=2, padding="same", name="grouped")(hidden)
    hidden = layers.Conv2D(6, 3, dilation_rate=2, padding="same", name="dilated")(hidden)
    hidden = layers.DepthwiseConv2D(3, padding="same", name="depthwise")(hidden)
    features = keras.Model(inner, hidden, name="body")(features)
    features = layers.Conv2D(5, (1, 3), name="third")(features)
    features = layers.GlobalAveragePooling2D(keepdims=True)(features)
    logits = layers.Conv2D(7, 1, name="last")(features)
    return keras.Model(image, layers.Flatten()(logits))


def test_a_model_of_the_users():
    model = user_model()
    converted = tfkd.adder.convert(model)
    found, before = kinds(converted), kinds(model)
    changed = {name for name in before if found[name] != before[name]}
    assert changed == {"second", "third"}
    assert {found[name] for name in changed} == {"AdderConv2D"}
    added = {name: found[name] for name in set(found) - set(before)}
    assert added == {
        "second_bn": "BatchNormalization",
        "second_activation": "Activation",
        "third_bn": "BatchNormalization",
    }
    assert converted.output_shape == model.output_shape == (None, 7)
    second = next(layer for layer in converted._flatten_layers() if layer.name == "second")
    assert (second.strides, second.padding, second.use_bias) == ((2, 2), "same", False)
    logits = converted(np.ones((2, 9, 9, 3), "float32"), training=True)
    assert np.isfinite(logits).all()


def test_names_to_keep_take_the_place_of_the_first():
    found = kinds(tfkd.adder.convert(user_model(), keep=["third"], eta=0.5))
    assert (found["first"], found["second"], found["third"]) == (
        "AdderConv2D",
        "AdderConv2D",
        "Conv2D",
    )
    assert kinds(tfkd.adder.convert(user_model(), keep=()))["third"] == "AdderConv2D"
    assert tfkd.adder.convert(user_model(), eta=0.5).get_layer("third").eta == 0.5
    with pytest.raises(TfkdError, match="unknown tap of model .* 'thrid'; did you mean 'third'"):
        tfkd.adder.convert(user_model(), keep=["thrid"])


def test_a_shared_convolution_is_converted_once():
    image = keras.Input((4, 4, 2))
    shared = layers.Conv2D(2, 3, padding="same", name="shared")
    features = layers.Conv2D(2, 3, padding="same", name="stem")(image)
    features = shared(shared(features))
    model = keras.Model(image, layers.Dense(2)(layers.Flatten()(features)))
    converted = tfkd.adder.convert(model)
    assert sum(isinstance(layer, AdderConv2D) for layer in converted.layers) == 1
    assert len(converted.get_layer("shared")._inbound_nodes) == 2


def test_keras_applications():
    model = keras.applications.ResNet50(
        input_shape=(32, 32, 3), weights=None, classes=4, classifier_activation=None
    )
    converted = tfkd.adder.convert(model)
    cost, before = models.cost(converted), models.cost(model)
    assert cost.macs + cost.adder_additions // 2 == before.macs
    assert sum(isinstance(layer, AdderConv2D) for layer in converted.layers) == 52


def test_nothing_to_convert_is_an_error():
    image = keras.Input((4, 4, 1))
    model = keras.Model(image, layers.Dense(2)(layers.Flatten()(layers.Conv2D(1, 3)(image))))
    with pytest.raises(TfkdError, match="found no convolution besides stem and classifier"):
        tfkd.adder.convert(model)

    class Subclassed(keras.Model):
        pass

    with pytest.raises(TfkdError, match="wanted a functional model"):
        tfkd.adder.convert(Subclassed())


def ending_in(*after):
    image = keras.Input((4, 4, 1))
    features = AdderConv2D(2, 3, name="lonely")(image)
    for layer in after:
        features = layer(features)
    return keras.Model(image, features, name="small")


@pytest.mark.parametrize(
    "after",
    [
        [],
        [layers.ReLU()],
        [layers.MaxPooling2D(2), layers.ReLU(), layers.BatchNormalization()],
        [layers.Conv2D(2, 3)],
    ],
    ids=["nothing", "relu", "relu after pooling", "convolution"],
)
def test_adder_layers_without_normalization_are_warned_of(after):
    with pytest.warns(TfkdWarning, match="model 'small': found no normalization after .* lonely"):
        tfkd.adder.check_normalized(ending_in(*after))


@pytest.mark.filterwarnings("error::tfkd.errors.TfkdWarning")
@pytest.mark.parametrize(
    "after",
    [
        [layers.BatchNormalization()],
        [layers.Identity(), layers.AveragePooling2D(2), layers.GroupNormalization(1)],
    ],
    ids=["at once", "after pooling"],
)
def test_normalized_adder_layers_are_not_warned_of(after):
    tfkd.adder.check_normalized(ending_in(*after))
    tfkd.adder.check_normalized(models.create("resnet8", 3, (8, 8, 1), adder=True))
    tfkd.adder.check_normalized(tfkd.adder.convert(user_model()))
