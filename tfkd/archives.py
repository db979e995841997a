"""Zip archives of others, read in bounded memory.

A few bytes may unpack to any number, so what is to come out is looked at before anything is. What a
member says of its size is also what ``zipfile`` reads of it at most.
"""

from __future__ import annotations

import zipfile
import zlib

from tfkd.errors import TfkdError

DAMAGES = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError)
"""What ``zipfile`` raises for archives that are cut short, damaged, encrypted or packed by unknown
methods, besides ``OSError`` and ``ValueError``."""

_MOST_TIMES = 8
_FREE_BYTES = 2**26


def read(archive: zipfile.ZipFile, name: str, most: int) -> bytes:
    """Returns a member of an archive.

    Args:
        archive: The archive.
        name: The member.
        most: Bytes that it has at most.

    Raises:
        TfkdError: When it says that it has more.
        KeyError: When there is no such member.
    """
    size = archive.getinfo(name).file_size
    if size > most:
        raise TfkdError(f"found {size:,} bytes in its member {name!r}, wanted {most:,} at most")
    return archive.read(name)


def check_sizes(archive: zipfile.ZipFile, size: int) -> None:
    """Refuses an archive of numbers that unpacks to many times its size, which numbers do not.

    Args:
        archive: The archive.
        size: Its bytes.

    Raises:
        TfkdError: When it does.
    """
    whole = sum(each.file_size for each in archive.infolist())
    if whole > _FREE_BYTES + _MOST_TIMES * size:
        raise TfkdError(
            f"found an archive of {size:,} bytes that unpacks to {whole:,}, wanted the weights as "
            "they were written"
        )
