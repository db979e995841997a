"""Where prepared sets are kept, and how one comes there: whole, or not at all."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from tfkd.files import NEW, locked


def prepared_sets(directory: str | None) -> Path:
    """Returns the folder of the prepared sets; None means tensorflow-datasets' own."""
    if directory is not None:
        return Path(directory).expanduser()
    import tensorflow_datasets as tfds  # slow to import, wanted here only

    return Path(tfds.core.constants.DATA_DIR).expanduser()


@contextlib.contextmanager
def workplace(root: Path, name: str) -> Iterator[Path]:
    """Gives an empty folder beside the prepared sets, because a place for temporary files is small.

    Whoever else prepares a set there waits; so what an earlier, killed preparation has left can
    only be rubbish, and is removed. What is still in the folder at the end is removed as well; a
    set that is done is renamed to its place before.

    Args:
        root: The folder of the prepared sets; made if it is not there.
        name: Name of the set.
    """
    root.mkdir(parents=True, exist_ok=True)
    work = root / f"{NEW}{name}"
    with locked(root):
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        try:
            yield work
        finally:
            shutil.rmtree(work, ignore_errors=True)
