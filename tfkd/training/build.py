"""From a config to data and networks."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator

import keras
import ml_collections
import numpy as np

from tfkd import data, models
from tfkd.core import tasks
from tfkd.errors import TfkdError
from tfkd.training import start_weights
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
        classes=fields.classes,
        image_size=fields.image_size,
        augment=fields.augment,
        mixup=fields.mixup,
        cutmix=fields.cutmix,
        directory=fields.directory,
        download=fields.download,
        skip_corrupt=fields.skip_corrupt,
    )


def preprocess(kind: str | None, model: keras.Model, info: data.DataInfo) -> models.Preprocess:
    """Returns the normalization that a network gets, by its word in a config.

    Args:
        kind: As :meth:`tfkd.models.Preprocess.of` takes it; ``None`` is ``none`` for a network that
            normalizes pixels itself, and otherwise ``dataset``.
        model: The network.
        info: The data.

    Raises:
        TfkdError: For another word, or images of other channels than a published one has.
    """
    if kind is None:
        kind = "dataset" if models.own_normalization(model) is None else "none"
    return models.Preprocess.of(kind, info)


def normalized_twice(who: str, itself: models.OwnNormalization, field: str) -> str:
    """Returns the line that tells of pixels that are normalized before a network does so itself.

    Args:
        who: The network.
        itself: What it does itself.
        field: The field of the config and its value that has them normalized before.
    """
    return (
        f"{who} normalizes pixels itself ({itself}), and {field} has them normalized before that; "
        "none, or unset, does not"
    )


def tell_of_pixels(who: str, network: models.Network, say: Callable[..., None]) -> None:
    """Says of a network that pixels reach as they are if it normalizes them itself.

    Args:
        who: What it is called.
        network: The network.
        say: Prints a line.
    """
    itself = models.own_normalization(network.model)
    if itself is not None and network.preprocess == models.Preprocess.none():
        say(f"{who} normalizes pixels itself ({itself})", flush=True)


def class_names(info: data.DataInfo, task: str = "classification") -> tuple[str, ...] | None:
    """Returns the names of the classes of a network for some data.

    ``None`` for a task that gives a network other outputs than one for each class.

    Args:
        info: The data.
        task: The task, as :func:`tfkd.tasks.find` takes it.
    """
    names = tuple(map(str, info.class_names))
    return names if tasks.find(task).width(info) == len(names) else None


def student(
    config: ml_collections.ConfigDict,
    info: data.DataInfo,
    task: str = "classification",
    say: Callable[..., None] = lambda *_, **__: None,
) -> models.Network:
    """Returns the student as training begins, whatever was made before it.

    It starts from the seed of the run, or from ``student.weights``.

    Args:
        config: The experiment.
        info: Its data.
        task: Its task, as :func:`tfkd.tasks.find` takes it.
        say: Prints a line.

    Raises:
        TfkdError: For an unknown network, images that it cannot take, or weights of another one.
    """
    network = _fresh(config, config.student, config.train.seed, info, task)
    start_weights.assign(network.model, config.student, say)
    seen = start_weights.preprocess(config.student)
    if seen is None or config.student.preprocess is not None:
        return network
    return dataclasses.replace(network, preprocess=seen)


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
    seen = preprocess(config.student.preprocess, model, info)
    taps = to_dict(fields.taps)
    return models.Network(model, seen, name, taps, task, class_names(info, task), info.crop)


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
