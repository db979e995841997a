"""The cache of compiled libraries, and running compilers.

Libraries lie in the folder of the user's that ``tfkd.files.cache`` names.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from tfkd import files
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
    folder = files.cache()
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
