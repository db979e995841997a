"""The findings as a table and as JSON, with the machine that they were found on."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from tfkd import files
from tfkd.benchmarks import processor
from tfkd.benchmarks.measure import Row

_HEADINGS = ("", "ms", "ratio", "goal", "holds", "baseline", "")


def table(rows: Sequence[Row]) -> str:
    """Returns the rows as text, under a heading for each experiment.

    A goal that is not met is shown as such: "NO".
    """
    lines: list[tuple[str, ...]] = []
    headings: list[str | None] = []
    previous = None
    for row in rows:
        new = not lines or row.experiment != previous
        previous = row.experiment
        headings.append(f"{row.experiment}; one {row.unit}" if new else None)
        lines.append(_cells(row))
    widths = [max(map(len, column)) for column in zip(_HEADINGS, *lines)]
    text = []
    for heading, cells in zip(headings, lines):
        if heading is not None:
            text += ["", heading, _line(_HEADINGS, widths)]
        text.append(_line(cells, widths))
    return "\n".join(text[1:])


def _cells(row: Row) -> tuple[str, ...]:
    holds = {None: "", True: "yes", False: "NO"}[row.holds]
    return (
        row.name,
        f"{row.milliseconds:.2f}",
        "" if row.ratio is None else f"{row.ratio:.3f}",
        "" if row.goal is None else f"{row.direction} {row.goal:.2f}",
        holds,
        row.baseline or "",
        ", ".join(f"{name} {_short(value)}" for name, value in row.facts.items()),
    )


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    """Returns one line; the numbers (second and third column) stand right."""
    padded = [
        cell.rjust(width) if place in (1, 2) else cell.ljust(width)
        for place, (cell, width) in enumerate(zip(cells, widths))
    ]
    return "  ".join(padded).rstrip()


def machine() -> dict[str, object]:
    """Returns what the times depend on: processor, its load now, devices and versions."""
    return {
        "cpu_count": os.cpu_count(),
        "processor": processor.name(),
        "load": os.getloadavg()[0],
        "gpus": [
            tf.config.experimental.get_device_details(device).get("device_name", device.name)
            for device in tf.config.list_physical_devices("GPU")
        ],
        "platform": platform.platform(),
        "versions": {
            "python": platform.python_version(),
            "tensorflow": tf.__version__,
            "keras": keras.__version__,
            "numpy": np.__version__,
        },
    }


def write(rows: Sequence[Row], path: str | os.PathLike, facts: dict[str, object]) -> None:
    """Writes ``{"machine": facts, "rows": [...]}``; the keys of a row are those of `Row`.

    Args:
        rows: The rows.
        path: The file; its folder is made where it does not exist.
        facts: What `machine` returned.

    Raises:
        TfkdError: When the file cannot be written.
    """
    content = {"machine": facts, "rows": [dataclasses.asdict(row) for row in rows]}
    with files.writing(f"file {str(path)!r}", "a writable file"):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
