"""The contract of a task: everything that depends on what a label means."""

from __future__ import annotations

import abc
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfkd import models
from tfkd.errors import TfkdError

Outputs = Mapping[str, tf.Tensor]
"""What a network gives for a batch, by the names of :func:`tfkd.models.outputs`."""

Batch = Mapping[str, tf.Tensor]


@dataclass(frozen=True)
class Score:
    """The number that ranks the students of a task; larger is better.

    Attributes:
        metric: Name of the metric in training, logged as ``val_<metric>``; it chooses the best
            epoch, and searches go by it.
        key: Name of the same number among the scores of :meth:`Task.evaluator`.
        label: The number in words, for tables and pictures: ``"top-1 %"``.
        scale: Factor from the metric to the unit of ``key`` and ``label``.
    """

    metric: str
    key: str
    label: str
    scale: float = 100.0


@dataclass(frozen=True)
class Column:
    """A number of an evaluation as a table shows it.

    Attributes:
        key: Its name among the scores.
        label: Heading.
        form: How it is written, for ``str.format``.
    """

    key: str
    label: str
    form: str = "{:.2f}"


@dataclass(frozen=True)
class Scores:
    """What an evaluator found.

    Attributes:
        by_network: For each network a dict of numbers, ``count`` (rows) among them, and perhaps
            lists of such dicts (``exits``).
        agreements: Percentage of rows on which two networks agree, by the pair of their names.
        count: Number of rows that counted.
    """

    by_network: dict[str, dict[str, Any]]
    agreements: dict[tuple[str, str], float]
    count: int


class Evaluator(abc.ABC):
    """Adds up the scores of several networks over the batches of a data set."""

    @abc.abstractmethod
    def add(self, batch: Mapping[str, np.ndarray], outputs: Mapping[str, Outputs]) -> None:
        """Adds a batch.

        Args:
            batch: The batch; rows of ``sample_weight`` 0 fill the last one and do not count.
            outputs: The outputs of each network by its name.

        Raises:
            TfkdError: For labels or outputs of another form.
        """

    @abc.abstractmethod
    def result(self) -> Scores:
        """Returns the scores of all batches."""


