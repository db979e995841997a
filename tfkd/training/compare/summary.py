"""The numbers of a comparison: its rows, ``summary.json``, ``summary.csv`` and the table."""

from __future__ import annotations

import csv
import dataclasses
import io
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tfkd.core import Task
from tfkd.core.tasks.task import Column
from tfkd.training.compare.plan import ALONE, TEACHER

Row = dict[str, Any]

_FORM = "{:.2f}"


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What came of one run: a result or an error.

    Attributes:
        role: Its role.
        seed: Its seed.
        folder: Its folder.
        result: The content of its ``result.json``.
        agreement: How often its student agrees with the common teacher, in percent.
        error: Why there is no result, in one line.
    """

    role: str
    seed: int
    folder: Path
    result: Mapping[str, Any] | None = None
    agreement: float | None = None
    error: str | None = None


def summarize(experiment: str, outcomes: Sequence[Outcome], task: Task | None) -> dict[str, Any]:
    """Returns the content of ``summary.json``.

    Args:
        experiment: Name of the comparison.
        outcomes: Of all runs.
        task: The task of the student; ``None`` where there is no result.
    """
    columns = _columns(task, [each.result for each in outcomes if each.result]) if task else []
    return {
        "experiment": experiment,
        "columns": [dataclasses.asdict(column) for column in columns],
        "rows": [_row(each, task, [column.key for column in columns]) for each in outcomes],
    }


def _columns(task: Task, results: Sequence[Mapping[str, Any]]) -> list[Column]:
    """Returns the numbers of a task that some result holds, the score first."""
    columns = list(task.columns) or [Column(task.score.key, task.score.label)]
    known = {column.key for column in columns}
    columns += [column for column in task.exit_columns if column.key not in known]
    return [column for column in columns if any(f"{column.key}_last" in each for each in results)]


def _row(outcome: Outcome, task: Task | None, keys: Sequence[str]) -> Row:
    """Returns the row of a run; of one that failed everything but the error is unknown."""
    result = outcome.result or {}
    score = result.get("score")
    # The first number of an exit is its score.
    of_exit = task.exit_columns[0].key if task and task.exit_columns else score
    variants = result.get("variants", {})
    return {
        "role": outcome.role,
        "seed": outcome.seed,
        "score": result.get(f"{score}_last"),
        **{key: result.get(f"{key}_last") for key in keys},
        "exits": [{**each, "score": each.get(of_exit)} for each in result.get("exits", ())],
        "variants": {word: {**each, "score": each[score]} for word, each in variants.items()},
        "agreement": outcome.agreement,
        **{key: result.get(key) for key in ("params", "macs", "seconds", "best_selected_on")},
        "error": outcome.error,
    }


def failures(summary: Mapping[str, Any]) -> list[Row]:
    """Returns the rows of the runs that failed."""
    return [row for row in summary.get("rows", ()) if row["error"] is not None]


def as_csv(summary: Mapping[str, Any]) -> str:
    """Returns the rows as text for ``summary.csv``: a line for each run, exit and variant."""
    keys = [column["key"] for column in summary["columns"]]
    fields = ["role", "seed", "score", *keys, "agreement", "params", "macs", "seconds", "error"]
    text = io.StringIO()
    writer = csv.DictWriter(text, fields, extrasaction="ignore")
    writer.writeheader()
    for each in summary["rows"]:
        writer.writerows(_flat(each).values())
    return text.getvalue()


def table(summary: Mapping[str, Any]) -> str:
    """Returns a comparison for the screen: a line for each role, its exits and its variants.

    Means over the seeds, with the standard deviation (of a sample) where there are several. ``over
    alone`` is the mean and deviation of what the score of a method is above that of ``alone`` with
    the same seed, that of an exit with the same exit. A run that failed is told in a line of its
    own, and below the table, which images chose the best epochs, if these are those of the test.

    Args:
        summary: What :func:`tfkd.training.compare.compare` returns.
    """
    columns, rows = summary["columns"], summary["rows"]
    alone = {
        (part, each["seed"]): each["score"]
        for part, found in _parts(rows, ALONE).items()
        for each in found
    }
    several = len({each["seed"] for each in rows}) > 1
    lines: list[list[str]] = [_header(columns)]
    for role in dict.fromkeys(each["role"] for each in rows):
        for part, found in _parts(rows, role).items():
            lines.append(_cells(role, part, found, columns, alone))
        for error, seeds in _errors(rows, role).items():
            which = f" (seed {', '.join(map(str, seeds))})" if several else ""
            lines.append([role, f"failed{which}: {error}"])
    widths = [max(map(len, cells)) for cells in zip(*(each for each in lines if len(each) > 2))]
    widths[0] = max(10, *(len(each[0]) for each in lines))
    header, *others = (_joined(each, widths) for each in lines)
    if any(each.get("best_selected_on") == "test" for each in rows):
        others.append(
            "scores are those of the last epoch; the best epochs were chosen on the test images"
        )
    return "\n".join([header, "-" * len(header), *others])


def _parts(rows: Sequence[Row], role: str) -> dict[str, list[Row]]:
    """Returns the finished rows of a role, and under a name those of each exit and variant."""
    parts: dict[str, list[Row]] = {}
    for each in rows:
        if each["role"] == role and each["error"] is None:
            for part, numbers in _flat(each).items():
                parts.setdefault(part, []).append(numbers)
    return parts


def _errors(rows: Sequence[Row], role: str) -> dict[str, list[int]]:
    """Returns why runs of a role failed, with their seeds."""
    errors: dict[str, list[int]] = {}
    for each in rows:
        if each["role"] == role and each["error"] is not None:
            errors.setdefault(each["error"], []).append(each["seed"])
    return errors


def _flat(row: Row) -> dict[str, Row]:
    """Returns a row and those of its exits and variants, by what they add to its name."""
    inner = {f" {each['name']}": each for each in row["exits"]}
    inner |= {f" ({word})": each for word, each in row["variants"].items()}
    return {"": row} | {
        part: {**numbers, "role": row["role"] + part, "seed": row["seed"]}
        for part, numbers in inner.items()
    }


def _header(columns: Sequence[Mapping[str, str]]) -> list[str]:
    labels = [column["label"] for column in columns] or ["score"]
    return [
        "role",
        labels[0],
        "over alone",
        *labels[1:],
        "agreement %",
        "params",
        "MACs",
        "seconds",
    ]


def _cells(
    role: str,
    part: str,
    rows: Sequence[Row],
    columns: Sequence[Mapping[str, str]],
    alone: Mapping[tuple[str, int], float],
) -> list[str]:
    """Returns the cells of one line.

    Args:
        role: The role.
        part: What names the exit or variant; empty for the run itself.
        rows: One for each seed.
        columns: Those of the summary.
        alone: The scores of ``alone`` by part and seed. The variants of a method, which ``alone``
            does not have, are compared with its student.
    """
    form = columns[0]["form"] if columns else _FORM
    gains = []
    for row in rows if role not in (TEACHER, ALONE) else ():
        other = alone.get((part, row["seed"]), alone.get(("", row["seed"])))
        if None not in (row["score"], other):
            gains.append(row["score"] - other)
    seconds = [row["seconds"] for row in rows if row.get("seconds") is not None]
    return [
        role + part,
        _spread([row["score"] for row in rows], form),
        _spread(gains, form, sign=True),
        *(_spread([row.get(each["key"]) for row in rows], each["form"]) for each in columns[1:]),
        _spread([row.get("agreement") for row in rows], _FORM),
        _count(rows[0].get("params")),
        _count(rows[0].get("macs")),
        f"{statistics.mean(seconds):.1f}" if seconds else "-",
    ]


def _joined(cells: Sequence[str], widths: Sequence[int]) -> str:
    """Returns the cells in columns; the words on a run that failed take all the room."""
    name, *others = cells
    if len(others) > 1:
        others = [cell.rjust(width) for cell, width in zip(others, widths[1:])]
    return "  ".join([name.ljust(widths[0]), *others])


def _spread(values: Sequence[float | None], form: str, *, sign: bool = False) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    mean = form.format(statistics.mean(known))
    if sign and not mean.startswith("-"):
        mean = f"+{mean}"
    if len(known) == 1:
        return mean
    # Of a loss that is no number there is no deviation, which statistics.stdev cannot say.
    finite = all(map(math.isfinite, known))
    return f"{mean} ± {form.format(statistics.stdev(known) if finite else math.nan)}"


def _count(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"
