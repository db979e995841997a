"""At which exit of a network an image leaves, and which thresholds a budget affords.

An image leaves at the first exit where its confidence, the largest probability, is at least the
threshold of that exit; at the deepest one all leave. A *point* is a set of thresholds and what they
gave on some images: a dict with ``thresholds`` (one an exit; ``"inf"`` and ``"-inf"`` where JSON
has no number), ``validation_top1`` (percent) and ``validation_macs`` (MACs an image, the mean).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from tfkd.errors import TfkdError


def checked_thresholds(thresholds: Sequence[float | str], exits: int) -> np.ndarray:
    """Returns thresholds as float32 ``(exits,)``.

    Args:
        thresholds: A number for each exit, shallow to deep; infinite ones are allowed.
        exits: The number of exits.

    Raises:
        TfkdError: For another number of them, or what is no number.
    """
    try:
        found = np.asarray(thresholds, np.float32)
    except (TypeError, ValueError):
        raise TfkdError(f"thresholds: found {thresholds!r}, wanted {exits} numbers") from None
    if found.shape != (exits,):
        shown = f"{len(found)} of them" if found.ndim == 1 else f"the shape {found.shape}"
        raise TfkdError(f"thresholds: found {shown}, wanted {exits}, one an exit")
    if np.isnan(found).any():
        raise TfkdError(f"thresholds: found NaN at exit {1 + int(np.isnan(found).argmax())}")
    return found


def exits_taken(confidence: np.ndarray, thresholds: Sequence[float | str]) -> np.ndarray:
    """Returns the exit at which each image leaves, ``(images,)``, counted from 1.

    Args:
        confidence: The largest probability of each image at each exit, ``(exits, images)``; one
            that is not a number reaches no threshold.
        thresholds: One an exit; that of the deepest one is not read.

    Raises:
        TfkdError: As :func:`checked_thresholds`.
    """
    reached = confidence >= checked_thresholds(thresholds, len(confidence))[:, None]
    reached[-1] = True
    return reached.argmax(axis=0) + 1


def best_by_cost(points: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Returns the points that are more accurate than every cheaper one, the cheapest first.

    Accuracy and cost are those on the validation images.
    """
    found: list[Mapping[str, Any]] = []
    for point in sorted(points, key=lambda p: (p["validation_macs"], -p["validation_top1"])):
        if not found or point["validation_top1"] > found[-1]["validation_top1"]:
            found.append(point)
    return found


def check_budget(budget: float, least: float) -> None:
    """Raises TfkdError for a budget below the cost of the first exit, or one that is no number."""
    if not budget >= least:
        raise TfkdError(
            f"budget: found {budget:,.10g} MACs an image, wanted at least {least:,.10g}, the cost "
            "of the first exit"
        )


def within_budget(points: Iterable[Mapping[str, Any]], budget: float) -> Mapping[str, Any]:
    """Returns the most accurate point that costs no more than a budget.

    Args:
        points: See the head of this file; in the cheapest one all images leave at the first exit.
        budget: MACs of an image, the mean.

    Raises:
        TfkdError: As :func:`check_budget`.
    """
    best = best_by_cost(points)
    check_budget(budget, best[0]["validation_macs"])
    return [point for point in best if point["validation_macs"] <= budget][-1]


def cheapest(points: Iterable[Mapping[str, Any]], lost: float) -> Mapping[str, Any]:
    """Returns the cheapest point that loses little on the validation images.

    Args:
        points: See the head of this file; the most costly one is that of the deepest exit.
        lost: By how much a point may be less accurate than that one, in percentage points.
    """
    points = list(points)
    deepest = max(points, key=lambda p: p["validation_macs"])
    least = deepest["validation_top1"] - lost
    return next(point for point in best_by_cost(points) if point["validation_top1"] >= least)
