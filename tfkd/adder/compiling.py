"""The cache of compiled libraries, and running compilers.

Libraries lie in a folder of the user's, ``$TFKD_CACHE``, else ``$XDG_CACHE_HOME/tfkd``, else
``~/.cache/tfkd``.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tfkd.errors import TfkdError


def once(name: str, what: str, compile_to: Callable[[str], None]) -> Path:
    """Returns the path of a library in the cache, compiling it if it is not there.

    Of several processes one compiles and the others wait. The library appears whole or not at all.

    Args:
        name: The file name, which identifies the source of the library.
        what: Its content, for messages: "the compiled ``what``".
        compile_to: Writes the library to a path; files beside it are removed with its folder.

    Raises:
        TfkdError: The folder cannot be written, or ``compile_to`` fails.
    """
    folder = cache()
    library = folder / name
    if library.exists():
        return library
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder / f"{name}.lock"):
            if not library.exists():
                with tempfile.TemporaryDirectory(dir=folder, prefix=".build-") as scratch:
                    target = os.path.join(scratch, name)
                    compile_to(target)
                    os.replace(target, library)
    except OSError as error:
        raise TfkdError(
            f"folder {str(folder)!r}: cannot be written ({error.strerror or error}), wanted one "
            f"that can hold the compiled {what} (set TFKD_CACHE)"
        ) from error
    return library


def cache() -> Path:
    """Returns the folder of compiled libraries, which may not exist yet."""
    if own := os.environ.get("TFKD_CACHE"):
        return Path(own).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "tfkd"


def run(commands: Sequence[Sequence[str]], kind: str, wanted: str) -> None:
    """Runs commands of a compiler side by side.

    Args:
        commands: The commands.
        kind: The kind of compiler, for messages.
        wanted: Their product, for messages.

    Raises:
        TfkdError: One of them fails; its first complaint is part of the message.
    """
    plain = {**os.environ, "LC_ALL": "C"}  # Complaints in English, so that they can be found.
    running = [
        subprocess.Popen(
            command, env=plain, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        for command in commands
    ]
    said = [process.communicate()[1] for process in running]
    for process, command, lines in zip(running, commands, said):
        if process.returncode:
            complaints = [line for line in lines.splitlines() if "error" in line.lower()]
            complaint = (complaints or lines.splitlines() or ["no message"])[0].strip()
            raise TfkdError(
                f"{kind} {command[0]!r}: found exit status {process.returncode} "
                f"({complaint}), wanted {wanted}"
            )


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Keeps every other process, and thread, out while the block runs."""
    with open(path, "a", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
