"""Small runs: networks, images of every view and compiled distillers of fixed weights."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from tests.distillers.logit_oracles import NUM_CLASSES
from tfkd import models
from tfkd.core import Distiller, Objective
from tfkd.distillers.shared.exits import OfExits

IMAGES, STEPS = 24, 3
"""Images of an epoch, and the batches that they make."""


def network(name: str, width: int = 4) -> keras.Model:
    """A network for images of 8x8x3 with the taps that methods know.

    Its activations are smooth: where rounding turns a ReLU on, replicas would part for good.
    """
    image = keras.Input((8, 8, 3), name="image")
    hidden = keras.layers.Conv2D(width, 3, 2, "same", name="stage1_pre")(image)
    hidden = keras.layers.Activation("silu", name="stage1")(hidden)
    conv = keras.layers.Conv2D(width, 3, padding="same", use_bias=False, name="stage2_conv")
    hidden = models.BatchNormalization(name="stage2_pre")(conv(hidden))
    hidden = keras.layers.Activation("silu", name="stage2")(hidden)
    hidden = keras.layers.Identity(name="pre_pool")(hidden)
    hidden = keras.layers.GlobalAveragePooling2D(name="pooled")(hidden)
    # Logits of ordinary size: what is between small ones is little more than rounding.
    wide = keras.initializers.RandomNormal(stddev=1.0)
    logits = keras.layers.Dense(NUM_CLASSES, kernel_initializer=wide, name="logits")
    return keras.Model(image, logits(hidden), name=name)


def arrays() -> dict[str, np.ndarray]:
    """Images of every view, whose means differ, with labels, weights and a shuffled index.

    The two halves of each batch of eight differ, so that replicas see other statistics.
    """
    draw = np.random.default_rng(0)
    found = {
        view: draw.normal(shift, 1.0, (IMAGES, 8, 8, 3)).astype("float32")
        for shift, view in enumerate(("image", "image_pair", "image_strong"))
    }
    draw_further = np.random.default_rng(1)
    for shift, view in ((0.5, "image_second"), (-1.0, "image_third")):
        found[view] = draw_further.normal(shift, 1.0, (IMAGES, 8, 8, 3)).astype("float32")
    found["heldout_image"] = draw_further.normal(0.2, 1.5, (IMAGES, 8, 8, 3)).astype("float32")
    for view in found.values():
        view.reshape(-1, 8, 8, 8, 3)[:, 4:] *= 2.0
    found["heldout_label"] = draw_further.integers(0, NUM_CLASSES, IMAGES).astype("int32")
    found["label"] = draw.integers(0, NUM_CLASSES, IMAGES).astype("int32")
    found["index"] = draw.permutation(IMAGES).astype("int32")
    found["sample_weight"] = draw.uniform(0.5, 1.5, IMAGES).astype("float32")
    turned = np.stack([np.rot90(found["image"], turn, axes=(1, 2)) for turn in range(4)], axis=1)
    # Each has a color of its own: pooled, the turns of noise differ by little more than rounding.
    colors = draw.normal(0.0, 3.0, (IMAGES, 4, 1, 1, 3))
    found["image_rotations"] = (turned + colors).astype("float32")
    return found


def train_labels() -> np.ndarray:
    """The labels of :func:`arrays` in the order of the training set."""
    data = arrays()
    found = np.empty_like(data["label"])
    found[data["index"]] = data["label"]
    return found


def batches(
    *keys: str, data: dict | None = None, dense: bool = False, size: int = 8
) -> tf.data.Dataset:
    """The images in batches, those of a view of several rows for each image one after another.

    Args:
        *keys: What they hold besides image and label.
        data: Arrays by key; by default :func:`arrays`.
        dense: Whether labels are distributions.
        size: Images of a batch.
    """
    data = arrays() if data is None else data
    chosen = {key: data[key] for key in ("image", "label", *keys)}
    if dense:
        chosen["label"] = np.eye(NUM_CLASSES, dtype="float32")[chosen["label"]]
    made = tf.data.Dataset.from_tensor_slices(chosen).batch(size, drop_remainder=True)
    return made.map(in_rows)


def in_rows(batch: dict) -> dict:
    return {
        key: tf.reshape(value, [-1, *value.shape[2:]]) if value.shape.rank == 5 else value
        for key, value in batch.items()
    }


def distiller_of(
    objective: Objective,
    *others: Objective,
    teacher: bool | None = None,
    widths: tuple[int, int] = (4, 6),
    seed: int = 1,
    learning_rate: float = 0.1,
    eager: bool = False,
    **settings,
) -> Distiller:
    """A compiled distiller of an objective.

    A method of exits has a student with three of them, and is in its stage, if it has one.

    Args:
        objective: The objective.
        *others: What is added to it.
        teacher: Whether there is a teacher; by default where the objective needs one.
        widths: Of student and teacher.
        seed: Of the student's first weights; the teacher's are always the same.
        learning_rate: Of SGD with momentum.
        eager: Whether steps run without being compiled, which pays for a few of them.
        **settings: Further arguments of the distiller.
    """
    keras.utils.set_random_seed(0)
    teacher = objective.requires.needs_teacher if teacher is None else teacher
    taught_by = network("teacher", widths[1]) if teacher else None
    keras.utils.set_random_seed(seed)
    student = network("student", widths[0])
    if isinstance(objective, OfExits):
        student = models.multi_exit(student, ["stage1", "stage2"], name="student")
    kind = objective.distiller_class or Distiller
    settings.setdefault("train_size", IMAGES)
    settings.setdefault("train_labels", train_labels())
    made = kind(taught_by, student, [objective, *others], **settings)
    if isinstance(objective, OfExits):
        for stage in objective.stages() or ():
            made.enter_stage(stage)
    made.compile(keras.optimizers.SGD(learning_rate, momentum=0.9), run_eagerly=eager)
    return made


def state(distiller: Distiller) -> dict[str, np.ndarray]:
    """What a continued run needs."""
    return {name: np.array(variable) for name, variable in distiller.state().items()}
