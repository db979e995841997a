"""The published numbers of the logit methods, and what their tests share."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from tfkd.core import Context, Distiller, Spec
from tfkd.core.registry import create

FILE = json.loads((Path(__file__).parents[1] / "fixtures" / "oracles_logits.json").read_text())
TOLERANCES = {"float64": {"rtol": 0, "atol": 1e-9}, "float32": {"rtol": 1e-5, "atol": 1e-5}}
NUM_CLASSES = 4


def inputs(case: str, dtype="float64") -> dict[str, tf.Tensor]:
    """The logits of a case by name, and its labels."""
    values = {name: np.asarray(value) for name, value in FILE["cases"][case].items()}
    return {
        name: tf.constant(value, "int32" if name == "labels" else dtype)
        for name, value in values.items()
    }


def checks(method: str, **params) -> list[dict]:
    """The published checks of a method whose parameters include the given ones."""
    found = [
        each
        for each in FILE["methods"][method]["checks"]
        if all(each["params"][name] == value for name, value in params.items())
    ]
    assert found
    return found


def label(check: dict) -> str:
    """A short name of a check for pytest."""
    return "-".join([check["case"], *(str(value) for value in check["params"].values())])


def verify(check: dict, compute, dtype: str) -> None:
    """Compares all values and gradients of a check.

    Args:
        check: One of :func:`checks`.
        compute: ``compute(inputs, params)`` returns the numbers by the file's names, ``total``
            among them.
        dtype: ``float64`` or ``float32``.
    """
    given = inputs(check["case"], dtype)
    wanted = [name for name in check if name.startswith("grad_")]
    assert wanted and "total" in check["expected"]
    sources = [given[name.removeprefix("grad_")] for name in wanted]
    with tf.GradientTape() as tape:
        tape.watch(sources)
        found = compute(given, check["params"])
    assert set(found) == set(check["expected"])
    for name, value in check["expected"].items():
        np.testing.assert_allclose(found[name], value, **TOLERANCES[dtype], err_msg=name)
    for name, gradient in zip(wanted, tape.gradient(found["total"], sources), strict=True):
        np.testing.assert_allclose(gradient, check[name], **TOLERANCES[dtype], err_msg=name)


def gradients(function, *tensors) -> list[tf.Tensor | None]:
    """The gradients of the sum of a function to each of its arguments."""
    tensors = [tf.convert_to_tensor(each) for each in tensors]
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        value = tf.reduce_sum(function(*tensors))
    return tape.gradient(value, tensors)


def random_logits(rows: int = 6, classes: int = 5, scale: float = 2.0, seed: int = 0) -> tf.Tensor:
    """Logits in float64."""
    return tf.constant(np.random.default_rng(seed).normal(0, scale, (rows, classes)))


def extreme_logits(dtype: str, seed: int = 0) -> tf.Tensor:
    """Logits of +-1e4, with rows that are all equal and rows that name one class."""
    values = np.random.default_rng(seed).choice([-1e4, 1e4], (8, 5))
    values[0], values[1], values[2], values[3] = 1e4, -1e4, 0.0, [1e4, -1e4, -1e4, -1e4, -1e4]
    return tf.constant(values, dtype)


def context_of(outputs: dict, labels, *, sample_weight=None, training=True, epoch=0.0) -> Context:
    """A step whose networks gave these outputs on the main view: ``{network: {tap: value}}``."""
    batch = {"image": tf.zeros((len(labels), 2, 2, 1)), "label": tf.convert_to_tensor(labels)}
    if sample_weight is not None:
        batch["sample_weight"] = tf.constant(sample_weight, tf.float32)
    return Context(
        batch,
        training=training,
        epoch=tf.constant(epoch),
        epochs=tf.constant(4.0),
        step=tf.constant(0, tf.int64),
        seed=0,
        outputs={(network, "main"): taps for network, taps in outputs.items()},
        heads=lambda name: None,
    )


def spec_of(tap: str, shape: tuple, num_classes: int = 5) -> Spec:
    """A run whose student has one tap of this shape."""
    return Spec(
        num_classes=num_classes,
        image_shape=(2, 2, 1),
        shapes={("student", "main"): {tap: shape}},
        train_size=None,
        batch_size=None,
        seed=1,
        head=lambda name: None,
        network=lambda name: None,
    )


def network(name: str, width: int = 4) -> keras.Model:
    """A small network with the taps ``stage2``, ``pooled`` and ``logits``."""
    image = keras.Input((8, 8, 3), name="image")
    hidden = keras.layers.Conv2D(width, 3, strides=2, activation="relu", name="stage2")(image)
    hidden = keras.layers.Conv2D(2 * width, 3, activation="relu", name="pre_pool")(hidden)
    hidden = keras.layers.GlobalAveragePooling2D(name="pooled")(hidden)
    return keras.Model(image, keras.layers.Dense(NUM_CLASSES, name="logits")(hidden), name=name)


def distiller_of(method: str, *, teacher: bool = True, **settings) -> Distiller:
    """A distiller of a registered method on two small networks of fixed weights, compiled."""
    keras.utils.set_random_seed(11)
    networks = network("teacher", 6) if teacher else None, network("student")
    distiller = Distiller(*networks, create(method, **settings), 0.8, 0.5, batch_size=8, seed=3)
    distiller.compile(optimizer=keras.optimizers.SGD(0.05, momentum=0.9))
    return distiller


def batches(weighted: bool = True, dense: bool = False) -> tf.data.Dataset:
    """Three batches of 8 images, whose halves differ, with labels and weights."""
    draw = np.random.default_rng(5)
    images = draw.normal(size=(24, 8, 8, 3)).astype("float32")
    images.reshape(3, 8, 8, 8, 3)[:, 4:] *= 2.0
    labels = draw.integers(0, NUM_CLASSES, 24)
    data = {"image": images, "label": np.eye(NUM_CLASSES)[labels] if dense else labels}
    if weighted:
        data["sample_weight"] = draw.uniform(0.5, 1.5, 24).astype("float32")
    return tf.data.Dataset.from_tensor_slices(data).batch(8, drop_remainder=True)


def assert_replicas_agree(strategy, method: str, *, teacher: bool = True, **settings) -> None:
    """Trains a few steps on one device and under a strategy: weights and losses must agree."""
    results = []
    for scope in (contextlib.nullcontext(), strategy.scope()):
        with scope:
            distiller = distiller_of(method, teacher=teacher, **settings)
            history = distiller.fit(batches(), epochs=2, verbose=0).history
        results.append(([v.numpy() for v in distiller.trained_variables], history))
    (one, one_history), (two, two_history) = results
    for position, (a, b) in enumerate(zip(one, two, strict=True)):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-6, err_msg=f"variable {position}")
    assert set(one_history) == set(two_history)
    for name, values in one_history.items():
        np.testing.assert_allclose(values, two_history[name], rtol=1e-4, err_msg=name)


def assert_fits(method: str, *, teacher: bool = True, **settings) -> Distiller:
    """Fits and evaluates a method from the registry; its terms are logged and everything trains."""
    distiller = distiller_of(method, teacher=teacher, **settings)
    before = [variable.numpy() for variable in distiller.trained_variables]
    history = distiller.fit(batches(), epochs=2, verbose=0).history
    for name in distiller.loss_names():
        assert np.all(np.isfinite(history[name])), name
        assert np.all(np.asarray(history[name]) != 0), name
    for variable, value in zip(distiller.trained_variables, before, strict=True):
        assert np.any(variable.numpy() != value), variable.path
    results = distiller.evaluate(batches(), verbose=0, return_dict=True)
    assert all(np.isfinite(value) for value in results.values())
    return distiller


def assert_teacher_is_left_alone(method: str, **settings) -> None:
    """The losses have no gradient to the teacher's weights, but one to the student's."""
    distiller = distiller_of(method, **settings)
    teacher = distiller.teachers[0]
    batch = next(iter(batches()))
    with tf.GradientTape() as tape:
        tape.watch([variable.value for variable in teacher.variables])
        total = distiller.combine(distiller.forward(batch, training=True)).total
    both = tape.gradient(
        total, [[v.value for v in teacher.variables], distiller.student.trainable_variables]
    )
    assert both[0] and all(gradient is None for gradient in both[0])
    assert all(gradient is not None for gradient in both[1])
