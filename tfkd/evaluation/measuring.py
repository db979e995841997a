"""Scores and agreement of any number of networks in one pass over a data set."""

from __future__ import annotations

import dataclasses
import time
import types
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfkd.core.classes import order_of, tell_of_order
from tfkd.core.tasks import Classification, Task
from tfkd.errors import TfkdError, unknown
from tfkd.evaluation.predictors import Predict, as_graph, in_order
from tfkd.models.graph.outputs import LOGITS, by_name


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What one pass over a data set found.

    Attributes:
        scores: For each network by name a dict of the numbers that the task's evaluator knows. Of
            classification: ``top1``, ``top5`` (percent, 0..100; ``top5`` from 10 classes on),
            ``loss`` (nats) and ``count`` (images); at several exits also ``mean_top1`` and a list
            ``exits``.
        agreements: The percentage of images on which two networks say the same, by the pair of
            names in the order in which the networks were given; empty where the task knows no such
            thing.
        count: The number of images; padding does not count.
        seconds: The duration of the pass, tracing and loading included.
        images_per_second: The rate after the first batch, which traces the networks; over all
            batches if there is only one.
    """

    scores: dict[str, dict[str, Any]]
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
    task: Task | None = None,
) -> Evaluation:
    """Runs every network once over a data set and returns their scores and agreements.

    Where predictors and data set have ``class_names``, as those that tfkd makes do, they are
    compared: those of the data set count, otherwise those of the first network that has any. Of
    another order a warning tells.

    Args:
        predictors: Functions from raw pixels (batch, height, width, channels) to a dict of outputs,
            or to one tensor, the ``logits``; by a name for each.
        dataset: Batches: dicts with ``image``, what the task reads (``label``) and, where rows
            weigh differently, ``sample_weight`` (batch,); rows of weight 0 are padding.
        task: What labels and outputs mean; by default classification.

    Returns:
        The evaluation.

    Raises:
        TfkdError: When there is nothing to evaluate, labels or outputs are not those of the task,
            or the networks have other classes.
    """
    if not predictors:
        raise TfkdError("networks to evaluate: found none, wanted one or more by name")
    task = Classification() if task is None else task
    ordered = _in_one_order(predictors, getattr(dataset, "class_names", None), task)
    functions = {name: _as_graph(predict) for name, predict in ordered.items()}
    evaluator = task.evaluator(list(functions))
    count, begin, first = 0, time.perf_counter(), None
    for batch in dataset:
        batch = task.batch(batch)
        outputs = {
            name: by_name(predict(batch["image"]), f"network {name!r} to evaluate")
            for name, predict in functions.items()
        }
        evaluator.add(_arrays(batch), {name: _arrays(found) for name, found in outputs.items()})
        count += _rows_that_count(batch)
        first = first or (time.perf_counter(), count)
    end = time.perf_counter()
    if not count:
        raise TfkdError("data set to evaluate: found no images, wanted one or more")
    found = evaluator.result()
    key = task.score.key
    lacking = [name for name in predictors if key not in found.by_network.get(name, {})]
    if lacking:
        raise TfkdError(
            f"task {task.name!r}: found no {key!r} among the scores of {lacking[0]!r}, wanted its "
            "score among them"
        )
    later = count - first[1]
    rate = later / (end - first[0]) if later else count / (end - begin)
    return Evaluation(found.by_network, found.agreements, found.count, end - begin, rate)


def scores(
    predict: Predict, dataset: Iterable[Mapping[str, tf.Tensor]], task: Task | None = None
) -> dict[str, Any]:
    """Returns the scores of one network; arguments and errors are those of :func:`evaluate`."""
    return evaluate({"network": predict}, dataset, task).scores["network"]


def agreement(
    first: Predict,
    second: Predict,
    dataset: Iterable[Mapping[str, tf.Tensor]],
    task: Task | None = None,
) -> float:
    """Returns the percentage, 0..100, of images on which two networks say the same.

    Arguments and errors are those of :func:`evaluate`.
    """
    found = evaluate({"first": first, "second": second}, dataset, task)
    return found.agreement("first", "second")


def _in_one_order(
    predictors: Mapping[str, Predict], class_names: Sequence[str] | None, task: Task
) -> dict[str, Predict]:
    """Returns networks whose classes are in the order of the data set, or of the first of them."""
    whose, ordered = "the data set", dict(predictors)
    if not task.class_outputs([LOGITS]):
        return ordered
    for name, predict in predictors.items():
        found, who = getattr(predict, "class_names", None), f"network {name!r} to evaluate"
        if class_names is None:
            class_names, whose = found, who
        places = order_of(found, class_names, who, whose, "a Network with class_names=None")
        if places is not None:
            tell_of_order(who, whose)
            ordered[name] = in_order(predict, task, places)
    return ordered


def _as_graph(predict: Predict) -> Predict:
    """Returns a plain function as a ``tf.function``, and any other one as it is."""
    if isinstance(predict, types.FunctionType):
        return as_graph(predict)
    return predict


def _arrays(tensors: Mapping[str, tf.Tensor]) -> dict[str, np.ndarray]:
    return {name: np.asarray(tensor) for name, tensor in tensors.items()}


def _rows_that_count(batch: Mapping[str, tf.Tensor]) -> int:
    if "sample_weight" in batch:
        return int(np.count_nonzero(np.asarray(batch["sample_weight"]) > 0))
    return len(batch["image"])
