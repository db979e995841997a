"""The cache of compiled libraries, and running compilers.

Libraries lie in a folder of their own, inside the one that ``tfkd.files.cache`` names.
"""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from tfkd import files
from tfkd.errors import TfkdError

_FOLDER = "compiled"


def once(name: str, what: str, compile_to: Callable[[str], None]) -> Path:
    """Returns the path of a library in the cache, compiling it if it is not there whole.

    Of several processes one compiles and the others wait. The library appears whole or not at all,
    and with it a file of its digest, which tells one that was cut short or damaged later. What is
    loaded runs as the user: nobody else may have written it.

    Args:
        name: The file name, which identifies the source of the library.
        what: Its content, for messages: "the compiled ``what``".
        compile_to: Writes the library to a path; files beside it are removed with its folder.

    Raises:
        TfkdError: The folder cannot be written, another user owns or can write it, or
            ``compile_to`` fails.
    """
    folder = files.cache() / _FOLDER
    library = folder / name
    wanted = f"one that can hold the compiled {what} (set TFKD_CACHE)"
    with files.writing(f"folder {str(folder)!r}", wanted):
        folder.parent.mkdir(parents=True, exist_ok=True)
        # Whatever the umask, the user alone writes there.
        folder.mkdir(mode=0o755, exist_ok=True)
        _check_own(folder)
        if _is_whole(library):
            return library
        with files.locked(folder / f"{name}.lock"):
            files.clear_leftovers(folder)
            if not _is_whole(library):
                with files.whole_file(library, fsync=True) as target:
                    compile_to(str(target))
                    target.chmod(0o755)
                    digest = _digest(target)
                files.write(_digest_file(library), lambda fresh: _write(fresh, digest), fsync=True)
    return library


def _write(path: Path, digest: str) -> None:
    path.write_text(digest)
    path.chmod(0o644)


def _check_own(path: Path) -> None:
    """Raises a :class:`TfkdError` for a folder or file that another user could have written."""
    facts = path.lstat()
    found = None
    if stat.S_ISLNK(facts.st_mode):
        found = "a link"
    elif facts.st_uid not in (os.geteuid(), 0):
        found = f"one of user {facts.st_uid}"
    elif facts.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        found = "one that others can write"
    if found is not None:
        raise TfkdError(
            f"{str(path)!r}, whose content is run: found {found}, wanted one that only you can "
            "write (remove it, or set TFKD_CACHE)"
        )


def _is_whole(library: Path) -> bool:
    """Returns whether a library is there as it was compiled."""
    try:
        written = _digest_file(library).read_text().strip()
        found = _digest(library)
    except (OSError, ValueError):
        return False
    if found != written:
        return False
    for path in (library, _digest_file(library)):
        _check_own(path)
    return True


def _digest_file(library: Path) -> Path:
    return library.with_name(f"{library.name}.sha256")


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
    try:
        said = [process.communicate()[1] for process in running]
    finally:
        for process in running:
            if process.poll() is None:
                process.kill()
    for process, command, lines in zip(running, commands, said):
        if process.returncode:
            complaints = [line for line in lines.splitlines() if "error" in line.lower()]
            complaint = (complaints or lines.splitlines() or ["no message"])[0].strip()
            raise TfkdError(
                f"{kind} {command[0]!r}: found exit status {process.returncode} "
                f"({complaint}), wanted {wanted}"
            )
