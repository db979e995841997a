"""The picture of a comparison: validation accuracy over the epochs, and the final test accuracy."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

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
    figure = Figure(figsize=(9.0, 3.6), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    curves, bars = figure.subplots(1, 2, width_ratios=(3, 2))
    for role, colour in zip(folders, COLOURS):
        accuracy = _accuracies(folders[role])
        epochs = np.arange(1, accuracy.shape[1] + 1)
        curves.plot(epochs, accuracy.mean(0), color=colour, label=role, linewidth=1.8)
        curves.fill_between(epochs, accuracy.min(0), accuracy.max(0), color=colour, alpha=0.15)
    curves.set_xlabel("epoch")
    curves.xaxis.set_major_locator(MaxNLocator(integer=True))
    curves.set_ylabel("validation top-1 (%)")
    curves.legend(frameon=False, loc="lower right")
    for position, (role, colour) in enumerate(zip(folders, COLOURS)):
        found = [row["top1"] for row in rows if row["role"] == role]
        bars.hlines(np.mean(found), position - 0.3, position + 0.3, color=colour, linewidth=3)
        spread = np.linspace(-0.12, 0.12, len(found)) if len(found) > 1 else [0.0]
        bars.scatter(position + np.asarray(spread), found, color=colour, alpha=0.6, s=28, zorder=3)
        bars.annotate(
            f"{np.mean(found):.2f}",
            (position, np.mean(found)),
            xytext=(26, 4),
            textcoords="offset points",
            ha="center",
            color=colour,
        )
    bars.set_xticks(range(len(folders)), list(folders))
    bars.set_xlim(-0.6, len(folders) - 0.4)
    bars.set_ylabel("test top-1 (%), one dot a seed")
    bars.margins(y=0.25)
    for axes in (curves, bars):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", alpha=0.25)
    if title:
        figure.suptitle(title, fontsize=11)
    figure.savefig(path, metadata={"Software": None})
    return Path(path)


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