class Task(abc.ABC):
    """What labels, losses, metrics and scores are.

    The distiller, runs, evaluations and exports ask the task for everything that depends on what a
    label is. A task of one's own states its ``name`` and ``score`` and defines ``label_loss``,
    ``metrics`` and ``evaluator``; the other methods have a default.
    """

    name: str
    score: Score
    columns: tuple[Column, ...] = ()
    """The numbers of an evaluation that tables show, the score first."""

    exit_columns: tuple[Column, ...] = ()
    """The numbers of each exit, where the scores tell of ``exits``."""

    compared: tuple[str, ...] = ()
    """The facts that must be equal in all networks of a distillation."""

    in_bar: tuple[str, ...] = ()
    """The logged losses and metrics of the task that a progress bar shows; ``()``: all."""

    @classmethod
    def for_network(cls, network: models.Network) -> Task:
        """Returns the task as it is for a network."""
        del network
        return cls()

    @classmethod
    def width(cls, info) -> int:
        """Returns the width of a network's last layer for a data set.

        Args:
            info: The :class:`tfkd.data.DataInfo`.
        """
        return info.num_classes

    def taps(self, student: models.Network) -> tuple[str, ...]:
        """Returns the outputs of a network that label loss, metrics and scores read."""
        return tuple(models.outputs(student.model))

    def facts(self, network: models.Network) -> dict[str, Any]:
        """Returns what the outputs of a network tell, such as the number of classes.

        Raises:
            TfkdError: For outputs that are not those of the task.
        """
        del network
        return {}

    def class_outputs(self, names: Iterable[str]) -> tuple[str, ...]:
        """Returns the outputs whose last axis is the classes, whatever their order.

        Those of a network whose classes come in another order than its student's are brought into
        that; ``()`` where a task has no such outputs.

        Args:
            names: Those of all outputs of a network.
        """
        del names
        return ()

    def doubtful(self, facts: Mapping[str, Any]) -> float | None:
        """Returns the score below which a network hardly knows the classes that it is tried on.

        In the unit of :attr:`Score.key`; ``None`` where there is no such bound.

        Args:
            facts: Those of the network.
        """
        del facts
        return None

    def check_data(self, facts: Mapping[str, Any], info, who: str) -> None:
        """Checks that a network goes with a data set.

        Args:
            facts: Those of the network.
            info: The :class:`tfkd.data.DataInfo`.
            who: What the network is called in messages.

        Raises:
            TfkdError: When it does not.
        """
        del facts, info, who

    def label_terms(self, student: models.Network) -> tuple[str, ...]:
        """Returns the names of the parts of the label loss; ``()`` where it is one."""
        del student
        return ()

    def batch(self, data) -> dict[str, tf.Tensor]:
        """Returns a batch as a dict, whatever form ``fit`` was given.

        Args:
            data: A dict with ``image``, ``label`` and perhaps ``sample_weight``, ``index`` and
                further views, or a tuple ``(image, label)`` or ``(image, label, sample_weight)``.

        Raises:
            TfkdError: When there is no image or no label.
        """
        if not isinstance(data, Mapping):
            image, label, weight = keras.utils.unpack_x_y_sample_weight(data)
            if isinstance(image, Mapping):
                data = dict(image)
                if label is not None:
                    data["label"] = label
            else:
                data = {"image": image, "label": label}
            if weight is not None:
                data["sample_weight"] = weight
        missing = [key for key in ("image", "label") if data.get(key) is None]
        if missing:
            found = sorted(key for key in data if data[key] is not None)
            raise TfkdError(
                f"batch without {' and '.join(missing)}: found {found}, "
                "wanted a dict with image and label, or a tuple (image, label[, sample_weight])"
            )
        return dict(data)

    def check_batch(self, spec: Mapping[str, tf.TypeSpec], facts: Mapping[str, Any]) -> None:
        """Checks the form of the labels before the first step.

        Args:
            spec: The type of each entry of a batch.
            facts: Those of the student.

        Raises:
            TfkdError: When they do not fit.
        """
        del spec, facts

    def check_labels(self, labels: np.ndarray, facts: Mapping[str, Any], *, training: bool) -> None:
        """Checks labels that are all there before the first step.

        Args:
            labels: The labels, an array.
            facts: Those of the student.
            training: Whether they are those of the training images.

        Raises:
            TfkdError: When they do not fit.
        """
        del labels, facts, training

    def has_soft_labels(self, spec: Mapping[str, tf.TypeSpec], facts: Mapping[str, Any]) -> bool:
        """Whether labels are distributions instead of class numbers."""
        del spec, facts
        return False

    @abc.abstractmethod
    def label_loss(self, batch: Batch, outputs: Outputs) -> tf.Tensor | dict[str, tf.Tensor]:
        """Returns the label loss of each sample, float32 ``(batch,)``.

        Args:
            batch: The batch.
            outputs: The student's outputs.

        Returns:
            One loss, or a dict of those of :meth:`label_terms`, whose sum is the label loss.
        """

    @abc.abstractmethod
    def metrics(self, student: models.Network) -> list[keras.metrics.Metric]:
        """Returns fresh metrics, one of which is that of :attr:`score`.

        Their ``update_state`` takes the batch (``sample_weight`` in it) and the student's outputs.
        """

    @abc.abstractmethod
    def evaluator(self, names: Sequence[str]) -> Evaluator:
        """Returns a fresh evaluator.

        Args:
            names: The networks that will be evaluated side by side.
        """

    def agreement(self, first: Outputs, second: Outputs) -> tf.Tensor | None:
        """Returns to what part two networks say the same of each sample, ``(batch,)``.

        ``None`` where a task knows no such thing.
        """
        del first, second
        return None

    @property
    def knows_agreement(self) -> bool:
        """Whether the task defines :meth:`agreement`."""
        return type(self).agreement is not Task.agreement

    def ensemble(self, outputs: Sequence[Outputs]) -> dict[str, tf.Tensor]:
        """Joins the outputs of several teachers into those of one.

        Raises:
            TfkdError: Where a task cannot do so.
        """
        raise TfkdError(f"task {self.name!r}: found {len(outputs)} teachers, wanted one")

    def served(self, outputs: Outputs) -> dict[str, tf.Tensor]:
        """Returns what an exported model gives: the outputs, and what is derived from them."""
        return dict(outputs)

    @property
    def has_given_loss(self) -> bool:
        """Whether a label loss was given in the place of the task's usual one."""
        return False

    def with_loss(self, loss) -> Task:
        """Returns the task with another label loss and all its other settings.

        Args:
            loss: As ``keras.Model.compile`` takes it.

        Raises:
            TfkdError: Where a task has no such choice.
        """
        raise TfkdError(f"task {self.name!r}: found loss={loss!r}, wanted the task's own loss")

    def summary(self, scores: Mapping[str, Any], best: Mapping[str, Any] | None = None) -> str:
        """Returns the score in words: ``top-1 93.06 % (best 94.17 %)``.

        Args:
            scores: What the evaluator found.
            best: The same of the best epoch, if it is told as well.
        """
        label = self.score.label
        unit = " %" if label.endswith(" %") else ""

        def number(found: Mapping[str, Any]) -> str:
            return f"{found[self.score.key]:.2f}{unit}"

        words = f"{label.removesuffix(' %')} {number(scores)}"
        return words if best is None else f"{words} (best {number(best)})"


class SampleMean(keras.metrics.Mean):
    """The mean over samples of a function of batch and outputs, weighed by ``sample_weight``.

    Args:
        function: ``function(batch, outputs)`` gives ``(batch,)`` values.
        name: Name of the metric.
    """

    def __init__(self, function, name: str) -> None:
        super().__init__(name=name)
        self._direction = "up"  # Callbacks of Keras that choose the best epoch ask for it.
        self._function = function

    def update_state(self, batch: Batch, outputs: Outputs) -> None:
        """Adds a batch."""
        values = self._function(batch, outputs)
        super().update_state(values, sample_weight=batch.get("sample_weight"))
