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

# Losses of Keras that have no form for logits.
_OF_PROBABILITIES = (
    keras.losses.categorical_generalized_cross_entropy,
    keras.losses.dice,
    keras.losses.kl_divergence,
    keras.losses.poisson,
    keras.losses.tversky,
)


@register("classification")
class Classification(Task):
    """One class for each image, read from the output ``logits``.

    A network with several exits gets :class:`tfkd.tasks.MultiExitClassification` from
    :meth:`for_network`.

    Args:
        loss: The label loss: a Keras loss name, function or object of ``(labels, logits)``, which
            gives one value a sample, or several that are averaged; tfkd averages over the samples.
            ``None`` is softmax cross-entropy on logits, for class numbers and for dense labels.

    Raises:
        TfkdError: For a loss of probabilities, or one that joins the samples in another way: by
            another ``reduction``, or without those of an ``ignore_class``.
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
        self._loss = _checked(loss)

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
        function = getattr(self._loss, "fn", self._loss)
        of_keras = getattr(function, "__module__", "").startswith("keras.")
        if not of_keras or width is None or spec["label"].shape.rank is None:
            return
        # Of other labels Keras makes numbers that mean nothing, or an error of many lines.
        takes_numbers = function is keras.losses.sparse_categorical_crossentropy
        if takes_numbers == self.has_soft_labels(spec, facts):
            found, wanted = "class numbers", "dense labels (batch, classes)"
            if takes_numbers:
                found, wanted = wanted, found
            raise TfkdError(f"label loss {_name(self._loss)}: found {found}, wanted {wanted}")

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
        if isinstance(self._loss, keras.Loss):
            found = self._loss.call(labels, tf.cast(logits, self._loss.dtype))
        else:
            found = self._loss(labels, logits)
        if getattr(found, "_keras_mask", None) is not None:
            raise TfkdError(
                f"label loss {_name(self._loss)}: found one that leaves out samples by a mask, "
                "wanted one that counts all of them"
            )
        values = tf.cast(found, tf.float32)
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

    @property
    def has_given_loss(self) -> bool:
        return self._loss is not None

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


def _checked(loss):
    """Returns a label loss as Keras finds it.

    Raises:
        TfkdError: For what is no loss, one of probabilities, or one that is not the mean of those
            of all samples.
    """
    try:
        found = keras.losses.get(loss)
    except (TypeError, ValueError):
        raise TfkdError(
            f"label loss: found {loss!r}, wanted one Keras loss: a name, a function or an object"
        ) from None
    if _wants_probabilities(found):
        raise TfkdError(
            f"label loss {loss!r}: found a loss of probabilities, wanted one of logits: None, "
            "or a Keras loss object with from_logits=True"
        )
    reduction = getattr(found, "reduction", None)
    if isinstance(found, keras.Loss) and reduction not in ("sum_over_batch_size", "mean"):
        raise TfkdError(
            f"label loss {_name(found)}: found reduction={reduction!r}, wanted "
            "'sum_over_batch_size', the mean over the samples, which student_loss_weight weighs"
        )
    ignored = getattr(found, "ignore_class", None)
    if ignored is not None:
        raise TfkdError(
            f"label loss {_name(found)}: found ignore_class={ignored!r}, wanted None, and data "
            "without the images of that class"
        )
    return found


def _name(loss) -> str:
    return getattr(loss, "__name__", type(loss).__name__)


def _wants_probabilities(loss) -> bool:
    if getattr(loss, "fn", loss) in _OF_PROBABILITIES:
        return True
    if loss is None or isinstance(loss, keras.Loss):
        return getattr(loss, "from_logits", None) is False
    parameter = inspect.signature(loss).parameters.get("from_logits")
    return parameter is not None and parameter.default is False
