"""The training step of each stage of PBKD, beside the same that runs no frozen part in front."""

from __future__ import annotations

from collections.abc import Iterator

import keras
import numpy as np

from tfkd import core, data, distillers, models
from tfkd.benchmarks import steps
from tfkd.benchmarks.measure import Case, Comparison, Experiment
from tfkd.training.stage_cache import cached_keys, with_cached_taps

METHODS = ("pbkd",)

_CLASSES = 10
_SHARE = 0.9
"""Of the speed-up that the operations allow, what is wanted."""


def experiments(tiny: bool) -> Iterator[Experiment]:
    """Yields the stages one by one; those of configs/pbkd_short.py, float32.

    The goal of a step that reads what frozen parts make of an image, which is computed once, is a
    share of what the operations of the two steps allow: the gradient of the trained block counts
    twice its forward pass, that into the maps behind it once theirs.
    """
    sizes = dict(width=2, hidden=4) if tiny else dict(width=32, hidden=512)
    network = dict(batch_norm=True, **sizes)
    images, batch_size = (20, 10) if tiny else (1000, 100)
    dataset = _images(images, batch_size)
    count = len(_stages(network))
    for number in (2,) if tiny else range(1, count + 1):
        yield _experiment(network, dataset, number)


def _images(count: int, batch_size: int) -> data.DataSet:
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (count, 32, 32, 3), np.uint8)
    both = pixels, generator.integers(0, _CLASSES, count)
    return data.from_arrays(both, both, num_classes=_CLASSES, batch_size=batch_size)


def _distiller(network: dict) -> core.Distiller:
    teacher = models.create("vgg16_32", _CLASSES, **network)
    student = models.create("blockwise", _CLASSES, of="vgg16_32", of_kwargs=network)
    both = (models.Network(each, steps.PREPROCESS) for each in (teacher, student))
    return core.Distiller(*both, distillers.PBKD(), 0.005)


def _stages(network: dict) -> list[core.Stage]:
    return _distiller(network).objectives[0].stages()


def _experiment(network: dict, dataset: data.DataSet, number: int) -> Experiment:
    cases, made = [], []
    names = {False: "every step runs all", True: "what is frozen in front is kept"}
    for kept, name in names.items():
        distiller = _distiller(network)
        stage = distiller.objectives[0].stages()[number - 1]
        distiller.enter_stage(stage)
        distiller.compile(steps.sgd())
        own = dataset
        if kept:
            own = with_cached_taps(stage, distiller, dataset, lambda *_, **__: None)
        keys = cached_keys(stage, own)
        cases.append(Case(name, steps.step(distiller, own.train(batch_keys=keys))))
        made.append(distiller)

    def check() -> None:
        for each in made:
            each.watch.check()

    limit = _limit(made[0].stage_network.model)
    comparison = Comparison(
        names[True],
        (names[False],),
        round(1.0 + _SHARE * (limit - 1.0), 2),
        at_least=True,
        facts={"limit by MACs": round(limit, 2)},
    )
    return Experiment(
        f"vgg16_32, width {network['width']}: stage of block {number}",
        f"step of {dataset.batch_size} images",
        cases,
        [comparison],
        check,
    )


def _limit(hybrid: keras.Model) -> float:
    """Returns the operations of a step that runs all over those of one that reads what is kept."""
    outputs = models.outputs(hybrid)

    def macs(tap: str) -> int:
        if tap not in outputs:
            return 0
        return models.cost(keras.Model(hybrid.input, outputs[tap])).macs

    before = macs("block_input")
    block, replaced = macs("local") - before, macs("reference") - before
    after = macs("logits") - macs("local")
    learning = 3 * block + 2 * after
    return (before + replaced + learning) / learning
