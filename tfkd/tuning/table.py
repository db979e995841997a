"""The rows of a search for the screen."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tfkd.tuning.record import best


def table(rows: Sequence[Mapping[str, Any]], workdir: str | os.PathLike) -> str:
    """Returns one line for each trial: its values, accuracies, seconds and run folder.

    Args:
        rows: What :func:`tfkd.tuning.search` returns.
        workdir: The folder of the search.
    """
    fields = list(rows[0]["values"])
    tests = any(row["scored_on"] == "test" for row in rows)
    short = [field.rpartition(".")[2] for field in fields]
    header = [name if short.count(name) == 1 else field for name, field in zip(short, fields)]
    header += ["test %" if tests else "validation %"]
    # Test accuracy of the student that the score belongs to.
    header += ["test top-1 %", "seconds", "run folder"]
    lines = [header]
    for row in rows:
        values = [json.dumps(row["values"][field]) for field in fields]
        numbers = [_number(row["score"]), _number(row["top1_best"]), _number(row["seconds"], 1)]
        lines.append([*values, *numbers, str(Path(workdir, row["folder"]))])
    widths = [max(map(len, column)) for column in zip(*lines)]
    texts = [
        "  ".join([*(cell.rjust(width) for cell, width in zip(line[:-1], widths)), line[-1]])
        for line in lines
    ]
    return "\n".join([texts[0], "-" * max(map(len, texts)), *texts[1:]])


def report(rows: Sequence[dict[str, Any]], workdir: str | os.PathLike) -> str:
    """Returns the table, and the best trial with the flags that give a run its values.

    Args:
        rows: What :func:`tfkd.tuning.search` returns.
        workdir: The folder of the search.
    """
    chosen = best(rows)
    return (
        f"{table(rows, workdir)}\n\n"
        f"best: {Path(workdir, chosen['folder'])}, {chosen['scored_on']} top-1 "
        f"{_number(chosen['score'])} %, test top-1 {_number(chosen['top1_best'])} %\n"
        f"  {command(chosen)}"
    )


def command(row: Mapping[str, Any]) -> str:
    """Returns the flags that give another binary the values of a trial."""
    return " ".join(
        shlex.quote(f"--config.{field}={_flag(value)}") for field, value in row["values"].items()
    )


def _flag(value: Any) -> str:
    return repr(tuple(value)) if isinstance(value, (list, tuple)) else str(value)


def _number(value: float | None, digits: int = 2) -> str:
    return "failed" if value is None else f"{value:.{digits}f}"
