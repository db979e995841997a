"""Folded copies against the models they were made of."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.models import families
from tests.models.families import shaken
from tfkd import models
from tfkd.errors import TfkdError

layers = keras.layers
IMAGES = np.random.default_rng(0).normal(size=(4, 8, 8, 3)).astype(np.float32)


def functional(layer_list, shape=(8, 8, 3)):
    """A model of layers in a row, the last of them flattened to logits."""
    image = keras.Input(shape, name="image")
    features = image
    for layer in layer_list:
        features = layer(features)
    return shaken(keras.Model(image, layers.Flatten()(features), name="user"))


def difference(model, folded, images=IMAGES):
    """The largest error in units of the largest output."""
    expected = model(images, training=False).numpy()
    return np.abs(expected - folded(images, training=False)).max() / np.abs(expected).max()


def kinds(model):
    return {layer.name: type(layer) for layer in model.layers}


@pytest.mark.parametrize("name", families.FAMILIES)
def test_a_folded_network_has_the_same_logits_and_names_and_normalizes_only_sums(name):
    model = families.trained(name)
    folded = models.fold(model)
    assert difference(model, folded, families.images(name)) <= 1e-5
    assert models.tap_names(folded) == models.tap_names(model)
    left = [each.name for each in folded.layers if isinstance(each, layers.BatchNormalization)]
    # The wide residual network normalizes before it convolves: its sums, and its stem.
    sums = [f"stage{stage}_block{block}_bn1" for stage in (1, 2, 3) for block in (1, 2)]
    assert left == ([*sums, "final_bn"] if name == "wrn_16_1" else [])


def test_folding_changes_the_outputs_of_nothing_that_is_tapped():
    model = shaken(models.create("resnet8", 10, (8, 8, 3)))
    names = ["stem", "stem_bn", "stage1_pre", "stage2", "stage2_block1_shortcut_bn", "pooled"]
    expected = models.tapped(model, names)(IMAGES)
    found = models.tapped(models.fold(model, keep=names), names)(IMAGES)
    for name in names:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-4, atol=1e-5)


def test_a_convolution_in_keep_is_left_alone_and_its_tap_stays():
    model = shaken(models.create("resnet8", 10, (8, 8, 3)))
    folded = models.fold(model, keep=["stage2_block1_conv1", "logits"])
    left = [each.name for each in folded.layers if isinstance(each, layers.BatchNormalization)]
    assert left == ["stage2_block1_bn1"]
    tap = ["stage2_block1_conv1"]
    expected, found = (models.tapped(each, tap)(IMAGES)[tap[0]] for each in (model, folded))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert difference(model, folded) <= 1e-5


def test_the_model_itself_is_not_changed():
    model = shaken(models.create("resnet8", 10, (8, 8, 3)))
    model.get_layer("stem_conv").trainable = False
    flags = [layer.trainable for layer in model.layers]
    weights = model.get_weights()
    folded = models.fold(model)
    assert [layer.trainable for layer in model.layers] == flags
    assert not {id(each) for each in folded.weights} & {id(each) for each in model.weights}
    assert folded.trainable_variables == []
    for variable in folded.weights:
        variable.assign(variable + 1)
    for before, after in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)


def test_folding_does_not_shift_the_random_numbers_that_follow():
    model = models.create("resnet8", 10, (8, 8, 3))
    drawn = []
    for copies in (0, 1):
        keras.utils.set_random_seed(3)
        for _ in range(copies):
            models.fold(model)
        drawn.append(models.create("resnet8", 10, (8, 8, 3)).get_weights())
    for one, other in zip(*drawn, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("normalization", [layers.BatchNormalization, models.BatchNormalization])
@pytest.mark.parametrize(
    "before",
    [
        layers.Conv2D(6, 3, name="before"),
        layers.Conv2D(6, 3, use_bias=False, strides=2, name="before"),
        layers.Conv2D(6, 3, groups=3, name="before"),
        layers.DepthwiseConv2D(3, depth_multiplier=2, name="before"),
        layers.Conv2DTranspose(6, 3, strides=2, name="before"),
        layers.SeparableConv2D(6, 3, name="before"),
        layers.Dense(6, name="before"),
    ],
    ids=lambda layer: f"{type(layer).__name__}{layer.get_config().get('groups', '')}",
)
@pytest.mark.parametrize("settings", [{}, {"scale": False}, {"center": False}])
def test_every_linear_layer_takes_a_batch_normalization(before, normalization, settings):
    before = type(before).from_config(before.get_config())
    model = functional([before, normalization(name="norm", **settings), layers.ReLU()])
    folded = models.fold(model)
    assert kinds(folded)["norm"] is layers.Identity
    assert kinds(folded)["before"] is type(before)
    assert difference(model, folded) <= 1e-5


def test_one_and_three_dimensional_convolutions_fold_too():
    for shape, layer in [
        ((9, 3), layers.Conv1D(4, 3)),
        ((9, 3), layers.DepthwiseConv1D(3, depth_multiplier=2)),
        ((9, 3), layers.SeparableConv1D(4, 3)),
        ((9, 3), layers.Conv1DTranspose(4, 3)),
        ((5, 5, 5, 3), layers.Conv3D(4, 3)),
        ((5, 5, 5, 3), layers.Conv3DTranspose(4, 3)),
    ]:
        model = functional([layer, models.BatchNormalization(name="norm")], shape)
        images = np.random.default_rng(0).normal(size=(2, *shape)).astype(np.float32)
        folded = models.fold(model)
        assert kinds(folded)["norm"] is layers.Identity
        assert difference(model, folded, images) <= 1e-5


@pytest.mark.parametrize(
    "row",
    [
        [layers.Conv2D(6, 3, activation="relu"), layers.BatchNormalization(name="norm")],
        [layers.Conv2D(6, 3), layers.ReLU(), layers.BatchNormalization(name="norm")],
        [layers.Conv2D(6, 3), layers.BatchNormalization(axis=1, name="norm")],
        [layers.BatchNormalization(name="norm"), layers.Conv2D(6, 3)],
        [layers.MaxPooling2D(2), layers.BatchNormalization(name="norm")],
    ],
    ids=["activation", "relu between", "other axis", "first", "pooling"],
)
def test_layers_that_cannot_be_folded_are_left_alone(row):
    model = functional([type(each).from_config(each.get_config()) for each in row])
    folded = models.fold(model)
    assert kinds(folded)["norm"] is layers.BatchNormalization
    assert difference(model, folded) <= 1e-5


def test_a_batch_normalization_of_tfkd_that_stays_becomes_a_stock_one():
    model = functional([layers.MaxPooling2D(2), models.BatchNormalization(name="norm")])
    folded = models.fold(model)
    assert kinds(folded)["norm"] is layers.BatchNormalization
    assert difference(model, folded) <= 1e-5


def user_model():
    """Nested, shared and branching: what a user's own network may look like."""
    image = keras.Input((None, None, 3))
    features = layers.Conv2D(6, 3, padding="same", name="conv")(image)
    features = models.BatchNormalization(name="norm")(features)
    features = layers.ReLU(name="relu")(features)
    features = layers.DepthwiseConv2D(3, padding="same", name="depthwise")(features)
    features = layers.BatchNormalization(scale=False, name="depthwise_norm")(features)
    backbone = keras.Model(image, features, name="backbone")

    image = keras.Input((8, 8, 3), name="image")
    features = backbone(image)
    shared, shared_norm = layers.Conv2D(6, 1, name="shared"), layers.BatchNormalization(name="both")
    left, right = (shared_norm(shared(each)) for each in (features, layers.ReLU()(features)))
    # Both a batch normalization and a sum read this convolution.
    forked = layers.Conv2D(6, 1, name="forked")(left + right)
    normed = models.BatchNormalization(center=False, name="forked_norm")(forked)
    features = layers.GlobalAveragePooling2D()(layers.Add()([forked, normed]))
    features = layers.Dense(7, name="dense")(features)
    features = models.BatchNormalization(name="dense_norm")(features)
    return shaken(keras.Model(image, layers.Dense(5, name="logits")(features), name="user"))


