"""The picture of a record: the entries of a vector, such as learned weights, over the epochs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator


def draw(
    values: np.ndarray, names: Sequence[str], title: str, label: str, path: str | os.PathLike
) -> Path:
    """Draws a map with a row for each entry and a column for each epoch.

    Args:
        values: Shape ``(epochs, entries)``.
        names: Of the entries.
        title: What stands above.
        label: What the colors are.
        path: The PNG file to write.
    """
    epochs, entries = values.shape
    height = max(2.4, 1.3 + 0.19 * entries)
    figure = Figure(figsize=(8.0, height), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    shown = axes.imshow(
        values.T,
        cmap="viridis",
        aspect="auto",
        interpolation="nearest",
        extent=(0.5, epochs + 0.5, entries - 0.5, -0.5),
    )
    figure.colorbar(shown, ax=axes, label=label)
    axes.set_yticks(range(entries), names, fontsize=8)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set_xlabel("epoch")
    axes.set_title(title, fontsize=11)
    figure.savefig(path, metadata={"Software": None})
    return Path(path)
