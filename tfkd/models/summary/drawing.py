"""A picture of one network: its blocks from the image to the logits, their cost, and its taps."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from tfkd import files
from tfkd.colors import BLOCKS, FAINT, INK
from tfkd.errors import TfkdError
from tfkd.models.summary.overview import shape_text, short, title
from tfkd.models.summary.plan import Block, Plan

FORMATS = (".png", ".svg")

# Inches: the height of a row and of the gaps, and the left edge and width of each column.
_ROW, _GAP, _STAGE_GAP, _TOP, _BOTTOM = 0.34, 0.14, 0.2, 0.95, 0.2
_STAGE, _BOX = 0.2, 1.25
_LETTER = 0.068
_MOST_ROWS = 400


def draw(plan: Plan, path: str | os.PathLike) -> Path:
    """Draws the plan of a network.

    A box is a block, or several equal ones; the arc beside it its shortcut. Beside the boxes stand
    the shape of the output, parameters, and MACs with a bar for their part of the whole.

    Args:
        plan: The network.
        path: The .png or .svg file to write.

    Returns:
        The path.

    Raises:
        TfkdError: For another ending, a network of too many blocks, or a file that cannot be
            written.
    """
    path = Path(path)
    if path.suffix not in FORMATS:
        raise TfkdError(f"picture {str(path)!r}: found ending {path.suffix!r}; wanted .png or .svg")
    if len(plan.blocks) > _MOST_ROWS:
        raise TfkdError(
            f"picture of {plan.name}: found {len(plan.blocks)} blocks; wanted {_MOST_ROWS} or fewer"
        )
    stages = [(stage, list(blocks)) for stage, blocks in groupby(plan.blocks, lambda b: b.stage)]
    texts = [_text(block) for block in plan.blocks]
    box = max(2.6, 0.35 + _LETTER * max(map(len, texts)))
    columns = _columns(box, plan)
    height = _TOP + _BOTTOM + (_ROW + _GAP) * (len(plan.blocks) + 1) + _STAGE_GAP * len(stages)
    width = columns["end"]
    figure = Figure(figsize=(width, height), dpi=110)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.axis("off")
    _header(axes, plan, columns)
    _rows(axes, plan, stages, columns, box)
    with files.writing(f"picture {str(path)!r}", "a writable path"):
        figure.savefig(path, metadata={"Software": None} if path.suffix == ".png" else {})
    return path


def _text(block: Block) -> str:
    return f"{block.repeats} × [ {block.title()} ]" if block.repeats > 1 else block.title()


def _columns(box: float, plan: Plan) -> dict[str, float]:
    """The left or right edges of what stands beside the boxes."""
    taps = max(sum(map(_pill, block.taps)) for block in plan.blocks)
    shape = _BOX + box + 0.4
    columns = {"box": _BOX, "shape": shape, "params": shape + 1.75, "macs": shape + 2.6}
    columns["bar"] = columns["macs"] + 0.12
    columns["taps"] = columns["bar"] + 1.0
    columns["end"] = columns["taps"] + max(1.0, 0.1 + taps)
    return columns


def _header(axes: Axes, plan: Plan, columns: dict[str, float]) -> None:
    axes.text(_STAGE, 0.32, plan.name, size=14, weight="bold", color=INK, va="center")
    _, _, rest = title(plan).partition(": ")
    at = _STAGE + 0.118 * len(plan.name) + 0.3
    axes.text(at, 0.34, rest, size=9.5, color=FAINT, va="center")
    heads = {"shape": ("output", "left"), "params": ("params", "right"), "macs": ("MACs", "right")}
    for column, (word, side) in {**heads, "taps": ("taps", "left")}.items():
        axes.text(columns[column], 0.72, word, size=8.5, color=FAINT, ha=side, va="center")
    axes.plot([_STAGE, columns["end"] - 0.2], [0.86, 0.86], color=FAINT, linewidth=0.6)


def _rows(
    axes: Axes,
    plan: Plan,
    stages: Sequence[tuple[str, list[Block]]],
    columns: dict[str, float],
    box: float,
) -> None:
    """Draws the image, and then stage after stage."""
    most = max([block.macs * block.repeats for block in plan.blocks] + [1])
    middle = columns["box"] + box / 2
    top = _TOP
    _box(axes, columns["box"], top, box, "image", FAINT)
    axes.text(columns["shape"], top + _ROW / 2, shape_text(plan.input_shape), **_cell())
    bottom = top + _ROW
    top = bottom + _GAP + _STAGE_GAP
    for number, (stage, blocks) in enumerate(stages):
        color = BLOCKS[number % len(BLOCKS)]
        first = top
        for block in blocks:
            axes.add_patch(_arrow((middle, bottom), (middle, top)))
            _box(axes, columns["box"], top, box, _text(block), color)
            if block.join:
                _shortcut(axes, columns["box"] + box, top, block.join, color)
            _facts(axes, block, columns, top + _ROW / 2, most, color)
            bottom = top + _ROW
            top = bottom + _GAP
        _stage(axes, stage, first, bottom, color)
        top += _STAGE_GAP


def _box(axes: Axes, left: float, top: float, width: float, text: str, color: str) -> None:
    axes.add_patch(
        FancyBboxPatch(
            (left, top),
            width,
            _ROW,
            boxstyle="round,pad=0,rounding_size=0.06",
            facecolor=_tint(color),
            edgecolor=color,
            linewidth=1.0,
        )
    )
    axes.text(left + width / 2, top + _ROW / 2, text, size=8.5, color=INK, ha="center", va="center")


def _tint(color: str, strength: float = 0.14) -> tuple[float, ...]:
    """A color mixed with white."""
    channels = [int(color[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    return tuple(1 - strength * (1 - channel) for channel in channels)


def _arrow(start: tuple[float, float], end: tuple[float, float]) -> FancyArrowPatch:
    return FancyArrowPatch(
        start,
        end,
        arrowstyle="-|>",
        mutation_scale=7,
        color=FAINT,
        linewidth=0.9,
        shrinkA=0,
        shrinkB=0,
    )


def _shortcut(axes: Axes, edge: float, top: float, join: str, color: str) -> None:
    """An arc from above a box to its lower edge, with how it meets the box's own output."""
    start, end = (edge, top + 0.07), (edge, top + _ROW - 0.07)
    axes.add_patch(
        FancyArrowPatch(
            start,
            end,
            connectionstyle="arc3,rad=-0.75",
            arrowstyle="-|>",
            mutation_scale=6,
            color=color,
            linewidth=1.0,
            shrinkA=0,
            shrinkB=0,
        )
    )
    sign = "+" if join == "add" else "c"
    axes.text(edge + 0.24, top + _ROW / 2, sign, size=8, color=color, ha="center", va="center")


