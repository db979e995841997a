"""The training step of knowledge distillation, beside that of `keras.distillation.Distiller`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import keras
import tensorflow as tf

from tfkd import core, distillers, models
from tfkd.benchmarks import processor, steps
from tfkd.benchmarks.measure import Case, Comparison, Experiment
from tfkd.benchmarks.networks import as_trained
from tfkd.core.frozen_copy import frozen_copy
from tfkd.core.step.constant_weights import call_with_constants
from tfkd.training.build import precision

_TEMPERATURE = 4.0
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
    and the top-1 accuracy as metric. Keras gets normalized float32 images; tfkd gets pixels, as its
    pipelines yield them, and normalizes them in the step.
    """
    for pair in _TINY_PAIRS if tiny else _PAIRS:
        yield _experiment(pair, (8, 8, 3) if tiny else (32, 32, 3), 4 if tiny else 64)


def _experiment(pair: _Pair, shape: tuple[int, int, int], batch_size: int) -> Experiment:
    data = steps.Batch(shape, batch_size, classes=100)

    def network(name: str) -> models.Network:
        return models.Network(as_trained(name, data.classes, shape), steps.PREPROCESS)

    teacher = network(pair.teacher)
    own = steps.distiller(teacher, network(pair.student), distillers.KD(_TEMPERATURE))
    tapping = steps.distiller(
        teacher, network(pair.student), [distillers.KD(_TEMPERATURE), _ReadsStages()], [0.9, 1e-6]
    )
    with precision("mixed_bfloat16"):
        student = network(pair.student)
    half = steps.distiller(teacher, student, distillers.KD(_TEMPERATURE), teacher_dtype="bfloat16")
    keras_distiller = _keras_distiller(
        models.stock(teacher.model), models.stock(network(pair.student).model)
    )
    alone = network(pair.student).model
    alone.compile(steps.sgd(), _label_loss(), metrics=["accuracy"])

    def check() -> None:
        for each in (own, tapping, half):
            each.watch.check()

    return Experiment(
        f"{pair.teacher} -> {pair.student}, temperature {_TEMPERATURE:g}",
        f"step of {batch_size} images",
        [
            Case("keras.distillation", steps.step(keras_distiller, data.normalized)),
            Case("tfkd float32", steps.step(own, data.pixels)),
            Case("tfkd bfloat16", steps.step(half, data.pixels)),
            Case("tfkd with taps", steps.step(tapping, data.pixels)),
            Case("student alone", steps.step(alone, data.normalized)),
            Case("teacher forward", _forward(frozen_copy(teacher).model, data.images)),
        ],
        [
            Comparison("tfkd float32", ("keras.distillation",), pair.goal),
            Comparison("tfkd bfloat16", ("keras.distillation",), *_half_goal()),
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


def _half_goal() -> tuple[float | None, bool, None, dict[str, str]]:
    """Returns goal, direction, name and facts of the bfloat16 row: no goal where it is emulated."""
    if processor.has_bfloat16():
        return _HALF, False, None, {}
    return None, False, None, {"processor": "without bfloat16 instructions, so no goal"}


def _label_loss() -> keras.losses.Loss:
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def _keras_distiller(teacher: keras.Model, student: keras.Model) -> keras.Model:
    loss = keras.distillation.LogitsDistillation(
        temperature=_TEMPERATURE, loss=keras.losses.KLDivergence()
    )
    distiller = keras.distillation.Distiller(teacher, student, [loss], [1.0], 0.1)
    distiller.compile(steps.sgd(), _label_loss(), metrics=["accuracy"])
    return distiller


def _forward(model: keras.Model, images: tf.Tensor) -> Callable[[], object]:
    """As the step runs a frozen teacher: with its weights as constants."""
    compute = tf.function(lambda images: call_with_constants(model, images))
    return lambda: compute(images)
