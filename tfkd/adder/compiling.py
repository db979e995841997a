"""What is compiled once and kept: the cache of libraries, and how compilers are run.

Libraries lie in a folder of the user's, ``$TFKD_CACHE``, else ``$XDG_CACHE_HOME/tfkd``, else
``~/.cache/tfkd``.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from tfkd import files
from tfkd.errors import TfkdError


def once(name: str, what: str, compile_to: Callable[[str], None]) -> Path:
    """Returns the path of a library in the cache, compiling it where that has not been done.

    Of several processes one compiles and the others wait. The library appears whole or not at all.

    Args:
        name: Its file name, which tells what it was made of.
        what: What it holds, for messages: the compiled ``what``.
        compile_to: Writes the library to a path; files beside it go away with its folder.

    Raises:
        TfkdError: The folder cannot be written, or what ``compile_to`` raises.
    """
    folder = cache()
    library = folder / name
    if library.exists():
        return library
    wanted = f"one that can hold the compiled {what} (set TFKD_CACHE)"
    with (
        files.writing(f"folder {str(folder)!r}", wanted),
        files.locked(folder / f"{name}.lock"),
    ):
        if not library.exists():
            with files.whole_file(library) as target:
                compile_to(str(target))
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
        kind: What kind of compiler it is, for messages.
        wanted: What they should make, for messages.

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
