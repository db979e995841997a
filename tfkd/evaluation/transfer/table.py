"""Rows of probes as JSON and as a Markdown table."""

from __future__ import annotations

import os
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from tfkd import files, markdown
from tfkd.evaluation.transfer.neighbors import NEIGHBORS

COLUMNS = {
    "linear_top1": "linear, top-1 %",
    **{f"knn{count}_top1": f"{count}-NN %" for count in NEIGHBORS},
    "logistic_top1": "logistic regression %",
}


def as_markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """Returns a table: a line for each data set and role, mean and deviation over the seeds.

    Args:
        rows: Those of :func:`tfkd.evaluation.transfer.probe_runs`.
    """
    groups: dict[tuple[str, int, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["probe"], row["classes"], row["role"]), []).append(row)
    several = len({row["seed"] for row in rows}) > 1
    return markdown.table(
        ["probe", "classes", "role", "student", *(["seeds"] if several else []), *COLUMNS.values()],
        [
            [
                probe,
                str(classes),
                f"`{role}`",
                ", ".join(dict.fromkeys(row["student"] for row in found)),
                *([str(len(found))] if several else []),
                *(_spread([row[key] for row in found]) for key in COLUMNS),
            ]
            for (probe, classes, role), found in groups.items()
        ],
    )


def write_rows(rows: Sequence[Mapping[str, Any]], path: str | os.PathLike) -> None:
    """Writes rows as JSON, ``{"rows": [...]}``.

    Raises:
        TfkdError: When the file cannot be written.
    """
    files.write_json(path, {"rows": list(rows)})


def _spread(values: Sequence[float]) -> str:
    mean = f"{statistics.mean(values):.2f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.2f}"
