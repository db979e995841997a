"""The stages of a run in numbers: how long each was, what it ran and what that reached."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras

from tfkd import models
from tfkd.core import Distiller, Stage
from tfkd.core.tasks import Score
from tfkd.training.timeline import Timeline


def cost_of(distiller: Distiller) -> models.Cost:
    """Returns what the network costs that a stage runs in the student's place.

    Outputs that the student does not have, such as features of a teacher's block, do not count.

    Args:
        distiller: The distiller, in that stage.
    """
    model = distiller.stage_network.model
    outputs = models.outputs(model)
    wanted = distiller.task.taps(distiller.network("student"))
    if set(outputs) != set(wanted) and models.is_functional(model):
        own = {name: outputs[name] for name in wanted}
        model = keras.Model(model.inputs, own, name=model.name)
    return models.cost(model)


def rows(
    stages: Sequence[Stage],
    timeline: Timeline,
    history: Sequence[Mapping[str, Any]],
    costs: Mapping[str, Mapping[str, int]],
    score: Score,
) -> list[dict[str, Any]]:
    """Returns a row for each stage.

    Args:
        stages: The stages.
        timeline: Their steps.
        history: The rows of ``metrics.csv``.
        costs: ``params`` and ``macs`` by the name of the stage.
        score: The number that epochs are compared by.

    Returns:
        ``name``, ``epochs``, ``steps``; ``params`` and ``macs`` of what the stage ran in the
        student's place; ``score`` of that at its last evaluation, ``None`` where it had none.
    """
    found = []
    for number, (stage, steps) in enumerate(zip(stages, timeline.lengths, strict=True)):
        scores = [
            score.scale * row[f"val_{score.metric}"]
            for row in history
            if row["stage"] == stage.name and f"val_{score.metric}" in row
        ]
        row = {"name": stage.name, "epochs": timeline.epochs(number), "steps": steps}
        row |= costs.get(stage.name, {"params": None, "macs": None})
        found.append({**row, "score": scores[-1] if scores else None})
    return found
