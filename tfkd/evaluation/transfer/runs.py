"""The finished runs that a folder stands for: itself, or those of a comparison."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tfkd import json_shapes
from tfkd.errors import TfkdError

_SEED = re.compile(r"seed\d+")


@dataclasses.dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        folder: Its folder.
        role: What it is called in a table: of ``ROLE/seed0`` the role, otherwise the folder's name.
        seed: Its seed.
    """

    folder: Path
    role: str
    seed: int


def runs_of(folders: Iterable[str | os.PathLike]) -> list[Run]:
    """Returns the runs of folders, each once.

    Args:
        folders: Run folders, and folders of comparisons, of which every run is taken.

    Raises:
        TfkdError: For a folder without a finished run, or runs of one role in several places,
            which are not those of one comparison.
    """
    found: dict[Path, Run] = {}
    for folder in map(Path, folders):
        inside = [folder] if _result(folder) else sorted(folder.glob("*/seed*"), key=_place)
        runs = {each.resolve(): _run(each) for each in inside if _result(each)}
        if not runs:
            raise TfkdError(
                f"run folder {str(folder)!r}: found no finished run (result.json), wanted the "
                "folder of a run or of a comparison"
            )
        found.update({path: run for path, run in runs.items() if path not in found})
    taken: dict[str, Path] = {}
    for run in found.values():
        place = run.folder.resolve()
        place = place.parent if _SEED.fullmatch(place.name) else place
        other = taken.setdefault(run.role, place)
        if other != place:
            raise TfkdError(
                f"runs to probe: found {str(other)!r} and {str(place)!r}, both called {run.role}, "
                "wanted folders of other names"
            )
    return list(found.values())


def _place(folder: Path) -> tuple[str, int]:
    """Returns what runs are ordered by: role and seed."""
    number = re.search(r"\d+$", folder.name)
    return folder.parent.name, int(number[0]) if number else 0


def _run(folder: Path) -> Run:
    role = folder.resolve().name
    if _SEED.fullmatch(role):
        role = folder.resolve().parent.name
    return Run(folder, role, int(_result(folder).get("seed", 0)))


def _result(folder: Path) -> dict[str, Any]:
    """Returns the result of a run; empty where there is none."""
    try:
        return json_shapes.read(folder / "result.json", {"seed?": int})
    except (OSError, json_shapes.Misfit):
        return {}
