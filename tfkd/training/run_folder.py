"""The folder of one run: its config, its metrics, its result, and the lock on it."""

from __future__ import annotations

import contextlib
import csv
import fcntl
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tfkd.errors import TfkdError
from tfkd.training.config import differences

# What may change between two calls on one folder: it belongs to the machine, or to the display.
_MACHINE = (
    ("data", "directory"),
    ("data", "download"),
    ("train", "verbose"),
    ("train", "checkpoint_seconds"),
    ("teacher", "workdir"),
    ("compare",),
    ("export",),
)


class RunFolder:
    """The files of a run.

    Args:
        path: The folder; made on :meth:`open`.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        self.path = Path(path)

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.path / "checkpoints"

    @property
    def events(self) -> Path:
        """Folder of the TensorBoard events."""
        return self.path / "tensorboard"

    @property
    def export(self) -> Path:
        """Folder of the SavedModel."""
        return self.path / "export"

    def check(self, config: Mapping[str, Any]) -> None:
        """Checks that the folder is new or holds a run of the same config.

        Args:
            config: The config as plain values.

        Raises:
            TfkdError: When the folder holds something else.
        """
        if self.path.exists() and not self.path.is_dir():
            raise TfkdError(f"workdir {str(self.path)!r}: found a file, wanted a folder")
        path = self.path / "config.json"
        if not path.exists():
            return
        try:
            found = json.loads(path.read_text())
        except (ValueError, OSError) as error:
            raise TfkdError(f"{path}: not readable as JSON ({error})") from None
        lines = differences(_comparable(found), _comparable(json.loads(json.dumps(config))))
        if lines:
            more = f" and {len(lines) - 2} more" if len(lines) > 2 else ""
            raise TfkdError(
                f"workdir {str(self.path)!r} holds a run of another config: {'; '.join(lines[:2])}"
                f"{more}; wanted the same config or a new --workdir"
            )

    def create(self, config: Mapping[str, Any]) -> None:
        """Makes the folder and writes the config.

        Raises:
            TfkdError: When the folder cannot be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            if not (self.path / "config.json").exists():
                self.write_json("config.json", config)
        except OSError as error:
            raise TfkdError(
                f"workdir {str(self.path)!r} cannot be written ({error.strerror}), wanted a folder "
                "with write permission"
            ) from None

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Holds the folder for this process; a second process waits until the first is done."""
        with open(self.path / ".lock", "w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                print(f"waiting for another run in {self.path}", flush=True)
                fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def result(self) -> dict[str, Any] | None:
        """Returns the result of a finished run, or ``None``."""
        try:
            return json.loads((self.path / "result.json").read_text())
        except (OSError, ValueError):
            return None

    def write_json(self, name: str, content: Mapping[str, Any]) -> None:
        """Writes a JSON file whole or not at all."""
        self.write_text(name, json.dumps(content, indent=2, sort_keys=True) + "\n")

    def write_metrics(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Writes ``metrics.csv`` anew: one row an epoch, no times, so that equal runs write equal files.

        Args:
            rows: The rows so far; columns are those of all rows, in order of appearance.
        """
        columns = list(dict.fromkeys(key for row in rows for key in row))
        beside = self.path / "metrics.csv.partial"
        with open(beside, "w", newline="") as file:
            writer = csv.DictWriter(file, columns, restval="")
            writer.writeheader()
            writer.writerows(rows)
        os.replace(beside, self.path / "metrics.csv")

    def write_text(self, name: str, text: str) -> None:
        """Writes a text file whole or not at all."""
        beside = self.path / f"{name}.partial"
        beside.write_text(text)
        os.replace(beside, self.path / name)


def _comparable(config: dict[str, Any]) -> dict[str, Any]:
    copy = json.loads(json.dumps(config))
    for path in _MACHINE:
        inner = copy
        for key in path[:-1]:
            inner = inner.get(key, {})
        inner.pop(path[-1], None)
    return copy
