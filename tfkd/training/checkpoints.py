"""Checkpoints: all variables by role and position, and the state of the run, in a checked file."""

from __future__ import annotations

import contextlib
import json
import os
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfkd import archives, files, json_shapes
from tfkd.errors import TfkdError, TfkdWarning, reason

KEPT = 2
_META = "__meta__"


class Checkpoints:
    """The checkpoints of one run folder.

    A checkpoint is one ``.npz`` file (a zip archive, whose checksums tell a file that was cut short
    or damaged). It is written beside its place and renamed, so that a kill leaves the one before.

    Args:
        folder: Where they lie.
        shape: What their meta is to look like; one of another shape counts as damaged.
    """

    def __init__(self, folder: str | os.PathLike, shape: Any = object) -> None:
        self.folder = Path(folder)
        self._content = {"names": [str], "meta": shape}

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
        wanted = "a folder with write permission and space"
        with files.writing(f"folder {str(self.folder)!r}", wanted):
            self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"step_{step:012d}.npz"
        # The archive has a checksum for each entry, but none for their names.
        content = {"names": sorted(arrays), "meta": dict(meta)}
        text = np.frombuffer(json.dumps(content).encode(), np.uint8)
        # The run folder is locked, so no other process writes here.
        files.write(
            path, lambda fresh: np.savez(fresh, **{_META: text}, **arrays), fsync=True, alone=True
        )
        # Those of later steps were damaged, or this one would have gone on from them.
        kept = [each for each in self.paths() if each.name <= path.name][:KEPT]
        for old in set(self.paths()) - set(kept):
            old.unlink(missing_ok=True)
        return path

    def meta(self) -> dict[str, Any] | None:
        """Returns the meta of the newest readable checkpoint, or ``None``; reads no array."""
        for path in self.paths():
            # As for load, which also tells of the damage.
            with contextlib.suppress(Exception), _opened(path) as archive:
                return json_shapes.parse(archive[_META].tobytes(), self._content)["meta"]
        return None

    def load(self) -> tuple[dict[str, np.ndarray], dict[str, Any]] | None:
        """Returns arrays and meta of the newest readable checkpoint, or ``None``.

        One that is cut short or damaged is passed over with a warning.
        """
        paths = self.paths()
        for path, before in zip(paths, [*paths[1:], None]):
            try:
                with _opened(path) as archive:
                    arrays = {name: archive[name] for name in archive.files}
                content = json_shapes.parse(arrays.pop(_META).tobytes(), self._content)
                if sorted(arrays) != content["names"]:
                    raise ValueError("its entries are not those that were written")
            # A damaged archive fails in as many ways as it has parts: zip, array headers, json.
            except Exception as error:
                next_best = f"going back to {before.name}" if before else "starting afresh"
                warnings.warn(
                    f"checkpoint {path} is cut short or damaged ({reason(error)}); {next_best}",
                    TfkdWarning,
                    stacklevel=2,
                )
                continue
            return arrays, content["meta"]
        return None


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[np.lib.npyio.NpzFile]:
    """Opens an archive of arrays that unpacks to no more than it may."""
    with open(path, "rb") as file:
        with zipfile.ZipFile(file) as archive:
            archives.check_sizes(archive, path.stat().st_size)
        file.seek(0)
        with np.load(file, allow_pickle=False) as arrays:
            yield arrays


def values(variables: Mapping[str, keras.Variable]) -> dict[str, np.ndarray]:
    """Returns the values of variables by name."""
    return {name: np.asarray(variable) for name, variable in variables.items()}


def assign_known(variables: Mapping[str, keras.Variable], arrays: Mapping[str, np.ndarray]) -> None:
    """Writes the values that there are into variables; the others stay as they are."""
    known = {name: each for name, each in variables.items() if name in arrays}
    assign(known, {name: arrays[name] for name in known})


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
            f"checkpoint of another run: found {surplus[:3] or 'nothing'} besides and "
            f"{missing[:3] or 'nothing'} missing, wanted the {len(variables)} variables of this one"
        )
    for name, variable in variables.items():
        value = arrays[name]
        if tuple(variable.shape) != value.shape:
            raise TfkdError(
                f"checkpoint: {name} has shape {value.shape}, wanted {tuple(variable.shape)}"
            )
        wanted = np.dtype(tf.as_dtype(variable.dtype).as_numpy_dtype)
        if value.dtype.kind == "V" and value.dtype.itemsize == wanted.itemsize:
            # NumPy's file format keeps the bytes of types such as bfloat16, but not their name.
            value = value.view(wanted)
        if value.dtype != wanted:
            raise TfkdError(f"checkpoint: {name} is of type {value.dtype}, wanted {wanted}")
        if name.startswith("student/") and not np.isfinite(value.astype("float64")).all():
            raise TfkdError(f"checkpoint: {name} holds NaN or infinite values, wanted numbers")
        variable.assign(value)
