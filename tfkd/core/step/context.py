"""What an objective sees of one step: the batch, the outputs of every network, and the means."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from tfkd.core.divergences import as_float
from tfkd.core.objective import NetworkView
from tfkd.core.step.replicas import gather, own_rows, replica_count, sum_over_replicas
from tfkd.errors import TfkdError


class Context:
    """One step as objectives see it.

    Attributes:
        batch: The batch as a dict: ``image``, ``label`` and what else the data gave.
        training: Whether this is a training step.
        epoch: Scalar float32, the epoch of the stage (of the run, where it has one), from 0.
        epochs: Scalar float32, the number of epochs of the stage.
        step: Scalar int64, training steps done before this one.
        stage: Name of the running stage; ``None`` outside of stages.
        added_losses: By the name of a network that trains, what its layers gave to ``add_loss`` on
            the main view (:mod:`tfkd.core.step.own_losses`).
        wrong: How many images of this replica are not where ``index`` says, of each kind
            (:mod:`tfkd.core.step.positions`); ``None`` where no objective reads positions.
        scratch: What an objective keeps from one of its hooks to the next within the step, under
            its own name. (Under replicas the steps of all of them are traced at once, so that an
            attribute of the objective would be overwritten.)
    """

    def __init__(
        self,
        batch: Mapping[str, tf.Tensor],
        *,
        training: bool,
        epoch: tf.Tensor,
        epochs: tf.Tensor,
        step: tf.Tensor,
        seed: int,
        outputs: Mapping[NetworkView, Mapping[str, tf.Tensor]],
        heads: Callable[..., keras.Model],
        output_names: Callable[[str], Sequence[str]] = lambda network: ("logits",),
        stage: str | None = None,
        added_losses: Mapping[str, Sequence[tf.Tensor]] | None = None,
        wrong: tf.Tensor | None = None,
    ) -> None:
        self.batch = batch
        self.training = training
        self.epoch = epoch
        self.epochs = epochs
        self.step = step
        self.stage = stage
        self.added_losses = {} if added_losses is None else added_losses
        self.wrong = wrong
        self.scratch: dict[str, Any] = {}
        self._seed = seed
        self._outputs = outputs
        self._heads = heads
        self._output_names = output_names
        self._replaced_logits: tf.Tensor | None = None

    @property
    def labels(self) -> tf.Tensor:
        """Labels of this replica's images, as the batch gives them."""
        return self.batch["label"]

    @property
    def index(self) -> tf.Tensor:
        """Position of each image in the un-shuffled training set, ``(batch,)``."""
        return self.batch["index"]

    def output(
        self,
        network: str,
        tap: str = "logits",
        view: str = "main",
        *,
        stop_gradient: bool | None = None,
    ) -> tf.Tensor:
        """Returns a feature of a network on a view; logits come in float32.

        Args:
            network: ``student``, ``teacher``, ``teacher:0`` or a companion's name.
            tap: Name of the feature, as in ``Requires.taps``.
            view: Name of the view.
            stop_gradient: Whether it carries no gradient; by default only the student's does.
                ``False`` is for the distiller of a method that trains a teacher beside the student.

        Raises:
            TfkdError: When it was not asked for in ``requires``.
        """
        try:
            value = self._outputs[(network, view)][tap]
        except KeyError:
            known = sorted(
                f"{each}/{kind}/{name}"
                for (each, kind), taps in self._outputs.items()
                for name in taps
            )
            raise TfkdError(
                f"feature {network}/{view}/{tap} was not asked for in requires (asked for: {known})"
            ) from None
        value = as_float(value) if tap == "logits" else value
        stops = network != "student" if stop_gradient is None else stop_gradient
        return tf.stop_gradient(value) if stops else value

    def outputs(self, network: str, view: str = "main") -> dict[str, tf.Tensor]:
        """Returns the outputs of a network that the task reads, as far as they were run.

        Args:
            network: As for :meth:`output`.
            view: Name of the view.

        Returns:
            Tensors by the names of :func:`tfkd.models.outputs`, floating ones in float32; of the
            student on the main view with the logits that training uses.
        """
        known = self._outputs.get((network, view), {})
        found = {
            name: self.output(network, name, view)
            for name in self._output_names(network)
            if name in known
        }
        if (network, view) == ("student", "main") and self._replaced_logits is not None:
            found["logits"] = self._replaced_logits
        return {
            name: as_float(each) if each.dtype.is_floating else each for name, each in found.items()
        }

    def student(self, tap: str = "logits", view: str = "main") -> tf.Tensor:
        """Returns a feature of the student; its main logits are those that training uses.

        Where an objective replaces the training logits, ``student()`` gives the replacement and
        ``output("student")`` what the network itself computes.
        """
        if (tap, view) == ("logits", "main"):
            return self.student_logits
        return self.output("student", tap, view)

    def teacher(self, tap: str = "logits", view: str = "main") -> tf.Tensor:
        """Returns a feature of the teacher, without gradient.

        With several teachers, ``logits`` are the logarithm of the mean of their probabilities.
        """
        return self.output("teacher", tap, view)

    @property
    def student_logits(self) -> tf.Tensor:
        """The logits that label loss, objectives and metrics see, float32 ``(batch, classes)``."""
        if self._replaced_logits is not None:
            return self._replaced_logits
        return self.output("student")

    def replace_student_logits(self, logits: tf.Tensor) -> None:
        """Sets what :attr:`student_logits` is; the distiller does so with an objective's.

        Raises:
            TfkdError: When another objective has replaced them already.
        """
        if self._replaced_logits is not None:
            raise TfkdError("found two objectives that replace the student's logits, wanted one")
        self._replaced_logits = as_float(logits)

    def mean(
        self,
        per_sample: tf.Tensor,
        mask: tf.Tensor | None = None,
        gathered: bool = False,
        axes: int = 1,
    ) -> tf.Tensor:
        """Returns the mean of a loss over the global batch: the one place where weights enter.

        ``sum_i w_i l_i / B`` over the B samples of all replicas; with a mask,
        ``sum_i m_i w_i l_i / sum_i m_i``, or 0 where it chooses none. ``w`` is the batch's
        ``sample_weight``, or 1. So do Keras' losses, and so it is in training and in evaluation.
        Rows that only fill up a batch (``filler``) are no samples. Further axes of the loss are
        averaged. On replicas the value is scaled so that the mean over replicas, which is what the
        distiller forms, is this global mean.

        A loss of pairs of samples has ``axes=2``, one of triplets ``axes=3``: the weight of a pair
        is then ``w_i w_j``, its mask ``m_i m_j``, and the divisor is squared.

        Args:
            per_sample: Shape ``(batch, ...)``, of pairs ``(batch, batch, ...)``.
            mask: Shape ``(batch,)``, 0 or 1: which samples count.
            gathered: Whether the rows are those of the gathered batch instead of this replica's.
            axes: How many of the first axes are the samples; more than one only where gathered.

        Returns:
            A scalar in the loss's own precision (at least float32).

        Raises:
            TfkdError: For pairs that are not those of the gathered batch.
        """
        if axes > 1 and not gathered:
            raise TfkdError(
                f"mean over {axes} axes of samples: found gathered=False, wanted the pairs of the "
                "gathered batch (gathered=True)"
            )
        per_sample = as_float(per_sample)
        if per_sample.shape.rank is not None and per_sample.shape.rank > axes:
            per_sample = tf.reduce_mean(per_sample, axis=list(range(axes, per_sample.shape.rank)))
        rows = per_sample if axes == 1 else per_sample[(..., *[0] * (axes - 1))]
        weighted, count = self._weights(rows, mask, gathered)
        for _ in range(axes - 1):
            total = tf.tensordot(per_sample, weighted, axes=1)
            per_sample = tf.math.divide_no_nan(total, count)
        return tf.math.divide_no_nan(tf.reduce_sum(weighted * per_sample), count)

    def means(self, losses: tf.Tensor) -> tf.Tensor:
        """Returns the mean of each of several losses as :meth:`mean` forms it, counting once.

        Args:
            losses: Shape ``(losses, batch)``.

        Returns:
            Shape ``(losses,)``.
        """
        losses = as_float(losses)
        weighted, count = self._weights(losses[0], None, gathered=False)
        return tf.math.divide_no_nan(tf.reduce_sum(weighted * losses, axis=-1), count)

    def _weights(
        self, rows: tf.Tensor, mask: tf.Tensor | None, gathered: bool
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the weight of each row of a loss, and the number of samples of a replica."""
        chosen = tf.ones_like(rows)
        if mask is not None:
            chosen = tf.cast(tf.reshape(mask, [-1]), rows.dtype)
        filler = self._of_rows("filler", chosen, gathered)
        if filler is not None:
            chosen *= 1.0 - filler
        weights = self._of_rows("sample_weight", chosen, gathered)
        weighted = chosen if weights is None else chosen * weights
        return weighted, self._of_batch(tf.reduce_sum(chosen), gathered)

    def weighted_mean(self, per_sample: tf.Tensor) -> tf.Tensor:
        """Returns ``sum_i w_i a_i / sum_i w_i``: the mean of a metric, such as an accuracy.

        Args:
            per_sample: Shape ``(batch,)``.
        """
        weights = self._of_rows("sample_weight", per_sample, gathered=False)
        if weights is None:
            return self.mean(per_sample)
        total = self._of_batch(tf.reduce_sum(weights))
        return tf.math.divide_no_nan(tf.reduce_sum(weights * per_sample), total)

    def count(self) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the number of this replica's samples, and the sum of their weights; float32."""
        rows = tf.cast(tf.shape(self.batch["image"])[0], tf.float32)
        weights, filler = self.batch.get("sample_weight"), self.batch.get("filler")
        if filler is not None:
            rows -= tf.reduce_sum(tf.cast(filler, tf.float32))
        return rows, rows if weights is None else tf.reduce_sum(tf.cast(weights, tf.float32))

    def of_own_rows(self, mean: tf.Tensor) -> tf.Tensor:
        """Returns a mean over this replica's rows as :meth:`mean` would have formed it.

        Args:
            mean: Scalar, formed by somebody who knows of no other replica.
        """
        if replica_count() == 1:
            return mean
        rows = tf.cast(tf.shape(self.batch["image"])[0], mean.dtype)
        return mean * rows / self._of_batch(rows)

    def _of_batch(self, number: tf.Tensor, gathered: bool = False) -> tf.Tensor:
        """Returns the mean over the replicas of a number that each of them has."""
        return number if gathered else sum_over_replicas(number) / replica_count()

    def _of_rows(self, key: str, rows: tf.Tensor, gathered: bool) -> tf.Tensor | None:
        """Returns a number of each image for the rows of a loss; ``None`` without that entry."""
        found = self.batch.get(key)
        if found is None:
            return None
        found = tf.cast(tf.reshape(found, [-1]), rows.dtype)
        if gathered:
            found = gather(found)
        if rows.shape[0] is not None and rows.shape[0] == found.shape[0]:
            return found
        # A view may have several rows for each image (rotations): its weight counts for them all.
        return tf.repeat(found, tf.shape(rows)[0] // tf.maximum(tf.shape(found)[0], 1))

    def gather(self, tensor: tf.Tensor) -> tf.Tensor:
        """Returns the rows of all replicas in order, differentiably: :func:`replicas.gather`."""
        return gather(tensor)

    def own_rows(self, tensor: tf.Tensor) -> tf.Tensor:
        """Returns this replica's rows of a tensor over the global batch."""
        return own_rows(tensor, tf.shape(self.batch["image"])[0])

    def seed(self, salt: int = 0) -> tf.Tensor:
        """Returns a seed for stateless random operations: a function of run, step and salt.

        It is equal on every replica: draw for the global batch and take :meth:`own_rows`.

        Args:
            salt: Tells several draws of one step apart.

        Returns:
            Shape ``(2,)``, int32.
        """
        both = tf.stack([tf.cast(self._seed, tf.int32), tf.cast(self.step, tf.int32)])
        return tf.random.experimental.stateless_fold_in(both, salt)

    def head(self, network: str, start: str = "pre_pool") -> keras.Model:
        """Returns the sub-model of ``teacher`` or ``student`` from a tap to the logits."""
        return self._heads(network, start)
