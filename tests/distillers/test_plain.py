"""Plain training is cross-entropy and nothing else; methods by name."""

import keras
import numpy as np
import pytest

import tfkd
from tfkd import distillers


def linear():
    return keras.Sequential([keras.Input((2, 2, 3)), keras.layers.Flatten(), keras.layers.Dense(4)])


def test_plain_is_what_keras_trains():
    images = np.random.default_rng(0).normal(size=(12, 2, 2, 3)).astype("float32")
    labels = np.arange(12) % 4
    stock, student = linear(), linear()
    student.set_weights(stock.get_weights())
    stock.compile(
        keras.optimizers.SGD(0.1, momentum=0.9),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    distiller = tfkd.Distiller(None, student, distillers.create("plain"))
    distiller.compile(keras.optimizers.SGD(0.1, momentum=0.9))
    settings = {"batch_size": 4, "epochs": 2, "shuffle": False, "verbose": 0}
    expected = stock.fit(images, labels, **settings).history["loss"]
    found = distiller.fit(images, labels, **settings).history
    np.testing.assert_allclose(found["loss"], expected, rtol=1e-6)
    assert set(found) == {
        "loss", "total_loss", "student_loss", "distillation_loss", "accuracy",
    }  # fmt: skip
    assert found["distillation_loss"] == [0.0, 0.0]
    for ours, theirs in zip(student.get_weights(), stock.get_weights()):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_plain_takes_dense_labels():
    images = np.random.default_rng(0).normal(size=(4, 2, 2, 3)).astype("float32")
    dense = np.random.default_rng(1).dirichlet(np.ones(4), 4).astype("float32")
    student = linear()
    distiller = tfkd.Distiller(None, student, distillers.Plain())
    distiller.compile()
    found = distiller.evaluate(images, dense, verbose=0, return_dict=True)
    logits = student(images).numpy().astype("float64")
    logs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(found["loss"], -(dense * logs).sum(axis=1).mean(), rtol=1e-5)
    assert found["accuracy"] == np.mean(logits.argmax(axis=1) == dense.argmax(axis=1))


def test_methods_by_name():
    assert {"kd", "plain"} <= set(distillers.names())
    made = distillers.create("kd", temperature=2.0, name="soft")
    assert isinstance(made, distillers.KD)
    assert (made.temperature, made.name) == (2.0, "soft")


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("kdd", {}, "unknown method 'kdd'; did you mean 'kd'"),
        ("kd", {"temprature": 2.0}, "unknown setting of method kd 'temprature'; did you mean"),
    ],
)
def test_unknown_method_or_setting(name, settings, message):
    with pytest.raises(tfkd.TfkdError, match=message):
        distillers.create(name, **settings)


def test_a_name_is_given_once():
    class Other:
        pass

    with pytest.raises(tfkd.TfkdError, match="'kd' is registered twice"):
        tfkd.register("kd")(Other)
