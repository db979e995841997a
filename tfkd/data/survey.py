"""The first look at a set of image files: every header, kept in the cache; what the set is made of.

Size and channels are decided from the whole set, so that a set in memory and the same one streamed
are the same. What a set loses on the way to 8 bits and one or three channels is said in one line.
"""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from tfkd import files
from tfkd.data import headers
from tfkd.errors import TfkdError

FACTS = np.dtype(
    [
        ("kind", "u1"),
        ("orientation", "u1"),
        ("traits", "u1"),
        ("decoded", "u1"),
        ("height", "u4"),
        ("width", "u4"),
    ]
)
"""One row a file: the fields of ``headers.Header``, kind 0 for a file that is no image; and whether
it could be decoded, ``SOUND``, ``DAMAGED`` or 0 if that was not tried."""

SOUND, DAMAGED = 1, 2

_VERSION = 1
_KEPT_FROM = 2000  # Smaller sets are looked through in a moment.


class SeveralSizes(TfkdError):
    """Images of several sizes, where nothing says how they become images of one."""


class Survey:
    """The facts of the files of a set.

    Attributes:
        facts: Structured array (N,) of type ``FACTS``.
    """

    def __init__(
        self, root: Path, state: str | None, paths: Sequence[str], kept: Sequence[str] | None = None
    ):
        """Reads every header, or what was kept of an earlier look.

        Args:
            root: The folder of the set, which names the kept file.
            state: Changes whenever a file of the set does.
            paths: The files (N,), in UTF-8.
            kept: The classes that are looked at, where they are not all; of each choice the facts
                are kept apart.
        """
        place = hashlib.sha256(os.path.abspath(root).encode("utf-8", "surrogateescape"))
        for name in kept or ():
            place.update(f"\0{name}".encode())
        self._file = files.cache() / "folders" / f"{place.hexdigest()[:32]}.npz"
        listed = hashlib.sha256("\0".join(paths).encode())
        self._state = f"{_VERSION} {state} {listed.hexdigest()}"
        kept = self._kept(len(paths))
        if kept is not None:
            self.facts = kept
            return
        self.facts = np.zeros(len(paths), FACTS)
        # Without a terminal there is no bar.
        bar = tqdm(paths, desc=f"looking through {root}", unit=" files", disable=None, leave=False)
        for row, path in enumerate(bar):
            try:
                found = headers.read(path)
            except headers.Unreadable:
                continue
            self.facts[row] = (
                found.kind,
                found.orientation,
                found.traits,
                0,
                found.height,
                found.width,
            )
        self.keep()

    def keep(self) -> None:
        """Keeps the facts for later runs; where there is no room, they look for themselves."""
        if len(self.facts) < _KEPT_FROM:
            return
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with files.whole_file(self._file) as fresh:
                np.savez(fresh, state=self._state, facts=self.facts)
        except OSError:
            pass

    def _kept(self, count: int) -> np.ndarray | None:
        if count < _KEPT_FROM:
            return None
        try:
            with np.load(self._file, allow_pickle=False) as kept:
                facts = kept["facts"]
                same = kept["state"] == self._state
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None
        return facts if same and facts.dtype == FACTS and facts.shape == (count,) else None


def sizes(facts: np.ndarray) -> tuple[tuple[int, int], np.ndarray]:
    """Returns the most frequent (height, width) of some images, and bool (N,): the others."""
    pairs = facts["height"].astype(np.uint64) << np.uint64(32) | facts["width"]
    found, which, counts = np.unique(pairs, return_inverse=True, return_counts=True)
    common = int(np.argmax(counts))
    height, width = divmod(int(found[common]), 2**32)
    return (height, width), which != common


def channels(facts: np.ndarray) -> int:
    """Returns 1 if all images are gray, otherwise 3."""
    return 1 if (facts["traits"] & headers.GRAY).all() else 3


def require_one_size(paths: np.ndarray, facts: np.ndarray) -> tuple[int, int]:
    """Returns the (height, width) of all images; raises SeveralSizes where they differ."""
    common, odd = sizes(facts)
    if odd.any():
        first = int(np.flatnonzero(odd)[0])
        height, width = facts["height"][first], facts["width"][first]
        raise SeveralSizes(
            f"{paths[first]}: found an image of {height} x {width} pixels, wanted {common[0]} x "
            f"{common[1]} as {np.count_nonzero(~odd)} of {len(facts)} images have; set image_size "
            f"to resize them all"
        )
    return common


def remarks(paths: np.ndarray, facts: np.ndarray) -> str | None:
    """Returns what is converted or lost when the images are decoded, or None for nothing."""
    traits = facts["traits"]
    color = channels(facts) == 3

    def having(trait: int) -> np.ndarray:
        return (traits & trait) != 0

    found = (
        (facts["orientation"] > 1, "turned upright as their EXIF orientation says"),
        (having(headers.GRAY) & color, "gray, beside colored ones, and get three equal channels"),
        (
            having(headers.ALPHA),
            "transparent in part, of which the colors beneath are used (of a GIF, black)",
        ),
        (having(headers.DEEP), "of 16 bits a channel, of which the upper 8 are kept"),
        (having(headers.CMYK), "in CMYK and become RGB without their color profile"),
        (having(headers.PALETTE), "stored with a table of colors and become RGB"),
        (having(headers.ANIMATED), "animated, of which the first frame is taken"),
    )
    parts = [
        f"{np.count_nonzero(which)} are {what} (the first {paths[np.flatnonzero(which)[0]]})"
        for which, what in found
        if which.any()
    ]
    return f"of {len(paths)} images, {'; '.join(parts)}" if parts else None
