"""From a config to data and networks."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import keras
import ml_collections
import numpy as np

from tfkd import data, models
from tfkd.core import tasks
from tfkd.errors import TfkdError
from tfkd.training.config import to_dict

_TEACHER = 1  # Sets the seed of a teacher apart from that of its student.


def data_set(config: ml_collections.ConfigDict) -> data.DataSet:
    """Returns the data of a config.

    Raises:
        TfkdError: When it cannot be found or read.
    """
    fields = config.data
    return data.load(
        fields.name,
        batch_size=config.train.batch_size,
        seed=config.train.seed,
        validation_split=fields.validation_split,
        validation_size=fields.validation_size,
        train_size=fields.train_size,
        image_size=fields.image_size,
        augment=fields.augment,
        mixup=fields.mixup,
        cutmix=fields.cutmix,
        directory=fields.directory,
        download=fields.download,
        skip_corrupt=fields.skip_corrupt,
    )


def preprocess(kind: str, info: data.DataInfo) -> models.Preprocess:
    """Returns the normalization that a network gets, by its name in a config.

    Args:
        kind: ``dataset``, ``none``, or one of :data:`tfkd.models.preprocess.PUBLISHED`.
        info: The data.

    Raises:
        TfkdError: For another name, or images of other channels than a published one has.
    """
    if kind == "dataset":
        return models.Preprocess(info.mean, info.std)
    if kind == "none":
        return models.Preprocess.none()
    published = models.Preprocess.published(kind)
    if info.image_shape[-1] != 3:
        raise TfkdError(
            f"preprocess {kind!r}: found images {info.image_shape} of {info.name}, wanted 3 "
            "channels"
        )
    return published


def student(
    config: ml_collections.ConfigDict, info: data.DataInfo, task: str = "classification"
) -> models.Network:
    """Returns the student, initialized from the seed of the run whatever was made before it.

    Args:
        config: The experiment.
        info: Its data.
        task: Its task, as :func:`tfkd.tasks.find` takes it.

    Raises:
        TfkdError: For an unknown network, or images that it cannot take.
    """
    return _fresh(config, config.student, config.train.seed, info, task)


def trained_teacher(
    config: ml_collections.ConfigDict, info: data.DataInfo, task: str = "classification"
) -> models.Network:
    """Returns a teacher that trains beside the student, with fresh weights of its own.

    Pixels reach it as they reach the student. Its seed is ``teacher.seed``, or follows from that of
    the run, but is another one: two networks of one architecture are not to start alike.

    Args:
        config: The experiment.
        info: Its data.
        task: Its task.

    Raises:
        TfkdError: For an unknown network, or images that it cannot take.
    """
    seed = config.teacher.seed
    if seed is None:
        seed = int(np.random.SeedSequence((config.train.seed, _TEACHER)).generate_state(1)[0])
    return _fresh(config, config.teacher, seed, info, task)


def _fresh(
    config: ml_collections.ConfigDict,
    fields: ml_collections.ConfigDict,
    seed: int,
    info: data.DataInfo,
    task: str,
) -> models.Network:
    """Returns the network of a section of the config, its weights drawn from a seed."""
    keras.utils.set_random_seed(seed)
    name = fields.name
    width = tasks.find(task).width(info)
    model = models.create(name, width, info.image_shape, **to_dict(fields.kwargs))
    if not config.train.sync_batch_norm:
        for layer in model.layers:
            if isinstance(layer, models.BatchNormalization):
                layer.synchronized = False
    seen = preprocess(config.student.preprocess, info)
    # A task may give a network other outputs than one for each class.
    classes = info.class_names if width == len(info.class_names) else None
    return models.Network(model, seen, name, to_dict(fields.taps), task, classes)


def check_fits(network: models.Network, info: data.DataInfo, who: str) -> None:
    """Checks that a network that was loaded takes the images and knows the classes of the data.

    Raises:
        TfkdError: Naming both.
    """
    task = tasks.create(network.task, network)
    task.check_data(task.facts(network), info, who)
    shape = tuple(network.model.input_shape[1:])
    if any(a is not None and a != b for a, b in zip(shape, info.image_shape)):
        raise TfkdError(
            f"{who} takes images {shape}, but those of {info.name} are {info.image_shape}"
        )


@contextlib.contextmanager
def precision(name: str) -> Iterator[None]:
    """Sets Keras' precision while the networks of a run are made, and sets it back.

    Args:
        name: ``float32``, ``mixed_bfloat16`` or ``mixed_float16``.
    """
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
