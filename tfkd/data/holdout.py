"""The validation part that is set apart from the training images, whatever the seed."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence

import numpy as np

from tfkd.errors import TfkdError

_RULE = 20261120


@dataclasses.dataclass(frozen=True)
class Holdout:
    """How many training images are set apart for validation.

    Attributes:
        split: A fraction of them, from 0 to below 1.
        size: A number of them.

    Raises:
        TfkdError: Both are given, or one is no such number.
    """

    split: float | None = None
    size: int | None = None

    def __post_init__(self):
        split, size = self.split, self.size
        if split is not None and size is not None:
            raise TfkdError(
                f"validation_split and validation_size: found {split!r} and {size!r}, wanted at "
                f"most one of them"
            )
        if split is not None and not (_is_a(split, (int, float)) and 0 <= split < 1):
            raise TfkdError(
                f"validation_split: found {split!r}, wanted a fraction of the training images from "
                f"0 to below 1; a number of them is validation_size"
            )
        if size is not None and not (_is_a(size, int) and size >= 0):
            raise TfkdError(
                f"validation_size: found {size!r}, wanted a whole number of training images from 0 "
                f"on; a fraction of them is validation_split"
            )

    @property
    def given(self) -> bool:
        """Whether either was given; otherwise a set keeps its own validation split, if any."""
        return self.split is not None or self.size is not None

    def __bool__(self) -> bool:
        """Whether any image is set apart."""
        return bool(self.split or self.size)

    def __str__(self) -> str:
        if self.split is not None:
            return f"validation_split={self.split!r}"
        return f"validation_size={self.size!r}"

    def count(self, train_size: int) -> int:
        """Returns the number of images to set apart.

        Args:
            train_size: Number of training images.

        Raises:
            TfkdError: No training image would be left.
        """
        if not self:
            return 0
        count = max(1, round(self.split * train_size)) if self.split else self.size
        if count >= train_size:
            raise TfkdError(
                f"{self}: sets apart {count} of {train_size} training images, wanted at most "
                f"{train_size - 1}"
            )
        return count


def _is_a(value, kinds: type | tuple[type, ...]) -> bool:
    return isinstance(value, kinds) and not isinstance(value, bool)


def held_out(
    labels: np.ndarray, count: int, names: Sequence[str] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Divides positions into those kept for training and those held out, alike in every class.

    In each class those with the smallest hash of their names are held out. Whether one is does not
    depend on where the others are: with one image more or less, at most one of the others is held
    out that was not, and at most one no longer is.

    Args:
        labels: Integer labels (N,).
        count: How many to hold out, 0 <= count < N.
        names: What each image is called, such as its path relative to the split; its position where
            there is none.

    Returns:
        (kept, apart), both ascending positions. Every class gives its share of ``count``, rounded:
        the shares are those of Webster (Sainte-Lague), see :func:`_shares`.
    """
    keys = range(len(labels)) if names is None else names
    hashes = [hashlib.sha256(str(key).encode()).digest() for key in keys]
    apart = np.zeros(len(labels), bool)
    for value, number in _shares(labels, count):
        members = np.flatnonzero(labels == value)
        apart[sorted(members, key=lambda at: hashes[at])[:number]] = True
    return np.flatnonzero(~apart), np.flatnonzero(apart)


def stratified(labels: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Divides positions into those kept and those set apart, alike in every class.

    They are drawn by a fixed seed from the positions: for data that never change, and for the
    choice of some training images (``train_size``).

    Args:
        labels: Integer labels (N,).
        count: How many to set apart, 0 <= count < N.

    Returns:
        (kept, apart), both ascending positions. Every class gives its proportion of ``count``, and
        the remainder goes to the classes with the largest fractions.
    """
    # The legacy generator: NumPy promises that its numbers never change.
    generator = np.random.RandomState(_RULE)
    apart = np.zeros(len(labels), bool)
    for value, number in _quotas(labels, count):
        apart[generator.permutation(np.flatnonzero(labels == value))[:number]] = True
    return np.flatnonzero(~apart), np.flatnonzero(apart)


def _quotas(labels: np.ndarray, count: int) -> list[tuple[int, int]]:
    """Returns each class and how many of ``count`` it gives."""
    classes, sizes = np.unique(labels, return_counts=True)
    exact = sizes * (count / len(labels))
    quota = np.floor(exact).astype(int)
    short = count - quota.sum()
    quota[np.argsort(quota - exact, kind="stable")[:short]] += 1
    return list(zip(classes, quota))


def _shares(labels: np.ndarray, count: int) -> list[tuple[int, int]]:
    """Returns each class and how many of ``count`` it gives, in numbers that hardly move.

    The n-th image of a class of size s has the priority s / (2n - 1), and the ``count`` largest are
    given, of equal ones those of the earlier class. Where one image is removed, and ``count`` stays
    or falls by one, at most one class gives one less and at most one other class one more. Largest
    remainders, as in ``stratified``, have no such bound: the fractions of all classes change.
    Classes of equal sizes give the same by both.
    """
    classes, sizes = np.unique(labels, return_counts=True)
    owner = np.repeat(np.arange(len(classes)), sizes)
    nth = np.arange(len(owner)) - np.repeat(np.cumsum(sizes) - sizes, sizes) + 1
    given = np.argsort(-sizes[owner] / (2 * nth - 1), kind="stable")[:count]
    return list(zip(classes, np.bincount(owner[given], minlength=len(classes))))
