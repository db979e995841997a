"""A run that is finished: the same command says so again without TensorFlow, if nothing changed.

The first such command compares everything that its config points at, and meanwhile this module
notes which files and folders are read. The next one compares their names, sizes and times with
these notes; where anything is another one, all is compared again.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import io
import json
import os
import site
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tools import remembered

_ROOT = Path(__file__).resolve().parents[1]
_PLACES = ("stdlib", "platstdlib", "purelib", "platlib")
_LEFT_OUT = (
    "/proc/",
    "/sys/",
    "/dev/",
    *(f"{path}/" for path in (*site.getsitepackages(), *map(sysconfig.get_path, _PLACES))),
    f"{_ROOT / 'tfkd'}/",
    f"{Path(__file__).parent}/",
)
"""Places of the system and of installed packages, and tfkd's own code, which is compared apart."""

_SETTINGS = ("HOME", "KERAS_", "TFDS_", "TFKD_", "XDG_")
"""How environment variables begin that say where things are."""

_READ: set[str] = set()
_watching = False


def said_again(words: list[str]) -> bool:
    """Says that a run is finished where nothing changed; otherwise begins to note what is read.

    Args:
        words: The words of the command line.
    """
    known = remembered.find("train", _key(words))
    with contextlib.suppress(ValueError, LookupError, TypeError):
        notes = json.loads(known or "")
        if all(_facts(path) == facts for path, facts in notes["read"].items()):
            print(notes["said"])
            return True
    _watch()
    return False


@contextlib.contextmanager
def noted(words: list[str], workdir: str) -> Iterator[None]:
    """Keeps what was read, if the block says nothing but that the run is finished.

    Args:
        words: The words of the command line.
        workdir: The run folder.
    """
    global _watching
    there = os.path.isfile(os.path.join(workdir, "result.json"))
    if not there or "TF_CONFIG" in os.environ:
        _watching = False
        yield
        return
    said = io.StringIO()
    with (
        contextlib.redirect_stdout(_Both(sys.stdout, said)),
        contextlib.redirect_stderr(_Both(sys.stderr, said)),
    ):
        yield
    _watching = False
    line = said.getvalue().removesuffix("\n")
    if " is finished: " not in line or "\n" in line:
        return
    read = {*_READ, workdir, *(word.partition("=")[2].partition(":")[0] for word in words)}
    read |= {entry.path for entry in os.scandir(workdir)}
    notes = {os.path.abspath(path): _facts(path) for path in read if path}
    # What depends on more than files may be another run tomorrow.
    if not any(_reads_environment(path) for path in notes):
        remembered.keep("train", _key(words), json.dumps({"said": line, "read": notes}))


class _Both(io.TextIOBase):
    """A stream that writes to two."""

    def __init__(self, first: Any, second: Any) -> None:
        self._both = (first, second)

    def write(self, text: str) -> int:
        for each in self._both:
            each.write(text)
        return len(text)

    def flush(self) -> None:
        self._both[0].flush()

    def isatty(self) -> bool:
        return self._both[0].isatty()


def _key(words: list[str]) -> list[str]:
    settings = sorted(f"{k}={v}" for k, v in os.environ.items() if k.startswith(_SETTINGS))
    return [os.getcwd(), *words, *settings]


def _watch() -> None:
    global _watching
    _watching = True

    def hook(event: str, arguments: tuple) -> None:
        if _watching and event in ("open", "os.scandir", "os.listdir"):
            path = arguments[0] if arguments else None
            if isinstance(path, (str, bytes, os.PathLike)):
                _note(os.path.abspath(os.fsdecode(path)))

    sys.addaudithook(hook)


def _note(path: str) -> None:
    if path.endswith(".pyc"):
        with contextlib.suppress(ValueError):
            path = importlib.util.source_from_cache(path)
    if not path.startswith(_LEFT_OUT) and os.path.exists(path):
        _READ.add(path)


def _facts(path: str) -> list[Any] | None:
    """Returns size and time of a file, a digest of those of all entries of a folder, or None."""
    try:
        found = os.stat(path)
        if not os.path.isdir(path):
            return [found.st_size, found.st_mtime_ns]
        listed = []
        with os.scandir(path) as entries:
            for entry in entries:
                facts = entry.stat()
                # The time of a folder is that of its entries, which matter where they are read.
                part = "" if entry.is_dir() else f" {facts.st_size} {facts.st_mtime_ns}"
                listed.append(f"{entry.name}{part}")
        return [hashlib.sha256("\0".join(sorted(listed)).encode("utf-8", "replace")).hexdigest()]
    except OSError:
        return None


def _reads_environment(path: str) -> bool:
    if not path.endswith(".py") or not os.path.isfile(path):
        return False
    source = Path(path).read_text(encoding="utf-8", errors="replace")
    return "environ" in source or "getenv" in source
