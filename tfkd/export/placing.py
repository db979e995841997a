"""A folder that takes its place whole or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from tfkd.errors import TfkdError


@contextlib.contextmanager
def placed(
    directory: str | os.PathLike, replaceable: Callable[[Path], bool], wanted: str
) -> Iterator[Path]:
    """Yields a fresh folder that becomes ``directory`` once the block has succeeded.

    The fresh folder lies beside ``directory``, so that a rename puts it in place. If the block
    fails, it is removed and ``directory`` is as it was.

    Args:
        directory: The folder to make. A missing one, an empty one, and one that is
            ``replaceable`` are given up for the new one.
        replaceable: Says of an occupied folder whether it may be replaced.
        wanted: What may stand there, in words, for the message.

    Raises:
        TfkdError: When something else stands there or the place cannot be written.
    """
    place = Path(directory).resolve()
    if place.exists() and not _free(place, replaceable):
        found = "a folder with other files" if place.is_dir() else "a file"
        raise TfkdError(
            f"output {str(directory)!r}: found {found}, "
            f"wanted a new folder, an empty one or {wanted}"
        )
    fresh = place.with_name(f".{place.name}.{uuid.uuid4().hex}.new")
    old = fresh.with_suffix(".old")
    try:
        fresh.mkdir(parents=True)
        yield fresh
        if place.exists():
            place.rename(old)
        fresh.rename(place)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise TfkdError(
            f"output {str(directory)!r}: cannot be written ({error.strerror or error}), "
            "wanted a folder with write permission and space"
        ) from error
    finally:
        if old.exists() and not place.exists():
            old.rename(place)
        shutil.rmtree(fresh, ignore_errors=True)


def _free(place: Path, replaceable: Callable[[Path], bool]) -> bool:
    return place.is_dir() and (not any(place.iterdir()) or replaceable(place))
