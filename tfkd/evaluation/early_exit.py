"""What early exits are worth: accuracy over cost, with thresholds from validation images.

*Anytime*: all images leave at one exit. *Budgeted*: an image leaves at the first exit ``k`` where
its confidence, the largest probability, reaches a threshold ``theta_k``. The thresholds let a share
of the validation images leave at each of ``n`` exits::

    p_k = r^k / sum_m r^m,  r = 1/20, 2/20, ..., 39/20
    theta_k = the floor(N p_k + 1e-9)-th largest confidence among the images that are still there

Images as confident as ``theta_k`` leave together with that one; where nobody shall leave, or fewer
are there, ``theta_k`` is infinite, and ``theta_n = -inf``. The cost of an image that leaves at exit
``k`` is that of all that ran by then (:func:`tfkd.models.exit_costs`).

Source: Huang et al., "Multi-Scale Dense Networks for Resource Efficient Image Classification", ICLR
2018, section 5 (budgeted batch classification), with the search and the ratios of the public
PyTorch implementation.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from tfkd.core.tasks import Classification, Task
from tfkd.core.tasks.exit_choice import exits_taken
from tfkd.errors import TfkdError
from tfkd.evaluation.predictors import Predict
from tfkd.models.graph.outputs import LOGITS, by_name, in_depth_order

RATIOS = tuple(step / 20 for step in range(1, 40))
"""The ratios ``r`` of the points of a budgeted curve."""


@dataclass(frozen=True)
class ExitAnswers:
    """What the exits of a network say of some images.

    Attributes:
        exits: The names of the exits, shallow to deep.
        confidence: The largest probability, float32 ``(exits, images)``.
        right: Whether the class is the right one, ``(exits, images)``; of logits of which one is
            not a number it is wrong, as in every score.
    """

    exits: tuple[str, ...]
    confidence: np.ndarray
    right: np.ndarray

    def outcome(
        self, thresholds: Sequence[float | str], macs: Sequence[float]
    ) -> tuple[float, float, np.ndarray]:
        """Returns the top-1 accuracy in percent, the MACs of an image, and the images of each exit.

        Args:
            thresholds: One an exit.
            macs: The cumulative MACs of each exit.

        Raises:
            TfkdError: For thresholds of another number, or what is no number.
        """
        taken = exits_taken(self.confidence, thresholds)
        counts = np.bincount(taken - 1, minlength=len(self.exits))
        right = self.right[taken - 1, np.arange(len(taken))]
        return 100 * float(right.mean()), float(counts @ np.asarray(macs) / len(taken)), counts


def exit_answers(
    predictors: Mapping[str, Predict],
    dataset: Iterable[Mapping[str, tf.Tensor]],
    task: Task | None = None,
) -> dict[str, ExitAnswers]:
    """Runs networks with exits once over a data set.

    Args:
        predictors: As :func:`tfkd.evaluation.evaluate` takes them.
        dataset: As there, with class numbers for labels.
        task: As there; classification.

    Returns:
        The answers by the names of the networks.

    Raises:
        TfkdError: For a network without ``logits``, or a data set without images.
    """
    task = Classification() if task is None else task
    found: dict[str, list] = {name: [] for name in predictors}
    exits = {}
    for batch in dataset:
        batch = task.batch(batch)
        labels = np.asarray(batch["label"])
        kept = np.asarray(batch.get("sample_weight", np.ones(len(labels)))) > 0
        for name, predict in predictors.items():
            outputs = by_name(predict(batch["image"]), f"network {name!r} to evaluate")
            exits[name] = in_depth_order(outputs)
            if LOGITS not in exits[name]:
                raise TfkdError(
                    f"network {name!r} to evaluate: found the outputs {', '.join(outputs)}, wanted "
                    f"{LOGITS!r} among them"
                )
            found[name].append([_answers(outputs[exit], labels, kept) for exit in exits[name]])
    if not exits:
        raise TfkdError("data set to evaluate: found no images, wanted one or more")
    joined = {name: np.concatenate(parts, axis=-1) for name, parts in found.items()}
    return {
        name: ExitAnswers(exits[name], both[:, 0], both[:, 1] > 0) for name, both in joined.items()
    }


def _answers(logits: tf.Tensor, labels: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Returns confidence and whether the class is right, float32 ``(2, rows that count)``."""
    confidence = np.asarray(tf.reduce_max(tf.nn.softmax(logits), axis=-1))
    number = ~np.isnan(np.asarray(logits)).any(axis=-1)
    right = number & (np.asarray(tf.argmax(logits, axis=-1)) == labels)
    return np.stack([confidence[kept], right[kept]])


def find_thresholds(confidence: np.ndarray, ratio: float) -> np.ndarray:
    """Returns the thresholds that let a share of some images leave at each exit.

    Args:
        confidence: The largest probabilities, ``(exits, images)``; NaN never leaves early.
        ratio: ``r`` at the head of this file: how many leave at an exit for one at the exit before.

    Returns:
        float32 ``(exits,)``.

    Raises:
        TfkdError: For a ratio that is not above 0.
    """
    if not 0 < ratio < math.inf:
        raise TfkdError(f"ratio of exits: found {ratio!r}, wanted a number > 0")
    exits, images = confidence.shape
    shares = ratio ** np.arange(1, exits + 1)
    wanted = np.floor(images * shares / shares.sum() + 1e-9).astype(int)
    thresholds = np.full(exits, np.inf, np.float32)
    thresholds[-1] = -np.inf
    there = np.full(images, True)
    for exit in range(exits - 1):
        known = confidence[exit][there & ~np.isnan(confidence[exit])]
        if 0 < wanted[exit] <= len(known):
            place = len(known) - wanted[exit]
            thresholds[exit] = np.partition(known, place)[place]
            there &= ~(confidence[exit] >= thresholds[exit])
    return thresholds


def accuracy_over_cost(
    macs: Sequence[float], test: ExitAnswers, validation: ExitAnswers | None = None
) -> dict[str, Any]:
    """Returns the anytime and the budgeted points of a network, as JSON holds them.

    Args:
        macs: The cumulative MACs of each exit.
        test: Its answers on the test images, of which the accuracy is told.
        validation: Its answers on the validation images, which choose the thresholds.

    Returns:
        A dict with ``exits``, ``macs``, ``anytime``, a point for each exit (``exit``), and
        ``budgeted``, one for each ratio (``ratio``), or None without validation images. A point
        also has ``thresholds``, where nobody leaves ``"inf"`` and where all leave ``"-inf"``, and
        ``test_top1``, ``test_macs``, ``validation_top1`` and ``validation_macs``.
    """
    answers = {"test": test} if validation is None else {"test": test, "validation": validation}

    def point(thresholds: np.ndarray, **of: Any) -> dict[str, Any]:
        listed = [float(each) if np.isfinite(each) else str(each) for each in thresholds]
        found = {**of, "thresholds": listed}
        for part, given in answers.items():
            found[f"{part}_top1"], found[f"{part}_macs"], _ = given.outcome(thresholds, macs)
        return found

    count = len(macs)
    anytime = [
        point(np.where(np.arange(count) < number, np.inf, -np.inf), exit=exit)
        for number, exit in enumerate(test.exits)
    ]
    budgeted = validation and [
        point(find_thresholds(validation.confidence, ratio), ratio=ratio) for ratio in RATIOS
    ]
    return {
        "exits": list(test.exits),
        "macs": list(macs),
        "anytime": anytime,
        "budgeted": budgeted,
    }