def test_a_users_own_network_folds_where_it_can():
    model = user_model()
    folded = models.fold(model)
    assert difference(model, folded) <= 1e-5
    outer, inner = kinds(folded), kinds(folded.get_layer("backbone"))
    assert inner["norm"] is inner["depthwise_norm"] is layers.Identity
    assert outer["dense_norm"] is layers.Identity
    assert outer["both"] is outer["forked_norm"] is layers.BatchNormalization
    assert set(models.tap_names(folded)) >= {"backbone/conv", "shared:2", "logits"}
    assert models.tap_names(folded) == models.tap_names(model)


def test_keep_reaches_into_sub_models():
    model = user_model()
    folded = models.fold(model, keep=["backbone/depthwise"])
    inner = kinds(folded.get_layer("backbone"))
    assert inner["norm"] is layers.Identity
    assert inner["depthwise_norm"] is layers.BatchNormalization
    tap = "backbone/depthwise"
    expected, found = (models.tapped(each, [tap])(IMAGES)[tap] for each in (model, folded))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_a_sub_model_called_twice_is_folded_once_for_both():
    image = keras.Input((8, 8, 3))
    features = models.BatchNormalization(name="norm")(layers.Conv2D(3, 1, name="conv")(image))
    block = keras.Model(image, features, name="block")
    image = keras.Input((8, 8, 3))
    model = shaken(keras.Model(image, layers.Flatten()(block(block(image)))))
    folded = models.fold(model)
    assert kinds(folded.get_layer("block"))["norm"] is layers.Identity
    assert difference(model, folded) <= 1e-5


def test_a_layer_that_two_graphs_read_is_left_alone():
    image = keras.Input((8, 8, 3))
    raw = layers.Conv2D(3, 1, name="conv")(image)
    normed = models.BatchNormalization(name="norm")(raw)
    whole = keras.Model(image, normed, name="whole")
    part = keras.Model(image, raw, name="part")
    image = keras.Input((8, 8, 3))
    model = shaken(keras.Model(image, layers.Flatten()(whole(image) + part(image))))
    assert difference(model, models.fold(model)) <= 1e-5


