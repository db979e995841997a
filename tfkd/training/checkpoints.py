"""Checkpoints: every variable by role and position, and the state of the run, in one checked file."""

from __future__ import annotations

import json
import os
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tfkd.errors import TfkdError, TfkdWarning

KEPT = 2
_META = "__meta__"


class Checkpoints:
    """The checkpoints of one run folder.

    A checkpoint is one ``.npz`` file (a zip archive, whose checksums tell a file that was cut short
    or damaged). It is written beside its place and renamed, so that a kill leaves the one before.

    Args:
        folder: Where they lie.
    """

    def __init__(self, folder: str | os.PathLike) -> None:
        self.folder = Path(folder)

    def paths(self) -> list[Path]:
        """Returns the checkpoints, newest first."""
        return sorted(self.folder.glob("step_*.npz"), reverse=True)

    def save(self, arrays: Mapping[str, np.ndarray], meta: Mapping[str, Any], step: int) -> Path:
        """Writes a checkpoint and removes all but the last few.

        Args:
            arrays: Values by name.
            meta: Further state that JSON can hold.
            step: Number of the training step, for the file's name.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"step_{step:012d}.npz"
        beside = path.with_suffix(".partial")
        text = np.frombuffer(json.dumps(dict(meta)).encode(), np.uint8)
        with open(beside, "wb") as file:
            np.savez(file, **{_META: text}, **arrays)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
        for old in self.paths()[KEPT:]:
            old.unlink(missing_ok=True)
        return path

    def load(self) -> tuple[dict[str, np.ndarray], dict[str, Any]] | None:
        """Returns arrays and meta of the newest readable checkpoint, or ``None``.

        One that is cut short is passed over with a warning.
        """
        for path in self.paths():
            try:
                with np.load(path, allow_pickle=False) as archive:
                    arrays = {name: archive[name] for name in archive.files}
                meta = json.loads(arrays.pop(_META).tobytes().decode())
            except (
                OSError,
                ValueError,
                EOFError,
                KeyError,
                zipfile.BadZipFile,
                zipfile.LargeZipFile,
            ) as error:
                warnings.warn(
                    f"checkpoint {path} is cut short or damaged ({error}); "
                    "falling back to the one before",
                    TfkdWarning,
                    stacklevel=2,
                )
                continue
            return arrays, meta
        return None


def values(variables: Mapping[str, keras.Variable]) -> dict[str, np.ndarray]:
    """Returns the values of variables by name."""
    return {name: np.asarray(variable) for name, variable in variables.items()}


def assign(variables: Mapping[str, keras.Variable], arrays: Mapping[str, np.ndarray]) -> None:
    """Writes values into variables.

    Args:
        variables: By name, all of which must be in ``arrays``.
        arrays: Values by name.

    Raises:
        TfkdError: When a name is missing on either side or a shape differs.
    """
    missing = sorted(set(variables) - set(arrays))
    surplus = sorted(set(arrays) - set(variables))
    if missing or surplus:
        raise TfkdError(
            f"checkpoint of another run: it lacks {missing[:3]} and has {surplus[:3]} besides"
        )
    for name, variable in variables.items():
        if tuple(variable.shape) != arrays[name].shape:
            raise TfkdError(
                f"checkpoint: {name} has shape {arrays[name].shape}, wanted {tuple(variable.shape)}"
            )
        variable.assign(arrays[name])
