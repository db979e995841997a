"""The training step of knowledge distillation, beside that of `keras.distillation.Distiller`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from tfkd import core, distillers, models
from tfkd.benchmarks.measure import Case, Comparison, Experiment
from tfkd.benchmarks.networks import as_trained
from tfkd.core.frozen import freeze
from tfkd.training.build import precision

_TEMPERATURE = 4.0
_PREPROCESS = models.Preprocess((129.3, 124.1, 112.4), (68.2, 65.4, 70.4))
_STAGES = ("stage1", "stage2", "stage3")
_OVERHEAD = 1.05
_HALF = 0.50


@dataclass(frozen=True)
class _Pair:
    """Teacher and student by name, and the goal of the float32 step."""

    teacher: str
    student: str
    goal: float


_PAIRS = (_Pair("resnet56", "resnet20", 0.80), _Pair("resnet32x4", "resnet8x4", 0.92))
_TINY_PAIRS = (_Pair("resnet14", "resnet8", 1.0),)


class _ReadsStages(core.Objective):
    """Reads one value of every stage of both networks: what taps cost without a connector."""

    requires = core.Requires(taps={("student", "main"): _STAGES, ("teacher", "main"): _STAGES})

    def compute(self, context: core.Context) -> tf.Tensor:
        read = [
            tf.square(context.student(tap)[:, 0, 0, 0] - context.teacher(tap)[:, 0, 0, 0])
            for tap in _STAGES
        ]
        return context.mean(tf.add_n(read))


def experiments(tiny: bool) -> Iterator[Experiment]:
    """Yields one comparison for each pair of networks.

    Every step goes through the train function that `fit` calls, with Keras' SGD, a momentum of 0.9
    and the top-1 accuracy as metric. Keras gets normalised float32 images; tfkd gets pixels, as its
    pipelines yield them, and normalises them in the step.
    """
    for pair in _TINY_PAIRS if tiny else _PAIRS:
        yield _experiment(pair, (8, 8, 3) if tiny else (32, 32, 3), 4 if tiny else 64)


def _experiment(pair: _Pair, shape: tuple[int, int, int], batch_size: int) -> Experiment:
    data = _Data(shape, batch_size, classes=100)

    def network(name: str) -> models.Network:
        return models.Network(as_trained(name, data.classes, shape), _PREPROCESS)

    teacher = network(pair.teacher)
    own = _distiller(teacher, network(pair.student), distillers.KD(_TEMPERATURE))
    tapping = _distiller(
        teacher, network(pair.student), [distillers.KD(_TEMPERATURE), _ReadsStages()], [0.9, 1e-6]
    )
    with precision("mixed_bfloat16"):
        student = network(pair.student)
    half = _distiller(teacher, student, distillers.KD(_TEMPERATURE), teacher_dtype="bfloat16")
    keras_distiller = _keras_distiller(
        models.stock(teacher.model), models.stock(network(pair.student).model)
    )
    alone = network(pair.student).model
    alone.compile(_sgd(), _label_loss(), metrics=["accuracy"])

    def check() -> None:
        for each in (own, tapping, half):
            each.watch.check()

    return Experiment(
        f"{pair.teacher} -> {pair.student}, temperature {_TEMPERATURE:g}",
        f"step of {batch_size} images",
        [
            Case("keras.distillation", _step(keras_distiller, data.normalised)),
            Case("tfkd float32", _step(own, data.pixels)),
            Case("tfkd bfloat16", _step(half, data.pixels)),
            Case("tfkd with taps", _step(tapping, data.pixels)),
            Case("student alone", _step(alone, data.normalised)),
            Case("teacher forward", _forward(freeze(teacher).model, data.images)),
        ],
        [
            Comparison("tfkd float32", ("keras.distillation",), pair.goal),
            Comparison("tfkd bfloat16", ("keras.distillation",), _HALF),
            Comparison(
                "tfkd float32",
                ("student alone", "teacher forward"),
                _OVERHEAD,
                name="overhead of distillation",
            ),
            Comparison("tfkd with taps", ("tfkd float32",), _OVERHEAD),
        ],
        check,
    )


class _Data:
    """One random batch in memory, repeated for ever: as pixels for tfkd, normalised for Keras."""

    def __init__(self, shape: tuple[int, int, int], batch_size: int, classes: int) -> None:
        generator = np.random.default_rng(0)
        pixels = generator.integers(0, 256, (batch_size, *shape), np.uint8)
        labels = generator.integers(0, classes, batch_size, np.int32)
        self.classes = classes
        self.images = _PREPROCESS(pixels)
        self.pixels = tf.data.Dataset.from_tensors({"image": pixels, "label": labels}).repeat()
        self.normalised = tf.data.Dataset.from_tensors((self.images, labels)).repeat()


def _sgd() -> keras.optimizers.Optimizer:
    # Small, so that hundreds of steps on one batch stay finite.
    return keras.optimizers.SGD(1e-3, momentum=0.9)


def _label_loss() -> keras.losses.Loss:
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def _distiller(teacher, student, losses, weights=0.9, **settings) -> core.Distiller:
    distiller = core.Distiller(teacher, student, losses, weights, 0.1, **settings)
    distiller.compile(_sgd())
    return distiller


def _keras_distiller(teacher: keras.Model, student: keras.Model) -> keras.Model:
    loss = keras.distillation.LogitsDistillation(
        temperature=_TEMPERATURE, loss=keras.losses.KLDivergence()
    )
    distiller = keras.distillation.Distiller(teacher, student, [loss], [1.0], 0.1)
    distiller.compile(_sgd(), _label_loss(), metrics=["accuracy"])
    return distiller


def _step(model: keras.Model, batches: tf.data.Dataset) -> Callable[[], object]:
    """Returns a function that runs one step of a compiled model, as `fit` does."""
    model.fit(batches, steps_per_epoch=1, verbose=0)
    train, iterator = model.make_train_function(), iter(batches)
    return lambda: train(iterator)


def _forward(model: keras.Model, images: tf.Tensor) -> Callable[[], object]:
    compute = tf.function(lambda images: model(images, training=False))
    return lambda: compute(images)
