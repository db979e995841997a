"""Where the records of a prepared split lie, so that each can be read without those before it.

A TFRecord file is a sequence of records: 8 bytes of length, 4 of its checksum, the content, and 4
of its checksum. Only the lengths are read here, and kept in the cache.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import struct
import zipfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from tfkd import files
from tfkd.data import one_by_one
from tfkd.data.file_digest import file_digest
from tfkd.errors import TfkdError

HEADER, FRAME = 12, 16
"""Bytes before the content of a record, and around it."""

_VERSION = 1
_GZIP = b"\x1f\x8b"
_KEPT_FROM = 2000  # Smaller splits are looked through in a moment.
_READERS = 8
_CHUNK = 1024


class RecordIndex:
    """The places of the records of one split, in the order of its files.

    Attributes:
        paths: The files.
        file: int32 (N,), position of each record's file in ``paths``.
        number: int32 (N,), position of each record in its file.
        start: int64 (N,), where each record begins in its file, its header included.
        length: int64 (N,), bytes of the content of each record.
    """

    def __init__(self, paths: Sequence[str], counts: Sequence[int]):
        """Reads the length of every record, or what was kept of an earlier look.

        Args:
            paths: The files.
            counts: Number of records in each.

        Raises:
            TfkdError: A file does not hold that many whole records.
        """
        self.paths = list(paths)
        digest = file_digest(self.paths)
        self._state = f"{_VERSION} {digest} {_ends(self.paths, counts)}"
        self._place = files.cache() / "records" / f"{digest[:32]}.npz"
        size = int(sum(counts))
        kept = self._kept(size) if size >= _KEPT_FROM else {}
        self._labels = kept.get("labels")
        if "length" in kept:
            self.length = kept["length"]
        else:
            with ThreadPoolExecutor(_READERS) as readers:
                # Without a terminal there is no bar.
                lengths = tqdm(
                    readers.map(_lengths, self.paths, counts),
                    total=len(self.paths),
                    desc="indexing records",
                    unit=" files",
                    disable=None,
                    leave=False,
                )
                self.length = np.concatenate([np.zeros(0, np.int64), *lengths])
            self._keep()
        self.file = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
        first = np.cumsum([0, *counts[:-1]])
        self.number = (np.arange(size) - first[self.file]).astype(np.int32)
        before = np.cumsum(self.length + FRAME) - (self.length + FRAME)
        begins = np.append(before, 0)[first]  # Of each file; one without records has none.
        self.start = before - begins[self.file]

    def labels(self, parse: Callable[[tf.Tensor], tf.Tensor]) -> np.ndarray:
        """Returns the labels of all records, int32 (N,), whose first use reads every record.

        Args:
            parse: Makes the labels, int32 (b,), of records, strings (b,), inside a graph.

        Raises:
            TfkdError: A record is damaged or has no label, or the files have changed meanwhile.
        """
        if self._labels is None:
            found = np.zeros(len(self.length), np.int32)
            read = 0
            bar = tqdm(
                total=len(found), desc="reading labels", unit=" records", disable=None, leave=False
            )
            try:
                with bar:
                    for chunk in self._parsed(parse, 0, _CHUNK):
                        fitting = chunk[: len(found) - read]
                        found[read : read + len(fitting)] = fitting
                        read += len(chunk)
                        bar.update(len(chunk))
            except (tf.errors.DataLossError, tf.errors.InvalidArgumentError):
                raise self._damaged(parse, read) from None
            if read != len(found):
                raise TfkdError(
                    f"{self.paths[0]} and those beside it: found {read} records, wanted "
                    f"{len(found)}, as when they were indexed; start again"
                )
            self._labels = found
            self._keep()
        return self._labels

    def _parsed(
        self, parse: Callable[[tf.Tensor], tf.Tensor], first: int, size: int
    ) -> Iterator[np.ndarray]:
        """Yields the labels of the records from one on, in chunks of a size."""
        records = tf.data.TFRecordDataset(self.paths).skip(first).batch(size)
        parsed = records.map(parse, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        return parsed.prefetch(tf.data.AUTOTUNE).as_numpy_iterator()

    def _damaged(self, parse: Callable[[tf.Tensor], tf.Tensor], first: int) -> TfkdError:
        """Returns the error about the first damaged record, of which those before one are none."""
        bad = first
        try:
            for _ in self._parsed(parse, first, 1):
                bad += 1
        except (tf.errors.DataLossError, tf.errors.InvalidArgumentError):
            return one_by_one.damaged(self.paths[self.file[bad]], int(self.number[bad]))
        return TfkdError(
            f"{self.paths[0]} and those beside it: could be read only at a second try; start again"
        )

    def _keep(self) -> None:
        """Keeps what was found for later runs; where there is no room, they look themselves."""
        if len(self.length) < _KEPT_FROM:
            return
        found = {"length": self.length}
        if self._labels is not None:
            found["labels"] = self._labels
        with contextlib.suppress(OSError):
            self._place.parent.mkdir(parents=True, exist_ok=True)
            with files.whole_file(self._place) as fresh:
                np.savez(fresh, state=self._state, **found)

    def _kept(self, count: int) -> dict[str, np.ndarray]:
        try:
            with np.load(self._place, allow_pickle=False) as kept:
                found = dict(kept)
            if found.pop("state") != self._state:
                return {}
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return {}
        return {key: each for key, each in found.items() if each.shape == (count,)}


def _ends(paths: Sequence[str], counts: Sequence[int]) -> str:
    """Returns a digest of the numbers of records and the checksums of the last ones."""
    digest = hashlib.sha256(repr(list(map(int, counts))).encode())
    for path in paths:
        with contextlib.suppress(OSError), open(path, "rb") as file:
            file.seek(-min(FRAME, os.fstat(file.fileno()).st_size), os.SEEK_END)
            digest.update(file.read() + b"\0")
    return digest.hexdigest()


def _lengths(path: str, count: int) -> np.ndarray:
    """Returns the length of each record of a file, int64 (count,)."""
    found = np.zeros(count, np.int64)
    wanted = f"wanted {count} whole records, as dataset_info.json says; prepare the set anew"
    try:
        with open(path, "rb", buffering=0) as file:
            size, place = os.fstat(file.fileno()).st_size, 0
            for number in range(count):
                header = os.pread(file.fileno(), HEADER, place)
                if len(header) == HEADER:
                    found[number] = min(struct.unpack_from("<Q", header)[0], size)
                place += int(found[number]) + FRAME
                if number == 0 and place > size and header.startswith(_GZIP):
                    raise TfkdError(f"{path}: found a file compressed by gzip, {wanted}")
                if len(header) < HEADER or place > size:
                    raise TfkdError(f"{path}: found {number} whole records, {wanted}")
    except OSError as error:
        raise TfkdError(f"{path}: cannot be read ({error.strerror}), {wanted}") from None
    if place < size:
        raise TfkdError(f"{path}: found {size - place:,} bytes behind {count} records, {wanted}")
    return found
