"""Accuracy, loss and agreement of any number of networks in one pass over a data set.

For rows i with weight w_i (0 for padding), all percentages are::

    top-k     = 100 * sum_i w_i [the label is among the k largest logits] / sum_i w_i
    agreement = 100 * sum_i w_i [both networks have the same largest logit] / sum_i w_i
    loss      = sum_i w_i * (-log softmax(logits_i)[label_i]) / sum_i w_i     (nats)
"""

from __future__ import annotations

import collections
import dataclasses
import itertools
import time
import types
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import tensorflow as tf

from tfkd.errors import TfkdError, unknown
from tfkd.evaluation.predictors import Predict, as_graph


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What one pass over a data set found.

    Attributes:
        scores: For each network by name a dict with ``top1``, ``top5`` (percent, 0..100; ``top5``
            from 10 classes on), ``loss`` (nats) and ``count`` (images).
        agreements: The percentage of images on which two networks name the same class, by the pair
            of names in the order in which the networks were given.
        count: The number of images; padding does not count.
        seconds: The duration of the pass, tracing and loading included.
        images_per_second: The rate after the first batch, which traces the networks; over all
            batches if there is only one.
    """

    scores: dict[str, dict[str, float]]
    agreements: dict[tuple[str, str], float]
    count: int
    seconds: float
    images_per_second: float

    def agreement(self, first: str, second: str) -> float:
        """Returns the agreement of two networks in percent, 0..100, in either order of names."""
        for pair in ((first, second), (second, first)):
            if pair in self.agreements:
                return self.agreements[pair]
        pairs = [" and ".join(pair) for pair in self.agreements]
        raise unknown("pair of networks", f"{first} and {second}", pairs)


def evaluate(
    predictors: Mapping[str, Predict],
    dataset: Iterable[Mapping[str, tf.Tensor]],
    topk: Sequence[int] = (1, 5),
) -> Evaluation:
    """Runs every network once over a data set and returns their scores and agreements.

    Args:
        predictors: Functions from raw pixels (batch, height, width, channels) to logits
            (batch, classes), by a name for each.
        dataset: Batches: dicts with ``image``, ``label`` (batch,) class numbers and, where rows
            weigh differently, ``sample_weight`` (batch,); rows of weight 0 are padding.
        topk: The k of the top-k accuracies. A k above 1 is left out for a network of fewer than 2k
            classes, where it would say little.

    Returns:
        The evaluation; its percentages go from 0 to 100. A row with a logit that is not a number
        is wrong, agrees with nothing and makes the loss NaN.

    Raises:
        TfkdError: When there is nothing to evaluate, a label is not a class of a network, or the
            outputs are not rows of logits.
    """
    if not predictors:
        raise TfkdError("networks to evaluate: found none, wanted one or more by name")
    functions = {name: _as_graph(predict) for name, predict in predictors.items()}
    tally = _Tally(list(functions), topk)
    begin, first = time.perf_counter(), None
    for batch in dataset:
        image, label, weight = _parts(batch)
        logits = {name: np.asarray(predict(image)) for name, predict in functions.items()}
        tally.add(logits, label, weight)
        first = first or (time.perf_counter(), tally.count)
    end = time.perf_counter()
    if not tally.count:
        raise TfkdError("data set to evaluate: found no images, wanted one or more")
    later = tally.count - first[1]
    rate = later / (end - first[0]) if later else tally.count / (end - begin)
    return Evaluation(tally.scores(), tally.agreements(), tally.count, end - begin, rate)


def accuracy(
    predict: Predict,
    dataset: Iterable[Mapping[str, tf.Tensor]],
    topk: Sequence[int] = (1, 5),
) -> dict[str, float]:
    """Returns ``top1``, ``top5`` (percent, 0..100), ``loss`` (nats) and ``count`` of one network.

    Arguments and errors are those of ``evaluate``.
    """
    return evaluate({"network": predict}, dataset, topk).scores["network"]


def agreement(first: Predict, second: Predict, dataset: Iterable[Mapping[str, tf.Tensor]]) -> float:
    """Returns the percentage, 0..100, of images on which two networks name the same class.

    Arguments and errors are those of ``evaluate``.
    """
    found = evaluate({"first": first, "second": second}, dataset)
    return found.agreement("first", "second")


class _Tally:
    """Weighted sums over rows, in float64.

    Args:
        names: The networks.
        topk: The k of the top-k accuracies.
    """

    def __init__(self, names: list[str], topk: Sequence[int]) -> None:
        self.count = 0
        self._weight = 0.0
        self._names = names
        self._topk = topk
        self._sums = {name: collections.Counter() for name in names}
        self._equal = dict.fromkeys(itertools.combinations(names, 2), 0.0)

    def add(self, logits: dict[str, np.ndarray], label: np.ndarray, weight: np.ndarray) -> None:
        """Adds a batch: logits (batch, classes) by network, label and weight (batch,)."""
        kept = weight > 0
        label, weight = label[kept], weight[kept]
        self.count += len(label)
        self._weight += weight.sum()
        best = {}
        for name, rows in logits.items():
            _check(name, rows, len(kept), label)
            rows = rows[kept].astype(np.float64)
            for key, values in _rows(rows, label, self._topk).items():
                self._sums[name][key] += float(weight @ values)
            # A row that is not a number has no best class, and NaN equals nothing.
            best[name] = np.where(np.isnan(rows).any(-1), np.nan, rows.argmax(-1))
        for first, second in self._equal:
            classes = logits[first].shape[-1], logits[second].shape[-1]
            if classes[0] != classes[1]:
                raise TfkdError(
                    f"agreement of {first!r} and {second!r}: found {classes[0]} and {classes[1]} "
                    "classes, wanted the same number"
                )
            self._equal[first, second] += float(weight @ (best[first] == best[second]))

    def scores(self) -> dict[str, dict[str, float]]:
        """Returns the means by network."""
        return {name: self._score(self._sums[name]) for name in self._names}

    def agreements(self) -> dict[tuple[str, str], float]:
        """Returns the agreements in percent by pair."""
        return {pair: 100.0 * equal / self._weight for pair, equal in self._equal.items()}

    def _score(self, sums: Mapping[str, float]) -> dict[str, float]:
        scale = {key: 1.0 if key == "loss" else 100.0 for key in sums}
        means = {key: scale[key] * value / self._weight for key, value in sums.items()}
        return means | {"count": self.count}


def _rows(logits: np.ndarray, label: np.ndarray, topk: Sequence[int]) -> dict[str, np.ndarray]:
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


def _as_graph(predict: Predict) -> Predict:
    """Returns a plain function as a ``tf.function``, and any other one as it is."""
    if isinstance(predict, types.FunctionType):
        return as_graph(predict)
    return predict


def _parts(batch: Mapping[str, tf.Tensor]) -> tuple[tf.Tensor, np.ndarray, np.ndarray]:
    """Returns image, label (batch,) and weight (batch,) of a batch."""
    missing = [key for key in ("image", "label") if key not in batch]
    if missing:
        raise TfkdError(
            f"batch to evaluate: found {sorted(batch)}, wanted {' and '.join(missing)} as well"
        )
    label = np.asarray(batch["label"])
    weight = np.asarray(batch.get("sample_weight", np.ones(len(label))), np.float64)
    if label.ndim != 1 or label.dtype.kind not in "iu" or weight.shape != label.shape:
        raise TfkdError(
            f"batch to evaluate: found label {label.dtype} {label.shape} and sample_weight "
            f"{weight.shape}, wanted class numbers (batch,) and weights (batch,)"
        )
    return batch["image"], label, weight


def _check(name: str, logits: np.ndarray, batch: int, label: np.ndarray) -> None:
    """Raises unless logits are (batch, classes) and every label is one of the classes."""
    if logits.ndim != 2 or len(logits) != batch:
        raise TfkdError(
            f"output of {name!r} to evaluate: found shape {logits.shape}, wanted ({batch}, classes)"
        )
    if len(label) and not 0 <= label.min() <= label.max() < logits.shape[-1]:
        raise TfkdError(
            f"labels to evaluate {name!r} with: found {label.min()} to {label.max()}, "
            f"wanted 0 to {logits.shape[-1] - 1}, the network's classes"
        )
