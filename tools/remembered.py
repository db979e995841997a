"""What a binary printed for the same words by the same code, to say it again without TensorFlow.

The texts lie in the cache, one for each list of words; one of other code is of no use.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[1]


def find(program: str, words: Iterable[str]) -> str | None:
    """Returns the text, or ``None`` where there is none of this code.

    Args:
        program: The binary's name.
        words: Its command line.
    """
    try:
        code, _, text = _place(program, words).read_text(encoding="utf-8").partition("\n")
    except (OSError, ValueError):
        return None
    return text if code == _code() else None


def keep(program: str, words: Iterable[str], text: str) -> None:
    """Keeps a text that depends on nothing but words and code; where there is no room, it does not.

    Args:
        program: The binary's name.
        words: Its command line.
        text: What it printed.
    """
    place = _place(program, words)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=place.parent, suffix=".new", delete=False) as fresh:
            fresh.write(f"{_code()}\n{text}".encode())
        os.replace(fresh.name, place)
    except OSError:
        pass


def _place(program: str, words: Iterable[str]) -> Path:
    # As tfkd.files.cache has it, which cannot be imported without TensorFlow.
    base = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "tfkd"
    listed = hashlib.sha256("\0".join([program, *words]).encode("utf-8", "surrogateescape"))
    folder = Path(os.environ.get("TFKD_CACHE") or base).expanduser()
    return folder / "printed" / f"{listed.hexdigest()[:32]}.txt"


def _code() -> str:
    """Returns a digest of names, sizes and times of all source files, and of what they run on."""
    digest = hashlib.sha256()
    for folder in (_ROOT / "tfkd", Path(__file__).parent):
        for path in sorted(folder.rglob("*.py")):
            facts = path.stat()
            digest.update(f"{path} {facts.st_size} {facts.st_mtime_ns}\0".encode())
    digest.update(importlib.metadata.version("keras").encode())
    return digest.hexdigest()
