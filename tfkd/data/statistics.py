"""Mean and standard deviation of the training images, measured when they are first asked for.

Evaluations do not ask. What took long is kept in the cache, by a digest of the images.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from tfkd import files, json_shapes
from tfkd.data.histogram import MeanAndStd, mean_and_std

_VERSION = 1
_KEPT_FROM = 500  # Fewer images are measured in a moment.


class Statistics:
    """Mean and standard deviation of every channel, in pixel units 0..255.

    Two are equal whose values are.
    """

    def __init__(self, measure: Callable[[], MeanAndStd]):
        """Takes the function that measures them, which is called once at most."""
        self._measure = measure
        self._values: MeanAndStd | None = None

    @classmethod
    def of(cls, values: MeanAndStd) -> Statistics:
        """Returns statistics that are known."""
        made = cls(lambda: values)
        made.recall(values)
        return made

    @property
    def values(self) -> MeanAndStd:
        """The means and the deviations, one a channel each.

        Raises:
            TfkdError: An image cannot be decoded.
        """
        if self._values is None:
            self._values = self._measure()
        return self._values

    @property
    def known(self) -> MeanAndStd | None:
        """The values if they are known by now."""
        return self._values

    def recall(self, values: MeanAndStd) -> None:
        """Takes values that were measured earlier, in the place of measuring them."""
        mean, std = (tuple(float(each) for each in part) for part in values)
        self._values = mean, std

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Statistics) and self.values == other.values

    __hash__ = None  # It would have to measure.


def kept_or_measured(
    digest: str, count: int, chunks: Callable[[], Iterable[np.ndarray]]
) -> MeanAndStd:
    """Returns what was measured of some images on this machine, or measures it.

    Args:
        digest: Of the images, such as ``ImageSource.digest``.
        count: Their number.
        chunks: Gives the images, as ``mean_and_std`` takes them.
    """
    if count < _KEPT_FROM:
        return mean_and_std(chunks())
    path = files.cache() / "statistics" / f"{digest[:32]}.json"
    found = _read(path, digest)
    if found is not None:
        return found
    values = mean_and_std(chunks())
    content = {"version": _VERSION, "digest": digest, "mean": values[0], "std": values[1]}
    with contextlib.suppress(OSError):  # Where there is no room, they are measured every time.
        path.parent.mkdir(parents=True, exist_ok=True)
        with files.whole_file(path) as fresh:
            fresh.write_text(json.dumps(content))
    return values


def _read(path: Path, digest: str) -> MeanAndStd | None:
    try:
        found = json_shapes.read(
            path, {"version": int, "digest": str, "mean": [float], "std": [float]}
        )
    except (OSError, json_shapes.Misfit):
        return None
    if (found["version"], found["digest"]) != (_VERSION, digest):
        return None
    return tuple(map(float, found["mean"])), tuple(map(float, found["std"]))
