"""What leaving early is worth to the students of a run: ``early_exit.json`` and its pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tfkd import data, evaluation, models
from tfkd.core import Task
from tfkd.evaluation.predictors import Predict
from tfkd.export.early_exit import FILE_NAME, leaves_early
from tfkd.training.run_folder import RunFolder

LOST = 0.5
"""Percentage points of accuracy that the line of a run gives up."""


def evaluate(
    folder: RunFolder,
    dataset: data.DataSet,
    task: Task,
    students: Mapping[str, models.Network],
    predictors: Mapping[str, Predict],
    say: Callable[..., None],
) -> None:
    """Writes ``early_exit.json`` and pictures where students of a run are classifiers with exits.

    The validation images choose thresholds, the test images tell what they are worth.

    Args:
        folder: The run folder.
        dataset: Its data.
        task: What the outputs mean.
        students: The saved students by their words; the pictures are those of the first.
        predictors: Functions of raw pixels for them, by the same words.
        say: Prints a line.
    """
    costs = {
        which: [each.macs for each in models.exit_costs(network.model).values()]
        for which, network in students.items()
        if leaves_early(task) and len(models.exits(network.model)) > 1
    }
    if not costs:
        return
    # Imported here because matplotlib takes long to load, and few runs draw.
    from tfkd.training import exit_picture

    several = {which: predictors[which] for which in costs}
    answers = [evaluation.exit_answers(several, dataset.test(), task)]
    if dataset.info.validation_size:
        answers.append(evaluation.exit_answers(several, dataset.validation(), task))
    found = {
        which: evaluation.accuracy_over_cost(macs, *(each[which] for each in answers))
        for which, macs in costs.items()
    }
    folder.write_json(FILE_NAME, found)
    which, first = next(iter(found.items()))
    title = f"{students[which].name} on {dataset.info.name}, seed {dataset.seed}"
    exit_picture.draw(first, title, folder.path / "early_exit")
    if first["budgeted"] is None:
        say(
            "no validation images: no thresholds for leaving early (data.validation_size or "
            "data.validation_split holds some out)",
            flush=True,
        )
        return
    point = evaluation.cheapest([*first["anytime"], *first["budgeted"]], LOST)
    deepest = first["anytime"][-1]
    say(
        f"leaving early, at most {LOST:g} points lost on the validation images: "
        f"{point['test_macs']:,.0f} MACs an image, {point['test_macs'] / deepest['test_macs']:.0%} "
        f"of all; test top-1 {point['test_top1']:.2f} % (last exit {deepest['test_top1']:.2f} %)",
        flush=True,
    )
