"""Scores of classifiers: accuracy, loss, calibration and agreement.

For rows i with weight w_i (0 for padding), all percentages are::

    top-k     = 100 * sum_i w_i [the label is among the k largest logits] / sum_i w_i
    agreement = 100 * sum_i w_i [both networks have the same largest logit] / sum_i w_i
    loss      = sum_i w_i * (-log softmax(logits_i)[label_i]) / sum_i w_i     (nats)
    ece       = 100 * sum_b |sum_{i in b} w_i ([i is right] - confidence_i)| / sum_i w_i

``ece`` is the expected calibration error over 15 bins b of equal width of the largest probability
(Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, equation 3).
"""

from __future__ import annotations

import collections
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tfkd.core.tasks.task import Evaluator, Outputs, Scores
from tfkd.errors import TfkdError
from tfkd.models.graph.outputs import LOGITS, in_depth_order

BINS = 15
"""Bins of the calibration error."""


class ClassEvaluator(Evaluator):
    """Weighted sums over rows, in float64.

    A row with a logit that is not a number is wrong, agrees with nothing and makes the loss NaN.

    Args:
        names: The networks.
        topk: The k of the top-k accuracies. A k above 1 is left out for a network of fewer than 2k
            classes, where it would say little.
        every_exit: Whether each exit is scored, in ``exits``, and ``mean_top1`` is the mean over
            them; a network with one output has one exit.
    """

    def __init__(
        self, names: Sequence[str], topk: Sequence[int] = (1, 5), every_exit: bool = False
    ) -> None:
        self._count = 0
        self._weight = 0.0
        self._names = list(names)
        self._topk = topk
        self._every_exit = every_exit
        self._sums: dict[str, dict[str, _Sums]] = {name: {} for name in names}
        self._equal = dict.fromkeys(itertools.combinations(names, 2), 0.0)

    def add(self, batch: Mapping[str, np.ndarray], outputs: Mapping[str, Outputs]) -> None:
        label, weight = _labels_and_weights(batch)
        kept = weight > 0
        label, weight = label[kept], weight[kept]
        self._count += len(label)
        self._weight += weight.sum()
        best = {}
        for name, found in outputs.items():
            exits = in_depth_order(found) if self._every_exit else (LOGITS,)
            for exit in exits:
                rows = _rows(name, found, exit, len(kept), label)[kept]
                sums = self._sums[name].setdefault(exit, _Sums(self._topk, self._every_exit))
                sums.add(rows, label, weight)
            # A row that is not a number has no best class, and NaN equals nothing.
            best[name] = np.where(np.isnan(rows).any(-1), np.nan, rows.argmax(-1))
        for first, second in self._equal:
            classes = [np.shape(outputs[name][LOGITS])[-1] for name in (first, second)]
            if classes[0] != classes[1]:
                raise TfkdError(
                    f"agreement of {first!r} and {second!r}: found {classes[0]} and {classes[1]} "
                    "classes, wanted the same number"
                )
            self._equal[first, second] += float(weight @ (best[first] == best[second]))

    def result(self) -> Scores:
        return Scores(
            {name: self._scores(name) for name in self._names} if self._count else {},
            {
                pair: 100.0 * equal / self._weight
                for pair, equal in self._equal.items()
                if self._count
            },
            self._count,
        )

    def _scores(self, name: str) -> dict[str, Any]:
        exits = {exit: sums.means(self._weight) for exit, sums in self._sums[name].items()}
        scores: dict[str, Any] = dict(exits[LOGITS])
        if self._every_exit:
            scores["mean_top1"] = float(np.mean([each["top1"] for each in exits.values()]))
            scores["exits"] = [{"name": exit, **exits[exit]} for exit in exits]
        scores["count"] = self._count
        return scores


class _Sums:
    """The sums of one exit, those of the calibration error among them where it is wanted."""

    def __init__(self, topk: Sequence[int], calibration: bool) -> None:
        self._topk = topk
        self._calibration = calibration
        self._sums: dict[str, float] = collections.defaultdict(float)
        self._gaps = np.zeros(BINS)

    def add(self, logits: np.ndarray, label: np.ndarray, weight: np.ndarray) -> None:
        for key, values in _values(logits, label, self._topk).items():
            self._sums[key] += float(weight @ values)
        if not self._calibration:
            return
        confidence = _confidence(logits)
        bins = np.clip(np.ceil(np.nan_to_num(confidence) * BINS).astype(int) - 1, 0, BINS - 1)
        right = _values(logits, label, (1,))["top1"]
        self._gaps += np.bincount(bins, weight * (right - confidence), minlength=BINS)

    def means(self, total: float) -> dict[str, float]:
        means = {
            key: (1.0 if key == "loss" else 100.0) * value / total
            for key, value in self._sums.items()
        }
        if self._calibration:
            means["ece"] = 100.0 * float(np.abs(self._gaps).sum()) / total
        return means


def _values(logits: np.ndarray, label: np.ndarray, topk: Sequence[int]) -> dict[str, np.ndarray]:
    """Returns for each row whether it is right within the first k, and its loss.

    Of equal logits the one of the lower class comes first, as in ``argmax``.
    """
    classes = logits.shape[-1]
    own = np.take_along_axis(logits, label[:, None], axis=-1)
    lower = np.arange(classes) < label[:, None]
    before = np.sum((logits > own) | ((logits == own) & lower), axis=-1)
    number = ~np.isnan(logits).any(axis=-1)
    largest = logits.max(axis=-1, keepdims=True)
    with np.errstate(invalid="ignore"):
        spread = np.log(np.exp(logits - largest).sum(axis=-1)) + largest[:, 0]
        loss = spread - own[:, 0]
    wanted = [k for k in topk if k == 1 or classes >= 2 * k]
    return {f"top{k}": number & (before < k) for k in wanted} | {"loss": loss}


def _confidence(logits: np.ndarray) -> np.ndarray:
    """Returns the largest probability of each row."""
    with np.errstate(invalid="ignore"):
        return 1.0 / np.exp(logits - logits.max(axis=-1, keepdims=True)).sum(axis=-1)


def _labels_and_weights(batch: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    label = np.asarray(batch["label"])
    weight = np.asarray(batch.get("sample_weight", np.ones(len(label))), np.float64)
    if label.ndim != 1 or label.dtype.kind not in "iu" or weight.shape != label.shape:
        raise TfkdError(
            f"batch to evaluate: found label {label.dtype} {label.shape} and sample_weight "
            f"{weight.shape}, wanted class numbers (batch,) and weights (batch,)"
        )
    return label, weight


def _rows(name: str, outputs: Outputs, exit: str, batch: int, label: np.ndarray) -> np.ndarray:
    """Returns logits ``(batch, classes)`` in float64, checked against the labels."""
    if exit not in outputs:
        raise TfkdError(
            f"outputs of {name!r} to evaluate: found {', '.join(outputs)}, wanted {exit!r}"
        )
    logits = np.asarray(outputs[exit]).astype(np.float64)
    if logits.ndim != 2 or len(logits) != batch:
        raise TfkdError(
            f"output of {name!r} to evaluate: found shape {logits.shape}, wanted ({batch}, classes)"
        )
    if len(label) and not 0 <= label.min() <= label.max() < logits.shape[-1]:
        raise TfkdError(
            f"labels to evaluate {name!r} with: found {label.min()} to {label.max()}, "
            f"wanted 0 to {logits.shape[-1] - 1}, the network's classes"
        )
    return logits
