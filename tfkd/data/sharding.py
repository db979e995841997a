"""The division of a global batch between replicas."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import tensorflow as tf

from tfkd.data.source import ExampleRefs
from tfkd.errors import TfkdError

Make = Callable[[tf.Tensor, tf.Tensor, ExampleRefs], dict[str, tf.Tensor]]


@dataclasses.dataclass(frozen=True)
class Shard:
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
    def of(cls, batch_size: int, context: tf.distribute.InputContext | None) -> Shard:
        """Returns the shard of one input pipeline; the whole batch where there is no context.

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

    def mapped(self, batches: tf.data.Dataset, make: Make) -> tf.data.Dataset:
        """Makes the batches of this pipeline, several at a time, in their order.

        Args:
            batches: Yields (step, refs), the tensors of refs of shape (batch_size, ...).
            make: Called with the step, the first row of a slice in the global batch and the refs
                of the slice, tensors of shape (rows, ...).

        Returns:
            Yields, for every step, what ``make`` returns for each slice of this pipeline in order.
        """

        def one(
            step: tf.Tensor, refs: ExampleRefs, number: tf.Tensor | int
        ) -> dict[str, tf.Tensor]:
            first_row = tf.convert_to_tensor(number, tf.int32) * self.rows

            def slice_of(tensor: tf.Tensor) -> tf.Tensor:
                if tensor.shape[0] == self.rows:
                    return tensor
                part = tensor[first_row : first_row + self.rows]
                return tf.ensure_shape(part, [self.rows, *tensor.shape[1:]])

            return make(step, first_row, {key: slice_of(each) for key, each in refs.items()})

        def numbered(step: tf.Tensor, refs: ExampleRefs) -> tf.data.Dataset:
            numbers = tf.data.Dataset.range(
                self.first, self.first + self.count, output_type=tf.int32
            )
            return numbers.map(lambda number: (step, refs, number))

        if self.count == 1:
            slices, function = batches, lambda step, refs: one(step, refs, self.first)
        else:
            slices, function = batches.flat_map(numbered), one
        made = slices.map(function, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        options = tf.data.Options()
        options.deterministic = True
        # The batches are divided here; TensorFlow must not divide them a second time.
        off = tf.data.experimental.AutoShardPolicy.OFF
        options.experimental_distribute.auto_shard_policy = off
        return made.prefetch(tf.data.AUTOTUNE).with_options(options)
