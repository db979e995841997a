"""The training step of each method of logits, beside that of KD on the same networks."""

from __future__ import annotations

from collections.abc import Iterator

from tfkd import distillers, models
from tfkd.benchmarks import steps
from tfkd.benchmarks.measure import Case, Comparison, Experiment
from tfkd.benchmarks.networks import as_trained

_CLASSES = 100
_TRAIN_SIZE = 50_000
_ONE_VIEW = 1.10
_MLD = 2.2

METHODS = (
    "plain", "dkd", "ipwd", "wsld", "teacher_free", "ps_kd", "nkd", "uskd", "dist", "cs_kd", "mld",
)  # fmt: skip
_PER_TURN = 4
"""Methods measured beside KD at a time: each holds networks of its own."""


def experiments(tiny: bool) -> Iterator[Experiment]:
    """Yields the methods in groups, each with KD beside it; float32, 100 classes.

    One image is one view; CS-KD has a partner for each, MLD a second, strong view. Methods of one
    view have one goal, MLD has another, CS-KD none.
    """
    pair = ("resnet14", "resnet8") if tiny else ("resnet56", "resnet20")
    shape, batch_size = ((8, 8, 3), 8) if tiny else ((32, 32, 3), 64)
    for start in range(0, len(METHODS), _PER_TURN):
        names = METHODS[start : start + _PER_TURN]
        cases, made = [], []
        for name in ("kd", *names):
            objective = distillers.create(name)
            batch = steps.Batch(shape, batch_size, _CLASSES, objective.requires.all_keys)
            teacher, student = (
                models.Network(as_trained(each, _CLASSES, shape), steps.PREPROCESS) for each in pair
            )
            distiller = steps.distiller(
                teacher, student, objective, train_size=_TRAIN_SIZE, batch_size=batch_size
            )
            distiller.set_epochs(240)
            cases.append(Case(name, steps.step(distiller, batch.pixels)))
            made.append(distiller)

        def check(made=tuple(made)) -> None:
            for distiller in made:
                distiller.watch.check()

        yield Experiment(
            f"{pair[0]} -> {pair[1]}: {', '.join(names)}",
            f"step of {batch_size} images",
            cases,
            [Comparison(name, ("kd",), _goal(name)) for name in names],
            check,
        )


def _goal(name: str) -> float | None:
    views = len(distillers.create(name).requires.views)
    if views <= 1:
        return _ONE_VIEW
    return _MLD if name == "mld" else None
