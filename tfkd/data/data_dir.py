"""The folder of the prepared sets, and a work folder in it."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from tfkd.files import NEW, locked, made


def prepared_sets(directory: str | None) -> Path:
    """Returns the folder of the prepared sets; None means tensorflow-datasets' own."""
    if directory is not None:
        return Path(directory).expanduser()
    import tensorflow_datasets as tfds  # slow to import, wanted here only

    return Path(tfds.core.constants.DATA_DIR).expanduser()


@contextlib.contextmanager
def workplace(root: Path, name: str) -> Iterator[Path]:
    """Gives an empty folder beside the prepared sets; a temporary file system may be too small.

    Other preparations in the same folder wait, and whatever an earlier, killed one left there is
    removed. So is the rest at the end; a finished set is moved out before.

    Args:
        root: The folder of the prepared sets; made if it does not exist.
        name: Name of the set.
    """
    root.mkdir(parents=True, exist_ok=True)

    def choose() -> Path:
        work = root / f"{NEW}{name}"
        shutil.rmtree(work, ignore_errors=True)
        return work

    with locked(root), made(choose) as work:
        yield work
