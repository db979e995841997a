"""The picture of a network with exits: accuracy over the cost of an image."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from tfkd import files
from tfkd.colors import METHODS, TEST


def draw(found: Mapping[str, Any], title: str, path: Path) -> tuple[Path, Path]:
    """Draws the test accuracy where all images leave at one exit, and where each leaves when sure.

    Args:
        found: What :func:`tfkd.evaluation.accuracy_over_cost` returns.
        title: What the network is called, and the data.
        path: The files to write, without ``.png`` and ``.svg``.

    Returns:
        The PNG file and the SVG file.
    """
    figure = Figure(figsize=(6.4, 4.2), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    _line(axes, found["anytime"], "o--", TEST, "all images leave at one exit")
    if found["budgeted"]:
        sorted_points = sorted(found["budgeted"], key=lambda point: point["test_macs"])
        _line(axes, sorted_points, ".-", METHODS[0], "each leaves where it is sure")
    axes.set_xlabel("million MACs of an image, mean")
    axes.set_ylabel("test top-1 %")
    axes.set_title(title, fontsize=11)
    axes.legend(frameon=False, loc="best")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.25)
    # Equal runs draw equal files: no date, and names inside the SVG that are not drawn by lot.
    with matplotlib.rc_context({"svg.hashsalt": "tfkd"}):
        return (
            files.write(
                path.with_suffix(".png"), lambda p: figure.savefig(p, metadata={"Software": None})
            ),
            files.write(
                path.with_suffix(".svg"), lambda p: figure.savefig(p, metadata={"Date": None})
            ),
        )


def _line(axes, points, form: str, color: str, label: str) -> None:
    axes.plot(
        [point["test_macs"] / 1e6 for point in points],
        [point["test_top1"] for point in points],
        form,
        color=color,
        label=label,
    )
