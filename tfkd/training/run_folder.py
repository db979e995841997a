"""The folder of one run: its config, its metrics, its result, and the lock on it."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tfkd import files, json_shapes
from tfkd.core import registry
from tfkd.earlier_version import is_earlier, modernized, modernized_result
from tfkd.errors import TfkdError, reason
from tfkd.training import shapes
from tfkd.training.checkpoints import Checkpoints
from tfkd.training.config import differences, in_own_epochs
from tfkd.training.config_sections import with_defaults

_LOCK = ".lock"
WRITTEN = ("checkpoints", "tensorboard", "export", "trials", "keras_tuner")
"""Folders inside that are written into."""

# What may change between two calls on one folder: it belongs to the machine, to the display, or to
# the tools that make many runs of a config.
_MACHINE = (
    ("data", "directory"),
    ("data", "download"),
    ("train", "verbose"),
    ("train", "checkpoint_seconds"),
    ("compare",),
    ("search_space",),
    ("export",),
    ("accept_changes",),
)
_FOLDER = "folder:"
_LATER = (("student", "weights"), ("train", "extended_from"))


class RunFolder:
    """The files of a run.

    Args:
        path: The folder; made by :meth:`hold`.
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
    def events_suffix(self) -> str:
        """The ending of event files of this run, which tells them from others."""
        path = self.path / "config.json"
        config = path.read_bytes() if path.exists() else b""
        return f".tfkd-{hashlib.sha256(config).hexdigest()[:12]}"

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
        try:
            there = self.path.exists()
        except OSError as error:  # Of a name that is too long.
            raise TfkdError(
                f"workdir {str(self.path)[:80]!r}: found a path that cannot be "
                f"({error.strerror}), wanted another one"
            ) from None
        if "\0" in str(self.path):
            raise TfkdError(f"workdir {str(self.path)!r}: found a zero byte, wanted another path")
        if there and not self.path.is_dir():
            raise TfkdError(f"workdir {str(self.path)!r}: found a file, wanted a folder")
        files.refuse_links(self.path, WRITTEN)
        found = self.config()
        if found is None:
            return
        here = comparable(json.loads(json.dumps(config)))
        try:
            there = comparable(found)
            self._heed_moved_data(there, here)
        # It may be of any shape, and be taken apart in as many ways.
        except json_shapes.OTHER as error:
            raise TfkdError(
                f"{self.path / 'config.json'}: found another shape ({reason(error)}), wanted the "
                "config of a run"
            ) from None
        lines = differences(there, here)
        if lines:
            more = f" and {len(lines) - 2} more" if len(lines) > 2 else ""
            raise TfkdError(
                f"workdir {str(self.path)!r} holds a run of another config: {'; '.join(lines[:2])}"
                f"{more}; wanted the same config or a new --workdir"
            )
        if is_earlier(found) and self.result() is None:
            raise TfkdError(
                f"workdir {str(self.path)!r} holds an unfinished run of an earlier version, which "
                "this one cannot continue; wanted a new --workdir"
            )

    def _heed_moved_data(self, there: dict[str, Any], here: Mapping[str, Any]) -> None:
        """Takes a folder of images for the same wherever it lies, if its images are recorded."""
        names = [each.get("data", {}).get("name") or "" for each in (there, here)]
        if names[0] != names[1] and all(name.startswith(_FOLDER) for name in names):
            if "inputs" in (self.result() or self.begun() or {}):
                there["data"]["name"] = names[1]

    def config(self) -> dict[str, Any] | None:
        """Returns the config of the run as plain values, or ``None`` where there is none.

        Raises:
            TfkdError: When it cannot be read.
        """
        path = self.path / "config.json"
        if not path.exists():
            return None
        return json_shapes.read_or_tell(path, {"*": object}, "the config of a run")

    def reopen(self, kept: str, config: Mapping[str, Any]) -> None:
        """Makes a finished run an unfinished one of another config.

        Args:
            kept: The name that its result gets.
            config: The config as plain values.
        """
        # A kill between these steps leaves an unfinished run of the earlier config.
        (self.path / "result.json").rename(self.path / kept)
        for path in self.events.glob(f"events.out.tfevents.*{self.events_suffix}"):
            path.unlink()
        self.write_json("config.json", config)

    def begun(self) -> dict[str, Any] | None:
        """Returns what the newest checkpoint says of the run, or ``None``."""
        return Checkpoints(self.checkpoints, shapes.META).meta()

    def write_config(self, config: Mapping[str, Any]) -> None:
        """Writes the config, unless it is there already."""
        if not (self.path / "config.json").exists():
            self.write_json("config.json", config)

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """Makes the folder and holds it for this process.

        A second process waits until the first is done. Where nothing was written in the meantime,
        the folder is removed again, together with those above it that were made for it.

        Raises:
            TfkdError: When the folder cannot be written.
        """
        made = [each for each in (self.path, *self.path.parents) if not each.exists()]
        with contextlib.ExitStack() as stack:
            try:
                waiting = f"waiting for another run in {self.path}"
                stack.enter_context(files.locked(self.path / _LOCK, waiting))
            except OSError as error:
                _remove_empty(made)
                raise TfkdError(
                    f"workdir {str(self.path)!r} cannot be written ({error.strerror}), wanted a "
                    "folder with write permission"
                ) from None
            for folder in (self.path, self.checkpoints):
                files.clear_leftovers(folder)
            try:
                yield
            finally:
                if os.listdir(self.path) == [_LOCK]:
                    (self.path / _LOCK).unlink()
                    _remove_empty(made)

    def result(self) -> dict[str, Any] | None:
        """Returns the result of a finished run, or ``None``; also where it is no such result."""
        try:
            found = modernized_result(json_shapes.read(self.path / "result.json", {"*": object}))
            json_shapes.require(found, shapes.RESULT)
            key = found["score"]
            json_shapes.require(found, {f"{key}_last": float, f"{key}_best": float})
        except (OSError, *json_shapes.OTHER):
            return None
        return found

    def write_json(self, name: str, content: Mapping[str, Any]) -> None:
        """Writes a JSON file whole or not at all."""
        files.write_json(self.path / name, content, sort_keys=True)

    def write_metrics(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Writes ``metrics.csv`` anew.

        It has one row an epoch and no times, so that equal runs write equal files.

        Args:
            rows: The rows so far; columns are those of all rows, in order of appearance.
        """
        columns = list(dict.fromkeys(key for row in rows for key in row))
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, columns, restval="")
        writer.writeheader()
        writer.writerows(rows)
        self.write_text("metrics.csv", text.getvalue())

    def write_arrays(self, name: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Writes an ``.npz`` file whole or not at all."""
        files.write(self.path / name, lambda path: np.savez(path, **arrays))

    def write_text(self, name: str, text: str) -> None:
        """Writes a text file whole or not at all."""
        files.write(self.path / name, text)


def comparable(config: dict[str, Any]) -> dict[str, Any]:
    """Returns a plain config without what may change between two calls on one run folder.

    A setting that a method has got since then has its default.

    Args:
        config: Of this version or an earlier one.
    """
    copy = json.loads(json.dumps(in_own_epochs(with_defaults(modernized(config)))))
    for name, entry in copy.get("methods", {}).items():
        method = entry.get("method", name)
        if method in registry.names():
            for setting, declared in registry.settings(method).items():
                entry.setdefault(setting, json.loads(json.dumps(declared.default)))
    if copy.get("train", {}).get("epochs", 1) is None:
        copy["train"]["epochs"] = 1
    for path in _MACHINE:
        inner = copy
        for key in path[:-1]:
            inner = inner.get(key, {})
        inner.pop(path[-1], None)
    if not copy.get("teachers"):
        copy.pop("teachers", None)
    # Digests of configs name the folders of teachers, so a field that came later is not there until
    # it is set.
    for section, key in _LATER:
        if not copy.get(section, {}).get(key, True):
            copy[section].pop(key)
    for teacher in (copy.get("teacher", {}), *copy.get("teachers", ())):
        if teacher.get("config"):
            # Then the config says who the teacher is, and the folder only where it lies.
            teacher.pop("workdir", None)
    return copy


def _remove_empty(folders: Sequence[Path]) -> None:
    """Removes folders, innermost first, as far as they are empty."""
    for folder in folders:
        try:
            folder.rmdir()
        except OSError:
            return
