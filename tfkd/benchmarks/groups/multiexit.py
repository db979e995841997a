"""The training step of each method of several exits, beside a plain joint step of the same MSDNet.

A plain step is one of the sum of the label losses of all exits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras
import tensorflow as tf

from tfkd import core, distillers, models
from tfkd.benchmarks import memory, steps
from tfkd.benchmarks.measure import Case, Comparison, Experiment
from tfkd.benchmarks.networks import as_trained

_CLASSES = 100
_EVERY = 5
_ONE_PASS = 1.05
_LEARNED = 4.0
_LEARNED_NOW_AND_THEN = 1.8
_MEMORY = 2.5

METHODS = ("deep_supervision", "dbt", "dense_kd", "imta", "hdkd")
_NOW_AND_THEN = f"hdkd, weights learned every {_EVERY} steps"
_STOCK = "stock Keras layers"


def experiments(tiny: bool) -> Iterator[Experiment]:
    """Yields all methods side by side; float32, 100 classes, held-out images as many as images.

    ``hdkd`` learns its weights at every step, and once more at every fifth, as the mean of five
    steps. Its goals hold only if the memory of its step, above that held at rest, is at most 2.5
    times that of a plain one. A plain step is compared with one of Keras alone, of the same network
    with stock layers.
    """
    batch = steps.Batch(*_size(tiny), _CLASSES, distillers.create("hdkd").requires.all_keys)
    made = {name: _distiller(name, tiny) for name in ("plain", *METHODS)}
    made[_NOW_AND_THEN] = _distiller("hdkd", tiny, update_every=_EVERY)

    def check() -> None:
        for each in made.values():
            each.watch.check()

    needed = memory_of_steps(tiny)
    cases = [Case(_STOCK, _stock_step(tiny, batch))]
    for name, distiller in made.items():
        step, units = steps.step(distiller, batch.pixels), 1
        if name == _NOW_AND_THEN:
            step, units = _repeated(step, _EVERY), _EVERY
        cases.append(Case(name, step, units=units))
    yield Experiment(
        "methods of several exits",
        f"step of {len(batch.images)} images",
        cases,
        [
            Comparison("plain", (_STOCK,), 1.0),
            *(_beside_plain(name, _ONE_PASS, needed.get(name)) for name in METHODS[:-1]),
            _beside_plain("hdkd", _LEARNED, needed.get("hdkd")),
            _beside_plain(_NOW_AND_THEN, _LEARNED_NOW_AND_THEN, needed.get("hdkd")),
        ],
        check,
    )


def _size(tiny: bool) -> tuple[tuple[int, int, int], int]:
    """The shape of an image, and the number of images of a batch."""
    return ((8, 8, 3), 8) if tiny else ((32, 32, 3), 64)


def _network(tiny: bool) -> keras.Model:
    settings: Mapping[str, Any] = {}
    if tiny:
        settings = {"blocks": (1, 1), "scales": 1, "growth": 2, "channels": 2}
    name = "msdnet" if tiny else "msdnet_cifar_even7"
    return as_trained(name, _CLASSES, _size(tiny)[0], **settings)


def _distiller(name: str, tiny: bool, **settings) -> core.Distiller:
    objective = distillers.create(name, **settings)
    student = models.Network(_network(tiny), steps.PREPROCESS)
    made = steps.distiller(None, student, objective, 1.0, 1.0)
    for stage in objective.stages() or ():
        made.enter_stage(stage)
    return made


def _stock_step(tiny: bool, batch: steps.Batch) -> Callable[[], object]:
    model = models.stock(_network(tiny))
    exits = models.exits(model)
    model.compile(
        steps.sgd(),
        {exit: keras.losses.SparseCategoricalCrossentropy(from_logits=True) for exit in exits},
        metrics={exit: ["accuracy"] for exit in exits},
    )
    labels = dict.fromkeys(exits, batch.arrays["label"])
    return steps.step(model, tf.data.Dataset.from_tensors((batch.images, labels)).repeat())


def _repeated(step: Callable[[], object], count: int) -> Callable[[], object]:
    def run() -> None:
        for _ in range(count):
            step()

    return run


def _beside_plain(name: str, goal: float, memory_ratio: float | None) -> Comparison:
    if memory_ratio is None:
        return Comparison(name, ("plain",), goal)
    facts = {"memory / that of plain": memory_ratio}
    return Comparison(name, ("plain",), goal, facts=facts, sound=memory_ratio <= _MEMORY)


def memory_of_steps(tiny: bool) -> dict[str, float]:
    """Returns the memory of each method's step in multiples of a plain one's, by its name.

    Empty where the system does not tell (not Linux).
    """
    if not memory.is_told():
        return {}
    names = ("plain", *METHODS)
    plain, *found = memory.in_processes(memory_of_step, [(name, tiny) for name in names])
    return {name: each / plain for name, each in zip(METHODS, found, strict=True)}


def memory_of_step(name: str, tiny: bool) -> int:
    """Returns the memory of one step in bytes; for a process that does nothing else.

    Args:
        name: ``"plain"`` or one of :data:`METHODS`.
        tiny: Whether the network is that of tests.
    """
    distiller = _distiller(name, tiny)
    keys = [key for each in distiller.objectives for key in each.requires.all_keys]
    shape, batch_size = _size(tiny)
    images = tf.data.Dataset.from_tensor_slices(
        steps.Batch(shape, batch_size, _CLASSES, keys).arrays
    )
    # Two images first: they make everything that does not grow with the batch.
    step = steps.step(distiller, images.batch(2).take(1).concatenate(images.batch(batch_size)))
    step()
    return memory.peak(step)
