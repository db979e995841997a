"""The rows of a search, and the file that holds them."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tfkd import files, json_shapes
from tfkd.core.step.nonfinite import NonFiniteLoss
from tfkd.earlier_version import is_earlier
from tfkd.errors import TfkdError, TfkdWarning
from tfkd.training import config as configs
from tfkd.training.run_folder import WRITTEN, RunFolder

FILE = "search.json"
_ROW = {"trial": int, "folder": str, "score": (None, float), "error": (None, str), "*": object}
_RESULTS = ("score", "scored_on", "score_label", "test_best", "test_last", "seconds")


def best(rows: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """Returns the row with the highest score, the first of equals; none where there is no score."""
    scored = [row for row in rows if row["score"] is not None]
    return max(scored, key=lambda row: row["score"], default=None)


def outcome(folder: Path) -> dict[str, Any]:
    """Returns what a row says of a finished run.

    Raises:
        TfkdError: When the run recorded no score of its best epoch.
    """
    result = RunFolder(folder).result()
    if result["best_score"] is None:
        raise TfkdError(
            f"run folder {str(folder)!r}: found no best_score in result.json, wanted a run of this "
            "version whose student was evaluated"
        )
    key = result["score"]
    return {
        # Of the epoch whose student is kept as the best one; in the last stage, if it has several.
        "score": result["best_score"],
        "scored_on": result["best_selected_on"],
        "score_label": result["score_label"],
        "test_best": result[f"{key}_best"],
        "test_last": result[f"{key}_last"],
        "seconds": result["seconds"],
        "error": None,
    }


class Record:
    """The rows of a search and the file that holds them.

    Args:
        workdir: Folder of the search.
        identity: What makes it the same search.
        writes: Whether this process writes files.
    """

    def __init__(self, workdir: Path, identity: dict[str, Any], writes: bool) -> None:
        self.workdir = workdir
        self.rows: list[dict[str, Any]] = []
        self._identity = json.loads(json.dumps(identity))
        self._writes = writes
        self._written: dict[int, dict[str, Any]] = {}
        self._failed: dict[int, str] = {}
        self._warned = False

    def folder(self, number: int) -> Path:
        """Returns the run folder of a trial."""
        return self.workdir / "trials" / f"{number:02d}"

    def check(self) -> None:
        """Checks that the folder is new or holds this search, and reads which trials failed.

        Raises:
            TfkdError: When it holds something else.
        """
        name = f"workdir {str(self.workdir)!r}"
        if self.workdir.exists() and not self.workdir.is_dir():
            raise TfkdError(f"{name}: found a file, wanted a folder")
        files.refuse_links(self.workdir, WRITTEN)
        if (self.workdir / "config.json").exists():
            raise TfkdError(f"{name}: found a run, wanted a search or a new folder")
        path = self.workdir / FILE
        if not path.exists():
            return
        shape = {**dict.fromkeys(self._identity, object), "config": {"*": object}, "rows": [_ROW]}
        found = json_shapes.read_or_tell(path, {**shape, "*": object}, "the file of a search")
        there = {key: found[key] for key in self._identity}
        self._written = {row["trial"]: row for row in found["rows"]}
        self._failed = {row["trial"]: row["error"] for row in found["rows"] if row["error"]}
        earlier = is_earlier(found["config"])
        if earlier:
            raise TfkdError(
                f"{name} holds a search of the version before, which cannot be continued; wanted a "
                "new --workdir"
            )
        lines = configs.differences(there, self._identity)
        if lines:
            more = f" and {len(lines) - 2} more" if len(lines) > 2 else ""
            raise TfkdError(
                f"{name} holds another search: {'; '.join(lines[:2])}{more}; wanted the same "
                "search or a new --workdir"
            )

    def add(
        self, number: int, values: dict[str, Any], train: Callable[[], dict[str, Any]]
    ) -> float:
        """Adds the row of a trial and returns its score.

        Args:
            number: Of the trial.
            values: Its values by field.
            train: ``train()`` gives the rest of the row.

        Raises:
            NonFiniteLoss: When the trial fails, now or before this search was continued.
        """
        folder = str(self.folder(number).relative_to(self.workdir))
        row = {"trial": number, "values": values, "folder": folder}
        try:
            if number in self._failed:
                raise NonFiniteLoss(self._failed[number])
            row |= train()
        except NonFiniteLoss as error:
            print(f"{self.folder(number)} failed: {error}", flush=True)
            row |= dict.fromkeys(_RESULTS)
            self._append({**row, "error": str(error)})
            raise
        if row["scored_on"] == "test" and not self._warned:
            self._warned = True
            warnings.warn(
                "the data set holds no validation images: trials are scored on its test images, "
                "which then promise too much; wanted data.validation_size",
                TfkdWarning,
                stacklevel=2,
            )
        self._append(row)
        return row["score"]

    def _append(self, row: dict[str, Any]) -> None:
        self.rows.append(row)
        # Rows of a call before this one stay until they are found again: a kill loses none.
        self._written[row["trial"]] = row
        if self._writes:
            rows = [self._written[number] for number in sorted(self._written)]
            chosen = best(rows)
            content = {
                **self._identity,
                "rows": rows,
                "best": None if chosen is None else chosen["folder"],
            }
            RunFolder(self.workdir).write_json(FILE, content)
