"""What the pictures of a comparison share: the colors of its roles, and the words above."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from tfkd import colors
from tfkd.training.compare.plan import ALONE, TEACHER
from tfkd.training.run_folder import RunFolder

FEW = 6
"""Roles up to which each has a color."""

NAMED = len(colors.METHODS)
"""Of more roles, the best methods, which have one."""


def of_roles(summary: Mapping[str, Any], roles: Sequence[str]) -> dict[str, str]:
    """Returns the color of each role; of many, the methods that are not among the best are gray.

    Args:
        summary: The content of ``summary.json``.
        roles: Those with finished runs, in the order of the comparison.
    """
    methods = [role for role in roles if role not in (TEACHER, ALONE)]
    if len(roles) > FEW:
        methods = sorted(methods, key=lambda role: -mean_score(summary, role))[:NAMED]
    found = {TEACHER: colors.TEACHER, ALONE: colors.ALONE, **dict(zip(methods, colors.METHODS))}
    return {role: found.get(role, colors.GRAY) for role in roles}


def mean_score(summary: Mapping[str, Any], role: str) -> float:
    """Returns the mean test score of the finished runs of a role."""
    scores = test_scores(summary, role)
    return sum(scores) / len(scores)


def test_scores(summary: Mapping[str, Any], role: str) -> list[float]:
    """Returns the test score of each finished run of a role."""
    rows = [row for row in summary["rows"] if row["role"] == role and row["error"] is None]
    return [row["score"] for row in rows]


def title(
    summary: Mapping[str, Any], folders: Mapping[str, Sequence[str | os.PathLike]], drawn: str
) -> str:
    """Returns what a picture shows, in words: networks, data, seeds and how these are drawn.

    Args:
        summary: The content of ``summary.json``.
        folders: The finished run folders of each role.
        drawn: What is drawn of several seeds, such as ``mean``.
    """
    results = {role: RunFolder(of[-1]).result() for role, of in folders.items()}
    *_, last = results.values()
    teacher = results[TEACHER]["student"] if TEACHER in results else last.get("teacher")
    seeds = list(dict.fromkeys(row["seed"] for row in summary["rows"]))
    over = f"seed {seeds[0]}"
    if len(seeds) > 1:
        over = f"{drawn} of seeds {', '.join(map(str, seeds))}"
    networks = f"{teacher} teaches {last['student']}" if teacher else last["student"]
    return f"{networks} on {last['dataset']}, {over}"
