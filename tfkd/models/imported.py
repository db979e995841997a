"""A folder that tfkd takes for a trained network, of a network that was trained elsewhere."""

from __future__ import annotations

import os
from pathlib import Path

from tfkd.errors import TfkdError
from tfkd.models.description import DESCRIPTION, USUAL_FILES

_SUFFIX = ".keras"
_RUN = "config.json"


def output_file(output: str | os.PathLike) -> Path:
    """Returns the file to write an imported network to.

    Args:
        output: A folder, or the `.keras` file to write in one.

    Raises:
        TfkdError: For a folder that holds anything but an earlier import to the same file.
    """
    output = Path(output)
    path = output if output.suffix == _SUFFIX else output / USUAL_FILES["last"]
    _check_free(path.parent, path.name)
    return path


def _check_free(folder: Path, file: str) -> None:
    if not folder.is_dir():
        return
    if (folder / _RUN).exists():
        raise TfkdError(
            f"folder {str(folder)!r}: found a training run, wanted a new folder or an earlier "
            "import"
        )
    others = sorted(path.name for path in folder.glob(f"*{_SUFFIX}") if path.name != file)
    if others and (folder / DESCRIPTION).exists():
        raise TfkdError(
            f"folder {str(folder)!r}: found {others[0]!r}, which {DESCRIPTION} describes, wanted a "
            "new folder or an earlier import"
        )
