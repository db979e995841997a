"""Pieces of functional models and models composed of them."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfkd import TfkdError, models

IMAGES = np.random.default_rng(0).normal(size=(2, 16, 16, 3)).astype("float32")


@pytest.fixture
def model():
    return models.create("resnet8", 7, (16, 16, 3))


def pieces(model, **modes):
    ends = (
        ("first", None, "stage1"),
        ("second", "stage1", "stage2"),
        ("third", "stage2", "logits"),
    )
    return [
        models.segment(model, start, end, name=name, training=modes.get(name))
        for name, start, end in ends
    ]


def test_pieces_in_a_chain_are_the_model_over_the_same_weights(model):
    chain = models.chain(pieces(model), "whole")
    np.testing.assert_allclose(chain(IMAGES), model(IMAGES), rtol=1e-5, atol=1e-6)
    assert {id(v) for v in chain.variables} == {id(v) for v in model.variables}
    assert models.cost(chain).macs == models.cost(model).macs
    assert models.cost(chain).params == models.cost(model).params
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(chain(IMAGES, training=True) ** 2)
    gradients = tape.gradient(loss, [v.value for v in model.trainable_variables])
    assert all(gradient is not None for gradient in gradients)


def test_pieces_are_taps_of_a_chain(model):
    chain = models.chain(pieces(model), "whole")
    found = models.tapped(chain, ["first", "second", "first/stem", "logits"])(IMAGES)
    wanted = models.tapped(model, ["stage1", "stage2", "stem", "logits"])(IMAGES)
    for name, own in (("first", "stage1"), ("second", "stage2"), ("first/stem", "stem")):
        np.testing.assert_allclose(found[name], wanted[own], rtol=1e-5, atol=1e-6)


def with_dropout():
    image = keras.Input((16, 16, 3))
    hidden = keras.layers.Conv2D(4, 3, name="conv1")(image)
    hidden = keras.layers.BatchNormalization(name="norm1")(hidden)
    hidden = keras.layers.Dropout(0.5, name="drop1")(hidden)
    hidden = keras.layers.Conv2D(4, 3, name="conv2")(hidden)
    hidden = keras.layers.Dropout(0.5, name="drop2")(hidden)
    return keras.Model(image, hidden, name="dropped")


def test_a_frozen_piece_stays_in_inference_mode_inside_a_model_that_trains():
    model = with_dropout()
    frozen = models.segment(model, None, "drop1", name="frozen", training=False)
    live = models.segment(model, "drop1", "drop2", name="live")
    chain = models.chain([frozen, live], "both")
    before = [np.array(v) for v in frozen.non_trainable_variables]
    taps = models.tapped(chain, ["frozen", "frozen/norm1", "live"])(IMAGES, training=True)
    wanted = models.tapped(model, ["drop1", "norm1", "drop2"])(IMAGES, training=False)
    np.testing.assert_allclose(taps["frozen"], wanted["drop1"], rtol=1e-6)
    np.testing.assert_allclose(taps["frozen/norm1"], wanted["norm1"], rtol=1e-6)
    assert np.mean(taps["live"] == 0) > 0.3
    for variable, value in zip(frozen.non_trainable_variables, before, strict=True):
        np.testing.assert_array_equal(variable, value)


def test_ends_may_lie_inside_sub_models(model):
    outer = keras.Sequential([keras.Input((16, 16, 3)), model, keras.layers.Softmax(name="soft")])
    begin = models.segment(outer, None, "resnet8/stage1", name="begin")
    end = models.segment(outer, "resnet8/stage1", "logits", name="end")
    np.testing.assert_allclose(end(begin(IMAGES)), outer(IMAGES), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("start", "end", "message"),
    [
        ("stage1_block1_relu1", "logits", "'logits' needs more than 'stage1_block1_relu1'"),
        ("stage2", "stage1", "'stage1' needs more than 'stage2'"),
        ("stage9", "logits", "unknown tap of model 'resnet8' 'stage9'"),
        (None, "stage9", "unknown tap of model 'resnet8' 'stage9'"),
    ],
)
def test_pieces_that_cannot_be_cut_are_refused(start, end, message, model):
    with pytest.raises(TfkdError, match=message):
        models.segment(model, start, end, name="piece")


def test_chains_that_do_not_fit_are_refused(model):
    first, second, third = pieces(model)
    with pytest.raises(TfkdError, match="before segment 'third', wanted"):
        models.chain([first, third], "wrong")
    with pytest.raises(
        TfkdError, match="found the segments first twice, wanted names of their own"
    ):
        models.chain([first, first], "wrong")
    with pytest.raises(TfkdError, match="found no segments, wanted one or more"):
        models.chain([], "wrong")
    with pytest.raises(TfkdError, match="found training=True, wanted False or None"):
        models.segment(model, None, "stage1", name="piece", training=True)
    with pytest.raises(TfkdError, match="found Network, wanted models such as segment"):
        models.chain([models.Network(first)], "wrong")
    with pytest.raises(TfkdError, match="segment 'a/b': found a slash in the name"):
        models.segment(model, None, "stage1", name="a/b")
    with pytest.raises(TfkdError, match="tap of model 'resnet8': found 5, wanted the name"):
        models.segment(model, 5, "stage1", name="piece")
