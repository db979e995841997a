"""The numbers of a comparison: its rows, ``summary.json``, ``summary.csv`` and the table."""

from __future__ import annotations

import csv
import io
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tfkd.core.tasks.task import Column
from tfkd.training.compare.plan import ALONE, TEACHER

Row = dict[str, Any]

_FORM = "{:.2f}"


def summary(experiment: str, columns: Sequence[Column], rows: Sequence[Row]) -> dict[str, Any]:
    """Returns the content of ``summary.json``.

    Args:
        experiment: Name of the comparison.
        columns: The numbers that the table shows, the score first.
        rows: Made by :func:`row` and :func:`failed_row`.
    """
    return {
        "experiment": experiment,
        "columns": [{"key": each.key, "label": each.label, "form": each.form} for each in columns],
        "rows": list(rows),
    }


def row(
    role: str,
    seed: int,
    result: Mapping[str, Any],
    columns: Sequence[Column],
    agreement: float | None,
) -> Row:
    """Returns the row of a finished run.

    Args:
        role: Its role.
        seed: Its seed.
        result: The content of its ``result.json``.
        columns: As for :func:`summary`.
        agreement: How often its student agrees with the common teacher, in percent.
    """
    return {
        "role": role,
        "seed": seed,
        "score": result[f"{result['score']}_last"],
        **{each.key: result.get(f"{each.key}_last") for each in columns},
        "exits": result.get("exits", []),
        "variants": result.get("variants", {}),
        "agreement": agreement,
        "params": result["params"],
        "macs": result["macs"],
        "seconds": result["seconds"],
        "error": None,
    }


def failed_row(role: str, seed: int, error: str, columns: Sequence[Column]) -> Row:
    """Returns the row of a run without a result, in which everything but the error is unknown."""
    numbers = ("score", *(each.key for each in columns), "agreement", "params", "macs", "seconds")
    unknown = dict.fromkeys(numbers)
    return {"role": role, "seed": seed, **unknown, "exits": [], "variants": {}, "error": error}


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
        writer.writerows(line for _, line in _flat(each, summary["columns"]))
    return text.getvalue()


def table(summary: Mapping[str, Any]) -> str:
    """Returns a comparison for the screen: a line for each role, its exits and its variants.

    Means over the seeds, with the standard deviation (of a sample) where there are several. ``over
    alone`` is the mean and deviation of what the score of a method is above that of ``alone`` with
    the same seed. A run that failed is told in a line of its own.

    Args:
        summary: What :func:`tfkd.training.compare.compare` returns.
    """
    columns, rows = summary["columns"], summary["rows"]
    alone = {each["seed"]: each["score"] for each in rows if each["role"] == ALONE}
    several = len({each["seed"] for each in rows}) > 1
    lines: list[list[str]] = [_header(columns)]
    for role in dict.fromkeys(each["role"] for each in rows):
        for part, found in _parts(rows, role, columns).items():
            lines.append(_cells(role, part, found, columns, alone))
        for error, seeds in _errors(rows, role).items():
            which = f" (seed {', '.join(map(str, seeds))})" if several else ""
            lines.append([role, f"failed{which}: {error}"])
    widths = [max(map(len, cells)) for cells in zip(*(each for each in lines if len(each) > 2))]
    widths[0] = max(10, *(len(each[0]) for each in lines))
    header, *others = (_joined(each, widths) for each in lines)
    return "\n".join([header, "-" * len(header), *others])


def _parts(
    rows: Sequence[Row], role: str, columns: Sequence[Mapping[str, str]]
) -> dict[str, list[Row]]:
    """Returns the finished rows of a role, those of each exit and variant under a name."""
    parts: dict[str, list[Row]] = {}
    for each in rows:
        if each["role"] == role and each["error"] is None:
            for part, numbers in _flat(each, columns):
                parts.setdefault(part, []).append(numbers)
    return parts


def _errors(rows: Sequence[Row], role: str) -> dict[str, list[int]]:
    """Returns why runs of a role failed, with their seeds."""
    errors: dict[str, list[int]] = {}
    for each in rows:
        if each["role"] == role and each["error"] is not None:
            errors.setdefault(each["error"], []).append(each["seed"])
    return errors


def _flat(row: Row, columns: Sequence[Mapping[str, str]]) -> Iterator[tuple[str, Row]]:
    """Yields a row and one for each of its exits and variants, with what they add to its name.

    A single exit has no score where the score is a mean over all of them.
    """
    yield "", row
    inner = [(f" {each['name']}", each) for each in row["exits"]]
    inner += [(f" ({word})", each) for word, each in row["variants"].items()]
    for part, numbers in inner:
        score = numbers.get(columns[0]["key"])
        yield part, {**numbers, "role": row["role"] + part, "seed": row["seed"], "score": score}


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
    alone: Mapping[int, float | None],
) -> list[str]:
    """Returns the cells of one line.

    Args:
        role: The role.
        part: What names the exit or variant; empty for the run itself.
        rows: One for each seed.
        columns: Those of the summary.
        alone: The scores of ``alone`` by seed.
    """
    form = columns[0]["form"] if columns else _FORM
    gains = [
        row["score"] - alone[row["seed"]]
        for row in rows
        if role not in (TEACHER, ALONE) and None not in (row["score"], alone.get(row["seed"]))
    ]
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
