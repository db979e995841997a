"""Files and folders that appear whole or not at all, and locks on them.

What is being written lies in a hidden folder beside its place, on the same disk, so that a rename
puts it there. A kill leaves at most such a folder behind, recognizable by its name:
``.tfkd-new-*`` is of no use to anyone, and ``.tfkd-old-*`` is an earlier folder that was about to
be replaced, of use only where its place is empty. The next start clears them: whoever writes holds
a lock on the folder, which ends with the process.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from tfkd.errors import TfkdError, reason

NEW = ".tfkd-new-"
OLD = ".tfkd-old-"
_OLD = re.compile(rf"{re.escape(OLD)}[0-9a-f]{{32}}-(.+)", re.DOTALL)
_WILDCARDS = frozenset("*?[\\")


def cache() -> Path:
    """Returns the folder of what is kept between runs, which may not exist yet.

    It is ``$TFKD_CACHE``, else ``$XDG_CACHE_HOME/tfkd``, else ``~/.cache/tfkd``.
    """
    if own := os.environ.get("TFKD_CACHE"):
        return Path(own).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "tfkd"


def write(
    path: str | os.PathLike,
    content: str | bytes | Callable[[Path], object],
    *,
    fsync: bool = False,
    alone: bool = False,
) -> Path:
    """Writes a file whole or not at all.

    Args:
        path: The file, in an existing folder.
        content: Text (UTF-8), bytes, or a function that writes the file to the path it is given,
            which has the name of ``path`` in another folder.
        fsync: As for :func:`whole_file`.
        alone: As for :func:`whole_file`.

    Returns:
        The path.

    Raises:
        TfkdError: When the file cannot be written.
    """
    path = Path(path)
    with (
        writing(f"file {str(path)!r}", "a folder with write permission and space"),
        whole_file(path, fsync=fsync, alone=alone) as fresh,
    ):
        if callable(content):
            content(fresh)
        else:
            fresh.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def write_json(path: str | os.PathLike, content: Any, *, sort_keys: bool = False) -> Path:
    """Writes a JSON file whole or not at all; see :func:`write`."""
    return write(path, json.dumps(content, indent=2, sort_keys=sort_keys) + "\n")


@contextlib.contextmanager
def whole_file(
    path: str | os.PathLike, *, fsync: bool = False, alone: bool = False
) -> Iterator[Path]:
    """Yields a path to write to; the file takes its place once the block has succeeded.

    If the block fails, ``path`` is as it was. Files that the block makes beside the yielded path
    go away in any case.

    Args:
        path: The file, in an existing folder.
        fsync: Whether the disk must hold the content before the file takes its place, so that a
            power failure leaves the earlier file or the new one.
        alone: Whether no other process writes into the folder at the same time. What an earlier
            kill left there is then written over, which matters for large files.

    Raises:
        OSError: When the file cannot be written.
    """
    path = Path(path)
    with _beside(path, alone) as fresh:
        yield fresh
        if fsync:
            with open(fresh, "rb") as file:
                os.fsync(file.fileno())
        os.replace(fresh, path)


@contextlib.contextmanager
def whole_folder(
    directory: str | os.PathLike, replaceable: Callable[[Path], bool], wanted: str
) -> Iterator[Path]:
    """Yields a fresh folder that becomes ``directory`` once the block has succeeded.

    If the block fails, ``directory`` is as it was.

    Args:
        directory: The folder to make. A missing one, an empty one, and one that is
            ``replaceable`` are given up for the new one.
        replaceable: Says of an occupied folder whether it may be replaced.
        wanted: What may stand there, in words, for the message.

    Raises:
        TfkdError: When something else stands there or the place cannot be written.
    """
    place = Path(directory).resolve()
    if place.exists() and not _is_free(place, replaceable):
        found = "a folder with other files" if place.is_dir() else "a file"
        raise TfkdError(
            f"output {str(directory)!r}: found {found}, "
            f"wanted a new folder, an empty one or {wanted}"
        )
    old = place.with_name(f"{OLD}{uuid.uuid4().hex}-{place.name}")
    with writing(f"output {str(directory)!r}", "a folder with write permission and space"):
        if not place.parent.exists():
            place.parent.mkdir(parents=True, exist_ok=True)
        clear_leftovers(place.parent)
        with _beside(place) as fresh:
            fresh.mkdir()
            yield fresh
            try:
                if place.exists():
                    place.rename(old)
                fresh.rename(place)
                shutil.rmtree(old, ignore_errors=True)
            finally:
                if old.exists() and not place.exists():
                    old.rename(place)


@contextlib.contextmanager
def locked(path: str | os.PathLike, waiting: str | None = None) -> Iterator[None]:
    """Keeps every other process, and thread, that locks the same path out while the block runs.

    Args:
        path: An existing folder, or a file, which is made together with the folders above it where
            it is missing. Whoever holds the lock may remove the file.
        waiting: What to print where another one holds the lock.

    Raises:
        OSError: When the path cannot be opened.
    """
    path = Path(path)
    while True:
        descriptor = _opened(path)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if waiting is not None:
                    print(waiting, flush=True)
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            # The one who held it may have removed the file: then this locks nothing any more.
            if _is_at(descriptor, path):
                yield
                return
        finally:
            os.close(descriptor)


def clear_leftovers(folder: str | os.PathLike) -> None:
    """Removes what kills left in a folder, and puts back what one of them had moved away.

    What another process is writing right now stays.

    Args:
        folder: The folder; what cannot be removed stays, and where there is none nothing happens.
    """
    folder, busy = Path(folder), False
    try:
        names = sorted(each.name for each in os.scandir(folder) if _is_leftover(each))
    except OSError:
        return
    for name in names:
        if name.startswith(NEW):
            busy |= not _removed(folder / name)
    for found in map(_OLD.fullmatch, names):
        # Whoever is about to replace a folder holds a fresh one.
        if found is None or busy:
            continue
        old, place = folder / found[0], folder / found[1]
        if place.exists():
            shutil.rmtree(old, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                old.rename(place)


def _is_leftover(entry: os.DirEntry) -> bool:
    return entry.name.startswith((NEW, OLD)) and entry.is_dir(follow_symlinks=False)


def _removed(folder: Path) -> bool:
    """Removes a fresh folder unless somebody holds it; returns whether nobody does."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_NOFOLLOW)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


