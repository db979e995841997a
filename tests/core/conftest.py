"""Small images and networks on which the tests of the core train."""

import contextlib

import keras
import numpy as np
import pytest

import tfkd

ROWS, CLASSES = 16, 4
IMAGES = np.random.default_rng(0).normal(size=(ROWS, 8, 8, 3)).astype("float32")
LABELS = (np.arange(ROWS) * 3 % CLASSES).astype("int32")


@pytest.fixture(scope="session")
def images():
    """Sixteen images of 8x8x3, which every test leaves as they are."""
    return IMAGES


@pytest.fixture(scope="session")
def labels():
    """Their classes, of four."""
    return LABELS


@pytest.fixture(scope="session")
def network():
    """Makes a convolutional network with the usual taps, image -> logits."""

    def make(width=4, *, classes=CLASSES, name="student", norm=True, dropout=0.0):
        inputs = keras.Input((8, 8, 3), name="image")
        conv = keras.layers.Conv2D(width, 3, 2, "same", use_bias=not norm, name="conv")
        hidden = conv(inputs)
        if norm:
            hidden = tfkd.models.BatchNormalization(name="bn")(hidden)
        hidden = keras.layers.ReLU(name="stage1")(hidden)
        hidden = keras.layers.Conv2D(width, 3, padding="same", name="stage2")(hidden)
        hidden = keras.layers.ReLU(name="pre_pool")(hidden)
        hidden = keras.layers.GlobalAveragePooling2D(name="pooled")(hidden)
        if dropout:
            hidden = keras.layers.Dropout(dropout)(hidden)
        return keras.Model(inputs, keras.layers.Dense(classes, name="logits")(hidden), name=name)

    return make


@pytest.fixture(scope="session")
def distiller_on(two_replicas):
    """Makes a compiled distiller on one or two replicas, from the same initial weights."""

    def make(replicas, teacher, student, losses, optimizer=None, compile_settings=None, **settings):
        keras.utils.set_random_seed(1)
        teacher = teacher() if teacher is not None else None
        scope = two_replicas.scope() if replicas == 2 else contextlib.nullcontext()
        with scope:
            distiller = tfkd.Distiller(teacher, student(), losses(), **settings)
            distiller.compile(
                optimizer() if optimizer else keras.optimizers.SGD(0.1, momentum=0.9),
                **(compile_settings or {}),
            )
        return distiller

    return make


@pytest.fixture(scope="session")
def values_of():
    """Returns the values of variables as NumPy arrays."""

    def values(variables):
        return [np.array(variable) for variable in variables]

    return values
