"""Taps and heads of tfkd's networks and of any other Keras model."""

from collections import Counter

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfkd import models
from tfkd.errors import TfkdError

IMAGES = np.random.default_rng(0).normal(size=(3, 8, 8, 3)).astype(np.float32)


def nested_model():
    """A sub-model in a sub-model, equal names at every level, and a layer called twice."""
    inner = keras.Sequential(
        [
            keras.Input((None, None, 3)),
            keras.layers.Conv2D(4, 3, name="conv"),
            models.BatchNormalization(name="norm"),
            keras.layers.ReLU(name="relu"),
        ],
        name="inner",
    )
    image = keras.Input((None, None, 3))
    features = keras.layers.Conv2D(5, 1, name="conv")(inner(image))
    backbone = keras.Model(image, features, name="backbone")
    image = keras.Input((8, 8, 3), name="image")
    pooled = keras.layers.GlobalAveragePooling2D(name="pool")(backbone(image))
    shared = keras.layers.Dense(5, name="shared")
    logits = shared(keras.layers.ReLU(name="relu")(shared(pooled)))
    return keras.Model(image, keras.layers.ReLU(name="last")(logits), name="user")


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__(name="subclassed")
        self.dense = keras.layers.Dense(4)

    def call(self, inputs, training=None):
        return self.dense(inputs)


def operations(function):
    """How often each kind of operation is in a traced function, but for the naming of outputs."""
    graph = function.get_concrete_function().graph
    return Counter(each.type for each in graph.get_operations() if each.type != "Identity")


def test_a_tapped_network_computes_the_logits_and_the_named_features():
    model = models.create("resnet8", 10, (8, 8, 3))
    taps = models.tapped(model, ["stem", "stage2", "pooled", "logits"])(IMAGES)
    assert list(taps) == ["stem", "stage2", "pooled", "logits"]
    np.testing.assert_array_equal(taps["logits"], model(IMAGES))
    part = keras.Model(model.input, model.get_layer("stage2").output)
    np.testing.assert_array_equal(taps["stage2"], part(IMAGES))


def test_taps_add_no_operation_and_no_weight():
    model = models.create("resnet8", 10, (8, 8, 3))
    tapped = models.tapped(model, [f"stage{stage}" for stage in (1, 2, 3)] + ["pre_pool", "logits"])
    plain = tf.function(lambda: model(IMAGES, training=True))
    with_taps = tf.function(lambda: tapped(IMAGES, training=True))
    assert operations(with_taps) == operations(plain)
    assert {id(each) for each in tapped.weights} == {id(each) for each in model.weights}


def test_pre_pool_becomes_no_operation():
    model = models.create("resnet8", 10, (8, 8, 3))
    image = model.input
    without = models.tapped(model, ["stage3"]).output["stage3"]
    without = model.get_layer("logits")(model.get_layer("pooled")(without))
    without = keras.Model(image, without)
    plain = tf.function(lambda: model(IMAGES, training=True))
    assert operations(plain) == operations(tf.function(lambda: without(IMAGES, training=True)))


def test_layers_that_no_tap_needs_are_not_computed():
    model = models.create("resnet8", 10, (8, 8, 3))
    stem = models.tapped(model, ["stem"])
    assert operations(tf.function(lambda: stem(IMAGES)))["Conv2D"] == 1


