"""What is shown of the networks: all of them in a table, or one with its picture."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

from tfkd import files
from tfkd.errors import TfkdError
from tfkd.models import registry
from tfkd.models.summary import overview
from tfkd.models.summary.plan import plan

_PATIENCE = 10.0


def show(
    name: str | None = None,
    num_classes: int | None = None,
    image_size: int | None = None,
    output: str | None = None,
) -> str:
    """Returns the table of all networks, or the description of one, and writes a file of it.

    Args:
        name: A network; None for all of the registry.
        num_classes: The number of classes; None for what each was published for.
        image_size: The side of the images; None for what each was published for.
        output: A .txt file for the text; for one network also a .png or .svg for the picture.

    Returns:
        The text, and what was written.

    Raises:
        TfkdError: For an unknown network, classes or images that it cannot have, or a file that
            cannot be written.
    """
    path = None if output is None else Path(output)
    _check(path, name)
    if name is None:
        text = overview.table(
            overview.rows(registry.names(), num_classes, image_size, _progress(registry.names()))
        )
        return _written(text, path)
    found = plan(overview.build(name, num_classes, image_size), name)
    text = overview.description(found)
    if path is None or path.suffix == ".txt":
        return _written(text, path)
    # Only a picture needs matplotlib, which takes a while to load.
    from tfkd.models.summary import drawing

    drawing.draw(found, path)
    return f"{text}\n\nwrote {path}"


def _check(path: Path | None, name: str | None) -> None:
    """Refuses a file before anything is built."""
    if path is None:
        return
    wanted = (".txt",) if name is None else (".txt", ".png", ".svg")
    if path.suffix not in wanted:
        kind = "the table" if name is None else "one network"
        raise TfkdError(
            f"output {str(path)!r}: found ending {path.suffix!r}; wanted {' or '.join(wanted)} for "
            f"{kind}"
        )
    if not path.parent.is_dir():
        raise TfkdError(f"output {str(path)!r}: no such folder; wanted a file in an existing one")


def _written(text: str, path: Path | None) -> str:
    if path is None:
        return text
    with files.writing(f"output {str(path)!r}", "a writable path"):
        path.write_text(f"{text}\n", encoding="utf-8")
    return f"{text}\n\nwrote {path}"


def _progress(names: tuple[str, ...]) -> Callable[[str], None]:
    """Returns what tells on a terminal, once it takes long, which network is being built."""
    start = time.monotonic()

    def tell(name: str) -> None:
        if sys.stderr.isatty() and time.monotonic() - start > _PATIENCE:
            end = "" if name != names[-1] else "\n"
            line = f"building {names.index(name) + 1} of {len(names)}: {name}"
            print(f"\r{line:<60}", end=end, file=sys.stderr, flush=True)

    return tell