@contextlib.contextmanager
def made(choose: Callable[[], Path]) -> Iterator[Path]:
    """Makes a folder, holds it while the block runs, and removes it in the end.

    Args:
        choose: Gives its path; asked again where another process took the folder for a leftover.

    Raises:
        OSError: When it cannot be made.
    """
    while True:
        folder = choose()
        folder.mkdir()
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            # File systems without such locks have nobody who clears.
            with contextlib.suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            if not _is_at(descriptor, folder):
                continue
            try:
                yield folder
            finally:
                shutil.rmtree(folder, ignore_errors=True)
            return
        finally:
            os.close(descriptor)


def refuse_links(folder: str | os.PathLike, names: Iterable[str]) -> None:
    """Refuses folders inside another one that lead out of it, before anything is written there.

    Args:
        folder: The folder, which itself may be a link.
        names: Those that are written into.

    Raises:
        TfkdError: For one that is a link.
    """
    for name in names:
        path = Path(folder, name)
        if path.is_symlink():
            raise TfkdError(
                f"folder {str(path)!r}: found a link to {os.readlink(path)!r}, which would be "
                "written to, wanted a folder there"
            )


@contextlib.contextmanager
def without_wildcards(folder: str | os.PathLike) -> Iterator[Path]:
    """Yields a path to a folder that TensorFlow does not take for a pattern.

    It looks for checkpoints by pattern and so finds none in a folder called ``a[1]``. A temporary
    link leads to such a folder.
    """
    if not _WILDCARDS.intersection(os.path.abspath(folder)):
        yield Path(folder)
        return
    with tempfile.TemporaryDirectory() as place:
        link = Path(place, "folder")
        link.symlink_to(os.path.abspath(folder), target_is_directory=True)
        yield link


@contextlib.contextmanager
def writing(subject: str, wanted: str) -> Iterator[None]:
    """Turns an ``OSError`` of the block into one line.

    Args:
        subject: What is written, for the message.
        wanted: What would be right, for the message.

    Raises:
        TfkdError: When the block raises an ``OSError``.
    """
    try:
        yield
    except OSError as error:
        # Only the message of an error without a number is more than the name of the file.
        found = (error.strerror or reason(error)).splitlines()[0]
        raise TfkdError(f"{subject}: cannot be written ({found}), wanted {wanted}") from error


@contextlib.contextmanager
def _beside(place: Path, alone: bool = False) -> Iterator[Path]:
    """Yields a path of the same name in a folder beside the place, which goes away at the end."""

    def choose() -> Path:
        folder = place.with_name(f"{NEW}{'alone' if alone else uuid.uuid4().hex}")
        if alone:
            shutil.rmtree(folder, ignore_errors=True)
        return folder

    with made(choose) as folder:
        yield folder / place.name


def _is_free(place: Path, replaceable: Callable[[Path], bool]) -> bool:
    return place.is_dir() and (not any(place.iterdir()) or replaceable(place))


def _opened(path: Path) -> int:
    """Returns the descriptor of a folder, or of a file that is made where it is missing."""
    if path.is_dir():
        return os.open(path, os.O_RDONLY)
    path.parent.mkdir(parents=True, exist_ok=True)
    # A link would let a foreign folder have a file made anywhere.
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o666)


def _is_at(descriptor: int, path: Path) -> bool:
    """Returns whether an open file is the one that a path leads to."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
