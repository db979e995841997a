"""Setting a part of the training images apart, by a rule that no seed changes."""

from __future__ import annotations

import numpy as np

from tfkd.errors import TfkdError

_RULE = 20261120


def part_size(validation: float | int, train_size: int) -> int:
    """Returns how many training images a fraction or a number means.

    Args:
        validation: A fraction in (0, 1), or a number of images, 0 for none.
        train_size: Number of training images.

    Raises:
        TfkdError: It is neither, or leaves nothing on one side.
    """
    wanted = f"a fraction between 0 and 1 or a number of images from 0 to {train_size - 1}"
    if isinstance(validation, bool) or not isinstance(validation, (int, float)):
        raise TfkdError(f"validation: found {validation!r}, wanted {wanted}")
    if isinstance(validation, int):
        count = validation
    elif 0 < validation < 1:
        count = max(1, round(validation * train_size))
    elif validation.is_integer():
        count = int(validation)
    else:
        count = -1
    if not 0 <= count < train_size:
        raise TfkdError(f"validation: found {validation!r}, wanted {wanted}")
    return count


def stratified(labels: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Divides positions into those kept and those set apart, alike in every class.

    Args:
        labels: Integer labels (N,).
        count: How many to set apart, 0 <= count < N.

    Returns:
        (kept, apart), both ascending positions; every class gives its share of `count`, the
        remainder going to the classes with the largest fractions.
    """
    classes, sizes = np.unique(labels, return_counts=True)
    exact = sizes * (count / len(labels))
    quota = np.floor(exact).astype(int)
    short = count - quota.sum()
    quota[np.argsort(quota - exact, kind="stable")[:short]] += 1
    # The legacy generator: NumPy promises that its numbers never change.
    generator = np.random.RandomState(_RULE)
    apart = np.zeros(len(labels), bool)
    for value, number in zip(classes, quota):
        apart[generator.permutation(np.flatnonzero(labels == value))[:number]] = True
    return np.flatnonzero(~apart), np.flatnonzero(apart)
