"""The label loss of the user: its settings count, or one line refuses them."""

import functools
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfkd
from tfkd import tasks

Classification = tasks.Classification
LABELS = np.array([0, 3, 1, 2, 3])
DENSE = np.eye(4, dtype="float32")[LABELS]
LOGITS = np.random.default_rng(0).normal(size=(5, 4)).astype("float32")


def of_numbers(**settings):
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True, **settings)


def refused(words, function, *arguments):
    with pytest.raises(tfkd.TfkdError) as caught:
        function(*arguments)
    assert words in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("reduction", ["sum", "none", None, "mean_with_sample_weight"])
def test_another_reduction_is_refused(reduction):
    words = f"SparseCategoricalCrossentropy: found reduction={reduction!r}, wanted 'sum_over_batch"
    refused(words, Classification, of_numbers(reduction=reduction))


def test_losses_that_leave_out_samples_are_refused():
    refused("found ignore_class=3, wanted None", Classification, of_numbers(ignore_class=3))
    masked = functools.partial(
        keras.losses.sparse_categorical_crossentropy, from_logits=True, ignore_class=3
    )
    batch, outputs = {"label": tf.constant(LABELS)}, {"logits": tf.constant(LOGITS)}
    words = "leaves out samples by a mask, wanted one that counts all"
    refused(words, Classification(masked).label_loss, batch, outputs)


@pytest.mark.parametrize(
    "loss", ["kl_divergence", keras.losses.KLDivergence(), keras.losses.Dice(), "poisson"]
)
def test_losses_that_have_no_form_for_logits_are_refused(loss):
    refused("found a loss of probabilities, wanted one of logits", Classification, loss)


@pytest.mark.parametrize("loss", [["mean_squared_error"], "softmax", {"logits": "mse"}])
def test_what_is_no_loss_is_refused(loss):
    refused("wanted one Keras loss: a name, a function or an object", Classification, loss)


@pytest.mark.parametrize(
    "loss",
    [
        keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.3),
        keras.losses.CategoricalFocalCrossentropy(from_logits=True, alpha=0.5, gamma=3.0),
        keras.losses.BinaryCrossentropy(from_logits=True, reduction="mean"),
        keras.losses.Huber(delta=0.1, dtype="bfloat16"),
        "mean_squared_error",
    ],
)
def test_the_settings_of_a_loss_count(loss):
    values = Classification(loss).label_loss({"label": DENSE}, {"logits": tf.constant(LOGITS)})
    assert values.shape == (5,) and values.dtype == tf.float32
    found = tf.cast(keras.losses.get(loss)(tf.constant(DENSE), tf.constant(LOGITS)), tf.float32)
    exact = 3e-2 if getattr(loss, "dtype", None) == "bfloat16" else 1e-6
    np.testing.assert_allclose(np.mean(values), np.mean(found), rtol=exact)


def test_labels_of_another_form_than_a_loss_of_keras_takes_are_refused():
    dense, numbers = tf.TensorSpec((None, 4)), tf.TensorSpec((None,), tf.int32)
    for loss, spec, words in (
        ("mean_squared_error", numbers, "mean_squared_error: found class numbers, wanted dense"),
        (of_numbers(), dense, "SparseCategoricalCrossentropy: found dense labels (batch, classes)"),
    ):
        refused(words, Classification(loss).check_batch, {"label": spec}, {"classes": 4})
    Classification("mean_squared_error").check_batch({"label": dense}, {"classes": 4})
    Classification(of_numbers()).check_batch({"label": numbers}, {"classes": 4})


class Own(tfkd.Objective):
    """A method with a label loss of its own."""

    replaces_label_loss = True

    def compute(self, context):
        return context.mean(tf.square(context.outputs("student")["logits"]))


def test_a_loss_that_a_method_replaces_is_told(network):
    told = "found a label loss, but own has one of its own in its place: .* trains nothing"
    distiller = tfkd.Distiller(None, network(), Own())
    with warnings.catch_warnings():
        warnings.simplefilter("error", tfkd.TfkdWarning)
        distiller.compile()
    with pytest.warns(tfkd.TfkdWarning, match=told):
        distiller.compile(loss=of_numbers())
    distiller = tfkd.Distiller(None, network(), Own(), task=Classification(of_numbers()))
    with pytest.warns(tfkd.TfkdWarning, match=told):
        distiller.compile()