def test_taps_reach_into_sub_models_by_path():
    model = nested_model()
    names = ["backbone/inner/conv", "backbone/inner", "backbone/conv", "pool", "logits"]
    taps = models.tapped(model, names)(IMAGES)
    inner = model.get_layer("backbone").get_layer("inner")
    expected = inner.get_layer("conv")(IMAGES)
    np.testing.assert_allclose(taps["backbone/inner/conv"], expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(taps["backbone/inner"], inner(IMAGES), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        taps["pool"], taps["backbone/conv"].numpy().mean((1, 2)), rtol=1e-5, atol=1e-6
    )
    np.testing.assert_allclose(taps["logits"], model(IMAGES), rtol=1e-5, atol=1e-6)


def test_nested_taps_share_the_weights_and_the_statistics():
    model = nested_model()
    tapped = models.tapped(model, ["backbone/inner/conv", "backbone/conv", "logits"])
    assert {id(each) for each in tapped.weights} == {id(each) for each in model.weights}
    assert operations(tf.function(lambda: tapped(IMAGES, training=True))) == operations(
        tf.function(lambda: model(IMAGES, training=True))
    )
    norm = model.get_layer("backbone").get_layer("inner").get_layer("norm")
    taps = tapped(IMAGES, training=True)
    mean = taps["backbone/inner/conv"].numpy().mean((0, 1, 2))
    np.testing.assert_allclose(norm.moving_mean, 0.1 * mean, rtol=1e-4, atol=1e-6)


def test_tapping_leaves_the_model_as_it_was():
    model = nested_model()
    before = model(IMAGES)
    names = models.tap_names(model)
    models.tapped(model, ["backbone/inner/conv", "logits"])
    models.head(model, "backbone/inner/conv")
    assert models.tap_names(model) == names
    np.testing.assert_array_equal(model(IMAGES), before)
    assert model.get_layer("backbone").trainable


def test_shapes_are_those_of_the_outer_image_and_have_no_batch_axis():
    model = nested_model()
    names = ["backbone/inner/conv", "backbone", "shared:1", "logits"]
    assert models.tap_shapes(model, names) == {
        "backbone/inner/conv": (6, 6, 4),
        "backbone": (6, 6, 5),
        "shared:1": (5,),
        "logits": (5,),
    }
    taps = models.tapped(model, names)(IMAGES)
    for name, shape in models.tap_shapes(model, names).items():
        assert taps[name].shape[1:] == shape


def test_names_are_listed_from_input_to_output():
    assert models.tap_names(nested_model()) == (
        "backbone",
        "backbone/inner",
        "backbone/inner/conv",
        "backbone/inner/norm",
        "backbone/inner/relu",
        "backbone/conv",
        "pool",
        "shared:1",
        "relu",
        "shared:2",
        "last",
        "logits",
    )


def test_every_listed_name_can_be_tapped():
    model = nested_model()
    names = models.tap_names(model)
    taps = models.tapped(model, names)(IMAGES)
    assert set(taps) == set(names)


def test_a_layer_called_twice_needs_the_number_of_the_call():
    model = nested_model()
    with pytest.raises(TfkdError, match="'shared'.*found 2 calls.*shared:1, shared:2"):
        models.tapped(model, ["shared"])
    taps = models.tapped(model, ["pool", "shared:1", "shared:2"])(IMAGES)
    shared = model.get_layer("shared")
    first = shared(taps["pool"])
    np.testing.assert_allclose(taps["shared:1"], first, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(taps["shared:2"], shared(tf.nn.relu(first)), rtol=1e-5, atol=1e-6)


def test_calls_are_numbered_as_they_were_made_also_on_parallel_branches():
    one, two = keras.Input((3,), name="one"), keras.Input((3,), name="two")
    shared = keras.layers.Dense(2, name="shared")
    second_branch_first = shared(two)
    model = keras.Model([one, two], shared(one) - second_branch_first)
    taps = models.tapped(model, ["shared:1"])([np.zeros((1, 3)), np.ones((1, 3))])
    np.testing.assert_allclose(taps["shared:1"], shared(np.ones((1, 3))))


def test_a_sub_model_called_twice_needs_the_number_of_the_call():
    image = keras.Input((4,))
    tower = keras.Model(image, keras.layers.Dense(4, name="dense")(image), name="tower")
    image = keras.Input((4,))
    model = keras.Model(image, tower(tower(image)))
    with pytest.raises(TfkdError, match="found 2 calls.*tower:1/dense, tower:2/dense"):
        models.tapped(model, ["tower/dense"])
    taps = models.tapped(model, ["tower:1/dense", "tower:2/dense", "logits"])(np.ones((1, 4)))
    dense = tower.get_layer("dense")
    np.testing.assert_allclose(taps["tower:1/dense"], dense(np.ones((1, 4))), rtol=1e-6)
    np.testing.assert_allclose(taps["tower:2/dense"], taps["logits"], rtol=1e-6)


def test_the_only_call_may_be_called_the_first():
    model = models.create("resnet8", 10, (8, 8, 3))
    assert list(models.tapped(model, ["stem:1"])(IMAGES)) == ["stem:1"]


def test_a_wrong_name_is_answered_with_the_nearest_and_all_there_are():
    model = models.create("resnet8", 10, (8, 8, 3))
    message = r"tap of model 'resnet8' 'stages1'; did you mean 'stage1'\? \(known: .*pre_pool"
    with pytest.raises(TfkdError, match=message):
        models.tapped(model, ["stages1"])
    with pytest.raises(TfkdError, match="did you mean 'backbone/inner/conv'"):
        models.tap_shapes(nested_model(), ["inner/conv"])


@pytest.mark.parametrize("names", ["stage1", [], ()])
def test_names_must_be_a_list_with_something_in_it(names):
    with pytest.raises(TfkdError, match="wanted"):
        models.tapped(models.create("resnet8", 10, (8, 8, 3)), names)


def test_logits_always_name_the_output():
    image = keras.Input((4,))
    early = keras.layers.Dense(2, name="logits")(image)
    model = keras.Model(image, keras.layers.Dense(3, name="final")(early))
    assert models.tapped(model, ["logits"])(np.ones((1, 4)))["logits"].shape == (1, 3)
    assert models.tap_shapes(model, ["logits", "final"]) == {"logits": (3,), "final": (3,)}


def test_a_model_with_several_outputs_is_tapped_by_its_layers():
    image = keras.Input((4,))
    exits = [keras.layers.Dense(2, name=f"exit{number}")(image) for number in (1, 2)]
    model = keras.Model(image, exits)
    assert models.tap_names(model) == ("exit1", "exit2")
    assert models.tapped(model, ["exit2"])(np.ones((1, 4)))["exit2"].shape == (1, 2)
    with pytest.raises(TfkdError, match="unknown tap.*'logits'"):
        models.tapped(model, ["logits"])


def test_gradients_flow_through_taps():
    model = models.create("resnet8", 10, (8, 8, 3))
    tapped = models.tapped(model, ["stage1", "logits"])
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(tapped(IMAGES, training=True)["stage1"] ** 2)
    gradient = tape.gradient(loss, model.get_layer("stem_conv").kernel.value)
    assert np.abs(gradient).max() > 0


def test_of_a_subclassed_model_only_the_logits_can_be_tapped():
    model = Subclassed()
    assert models.tap_names(model) == ("logits",)
    tapped = models.tapped(model, ["logits"])
    np.testing.assert_array_equal(tapped(np.ones((2, 3)))["logits"], model(np.ones((2, 3))))
    assert tapped.weights[0] is model.weights[0]
    assert models.tap_shapes(model, ["logits"]) == {"logits": (4,)}
    with pytest.raises(TfkdError, match="'dense' of model 'subclassed': found a Subclassed"):
        models.tapped(model, ["dense"])
    with pytest.raises(TfkdError, match="'subclassed': found Subclassed.*wanted a functional"):
        models.head(model, "logits")


def test_shapes_of_a_subclassed_model_need_a_call_first():
    with pytest.raises(TfkdError, match="never called"):
        models.tap_shapes(Subclassed(), ["logits"])


def test_a_functional_model_with_a_call_of_its_own_counts_as_subclassed():
    class Scaled(keras.Model):
        def call(self, inputs, training=None):
            return 2 * super().call(inputs, training=training)

    image = keras.Input((3,))
    model = Scaled(image, keras.layers.Dense(2, name="dense")(image), name="scaled")
    assert not models.is_functional(model)
    assert models.tap_names(model) == ("logits",)


@pytest.mark.parametrize("start", ["stage2", "stage3_pre", "pre_pool", "pooled", "logits"])
def test_a_head_continues_from_its_tap(start):
    model = models.create("resnet8", 10, (8, 8, 3))
    head = models.head(model, start)
    taps = models.tapped(model, [start, "logits"])(IMAGES)
    np.testing.assert_allclose(head(taps[start]), taps["logits"], rtol=1e-5, atol=1e-6)
    own = {id(each) for each in model.weights}
    assert {id(each) for each in head.weights} <= own


def test_a_head_starts_at_pre_pool_and_holds_only_the_classifier():
    model = models.create("resnet8", 10, (8, 8, 3))
    head = models.head(model)
    assert head.input_shape == (None, 2, 2, 64)
    assert [id(each) for each in head.weights] == [
        id(each) for each in model.get_layer("logits").weights
    ]


def test_a_head_may_start_inside_a_sub_model():
    model = nested_model()
    taps = models.tapped(model, ["backbone/inner/conv", "logits"])(IMAGES)
    head = models.head(model, "backbone/inner/conv")
    np.testing.assert_allclose(
        head(taps["backbone/inner/conv"]), taps["logits"], rtol=1e-5, atol=1e-6
    )


def test_a_head_is_refused_where_the_logits_need_more():
    model = models.create("resnet8", 10, (8, 8, 3))
    with pytest.raises(TfkdError, match="'logits' needs more than 'stage1_block1_relu1'"):
        models.head(model, "stage1_block1_relu1")
    with pytest.raises(TfkdError, match="did you mean 'pre_pool'"):
        models.head(model, "prepool")
