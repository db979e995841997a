"""Files as torch.save writes them, put together byte by byte, so that they can also be wrong."""

import copy
import dataclasses
import io
import json
import math
import struct
import zipfile

import numpy as np

MAGIC = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."
VERSION = b"\x80\x02M\xe9\x03."
MACHINE = b"\x80\x02}(X\x0d\x00\x00\x00little_endian\x88u."
KINDS = {"f4": "FloatStorage", "f8": "DoubleStorage", "f2": "HalfStorage", "i8": "LongStorage"}


@dataclasses.dataclass(frozen=True)
class Raw:
    """Instructions that stand where a value would."""

    code: bytes


@dataclasses.dataclass(frozen=True)
class View:
    """A tensor over a storage, whatever it says."""

    numbers: np.ndarray
    shape: tuple
    strides: tuple
    offset: int = 0
    count: int | None = None
    key: str | None = None


def named(module, name):
    """The instruction that pushes a global."""
    return f"c{module}\n{name}\n".encode()


def text(value):
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


class Writer:
    """Pickles values, and keeps the numbers of their storages by key."""

    def __init__(self):
        self.storages = {}

    def pickle(self, value):
        return b"\x80\x02" + self.code(value) + b"."

    def code(self, value):
        if isinstance(value, Raw):
            return value.code
        if isinstance(value, np.ndarray):
            strides = tuple(math.prod(value.shape[axis + 1 :]) for axis in range(value.ndim))
            return self.tensor(View(value, value.shape, strides))
        if isinstance(value, View):
            return self.tensor(value)
        if isinstance(value, dict):
            pairs = b"".join(self.code(key) + self.code(each) for key, each in value.items())
            return b"}(" + pairs + b"u"
        if isinstance(value, (list, tuple)):
            inner = b"".join(map(self.code, value))
            return b"](" + inner + b"e" if isinstance(value, list) else b"(" + inner + b"t"
        if value is None or isinstance(value, bool):
            return {None: b"N", True: b"\x88", False: b"\x89"}[value]
        if isinstance(value, int):
            return b"\x8a\x0b" + value.to_bytes(11, "little", signed=True)
        if isinstance(value, float):
            return b"G" + struct.pack(">d", value)
        return text(value)

    def tensor(self, view):
        key = str(len(self.storages)) if view.key is None else view.key
        numbers = np.ascontiguousarray(view.numbers)
        self.storages[key] = numbers
        count = numbers.size if view.count is None else view.count
        kind = Raw(named("torch", KINDS[numbers.dtype.str[1:]]))
        storage = Raw(self.code(("storage", kind, key, "cuda:0", count)) + b"Q")
        hooks = Raw(named("collections", "OrderedDict") + b")R")
        call = self.code((storage, view.offset, view.shape, view.strides, False, hooks))
        return named("torch._utils", "_rebuild_tensor_v2") + call + b"R"


def zipped(value, *, leave_out=(), compression=zipfile.ZIP_STORED, order="little", lengthen=0):
    """The bytes of the newer format, perhaps without some members."""
    writer = Writer()
    members = {"archive/data.pkl": writer.pickle(value), "archive/byteorder": order.encode()}
    for key, numbers in writer.storages.items():
        members[f"archive/data/{key}"] = numbers.tobytes() + b"\0" * lengthen
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        for name, content in members.items():
            if name not in leave_out:
                archive.writestr(name, content)
    return stream.getvalue()


def overlapping(count, numbers):
    """An archive whose members all begin at the same place of the file."""
    views = {str(n): View(numbers, numbers.shape, (1,), key=str(n)) for n in range(count)}
    with zipfile.ZipFile(io.BytesIO(zipped(views))) as whole:
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w") as archive:
            archive.writestr("archive/data.pkl", whole.read("archive/data.pkl"))
            archive.writestr("archive/data/0", numbers.tobytes())
            first = archive.getinfo("archive/data/0")
            for n in range(1, count):
                archive.filelist.append(copy.copy(first))
                archive.filelist[-1].filename = f"archive/data/{n}"
    return stream.getvalue()


def legacy(value, *, magic=MAGIC, version=VERSION, machine=MACHINE, leave_out=()):
    """The bytes of the older format, perhaps without some storages."""
    writer = Writer()
    content = writer.pickle(value)
    kept = {key: each for key, each in writer.storages.items() if key not in leave_out}
    parts = [magic, version, machine, content, writer.pickle(list(kept))]
    for numbers in kept.values():
        parts += [struct.pack("<q", numbers.size), numbers.tobytes()]
    return b"".join(parts)


def safetensors(entries, numbers=b"", length=None):
    """The bytes of the safetensors format for a table of entries, or for its text."""
    table = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
    return struct.pack("<Q", len(table) if length is None else length) + table + numbers


def safetensors_of(arrays):
    """The bytes of the safetensors format for float32 arrays."""
    entries, numbers = {"__metadata__": {"format": "pt"}}, b""
    for name, array in arrays.items():
        raw = np.ascontiguousarray(array, "<f4").tobytes()
        place = [len(numbers), len(numbers) + len(raw)]
        entries[name] = {"dtype": "F32", "shape": list(array.shape), "data_offsets": place}
        numbers += raw
    return safetensors(entries, numbers)


def npz(arrays, compressed=False):
    stream = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(stream, **arrays)
    return stream.getvalue()


def counting(*shape, start=0, dtype=np.float32):
    """An array of whole numbers in order."""
    return (np.arange(math.prod(shape)) + start).reshape(shape).astype(dtype)
