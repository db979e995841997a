"""A glance at a folder of images: how many there are, and of what size, in a moment."""

from __future__ import annotations

import dataclasses
import functools
import statistics
from pathlib import Path

from tfkd.data import headers
from tfkd.data.file_digest import IMAGE_ENDINGS

_SAMPLE = 200


@dataclasses.dataclass(frozen=True)
class Glance:
    """What a glance tells.

    Attributes:
        images: Number of files in ``train/CLASS`` that are named as images.
        side: Median of the shorter sides of up to 200 of them, in pixels.
        held_out: Whether the folder has validation images of its own beside its test images.
    """

    images: int
    side: int
    held_out: bool


@functools.lru_cache(maxsize=8)
def glance(name: str) -> Glance | None:
    """Looks at a folder of images; a process does so once.

    Args:
        name: ``folder:PATH``.

    Returns:
        ``None`` for another data set, and where no training images are found.
    """
    kind, _, path = name.partition(":")
    root = Path(path).expanduser()
    if kind != "folder" or not path or not (root / "train").is_dir():
        return None
    found = sorted(each for each in root.glob("train/*/*") if each.suffix.lower() in IMAGE_ENDINGS)
    sides = []
    for each in found[:: len(found) // _SAMPLE + 1]:
        try:
            header = headers.read(str(each))
        except headers.Unreadable:
            continue
        sides.append(min(header.height, header.width))
    if not sides:
        return None
    has_test = (root / "test").is_dir()
    held_out = has_test and any((root / each).is_dir() for each in ("val", "validation"))
    return Glance(len(found), int(statistics.median(sides)), held_out)
