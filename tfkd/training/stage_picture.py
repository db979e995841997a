"""The picture of a run of several stages: what was reached in each, by a network of which cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tfkd import files
from tfkd.colors import DISTILLATION_LOSS, GRAY, LABEL_LOSS, VALIDATION
from tfkd.core.tasks import Score

NAME = "stages.png"


def draw(
    stages: Sequence[Mapping[str, Any]],
    history: Sequence[Mapping[str, Any]],
    score: Score,
    title: str,
    folder: Path,
) -> Path:
    """Draws the score and the losses of every epoch, and score and MACs at the end of each stage.

    Args:
        stages: The rows of :func:`tfkd.training.stage_table.rows`.
        history: The rows of ``metrics.csv``.
        score: The number that epochs are compared by.
        title: What stands above.
        folder: The run folder.

    Returns:
        The PNG file, ``stages.png``.
    """
    figure = Figure(figsize=(10.0, 4.4), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplot_mosaic([["score", "ends"], ["losses", "ends"]], width_ratios=(1.5, 1))
    _draw_scores(grid["score"], history, score)
    _draw_losses(grid["losses"], history)
    grid["losses"].sharex(grid["score"])
    for axes in (grid["score"], grid["losses"]):
        _mark_stages(axes, stages, named=axes is grid["score"])
    _draw_ends(grid["ends"], stages, score)
    figure.suptitle(title, fontsize=11)
    return files.write(
        folder / NAME, lambda path: figure.savefig(path, format="png", metadata={"Software": None})
    )


def _draw_scores(axes: Axes, history: Sequence[Mapping[str, Any]], score: Score) -> None:
    key = f"val_{score.metric}"
    points = [(row["epoch"], score.scale * row[key]) for row in history if key in row]
    axes.plot(*zip(*points), ".-", color=VALIDATION)
    axes.set_ylabel(f"validation {score.label}")


def _draw_losses(axes: Axes, history: Sequence[Mapping[str, Any]]) -> None:
    lines = (
        ("student_loss", "label loss", LABEL_LOSS),
        ("distillation_loss", "distillation", DISTILLATION_LOSS),
    )
    epochs = [row["epoch"] for row in history]
    for key, label, color in lines:
        axes.plot(epochs, [row[key] for row in history], ".-", color=color, label=label)
    axes.set_yscale("symlog", linthresh=1e-2)
    axes.set_ylabel("training loss")
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.legend(frameon=False, loc="best", fontsize=8)


def _mark_stages(axes: Axes, stages: Sequence[Mapping[str, Any]], *, named: bool) -> None:
    """Draws a line where a stage begins, and its name above."""
    begin = 0.5
    for stage in stages:
        if begin > 0.5:
            axes.axvline(begin, color=GRAY, linewidth=0.8, zorder=0)
        end = begin + stage["epochs"]
        if named:
            middle = 0.5 * (begin + end)
            place = axes.get_xaxis_transform()
            axes.text(
                middle, 1.02, stage["name"], ha="center", va="bottom", fontsize=8, transform=place
            )
        begin = end
    axes.set_xlim(0.5, begin)
    _plain(axes)


def _draw_ends(axes: Axes, stages: Sequence[Mapping[str, Any]], score: Score) -> None:
    """Draws the cost of each stage's network as bars, its score at the end as dots."""
    places = range(len(stages))
    costs = [(stage["macs"] or 0) / 1e6 for stage in stages]
    axes.bar(places, costs, color=GRAY, width=0.6)
    axes.set_ylabel("million MACs of an image (bars)")
    axes.set_xticks(places, [stage["name"] for stage in stages], fontsize=8)
    beside = axes.twinx()
    scored = [(at, stage["score"]) for at, stage in enumerate(stages) if stage["score"] is not None]
    beside.plot(*zip(*scored), "o-", color=VALIDATION)
    beside.set_ylabel(f"validation {score.label} at the end of the stage", color=VALIDATION)
    _plain(axes)
    beside.spines[["top", "left"]].set_visible(False)


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.25)
