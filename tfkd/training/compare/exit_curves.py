"""The picture of what students with several exits are worth: accuracy over cost by role."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from tfkd import files
from tfkd.export.early_exit import FILE_NAME, points_in
from tfkd.training.compare import palette


def draw(
    summary: Mapping[str, Any],
    folders: Mapping[str, Sequence[str | os.PathLike]],
    path: str | os.PathLike,
) -> Path | None:
    """Draws test accuracy over the MACs of an image, the mean over the seeds of each role.

    Left, all images leave at one exit; right, each leaves where it is sure, by the thresholds that
    the validation images chose for one ratio after the other.

    Args:
        summary: The content of ``summary.json``.
        folders: The finished run folders of each role.
        path: The PNG file to write.

    Returns:
        The path; ``None`` where no student has several exits.
    """
    found = {
        role: [points_in(Path(each, FILE_NAME))["last"] for each in of]
        for role, of in folders.items()
        if all(Path(each, FILE_NAME).exists() for each in of)
    }
    if not found:
        return None
    figure = Figure(figsize=(9.0, 3.9), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    anytime, budgeted = figure.subplots(1, 2, sharey=True)
    colors = palette.of_roles(summary, list(folders))
    for role, runs in found.items():
        style = dict(color=colors[role], label=role)
        _line(anytime, [run["anytime"] for run in runs], marker="o", **style)
        if all(run["budgeted"] for run in runs):
            _line(budgeted, [run["budgeted"] for run in runs], **style)
    anytime.set_title("all images leave at one exit", fontsize=10)
    budgeted.set_title("each image leaves where it is sure", fontsize=10)
    anytime.set_ylabel("test top-1 %")
    anytime.legend(frameon=False, loc="lower right")
    for axes in (anytime, budgeted):
        axes.set_xlabel("million MACs of an image, mean")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", alpha=0.25)
    figure.suptitle(palette.title(summary, folders, "mean"), fontsize=11)
    return files.write(path, lambda fresh: figure.savefig(fresh, metadata={"Software": None}))


def _line(axes: Axes, points: Sequence[Sequence[Mapping[str, Any]]], **style: Any) -> None:
    """Draws the mean of several runs' points, which have one order; cheap ones first."""
    macs, top1 = (
        np.mean([[each[key] for each in run] for run in points], axis=0)
        for key in ("test_macs", "test_top1")
    )
    order = np.argsort(macs, kind="stable")
    axes.plot(macs[order] / 1e6, top1[order], linewidth=1.6, **style)
