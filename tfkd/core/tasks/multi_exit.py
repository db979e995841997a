"""Classification by a network with several exits, each of which names a class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from tfkd import models
from tfkd.core.tasks.class_scores import ClassEvaluator
from tfkd.core.tasks.classification import Classification, class_count
from tfkd.core.tasks.registry import register
from tfkd.core.tasks.task import Batch, Column, Outputs, SampleMean, Score, Task
from tfkd.errors import TfkdError


@register("multi_exit")
class MultiExitClassification(Classification):
    """One class for each image, named at every exit of a network.

    The label loss is the sum over the exits (Huang et al., "Multi-Scale Dense Networks for Resource
    Efficient Image Classification", ICLR 2018, section 3). The score is the mean of the accuracies
    of all exits. Methods that know one set of logits see those of the deepest exit, ``logits``.

    Args:
        loss: As for :class:`Classification`, at every exit.
    """

    name = "multi_exit"
    score = Score(metric="mean_accuracy", key="mean_top1", label="mean top-1 %")
    columns = (
        Column("mean_top1", "mean top-1 %"),
        Column("top1", "top-1 %"),
        Column("top5", "top-5 %"),
        Column("loss", "loss", "{:.4f}"),
    )
    exit_columns = (Column("top1", "top-1 %"), Column("ece", "ECE %"))
    in_bar = ("loss", "mean_accuracy", "accuracy")

    @classmethod
    def for_network(cls, network: models.Network) -> Task:
        return cls()

    def taps(self, student: models.Network) -> tuple[str, ...]:
        return models.exits(student.model)

    def facts(self, network: models.Network) -> dict[str, Any]:
        exits = models.exits(network.model)
        counts = {name: class_count(network, name) for name in exits or ("logits",)}
        if len(set(counts.values())) > 1:
            listed = ", ".join(f"{name} {count}" for name, count in counts.items())
            raise TfkdError(
                f"exits of network {network.name!r}: found different class counts ({listed}), "
                "wanted the same at every exit"
            )
        return {"classes": counts["logits"], "exits": exits}

    def label_terms(self, student: models.Network) -> tuple[str, ...]:
        return models.exits(student.model)

    def label_loss(self, batch: Batch, outputs: Outputs) -> dict[str, tf.Tensor]:
        return {name: self._loss_of(batch["label"], logits) for name, logits in outputs.items()}

    def metrics(self, student: models.Network) -> list[keras.metrics.Metric]:
        exits = models.exits(student.model)

        def of_exit(name: str) -> SampleMean:
            metric = "accuracy" if name == "logits" else f"{name}_accuracy"
            return SampleMean(lambda batch, outputs: self.correct(batch, outputs, name), metric)

        def mean(batch: Batch, outputs: Outputs) -> tf.Tensor:
            return tf.add_n([self.correct(batch, outputs, name) for name in exits]) / len(exits)

        return [SampleMean(mean, self.score.metric), *map(of_exit, exits)]

    def evaluator(self, names: Sequence[str]) -> ClassEvaluator:
        return ClassEvaluator(names, every_exit=True)
