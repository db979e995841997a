"""What the tests of methods with further views or memories share: oracle cases, contexts, runs."""

import contextlib
import json
import pathlib

import keras
import numpy as np
import tensorflow as tf

import tfkd
from tfkd import models
from tfkd.core import Context

ORACLES = json.loads(
    (pathlib.Path(__file__).parents[1] / "data" / "oracles_logits.json").read_text()
)

# The file is rounded to ten decimals; gradients of terms scaled by up to 100 are larger than 1.
TOLERANCES = {
    tf.float64: dict(rtol=1e-9, atol=1e-9),
    tf.float32: dict(rtol=1e-5, atol=1e-5),
}

PLACES = {
    "student": ("student", "main"),
    "teacher": ("teacher", "main"),
    "pair": ("student", "pair"),
    "student_strong": ("student", "strong"),
    "teacher_strong": ("teacher", "strong"),
}

IMAGES = 32
CLASSES = 4


def checks(method, **wanted):
    """The checks of a method whose parameters hold the wanted values, each as one argument."""
    listed = ORACLES["methods"][method]["checks"]
    return [
        check for check in listed if all(check["params"][key] == wanted[key] for key in wanted)
    ]


def inputs(case, dtype=tf.float64):
    """The logits and probabilities of a case as tensors, with its labels as int32."""
    arrays = ORACLES["cases"][case]
    found = {name: tf.constant(rows, dtype) for name, rows in arrays.items() if name != "labels"}
    return {**found, "labels": tf.constant(arrays["labels"], tf.int32)}


def context(tensors, *, training=True, epoch=0, epochs=10, **batch):
    """The context of a step in which the networks gave the logits of a case."""
    rows = tensors["student"].shape[0]
    batch = {"image": tf.zeros((rows, 1, 1, 1)), "label": tensors["labels"], **batch}
    outputs = {place: {"logits": tensors[name]} for name, place in PLACES.items()}
    return Context(
        batch,
        training=training,
        epoch=tf.constant(float(epoch)),
        epochs=tf.constant(float(epochs)),
        step=tf.constant(0, tf.int64),
        seed=0,
        outputs=outputs,
        heads=lambda name: None,
    )


def losses(objective, tensors, **settings):
    """The losses of an objective by name."""
    return dict(objective.to_terms(objective.compute(context(tensors, **settings))).losses)


def check_total(check, total, gradient_of=("student",), dtype=tf.float64):
    """Compares a total and its gradients with a check of the file.

    Args:
        check: An entry of the file.
        total: Function of the tensors of the case that returns the scalar total.
        gradient_of: Names of the inputs whose gradients the file holds.
        dtype: Precision of the logits.
    """
    tensors = inputs(check["case"], dtype)
    with tf.GradientTape() as tape:
        tape.watch([tensors[name] for name in gradient_of])
        value = total(tensors)
    assert value.dtype == dtype
    np.testing.assert_allclose(value, check["expected"]["total"], **TOLERANCES[dtype])
    gradients = tape.gradient(value, [tensors[name] for name in gradient_of])
    for name, gradient in zip(gradient_of, gradients):
        np.testing.assert_allclose(gradient, check[f"grad_{name}"], **TOLERANCES[dtype])


def gradients(function, tensors, names):
    """The gradient of a function of the tensors to each named one; ``None`` where there is none."""
    with tf.GradientTape() as tape:
        tape.watch([tensors[name] for name in names])
        value = function(tensors)
    return tape.gradient(value, [tensors[name] for name in names])


def extreme(dtype, rows=4, classes=5):
    """Logits of +-1e4 for every network, with students that agree, disagree and are undecided."""
    signs = np.random.default_rng(0).choice([-1.0, 1.0], size=(len(PLACES), rows, classes))
    signs[0, 0] = signs[1, 0]
    signs[0, 1] = -signs[1, 1]
    signs[:, 2] = 1.0
    found = {name: tf.constant(1e4 * each, dtype) for name, each in zip(PLACES, signs)}
    return {**found, "labels": tf.range(rows) % classes}


def identity_student(classes=3):
    """A student whose logits are its pixels, so that a batch of logits can be fed as images."""
    image = keras.Input((1, 1, classes))
    hidden = keras.layers.Flatten()(image)
    logits = keras.layers.Dense(
        classes, use_bias=False, kernel_initializer="identity", name="logits"
    )(hidden)
    return keras.Model(image, logits)


def network(width, name):
    """A small network with batch normalisation for images of 8x8x3."""
    image = keras.Input((8, 8, 3))
    hidden = keras.layers.Conv2D(width, 3, padding="same", use_bias=False, name="stem")(image)
    hidden = models.BatchNormalization(name="stage1_pre")(hidden)
    hidden = keras.layers.ReLU(name="pre_pool")(hidden)
    hidden = keras.layers.GlobalAveragePooling2D(name="pooled")(hidden)
    logits = keras.layers.Dense(CLASSES, dtype="float32", name="logits")(hidden)
    return keras.Model(image, logits, name=name)


def arrays():
    """Images of every view that the methods read, with labels and index."""
    random = np.random.default_rng(0)
    views = ("image", "image_pair", "image_strong")
    found = {
        view: random.normal(shift, 1.0, (IMAGES, 8, 8, 3)).astype(np.float32)
        for shift, view in enumerate(views)
    }
    found["label"] = (np.arange(IMAGES) % CLASSES).astype(np.int32)
    found["index"] = random.permutation(IMAGES).astype(np.int32)
    return found


def batches(keys=("image_pair", "image_strong", "index"), data=None):
    """The images in batches of eight, with the keys that a test wants besides image and label."""
    data = arrays() if data is None else data
    chosen = {key: data[key] for key in ("image", "label", *keys)}
    return tf.data.Dataset.from_tensor_slices(chosen).batch(8, drop_remainder=True)


def distiller(objective, *, teacher=True, learning_rate=0.1, scope=None, **compiled):
    """A compiled distiller of small networks, the same for every strategy.

    Args:
        objective: Function that makes the objective.
        teacher: Whether there is one.
        learning_rate: Of SGD with momentum.
        scope: Strategy, or ``None``.
        **compiled: Further arguments of ``compile``.
    """
    with scope.scope() if scope is not None else contextlib.nullcontext():
        keras.utils.set_random_seed(1)
        made = tfkd.Distiller(
            network(6, "teacher") if teacher else None,
            network(4, "student"),
            objective(),
            train_size=IMAGES,
        )
        made.compile(keras.optimizers.SGD(learning_rate, momentum=0.9), **compiled)
    return made


def state(distiller):
    """What a continued run needs, as arrays."""
    return {name: np.asarray(variable) for name, variable in distiller.state().items()}


def check_replicas(objective, strategy, teacher=True):
    """Compares every variable after two epochs on one replica and on two."""
    single, double = (distiller(objective, teacher=teacher, scope=s) for s in (None, strategy))
    first = single.fit(batches(), epochs=2, verbose=0).history
    second = double.fit(batches(), epochs=2, verbose=0).history
    assert set(first) == set(second)
    for name in first:
        np.testing.assert_allclose(second[name], first[name], rtol=1e-5, atol=1e-6, err_msg=name)
    expected, found = state(single), state(double)
    assert set(expected) == set(found)
    for name in expected:
        wanted = expected[name].astype(np.float64)
        np.testing.assert_allclose(found[name], wanted, rtol=1e-4, atol=1e-5, err_msg=name)