def test_a_batch_normalization_that_is_called_twice_is_left_alone():
    image = keras.Input((8, 8, 3))
    norm = models.BatchNormalization(name="norm")
    summed = norm(layers.Conv2D(3, 1, name="conv")(image)) + norm(layers.ReLU()(image))
    model = shaken(keras.Model(image, layers.Flatten()(summed)))
    folded = models.fold(model)
    assert kinds(folded)["norm"] is layers.BatchNormalization
    assert difference(model, folded) <= 1e-5


def test_a_convolution_that_is_also_an_output_is_left_alone():
    image = keras.Input((8, 8, 3))
    raw = layers.Conv2D(3, 1, name="conv")(image)
    model = shaken(keras.Model(image, [raw, models.BatchNormalization(name="norm")(raw)]))
    folded = models.fold(model)
    for expected, found in zip(model(IMAGES), folded(IMAGES), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_a_batch_normalization_that_always_trains_is_left_alone():
    image = keras.Input((8, 8, 3))
    features = layers.Conv2D(3, 1)(image)
    features = models.BatchNormalization(name="norm")(features, training=True)
    model = keras.Model(image, layers.Flatten()(features))
    assert kinds(models.fold(model))["norm"] is layers.BatchNormalization


def test_a_sequential_model_and_a_lambda_layer_are_copied():
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Lambda(lambda images: images * 2.0),
            layers.Conv2D(4, 3),
            models.BatchNormalization(name="norm"),
            layers.Dropout(0.5),
            layers.Flatten(),
            layers.Dense(3),
        ]
    )
    folded = models.fold(shaken(model))
    assert kinds(folded)["norm"] is layers.Identity
    assert difference(model, folded) <= 1e-5


def test_a_bfloat16_copy_stores_and_computes_in_it_but_gives_float32_logits():
    model = shaken(models.create("resnet20", 10, (8, 8, 3)))
    folded = models.fold(model, dtype="bfloat16")
    taps = models.tapped(folded, ["stage3", "logits"])(IMAGES)
    assert taps["stage3"].dtype == tf.bfloat16
    assert taps["logits"].dtype == tf.float32
    assert folded.get_layer("stage1_block1_conv1").kernel.dtype == "bfloat16"
    assert folded.get_layer("logits").kernel.dtype == "float32"
    assert 1e-5 < difference(model, folded) < 0.05


def test_a_bfloat16_copy_of_a_users_network_keeps_statistics_in_float32():
    model = user_model()
    folded = models.fold(model, dtype="bfloat16")
    assert folded.output.dtype == "float32"
    assert folded.get_layer("both").moving_variance.dtype == "float32"
    assert difference(model, folded) < 0.05


def test_half_precision_outputs_are_cast_to_float32():
    row = [layers.Conv2D(6, 3, dtype="mixed_bfloat16"), layers.ReLU(dtype="mixed_bfloat16")]
    image = keras.Input((8, 8, 3))
    model = keras.Model(image, row[1](row[0](image)))
    assert model.output.dtype == "bfloat16"
    assert models.fold(model).output.dtype == "float32"
    assert models.fold(model, dtype="float32").layers[1].compute_dtype == "float32"


def test_wrong_arguments_are_refused():
    model = models.create("resnet8", 10, (8, 8, 3))
    with pytest.raises(TfkdError, match="did you mean 'stage1'"):
        models.fold(model, keep=["stages1"])
    with pytest.raises(TfkdError, match="found dtype='int8'"):
        models.fold(model, dtype="int8")

    class Subclassed(keras.Model):
        def call(self, inputs):
            return inputs

    with pytest.raises(TfkdError, match="found Subclassed.*wanted a functional"):
        models.fold(Subclassed())


def test_a_layer_that_cannot_be_cloned_is_named():
    class Scale(layers.Layer):
        def __init__(self, factor):
            super().__init__(name="scale")
            self.factor = factor

        def call(self, inputs):
            return inputs * self.factor

    with pytest.raises(TfkdError, match="'scale': found a Scale that cannot be cloned"):
        models.fold(functional([Scale(2.0)]))


def test_calls_of_a_shared_layer_keep_their_numbers():
    image = keras.Input((8, 8, 3))
    shared = layers.Conv2D(3, 1, name="shared")
    # The first call ends near the output, the second far from it.
    first = shared(image)
    second = layers.ReLU()(layers.ReLU()(shared(layers.ReLU()(image))))
    model = keras.Model(image, layers.Flatten()(first + second))
    taps = ["shared:1", "shared:2"]
    expected = models.tapped(model, taps)(IMAGES)
    found = models.tapped(models.fold(model), taps)(IMAGES)
    for tap in taps:
        np.testing.assert_allclose(found[tap], expected[tap], rtol=1e-5, atol=1e-6)
