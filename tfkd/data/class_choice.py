"""Some classes of a set, by their names."""

from __future__ import annotations

import dataclasses
import unicodedata
from collections.abc import Sequence
from typing import Any

import numpy as np

from tfkd.errors import TfkdError, unknown


@dataclasses.dataclass(frozen=True)
class ClassChoice:
    """Which classes of a set are kept; they stay in the order of the set, whatever the order here.

    Attributes:
        names: Their names; ``None`` keeps all.

    Raises:
        TfkdError: For what is no list of names, fewer than two of them, or one twice.
    """

    names: tuple[str, ...] | None = None

    def __post_init__(self):
        if self.names is None:
            return
        if len(self.names) < 2:
            raise TfkdError(
                f"classes: found {list(self.names)}, wanted the names of two or more, such as "
                "('cat', 'dog')"
            )
        for name in self.names:
            if self.names.count(name) > 1:
                raise TfkdError(f"classes: found {name!r} twice, wanted each class once")

    @classmethod
    def of(cls, names: Any) -> ClassChoice:
        """Returns the choice that ``tfkd.data.load`` is given."""
        if names is None:
            return cls()
        if isinstance(names, str) or not isinstance(names, Sequence):
            raise TfkdError(f"classes: found {names!r}, wanted a list of the names of classes")
        return cls(tuple(map(str, names)))

    def __bool__(self) -> bool:
        """Whether any class may be left out."""
        return self.names is not None

    def kept(self, known: Sequence[str], where: str) -> list[int]:
        """Returns the numbers of the classes that are kept, ascending.

        Args:
            known: Names of all classes of the set, in its order.
            where: The set, for messages.

        Raises:
            TfkdError: For a class that the set does not have, or a name that two of its classes
                bear.
        """
        if self.names is None:
            return list(range(len(known)))
        composed = list(map(_composed, known))
        for name in self.names:
            if composed.count(_composed(name)) > 1:
                raise TfkdError(f"classes: found {name!r} twice in {where}, wanted one class of it")
            if _composed(name) not in composed:
                raise unknown(f"class of {where}", name, known)
        return sorted(composed.index(_composed(name)) for name in self.names)


def of_classes(
    labels: np.ndarray, kept: Sequence[int], where: str
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the images of some classes, and their numbers among these.

    Args:
        labels: Numbers of classes (N,).
        kept: The classes, ascending.
        where: The part of the set, for the message.

    Returns:
        Ascending positions (n,), and int32 (n,) from 0 to ``len(kept) - 1``.

    Raises:
        TfkdError: When there is no such image.
    """
    places = np.flatnonzero(np.isin(labels, kept))
    if not len(places):
        raise TfkdError(f"{where}: found no image of the classes to keep, wanted one or more")
    return places, np.searchsorted(kept, labels[places]).astype(np.int32)


def _composed(name: str) -> str:
    """Returns a name in one form: a letter with an accent may be written as one sign or as two."""
    return unicodedata.normalize("NFC", str(name))
