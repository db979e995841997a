"""The picture of a comparison: the score over the epochs, and that of the test images."""

from __future__ import annotations

import csv
import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tfkd import files
from tfkd.colors import GRAY, WORDS
from tfkd.training.compare import palette
from tfkd.training.compare.plan import ALONE, TEACHER
from tfkd.training.run_folder import RunFolder


@dataclasses.dataclass(frozen=True)
class _Line:
    """A role in the picture.

    Attributes:
        role: Its name.
        epochs: The epochs that ended with an evaluation, counted from 1.
        curve: Their validation scores, (seeds, epochs).
        tests: Test scores, (seeds,).
        color: Its color; :data:`GRAY` for one without a name among the curves.
    """

    role: str
    epochs: np.ndarray
    curve: np.ndarray
    tests: np.ndarray
    color: str


def draw(
    summary: Mapping[str, Any],
    folders: Mapping[str, Sequence[str | os.PathLike]],
    path: str | os.PathLike,
) -> Path | None:
    """Draws the learning curves of several roles beside their scores on the test images.

    Left, the validation score of each epoch that was evaluated: the mean over the seeds as a line
    and, where roles are few, the range from the lowest to the highest as a band. Of many roles the
    best methods, the teacher and ``alone`` are named at the ends of their lines; all others are
    gray. Right, the test score of each seed as a dot and the mean as a bar, the best role on top.

    Args:
        summary: The content of ``summary.json``.
        folders: The finished run folders of each role.
        path: The PNG file to write.

    Returns:
        The path; ``None`` where no run is finished.
    """
    if not folders:
        return None
    lines = _lines(summary, folders)
    few = len(lines) <= palette.FEW
    height = 3.6 if few else max(4.8, 1.4 + 0.22 * len(lines))
    figure = Figure(figsize=(9.0 if few else 10.0, height), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    curves, dots = figure.subplots(1, 2, width_ratios=(1, 1))
    result = RunFolder(next(iter(folders.values()))[-1]).result()
    label = summary["columns"][0]["label"]
    _draw_curves(curves, lines, band=few)
    curves.set_ylabel(f"{result['best_selected_on']} {label}")
    if few:
        curves.legend(frameon=False, loc="lower right")
    else:
        _leave_out_begin(curves, lines)
        _name_lines(curves, lines, 72 * height)
        figure.get_layout_engine().set(wspace=0.06)
    _draw_dots(dots, lines)
    dots.set_xlabel(f"test {label}, one dot a seed")
    for axes, across in ((curves, "y"), (dots, "x")):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis=across, alpha=0.25)
    figure.suptitle(_title(summary, folders, few=few), fontsize=11)
    return files.write(path, lambda fresh: figure.savefig(fresh, metadata={"Software": None}))


def _title(
    summary: Mapping[str, Any], folders: Mapping[str, Sequence[str | os.PathLike]], *, few: bool
) -> str:
    """Returns what the picture shows, in words."""
    methods = len(set(folders) - {TEACHER, ALONE})
    failed = len([row for row in summary["rows"] if row["error"] is not None])
    ending = "" if few else f"; {methods} methods"
    if not few and methods > palette.NAMED:
        ending += f", the best {palette.NAMED} in color"
    if failed:
        ending += f"; {failed} {'run' if failed == 1 else 'runs'} failed"
    return palette.title(summary, folders, "mean and range" if few else "mean") + ending


def _lines(
    summary: Mapping[str, Any], folders: Mapping[str, Sequence[str | os.PathLike]]
) -> list[_Line]:
    """Returns the roles with what is drawn of them, the best one last."""
    colors = palette.of_roles(summary, list(folders))
    return [
        _Line(
            role,
            *_evaluated(folders[role]),
            np.asarray(palette.test_scores(summary, role)),
            colors[role],
        )
        for role in sorted(folders, key=lambda role: palette.mean_score(summary, role))
    ]


def _draw_curves(axes: Axes, lines: Sequence[_Line], *, band: bool) -> None:
    """Draws mean and range of the validation scores of each role over the epochs."""
    for line in reversed(lines):
        named = line.color != GRAY
        axes.plot(
            line.epochs,
            line.curve.mean(0),
            color=line.color,
            label=line.role,
            linewidth=1.8 if named else 1.0,
            # A run of one epoch has a point instead of a line.
            marker="o" if len(line.epochs) == 1 else None,
            zorder=3 if named else 2,
        )
        if band:
            low, high = line.curve.min(0), line.curve.max(0)
            axes.fill_between(line.epochs, low, high, color=line.color, alpha=0.15)
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


