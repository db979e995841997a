"""The table of a comparison: a line for each role, the best method first.

``comparison FOLDER COLUMN...``: the folder is that of ``tools/compare.py``, of this version or the
one before it; of its files ``summary.json`` is read, and those of the runs for the columns that
need them. Numbers are means over the seeds with the standard deviation of a sample. The variants
that a method leaves have lines of their own, ``ROLE (WORD)``.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfkd import markdown
from tfkd.earlier_version import modernized, modernized_result, modernized_summary
from tfkd.errors import TfkdError, unknown
from tfkd.reporting import source
from tfkd.training.compare import ALONE, TEACHER

_PERCENT = "{:.2f}"


@dataclass(frozen=True)
class _Comparison:
    """A comparison as its folder holds it.

    Attributes:
        folder: The folder.
        columns: The numbers of an evaluation, the score first: ``key``, ``label`` and ``form``.
        rows: The finished runs of each role.
        failed: How many runs of a role did not end, where there are any.
    """

    folder: Path
    columns: Sequence[Mapping[str, str]]
    rows: Mapping[str, list[dict[str, Any]]]
    failed: Mapping[str, int]

    def result(self, role: str, seed: int) -> dict[str, Any]:
        """Returns the result of a run."""
        path = self.folder / _of_run(role) / f"seed{seed}" / "result.json"
        return modernized_result(source.read(path, "seed"))

    def config(self, role: str) -> dict[str, Any]:
        """Returns the config of a role, which is the same for all seeds but for the seed."""
        seed = self.rows[role][0]["seed"]
        path = self.folder / _of_run(role) / f"seed{seed}" / "config.json"
        return modernized(source.read(path, "student"))


def comparison(beside: Path, folder: str, columns: Sequence[str]) -> str:
    """Returns the table of a comparison.

    Args:
        beside: Where the folder is looked for.
        folder: The folder of the comparison.
        columns: Any of ``network``, ``score``, ``over_ROLE`` (what a score is above that of another
            role, such as ``alone``, with the same seed), ``agreement`` (with the common teacher),
            ``own_teacher`` (the score of the teacher that a run learned from), ``params``,
            ``macs``, ``seconds`` (of one run), and the keys of further numbers of the evaluation.

    Raises:
        TfkdError: For an unknown column, or a file that is missing or holds something else.
    """
    found = _read(beside / folder)
    known = _COLUMNS | {f"{_OVER}{role}": _over(role) for role in found.rows if role != TEACHER}
    known |= {
        each["key"]: _number(each["key"]) for each in found.columns if each["key"] not in known
    }
    for column in columns:
        if column not in known:
            raise unknown("column", column, known)
    made = [(_heading(found, column), known[column]) for column in columns]
    return markdown.table(
        ["role", *(heading for heading, _ in made)],
        [[f"`{role}`", *(cell(found, role) for _, cell in made)] for role in _order(found)],
    )


def _read(folder: Path) -> _Comparison:
    path = folder / "summary.json"
    summary = modernized_summary(source.read(path, "rows"))
    rows: dict[str, list[dict[str, Any]]] = {}
    failed: dict[str, int] = {}
    for row in summary["rows"]:
        own = rows.setdefault(row["role"], [])
        if row["error"] is None:
            own.append(row)
            for word, numbers in row.get("variants", {}).items():
                variant = f"{row['role']} ({word})"
                rows.setdefault(variant, []).append({**numbers, "seed": row["seed"]})
        else:
            failed[row["role"]] = failed.get(row["role"], 0) + 1
    if not rows or not summary["columns"]:
        raise TfkdError(f"file {str(path)!r}: found no runs with a score, wanted some")
    return _Comparison(folder, summary["columns"], rows, failed)


def _of_run(role: str) -> str:
    """Returns the role whose runs leave what a line is of: itself, or that of a variant."""
    return role.partition(" (")[0]


def _order(found: _Comparison) -> list[str]:
    """Returns the teacher, the student alone, then the methods by their mean score."""

    def place(role: str) -> tuple[bool, bool, bool, float]:
        scores = [row["score"] for row in found.rows[role]]
        mean = statistics.mean(scores) if scores else 0.0
        return role != TEACHER, role != ALONE, not scores, -mean

    return sorted(found.rows, key=place)


def _heading(found: _Comparison, column: str) -> str:
    labels = {each["key"]: each["label"] for each in found.columns}
    score = found.columns[0]["label"]
    if column.startswith(_OVER):
        return f"over {column.removeprefix(_OVER)}"
    return {
        "score": score,
        "agreement": "agreement with the teacher %",
        "own_teacher": f"its own teacher, {score}",
        "params": "parameters",
        "macs": "MACs",
        "seconds": "seconds a run",
    }.get(column, labels.get(column, column))


def _network(found: _Comparison, role: str) -> str:
    if not found.rows[role]:
        return "-"
    student = found.config(role)["student"]
    settings = [
        name if value is True else f"{name} {_plain(value)}"
        for name, value in student["kwargs"].items()
    ]
    return ", ".join([student["name"], *settings])


def _plain(value: object) -> str:
    return "-".join(map(str, value)) if isinstance(value, list) else str(value)


def _score(found: _Comparison, role: str) -> str:
    cell = _spread([row["score"] for row in found.rows[role]], found.columns[0]["form"])
    failed = found.failed.get(role)
    return f"{cell}; failed: {failed}" if failed else cell


def _over(other: str) -> Callable[[_Comparison, str], str]:
    def cell(found: _Comparison, role: str) -> str:
        if role in (TEACHER, other):
            return "-"
        base = {row["seed"]: row["score"] for row in found.rows.get(other, ())}
        gains = [
            row["score"] - base[row["seed"]] for row in found.rows[role] if row["seed"] in base
        ]
        return _spread(gains, found.columns[0]["form"].replace("{:", "{:+"))

    return cell


def _own_teacher(found: _Comparison, role: str) -> str:
    results = [found.result(role, row["seed"]) for row in found.rows[role]]
    scores = [result.get(f"teacher_{result['score']}") for result in results]
    return _spread(scores, found.columns[0]["form"])


def _count(key: str) -> Callable[[_Comparison, str], str]:
    def cell(found: _Comparison, role: str) -> str:
        numbers = dict.fromkeys(f"{row[key]:,}" for row in found.rows[role] if key in row)
        return ", ".join(numbers) or "-"

    return cell


def _number(key: str) -> Callable[[_Comparison, str], str]:
    def cell(found: _Comparison, role: str) -> str:
        forms = {each["key"]: each["form"] for each in found.columns}
        form = {"seconds": "{:,.1f}"}.get(key, forms.get(key, _PERCENT))
        return _spread([row.get(key) for row in found.rows[role]], form)

    return cell


def _spread(values: Sequence[float | None], form: str) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    mean = form.format(statistics.mean(known))
    if len(known) == 1:
        return mean
    # A diverged run has a loss that is not finite, which statistics.stdev refuses.
    deviation = statistics.stdev(known) if all(map(math.isfinite, known)) else math.nan
    return f"{mean} ± {form.replace('+', '').format(deviation)}"


_OVER = "over_"

_COLUMNS: dict[str, Callable[[_Comparison, str], str]] = {
    "network": _network,
    "score": _score,
    "over_alone": _over(ALONE),
    "agreement": _number("agreement"),
    "own_teacher": _own_teacher,
    "params": _count("params"),
    "macs": _count("macs"),
    "seconds": _number("seconds"),
}
