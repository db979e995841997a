"""The training step of each feature method, beside KD's and beside its own bare arithmetic."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from tfkd import core, distillers, models
from tfkd.benchmarks import steps
from tfkd.benchmarks.measure import Case, Comparison, Experiment
from tfkd.benchmarks.networks import as_trained

_CLASSES = 100
_TRAIN_SIZE = 50_000
_OVERHEAD = 1.05

METHODS = (
    "crd", "cocord", "fitnets", "at", "vid", "sp", "rkd", "pkt", "srrl", "reviewkd", "norm",
    "diffkd", "wcord", "sskd", "auxvar",
)  # fmt: skip
SEVERAL_VIEWS = ("cocord", "sskd")
_PER_TURN = 2
"""Methods measured beside KD at a time: each holds networks of its own."""


@dataclass(frozen=True)
class _Pair:
    """Teacher and student by name, and the goals of steps beside KD's, by method."""

    teacher: str
    student: str
    beside_kd: Mapping[str, float]


_PAIRS = (
    _Pair("resnet56", "resnet20", {"crd": 1.25, "auxvar": 1.25}),
    _Pair("resnet32x4", "resnet8x4", {"crd": 1.06, "auxvar": 1.10}),
)
_TINY_PAIRS = (_Pair("resnet14", "resnet8", {"crd": 1.0, "auxvar": 1.0}),)
_SETTINGS = {"auxvar": {"queue_size": 16384}}
"""Settings that are not the defaults, by method."""


def experiments(tiny: bool) -> Iterator[Experiment]:
    """Yields the methods in groups, each with KD beside it; float32, 100 classes.

    The goal of a method of one view is KD's step and its own arithmetic (forward and backward of
    its losses on features that are given), that of CRD and AuxVar, whose queue holds 16,384 images,
    KD's step alone, and that of a method of several views its bare passes (its networks on all
    views, with the student's gradient) and its arithmetic.
    """
    for pair in _TINY_PAIRS if tiny else _PAIRS:
        for start in range(0, len(METHODS), _PER_TURN):
            yield _experiment(pair, METHODS[start : start + _PER_TURN], tiny)


def _experiment(pair: _Pair, names: tuple[str, ...], tiny: bool) -> Experiment:
    shape, batch_size = ((8, 8, 3), 8) if tiny else ((32, 32, 3), 64)
    cases, comparisons, made = [], [], []
    others = np.random.default_rng(1).integers(0, _CLASSES, _TRAIN_SIZE).astype(np.int32)

    def distiller(objective: core.Objective, batch: steps.Batch) -> core.Distiller:
        teacher, student = (
            models.Network(as_trained(each, _CLASSES, shape), steps.PREPROCESS)
            for each in (pair.teacher, pair.student)
        )
        found = steps.distiller(
            teacher,
            student,
            objective,
            train_size=_TRAIN_SIZE,
            # The images of the batch are the first of the training set.
            train_labels=np.concatenate([batch.arrays["label"], others[batch_size:]]),
            batch_size=batch_size,
        )
        found.set_epochs(240)
        stages = objective.stages()
        if stages:
            found.enter_stage(stages[-1])
        made.append(found)
        return found

    for name in ("kd", *names):
        objective = distillers.create(name, **_SETTINGS.get(name, {}))
        batch = steps.Batch(shape, batch_size, _CLASSES, objective.requires.all_keys)
        found = distiller(objective, batch)
        cases.append(Case(name, steps.step(found, batch.pixels)))
        if name == "kd":
            continue
        cases.append(Case(f"{name} arithmetic", steps.arithmetic(found, batch.arrays)))
        baseline = "kd"
        if name in SEVERAL_VIEWS:
            baseline = f"{name} passes"
            cases.append(Case(baseline, steps.passes(found, batch.arrays)))
        if name in pair.beside_kd:
            comparisons.append(Comparison(name, ("kd",), pair.beside_kd[name]))
        else:
            comparisons.append(Comparison(name, (baseline, f"{name} arithmetic"), _OVERHEAD))

    def check() -> None:
        for each in made:
            each.watch.check()

    return Experiment(
        f"{pair.teacher} -> {pair.student}: {', '.join(names)}",
        f"step of {batch_size} images",
        cases,
        comparisons,
        check,
    )
