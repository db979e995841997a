"""What the tests of methods with further views or memories share: contexts and small runs."""

from __future__ import annotations

import contextlib

import keras
import numpy as np
import tensorflow as tf

from tests.distillers.logit_oracles import NUM_CLASSES
from tfkd import models
from tfkd.core import Context, Distiller, Objective

PLACES = {
    "student": ("student", "main"),
    "teacher": ("teacher", "main"),
    "pair": ("student", "pair"),
    "student_strong": ("student", "strong"),
    "teacher_strong": ("teacher", "strong"),
}
"""Where the logits of the oracle file come from, by their names there."""

IMAGES = 32


def losses(objective: Objective, given: dict, training: bool = True, **batch) -> dict:
    """The losses of an objective by name, where the networks gave the logits of a case.

    Args:
        objective: The objective.
        given: Logits by the names of :data:`PLACES`, and ``labels``.
        training: Whether it is a training step.
        **batch: Further entries of the batch, such as ``sample_weight``.
    """
    rows = given["student"].shape[0]
    context = Context(
        {"image": tf.zeros((rows, 1, 1, 1)), "label": given["labels"], **batch},
        training=training,
        epoch=tf.constant(0.0),
        epochs=tf.constant(10.0),
        step=tf.constant(0, tf.int64),
        seed=0,
        outputs={place: {"logits": given[name]} for name, place in PLACES.items() if name in given},
        heads=lambda name: None,
    )
    return dict(objective.to_terms(objective.compute(context)).losses)


def extreme(dtype: str, rows: int = 8, classes: int = 5) -> dict[str, tf.Tensor]:
    """Logits of +-1e4 by the names of a case; some networks agree, contradict, cannot decide."""
    signs = np.random.default_rng(0).choice([-1.0, 1.0], size=(len(PLACES), rows, classes))
    signs[0, 0] = signs[1, 0]
    signs[0, 1] = -signs[1, 1]
    signs[:, 2] = 1.0
    found = {name: tf.constant(1e4 * each, dtype) for name, each in zip(PLACES, signs)}
    return {**found, "labels": tf.range(rows) % classes}


def moved(given: dict, rows=None, classes=None) -> dict[str, tf.Tensor]:
    """A case with its samples or its classes in another order, labels included."""
    found = dict(given)
    if rows is not None:
        found = {name: tf.gather(each, rows) for name, each in found.items()}
    if classes is not None:
        labels = [classes.index(each) for each in found["labels"].numpy()]
        found = {
            name: tf.gather(each, classes, axis=1)
            for name, each in found.items()
            if name != "labels"
        }
        found["labels"] = tf.constant(labels)
    return found


def network(name: str, width: int = 4) -> keras.Model:
    """A small network with batch normalisation for images of 8x8x3."""
    image = keras.Input((8, 8, 3), name="image")
    hidden = keras.layers.Conv2D(width, 3, padding="same", use_bias=False, name="stem")(image)
    hidden = models.BatchNormalization(name="stage1_pre")(hidden)
    hidden = keras.layers.ReLU(name="pre_pool")(hidden)
    hidden = keras.layers.GlobalAveragePooling2D(name="pooled")(hidden)
    return keras.Model(image, keras.layers.Dense(NUM_CLASSES, name="logits")(hidden), name=name)


def arrays() -> dict[str, np.ndarray]:
    """Images of every view, whose means differ, with labels and shuffled index."""
    draw = np.random.default_rng(0)
    views = ("image", "image_pair", "image_strong")
    found = {
        view: draw.normal(shift, 1.0, (IMAGES, 8, 8, 3)).astype("float32")
        for shift, view in enumerate(views)
    }
    found["label"] = (np.arange(IMAGES) % NUM_CLASSES).astype("int32")
    found["index"] = draw.permutation(IMAGES).astype("int32")
    return found


def batches(*keys: str, data: dict | None = None) -> tf.data.Dataset:
    """The images in batches of eight, with these keys besides image and label."""
    data = arrays() if data is None else data
    chosen = {key: data[key] for key in ("image", "label", *keys)}
    return tf.data.Dataset.from_tensor_slices(chosen).batch(8, drop_remainder=True)


def distiller_of(
    objective: Objective, *, teacher: bool = True, learning_rate: float = 0.1
) -> Distiller:
    """A compiled distiller of small networks of fixed weights."""
    keras.utils.set_random_seed(1)
    networks = network("teacher", 6) if teacher else None, network("student")
    made = Distiller(*networks, objective, train_size=IMAGES)
    made.compile(keras.optimizers.SGD(learning_rate, momentum=0.9))
    return made


def state(distiller: Distiller) -> dict[str, np.ndarray]:
    """What a continued run needs."""
    return {name: np.asarray(variable) for name, variable in distiller.state().items()}


def assert_replicas_agree(strategy, make, *keys: str, teacher: bool = True) -> None:
    """Trains two epochs on one device and under a strategy: losses and every variable must agree.

    Args:
        strategy: The strategy of two replicas.
        make: Makes the objective.
        *keys: What the batches hold besides image and label.
        teacher: Whether there is a teacher.
    """
    results = []
    for scope in (contextlib.nullcontext(), strategy.scope()):
        with scope:
            distiller = distiller_of(make(), teacher=teacher)
            history = distiller.fit(batches(*keys), epochs=2, verbose=0).history
        results.append((state(distiller), history))
    (one, one_history), (two, two_history) = results
    assert set(one) == set(two) and set(one_history) == set(two_history)
    for name, values in one_history.items():
        # A divergence rounds to about 1e-7, which the square of a temperature scales.
        np.testing.assert_allclose(two_history[name], values, rtol=1e-4, atol=5e-6, err_msg=name)
    for name, values in one.items():
        wanted = values.astype("float64")
        np.testing.assert_allclose(two[name], wanted, rtol=1e-4, atol=1e-5, err_msg=name)