def _facts(
    axes: Axes, block: Block, columns: dict[str, float], y: float, most: int, color: str
) -> None:
    """Shape, parameters, MACs with their bar, and taps of one row."""
    params, macs = block.params * block.repeats, block.macs * block.repeats
    axes.text(columns["shape"], y, shape_text(block.output_shape), **_cell())
    if params:
        axes.text(columns["params"], y, short(params), ha="right", **_cell())
    if macs:
        axes.text(columns["macs"], y, short(macs), ha="right", **_cell())
        axes.barh(y, 0.75 * macs / most, left=columns["bar"], height=0.12, color=_tint(color, 0.7))
    at = columns["taps"]
    for tap in block.taps:
        axes.text(
            at,
            y,
            tap,
            size=7.5,
            color=color,
            va="center",
            family="monospace",
            bbox=dict(boxstyle="round,pad=0.25", facecolor="white", edgecolor=color, linewidth=0.7),
        )
        at += _pill(tap)


def _pill(tap: str) -> float:
    """The width of a tap's name with its frame and the gap behind it."""
    return 0.21 + 0.064 * len(tap)


def _cell() -> dict:
    return dict(size=8.5, color=INK, va="center")


def _stage(axes: Axes, stage: str, top: float, bottom: float, color: str) -> None:
    """The name of a stage beside its boxes."""
    axes.plot([_BOX - 0.14] * 2, [top, bottom], color=color, linewidth=2.5, solid_capstyle="butt")
    axes.text(
        _BOX - 0.25,
        (top + bottom) / 2,
        stage,
        size=9,
        weight="bold",
        color=color,
        ha="right",
        va="center",
    )
