"""The format of `torch.save` before PyTorch 1.6: pickles one after the other, then the numbers."""

from __future__ import annotations

from tfkd.errors import TfkdError
from tfkd.torch import pickles

_MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
_VERSION = 1001


def read(data: bytes) -> object:
    """Returns what a file holds, with tensors whose storages are filled.

    The file is a magic number, a version, facts about the machine, the object, and the keys of its
    storages, each a pickle; then for every key the count of numbers in 8 bytes and the numbers.

    Args:
        data: The whole file.

    Raises:
        TfkdError: For another magic number, version or byte order, and for storages that are
            missing, cut off or of another size than the object says.
        Exception: As `pickles.load`.
    """
    magic, place, _ = pickles.load(data)
    if magic != _MAGIC_NUMBER:
        raise TfkdError("found another magic number, wanted that of torch.save")
    version, place, _ = pickles.load(data, place)
    if version != _VERSION:
        raise TfkdError(f"found another version than {_VERSION} of the format")
    machine, place, _ = pickles.load(data, place)
    if not isinstance(machine, dict) or machine.get("little_endian") is not True:
        raise TfkdError("found numbers of a big-endian machine, wanted little-endian ones")
    content, place, storages = pickles.load(data, place)
    keys, place, _ = pickles.load(data, place)
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise TfkdError("found no list of storages behind the object")
    if sorted(keys) != sorted(storages):
        odd = sorted(set(keys) ^ set(storages)) or keys
        raise TfkdError(
            f"found {len(keys)} storages where the object has {len(storages)}, {odd[0]!r} among "
            "the odd ones"
        )
    for key in keys:
        storage = storages[key]
        count = int.from_bytes(data[place : place + 8], "little")
        if count != storage.count:
            raise TfkdError(f"storage {key!r}: found {count} numbers, wanted {storage.count}")
        place += 8
        storage.fill(memoryview(data)[place : place + storage.bytes])
        place += storage.bytes
    return content
