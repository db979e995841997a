"""The format of `torch.save` from PyTorch 1.6 on: a zip archive of a pickle and its storages."""

from __future__ import annotations

import zipfile

from tfkd.errors import TfkdError
from tfkd.torch import pickles


def pickle_name(archive: zipfile.ZipFile) -> str | None:
    """The member that says what the archive holds, or None if it is no archive of torch.save."""
    names = [name for name in archive.namelist() if name.partition("/")[2] == "data.pkl"]
    return names[0] if len(names) == 1 else None


def read(archive: zipfile.ZipFile, size: int) -> object:
    """Returns what an archive holds, with tensors whose storages are filled.

    Args:
        archive: An archive with a `pickle_name`.
        size: The bytes of the archive, more than which nothing in it can have: torch.save does
            not compress.

    Raises:
        TfkdError: For a compressed or oversize member, another byte order, and storages that are
            missing or of another size than the object says.
        Exception: As `pickles.load` and `zipfile`.
    """
    name = pickle_name(archive)
    folder = name.removesuffix("data.pkl")
    order = f"{folder}byteorder"
    if order in archive.namelist() and _member(archive, order, size) != b"little":
        raise TfkdError("found numbers of a big-endian machine, wanted little-endian ones")
    content, _, storages = pickles.load(_member(archive, name, size))
    # Members of a forged archive may lie upon each other, and fill any memory together.
    claimed = sum(storage.bytes for storage in storages.values())
    if claimed > size:
        raise TfkdError(f"found storages of {claimed} bytes in a file of {size}")
    for key, storage in storages.items():
        storage.fill(_member(archive, f"{folder}data/{key}", size))
    return content


def _member(archive: zipfile.ZipFile, name: str, size: int) -> bytes:
    try:
        info = archive.getinfo(name)
    except KeyError:
        raise TfkdError(f"found no member {name!r}, wanted every storage of the object") from None
    if info.compress_type != zipfile.ZIP_STORED or info.file_size > size:
        raise TfkdError(
            f"found that member {name!r} is compressed or larger than the file, wanted it as "
            "torch.save stores it"
        )
    return archive.read(info)
