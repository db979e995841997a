"""Digests of files that read none of them."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
from collections.abc import Iterable, Iterator
from typing import Any

IMAGE_ENDINGS = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".dib", ".gif")
"""The endings that say that a file is meant as an image."""

_DEPTH = 4  # split/class/file of a folder, name/config/version/file of tensorflow-datasets


def file_digest(paths: Iterable[str]) -> str:
    """Returns a digest of the names, sizes and modification times of files, in their order.

    For caches on one machine: it notices an edit that leaves the size as it was.
    """
    digest = hashlib.sha256()
    for path in paths:
        digest.update(f"{path}\0".encode())
        with contextlib.suppress(OSError):  # A file that is gone has a name only.
            facts = os.stat(path)
            digest.update(f"{facts.st_size} {facts.st_mtime_ns}\0".encode())
    return digest.hexdigest()


def stable_digest(paths: Iterable[str], parts: int) -> str:
    """Returns a digest of the relative names and sizes of files, in their order.

    It is the same for a folder that was copied or moved.

    Args:
        paths: The files.
        parts: The last parts of each path that count, such as 2 for ``class/file``.
    """
    digest = hashlib.sha256()
    for path in paths:
        name = "/".join(path.rsplit(os.sep, parts)[-parts:])
        with contextlib.suppress(OSError):
            digest.update(f"{name}\0{os.stat(path).st_size}\0".encode())
    return digest.hexdigest()


@dataclasses.dataclass(frozen=True)
class Scan:
    """What the files under a folder are, none of them read.

    Attributes:
        listing: ``files``, their number, ``bytes``, and ``digest``, of their relative names and
            sizes: the same for a folder that was copied or moved.
        images: A digest of the same, but of images alone.
        state: A digest that an edit changes which leaves the size as it was; of times as well.
    """

    listing: dict[str, Any]
    images: str
    state: str


def scan(root: str | os.PathLike) -> Scan | None:
    """Looks at all files under a folder once.

    Links to folders are followed. The order of a file system does not matter.

    Args:
        root: The folder, whose files lie at most four levels deep.

    Returns:
        What was found; None where there is no such folder.
    """
    if not os.path.isdir(root):
        return None
    digest, images, state = hashlib.sha256(), hashlib.sha256(), hashlib.sha256()
    count, total = 0, 0
    for name, size, time in sorted(_files(os.fspath(root), "", _DEPTH)):
        known = f"{name}\0{size}\0".encode()
        digest.update(known)
        if os.path.splitext(name)[1].lower() in IMAGE_ENDINGS:
            images.update(known)
        state.update(f"{name}\0{size} {time}\0".encode())
        count, total = count + 1, total + size
    listing = {"files": count, "bytes": total, "digest": digest.hexdigest()}
    return Scan(listing, images.hexdigest(), state.hexdigest())


def _files(folder: str, prefix: str, depth: int) -> Iterator[tuple[str, int, int]]:
    """Yields the relative name, size and modification time of each file under a folder."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue  # Of the file manager or of tfkd, never of the data.
            name = f"{prefix}{entry.name}"
            try:
                is_folder = entry.is_dir()
            except (
                OSError
            ):  # A link to itself; like one to nothing, it is refused by those who read.
                continue
            if is_folder:
                if depth > 1:
                    yield from _files(entry.path, f"{name}/", depth - 1)
                continue
            with contextlib.suppress(OSError):  # A link to nothing has no size.
                facts = entry.stat()
                yield name, facts.st_size, facts.st_mtime_ns
