"""How one global batch is shared between replicas."""

from __future__ import annotations

import dataclasses

import tensorflow as tf

from tfkd.data.source import Tokens
from tfkd.errors import TfkdError


@dataclasses.dataclass(frozen=True)
class Share:
    """The slices of every global batch that one input pipeline yields.

    Attributes:
        rows: Rows of one slice (one replica's batch).
        first: Number of the first slice, counted over all replicas.
        count: Slices of this pipeline (its local replicas).
    """

    rows: int
    first: int
    count: int

    @classmethod
    def of(cls, batch_size: int, context: tf.distribute.InputContext | None) -> Share:
        """Returns the share of one input pipeline; the whole batch where there is no context.

        Pipeline p of P, with R = replicas / P local replicas, yields slices p*R .. p*R + R - 1.

        Raises:
            TfkdError: Replicas cannot share the batch, or pipelines the replicas, evenly.
        """
        if context is None:
            return cls(batch_size, 0, 1)
        replicas, pipelines = context.num_replicas_in_sync, context.num_input_pipelines
        if batch_size % replicas:
            raise TfkdError(
                f"batch_size {batch_size}: cannot be shared by {replicas} replicas; "
                f"wanted a multiple of {replicas}"
            )
        if replicas % pipelines:
            raise TfkdError(
                f"input pipelines: found {pipelines} for {replicas} replicas; "
                f"wanted the same number of replicas on every worker"
            )
        local = replicas // pipelines
        return cls(batch_size // replicas, context.input_pipeline_id * local, local)

    def spread(self, batches: tf.data.Dataset) -> tf.data.Dataset:
        """Cuts numbered global batches into the slices of this pipeline.

        Args:
            batches: Yields (step, tokens) with token tensors of shape (batch_size, ...).

        Returns:
            Yields (step, first_row, tokens): for every step this pipeline's slices in order, with
            token tensors of shape (rows, ...).
        """

        def cut(step: tf.Tensor, tokens: Tokens, number: tf.Tensor | int) -> tuple:
            first_row = tf.convert_to_tensor(number, tf.int32) * self.rows

            def rows_of(tensor: tf.Tensor) -> tf.Tensor:
                part = tensor[first_row : first_row + self.rows]
                return tf.ensure_shape(part, [self.rows, *tensor.shape[1:]])

            return step, first_row, {key: rows_of(value) for key, value in tokens.items()}

        if self.count == 1:
            return batches.map(lambda step, tokens: cut(step, tokens, self.first))
        numbers = tf.range(self.first, self.first + self.count)
        return batches.flat_map(
            lambda step, tokens: tf.data.Dataset.from_tensor_slices(numbers).map(
                lambda number: cut(step, tokens, number)
            )
        )
