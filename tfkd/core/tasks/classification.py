"""Classification: one class for each image."""

from __future__ import annotations

import copy
import inspect
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfkd import models
from tfkd.core.divergences import cross_entropy, mean_of_probabilities
from tfkd.core.tasks.class_scores import ClassEvaluator
from tfkd.core.tasks.registry import register
from tfkd.core.tasks.task import Batch, Column, Outputs, SampleMean, Score, Task
from tfkd.errors import TfkdError, TfkdWarning
from tfkd.models.graph.inspection import final_activation
from tfkd.models.graph.outputs import in_depth_order

LOGITS = "logits"


@register("classification")
class Classification(Task):
    """One class for each image, read from the output ``logits``.

    A network with several exits gets :class:`tfkd.tasks.MultiExitClassification` from
    :meth:`for_network`.

    Args:
        loss: The label loss: a Keras loss name, function or object of ``(labels, logits)``.
            ``None`` is softmax cross-entropy on logits, for class numbers and for dense labels.

    Raises:
        TfkdError: For a loss of probabilities.
    """

    name = "classification"
    score = Score(metric="accuracy", key="top1", label="top-1 %")
    columns: tuple[Column, ...] = (
        Column("top1", "top-1 %"),
        Column("top5", "top-5 %"),
        Column("loss", "loss", "{:.4f}"),
    )
    compared: tuple[str, ...] = ("classes",)

    def __init__(self, loss=None) -> None:
        self._loss = keras.losses.get(loss)
        if _wants_probabilities(self._loss):
            raise TfkdError(
                f"label loss {loss!r}: found a loss of probabilities, wanted one of logits: None, "
                "or a Keras loss object with from_logits=True"
            )

    @classmethod
    def for_network(cls, network: models.Network) -> Task:
        # Imported here because the multi-exit form is built on this one.
        from tfkd.core.tasks.multi_exit import MultiExitClassification

        # One that is not built is refused when its classes are counted.
        several = network.model.built and len(models.exits(network.model)) > 1
        return MultiExitClassification() if several else cls()

    def taps(self, student: models.Network) -> tuple[str, ...]:
        return (LOGITS,)

    def facts(self, network: models.Network) -> dict[str, Any]:
        return {"classes": class_count(network, LOGITS)}

    def class_outputs(self, names: Iterable[str]) -> tuple[str, ...]:
        return in_depth_order(names)

    def doubtful(self, facts: Mapping[str, Any]) -> float | None:
        """Returns twice the score of guessing, of few classes one half."""
        return 100.0 * min(2.0 / facts["classes"], 0.5)

    def check_data(self, facts: Mapping[str, Any], info, who: str) -> None:
        if facts["classes"] != info.num_classes:
            raise TfkdError(
                f"{who} has {facts['classes']} classes, but {info.name} has {info.num_classes}"
            )

    def check_batch(self, spec: Mapping[str, tf.TypeSpec], facts: Mapping[str, Any]) -> None:
        width = _label_width(spec)
        if width not in (1, None, facts["classes"]):
            raise TfkdError(
                f"labels of width {width}, wanted class numbers or {facts['classes']} probabilities"
            )

    def check_labels(self, labels: np.ndarray, facts: Mapping[str, Any], *, training: bool) -> None:
        if labels.dtype.kind not in "iuf" or (labels.ndim == 2 and labels.shape[-1] > 1):
            return
        classes, least, greatest = facts["classes"], labels.min(), labels.max()
        if not 0 <= least <= greatest < classes:
            raise TfkdError(
                f"labels: found {least:g} to {greatest:g}, wanted 0 to {classes - 1}, classes of "
                "the student"
            )
        if training and least > 0 and greatest == classes - 1:
            warnings.warn(
                f"labels: found {least:g} to {greatest:g} and no 0, so that the student has "
                "classes without an image; wanted class numbers from 0 on",
                TfkdWarning,
                stacklevel=2,
            )

    def has_soft_labels(self, spec: Mapping[str, tf.TypeSpec], facts: Mapping[str, Any]) -> bool:
        return _label_width(spec) == facts["classes"] > 1

    def label_loss(self, batch: Batch, outputs: Outputs) -> tf.Tensor | dict[str, tf.Tensor]:
        return self._loss_of(batch["label"], outputs[LOGITS])

    def _loss_of(self, labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        if self._loss is None:
            return cross_entropy(labels, logits)
        function = self._loss.call if isinstance(self._loss, keras.Loss) else self._loss
        values = tf.cast(function(labels, logits), tf.float32)
        further = list(range(1, values.shape.rank))
        return tf.reduce_mean(values, axis=further) if further else values

    def correct(self, batch: Batch, outputs: Outputs, exit: str = LOGITS) -> tf.Tensor:
        """Returns 1 for each sample whose label is the largest logit, else 0; float32 ``(batch,)``.

        Of dense labels the largest entry counts.
        """
        labels, logits = tf.convert_to_tensor(batch["label"]), outputs[exit]
        if labels.shape.rank == 2 and labels.shape[-1] == logits.shape[-1] != 1:
            labels = tf.argmax(labels, axis=-1)
        labels = tf.cast(tf.reshape(labels, [-1]), tf.int64)
        return tf.cast(tf.equal(labels, tf.argmax(logits, axis=-1)), tf.float32)

    def metrics(self, student: models.Network) -> list[keras.metrics.Metric]:
        return [SampleMean(self.correct, "accuracy")]

    def evaluator(self, names: Sequence[str]) -> ClassEvaluator:
        return ClassEvaluator(names)

    def agreement(self, first: Outputs, second: Outputs) -> tf.Tensor:
        same = tf.equal(tf.argmax(first[LOGITS], -1), tf.argmax(second[LOGITS], -1))
        return tf.cast(same, tf.float32)

    def ensemble(self, outputs: Sequence[Outputs]) -> dict[str, tf.Tensor]:
        return {LOGITS: mean_of_probabilities([each[LOGITS] for each in outputs])}

    def served(self, outputs: Outputs) -> dict[str, tf.Tensor]:
        if "probabilities" in outputs:
            raise TfkdError(
                "outputs to serve: found one called 'probabilities', which the softmax of the "
                "logits is called; wanted another name"
            )
        return {**outputs, "probabilities": tf.nn.softmax(outputs[LOGITS])}

    def with_loss(self, loss) -> Classification:
        changed = copy.copy(self)
        changed._loss = Classification(loss)._loss
        return changed


def class_count(network: models.Network, exit: str) -> int:
    """Returns the number of classes of an exit.

    Raises:
        TfkdError: When the network is not built, or gives anything else than logits there.
    """
    model = network.model
    who = f"network {network.name!r}"
    if not model.built:
        raise TfkdError(f"{who} is not built: call it once on a batch, or build it")
    found = models.outputs(model)
    if exit not in found:
        raise TfkdError(f"{who} has the outputs {', '.join(found)}, wanted {exit!r} among them")
    shape = tuple(found[exit].shape)
    if len(shape) != 2 or shape[-1] is None:
        raise TfkdError(f"{who} has output {shape}, wanted {exit} (batch, classes)")
    if shape[-1] < 2:
        raise TfkdError(
            f"{who} gives one number at {exit!r}, wanted a logit for each of two classes or more: "
            "the softmax of a single one is always 1"
        )
    activation = final_activation(model, exit)
    if activation is not None:
        raise TfkdError(
            f"{who} ends in {activation}, wanted logits: make its last layer with activation=None"
        )
    return int(shape[-1])


def _label_width(spec: Mapping[str, tf.TypeSpec]) -> int | None:
    label = spec["label"]
    return label.shape[-1] if label.shape.rank == 2 else 1


def _wants_probabilities(loss) -> bool:
    if loss is None or isinstance(loss, keras.Loss):
        return getattr(loss, "from_logits", None) is False
    parameter = inspect.signature(loss).parameters.get("from_logits")
    return parameter is not None and parameter.default is False