def _leave_out_begin(axes: Axes, lines: Sequence[_Line]) -> None:
    """Leaves the steep first tenth to the room below the axes: what differs, differs later."""
    later = [each.curve.mean(0)[each.epochs > each.epochs[-1] // 10] for each in lines]
    low, high = (function(np.concatenate(later)) for function in (np.nanmin, np.nanmax))
    if high > low:
        axes.set_ylim(low - 0.05 * (high - low), high + 0.05 * (high - low))


def _name_lines(axes: Axes, lines: Sequence[_Line], height: float) -> None:
    """Writes names at the right of the lines that have a color, and how many have none.

    Args:
        axes: The axes of the curves.
        lines: The roles.
        height: Of the figure, in points.
    """
    named = sorted(
        (each for each in lines if each.color != GRAY), key=lambda each: each.curve.mean(0)[-1]
    )
    low, high = axes.get_ylim()
    ends = np.asarray([each.curve.mean(0)[-1] for each in named])
    places = _spread((ends - low) / (high - low), gap=14 / (0.8 * height))
    for line, end, place in zip(named, ends, places):
        axes.annotate(
            line.role,
            (line.epochs[-1], end),
            xytext=(1.04, place),
            textcoords="axes fraction",
            va="center",
            color=line.color,
            arrowprops=dict(
                arrowstyle="-", color=line.color, linewidth=0.6, relpos=(0, 0.5), shrinkA=1
            ),
        )
    rest = len(lines) - len(named)
    if rest:
        words = f"gray: the {rest} other methods" if rest > 1 else "gray: the other method"
        place = dict(transform=axes.transAxes, ha="right", fontsize=9)
        axes.text(0.98, 0.02, words, color=WORDS, **place)


def _spread(places: np.ndarray, gap: float) -> np.ndarray:
    """Returns ascending places, moved as little as keeps neighbors a gap apart, up to 1."""
    steps = gap * np.arange(len(places))
    # With the steps taken off, places a gap apart are ascending ones: runs that are not take their
    # mean.
    groups: list[list[float]] = []
    for place in np.nan_to_num(places) - steps:
        groups.append([place])
        while len(groups) > 1 and np.mean(groups[-2]) > np.mean(groups[-1]):
            last = groups.pop()
            groups[-1] += last
    spread = np.concatenate([np.full(len(group), np.mean(group)) for group in groups]) + steps
    return spread - max(0.0, spread[-1] - 1.0)


def _draw_dots(axes: Axes, lines: Sequence[_Line]) -> None:
    """Draws a row of dots for each role, the best on top."""
    for position, line in enumerate(lines):
        mean = line.tests.mean()
        axes.vlines(mean, position - 0.3, position + 0.3, color=line.color, linewidth=3)
        axes.scatter(
            line.tests,
            np.full(len(line.tests), position),
            color=line.color,
            alpha=0.6,
            s=28,
            zorder=3,
        )
        if line.role == ALONE:
            axes.axvline(mean, color=line.color, linewidth=0.8, linestyle=":", zorder=1)
    axes.set_yticks(range(len(lines)), [f"{line.role}  {line.tests.mean():.2f}" for line in lines])


def _evaluated(folders: Sequence[str | os.PathLike]) -> tuple[np.ndarray, np.ndarray]:
    """Returns the epochs that all seeds evaluated, and the scores, (seeds, epochs)."""
    curves = []
    for folder in folders:
        result = RunFolder(folder).result()
        with open(Path(folder) / "metrics.csv", newline="") as file:
            column = f"val_{result['score_metric']}"
            values = [row.get(column) or "nan" for row in csv.DictReader(file)]
        curves.append(result["score_scale"] * np.asarray(values, float))
    shortest = min(len(curve) for curve in curves)
    scores = np.stack([curve[:shortest] for curve in curves])
    known = ~np.isnan(scores).any(0)
    known[-1] = True  # The last epoch always is one, unless its score is no number.
    return np.flatnonzero(known) + 1, scores[:, known]
