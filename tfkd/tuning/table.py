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
    """Returns one line for each trial: its values, scores, seconds and run folder.

    Args:
        rows: What :func:`tfkd.tuning.search` returns.
        workdir: The folder of the search.
    """
    fields = list(rows[0]["values"])
    label = best(rows)["score_label"]
    on = "/".join(dict.fromkeys(row["scored_on"] for row in rows if row["score"] is not None))
    short = [field.rpartition(".")[2] for field in fields]
    header = [name if short.count(name) == 1 else field for name, field in zip(short, fields)]
    # Where test images score the trials, they say the same of the student that the score is of.
    scores = ("score",) if on == "test" else ("score", "test_best")
    header += [f"{on} {label}", f"test {label}"][: len(scores)] + ["seconds", "run folder"]
    lines = [header]
    for row in rows:
        values = [json.dumps(row["values"][field]) for field in fields]
        numbers = [*(_number(row[key]) for key in scores), _number(row["seconds"], 1)]
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
    label = chosen["score_label"]
    return (
        f"{table(rows, workdir)}\n\n"
        f"best: {Path(workdir, chosen['folder'])}, "
        f"{chosen['scored_on']} {_words(label, chosen['score'])}, "
        f"test {_words(label, chosen['test_best'])}\n"
        f"  {command(chosen)}"
    )


def command(row: Mapping[str, Any]) -> str:
    """Returns the flags that give another binary the values of a trial."""
    return " ".join(
        shlex.quote(f"--config.{field}={_flag(value)}") for field, value in row["values"].items()
    )


def _flag(value: Any) -> str:
    return repr(tuple(value)) if isinstance(value, (list, tuple)) else str(value)


def _words(label: str, value: float) -> str:
    """Returns a score in words: ``top-1 93.06 %``."""
    name = label.removesuffix(" %")
    return f"{name} {_number(value)}{label.removeprefix(name)}"


def _number(value: float | None, digits: int = 2) -> str:
    return "failed" if value is None else f"{value:.{digits}f}"
