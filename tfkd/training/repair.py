"""Finished runs whose networks are gone or damaged: their last checkpoint still holds them."""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tfkd import archives
from tfkd.errors import TfkdError, TfkdWarning
from tfkd.models.description import DESCRIPTION, USUAL_FILES, load_description
from tfkd.training.run_folder import RunFolder


def finished(folder: RunFolder, say: Callable[..., None] = print) -> dict[str, Any] | None:
    """Returns the result of a run that is finished and whole; ``None`` where it is to go on.

    Args:
        folder: The run folder.
        say: Prints a line, which tells what is written anew.
    """
    result = folder.result()
    if result is None:
        return None
    lost = _lost(folder.path)
    if lost is None:
        return result
    if folder.begun() is None:
        warnings.warn(
            f"{folder.path}: {lost}, and no checkpoint is there to write it anew",
            TfkdWarning,
            stacklevel=2,
        )
        return result
    say(f"{folder.path}: {lost}; it is written anew from the last checkpoint", flush=True)
    return None


def make_room(folder: RunFolder) -> None:
    """Removes a ``network.json`` that says nothing, for which no network could be written."""
    try:
        load_description(folder.path)
    except TfkdError:
        (folder.path / DESCRIPTION).unlink(missing_ok=True)


def _lost(folder: Path) -> str | None:
    """Returns in words which file of a finished run is not as it was written."""
    try:
        listed = load_description(folder)["files"]
    except TfkdError:
        return f"{DESCRIPTION} is gone or damaged"
    for name in dict.fromkeys([*USUAL_FILES.values(), *listed.values()]):
        if not (folder / name).is_file():
            return f"{name} is gone"
        if not _is_whole(folder / name):
            return f"{name} is damaged"
    return None


def _is_whole(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            archives.check_sizes(archive, path.stat().st_size)
            return archive.testzip() is None
    except (OSError, ValueError, *archives.DAMAGES):
        return False
