"""The picture of a comparison: validation accuracy over the epochs, and the final test accuracy."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

COLOURS = ("#4c566a", "#d08770", "#2e7d6b", "#5e81ac", "#b48ead", "#a3be8c")


def draw(
    folders: Mapping[str, Sequence[str | os.PathLike]],
    rows: Sequence[Mapping],
    path: str | os.PathLike,
    title: str = "",
) -> Path:
    """Draws the learning curves of several roles beside their test accuracies.

    Left, the validation accuracy of each epoch: the mean over the seeds as a line, the range from
    the lowest to the highest as a band. Right, the test accuracy of each seed as a dot and the mean
    as a bar.

    Args:
        folders: Run folders of each role.
        rows: Rows with ``role`` and ``top1`` in percent.
        path: The PNG file to write.
        title: A line above the picture.

    Returns:
        The path.
    """
    many = len(folders) > len(COLOURS)
    colours = dict(zip(folders, COLOURS[:2]))
    others = [role for role in folders if role not in colours]
    chosen = [matplotlib.colormaps["turbo"](x) for x in np.linspace(0.05, 0.95, len(others))]
    colours |= dict(zip(others, chosen if many else COLOURS[2:]))
    size = (9.0, 1.6 + 0.3 * len(folders)) if many else (9.0, 3.6)
    figure = Figure(figsize=size, dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    curves, dots = figure.subplots(1, 2, width_ratios=(1, 1) if many else (3, 2))
    _draw_curves(curves, folders, colours, legend=not many)
    (_draw_sideways if many else _draw_upright)(dots, folders, rows, colours)
    for axes in (curves, dots):
        axes.spines[["top", "right"]].set_visible(False)
    curves.grid(axis="y", alpha=0.25)
    dots.grid(axis="x" if many else "y", alpha=0.25)
    if title:
        figure.suptitle(title, fontsize=11)
    figure.savefig(path, metadata={"Software": None})
    return Path(path)


def _draw_curves(axes, folders, colours, *, legend: bool) -> None:
    """Draws mean and range of the validation accuracy of each role over the epochs."""
    for role, colour in colours.items():
        accuracy = _accuracies(folders[role])
        epochs = np.arange(1, accuracy.shape[1] + 1)
        axes.plot(epochs, accuracy.mean(0), color=colour, label=role, linewidth=1.8)
        if legend:
            axes.fill_between(epochs, accuracy.min(0), accuracy.max(0), color=colour, alpha=0.15)
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylabel("validation top-1 (%)")
    if legend:
        axes.legend(frameon=False, loc="lower right")


def _draw_upright(axes, folders, rows, colours) -> None:
    """Draws a column of dots for each role."""
    for position, (role, colour) in enumerate(colours.items()):
        found = [row["top1"] for row in rows if row["role"] == role]
        axes.hlines(np.mean(found), position - 0.3, position + 0.3, color=colour, linewidth=3)
        spread = np.linspace(-0.12, 0.12, len(found)) if len(found) > 1 else [0.0]
        axes.scatter(position + np.asarray(spread), found, color=colour, alpha=0.6, s=28, zorder=3)
        axes.annotate(
            f"{np.mean(found):.2f}",
            (position, np.mean(found)),
            xytext=(26, 4),
            textcoords="offset points",
            ha="center",
            color=colour,
        )
    axes.set_xticks(range(len(folders)), list(colours))
    axes.set_xlim(-0.6, len(folders) - 0.4)
    axes.set_ylabel("test top-1 (%), one dot a seed")
    axes.margins(y=0.25)


def _draw_sideways(axes, folders, rows, colours) -> None:
    """Draws a row of dots for each role, the best on top, which leaves room for their names."""
    found = {role: [row["top1"] for row in rows if row["role"] == role] for role in folders}
    ordered = sorted(folders, key=lambda role: np.mean(found[role]))
    for position, role in enumerate(ordered):
        colour = colours[role]
        axes.vlines(np.mean(found[role]), position - 0.3, position + 0.3, color=colour, linewidth=3)
        axes.scatter(
            found[role],
            np.full(len(found[role]), position),
            color=colour,
            alpha=0.6,
            s=28,
            zorder=3,
        )
    labels = [f"{role}  {np.mean(found[role]):.2f}" for role in ordered]
    axes.set_yticks(range(len(ordered)), labels)
    axes.set_xlabel("test top-1 (%), one dot a seed")


def _accuracies(folders: Sequence[str | os.PathLike]) -> np.ndarray:
    """Returns the validation accuracies in percent, (seeds, epochs); gaps are carried forward."""
    curves = []
    for folder in folders:
        with open(Path(folder) / "metrics.csv", newline="") as file:
            values = [row.get("val_accuracy") or "nan" for row in csv.DictReader(file)]
        curve = 100.0 * np.asarray(values, float)
        known = np.maximum.accumulate(np.where(np.isnan(curve), 0, np.arange(len(curve))))
        curves.append(curve[known])
    shortest = min(len(curve) for curve in curves)
    return np.stack([curve[:shortest] for curve in curves])
