"""The picture of a search: score over the values of one dimension, or a map over those of two."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from tfkd import files
from tfkd.colors import BEST, TEST, VALIDATION
from tfkd.tuning.space import Dimension

_WIDE = 20.0
"""Ratio of the largest to the smallest value from which on an axis is logarithmic."""


def draw(
    rows: Sequence[Mapping[str, Any]],
    space: Sequence[Dimension],
    title: str,
    path: str | os.PathLike,
) -> Path | None:
    """Draws the scores of a search, where one or two dimensions were varied.

    Args:
        rows: What :func:`tfkd.tuning.search` returns.
        space: Its dimensions.
        title: What stands above.
        path: The PNG file to write.

    Returns:
        The path, or ``None`` where there is nothing that a plane can show.
    """
    scored = [row for row in rows if row["score"] is not None]
    if not scored or len(space) > 2:
        return None
    figure = Figure(figsize=(6.4, 4.2), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    if len(space) == 1:
        _curve(axes, scored, space[0])
    else:
        _map(figure, axes, scored, space)
    axes.set_title(title, fontsize=11)
    return files.write(path, lambda fresh: figure.savefig(fresh, metadata={"Software": None}))


def _curve(axes: Axes, rows: Sequence[Mapping[str, Any]], dimension: Dimension) -> None:
    values = [row["values"][dimension.fields[0]] for row in rows]
    if dimension.numeric:
        places = np.asarray(values, float)
        if places.min() > 0 and places.max() >= _WIDE * places.min():
            axes.set_xscale("log")
            axes.minorticks_off()
        axes.set_xticks(places, [f"{value:g}" for value in values])
    else:
        places = np.arange(len(rows))
        axes.set_xticks(places, [_label(value) for value in values])
    order = np.argsort(places)
    scores = np.asarray([row["score"] for row in rows])
    # Words have no order that a line could follow.
    dotted, line = ("o:", "o-") if dimension.numeric else ("o", "o")
    on = rows[0]["scored_on"]
    if on != "test":
        tests = np.asarray([row["test_best"] for row in rows])
        axes.plot(places[order], tests[order], dotted, color=TEST, label="test, same student")
    axes.plot(places[order], scores[order], line, color=VALIDATION, label=on, linewidth=1.8)
    top = int(scores.argmax())
    axes.scatter(places[top], scores[top], s=160, facecolors="none", edgecolors=BEST,
                 linewidths=2, label="best", zorder=3)  # fmt: skip
    axes.set_xlabel("\n".join(dimension.fields))
    axes.set_ylabel(rows[0]["score_label"])
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.25)


def _map(
    figure: Figure,
    axes: Axes,
    rows: Sequence[Mapping[str, Any]],
    space: Sequence[Dimension],
) -> None:
    down, across = space
    texts = [[json.dumps(value) for value in each.options().values()] for each in space]
    scores = np.full([len(each) for each in texts], np.nan)
    for row in rows:
        place = [
            own.index(json.dumps(row["values"][each.fields[0]])) for own, each in zip(texts, space)
        ]
        scores[tuple(place)] = row["score"]
    shown = axes.imshow(scores, cmap="viridis", aspect="auto")
    figure.colorbar(shown, ax=axes, label=f"{rows[0]['scored_on']} {rows[0]['score_label']}")
    middle = (np.nanmin(scores) + np.nanmax(scores)) / 2
    for (y, x), score in np.ndenumerate(scores):
        if np.isnan(score):
            continue
        color = "white" if score < middle else "black"
        frame = {"boxstyle": "round", "facecolor": "none", "edgecolor": color}
        best = score == np.nanmax(scores)
        axes.text(x, y, f"{score:.2f}", ha="center", va="center", color=color,
                  bbox=frame if best else None)  # fmt: skip
    axes.set_xticks(range(len(across.values)), [_label(value) for value in across.values])
    axes.set_yticks(range(len(down.values)), [_label(value) for value in down.values])
    axes.set_xlabel("\n".join(across.fields))
    axes.set_ylabel("\n".join(down.fields))


def _label(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return value if isinstance(value, str) else json.dumps(value)
