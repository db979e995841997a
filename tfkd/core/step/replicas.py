"""What replicas tell one another: sums, gathered batches, and which rows are their own."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

_CARRIED = (tf.float16, tf.float32, tf.float64, tf.int32, tf.int64)


def replica_count() -> int:
    """Returns the number of replicas that train in step; 1 without a strategy."""
    return tf.distribute.get_strategy().num_replicas_in_sync


def mirrors(strategy: tf.distribute.Strategy) -> bool:
    """Returns whether a strategy mirrors variables, be it on a single device.

    Its optimizers meet at a point that may stand neither in a condition nor in a function of its
    own, as gradient accumulation and XLA have it.
    """
    mirrored = (tf.distribute.MirroredStrategy, tf.distribute.MultiWorkerMirroredStrategy)
    return strategy.num_replicas_in_sync > 1 or isinstance(strategy, mirrored)


def sum_over_replicas(tensor: tf.Tensor) -> tf.Tensor:
    """Returns the sum of a tensor over all replicas (differentiable); the tensor itself on one."""
    if replica_count() == 1:
        return tensor
    carried = _carried(tensor)
    total = tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, carried)
    return tf.cast(total, tensor.dtype)


def sums_over_replicas(tensors: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    """Returns the sum of each of several tensors of one type over all replicas, by one exchange."""
    if replica_count() == 1:
        return list(tensors)
    shapes = [tf.shape(each) for each in tensors]
    flat = sum_over_replicas(tf.concat([tf.reshape(each, [-1]) for each in tensors], axis=0))
    parts = tf.split(flat, [tf.reduce_prod(each) for each in shapes])
    return [
        tf.ensure_shape(tf.reshape(part, shape), each.shape)
        for part, shape, each in zip(parts, shapes, tensors)
    ]


def gather(tensor: tf.Tensor) -> tf.Tensor:
    """Returns the rows of all replicas in order, so that a batch-coupled loss sees the whole batch.

    The operation is differentiable: a loss formed on the gathered rows by every replica and then
    divided by the number of replicas has the gradient that one device would compute.

    Args:
        tensor: Shape ``(rows, ...)``, this replica's part of the batch.

    Returns:
        Shape ``(all rows, ...)``, equal on every replica.
    """
    if replica_count() == 1:
        return tensor
    carried = _carried(tensor)
    rows = tf.distribute.get_replica_context().all_gather(carried, axis=0)
    rows = tf.ensure_shape(rows, [None, *tensor.shape[1:]])  # What the operation itself forgets.
    return tf.cast(rows, tensor.dtype)


def own_rows(tensor: tf.Tensor, rows: tf.Tensor | int) -> tf.Tensor:
    """Returns this replica's rows of a tensor that covers the whole batch; undoes :func:`gather`.

    Args:
        tensor: Shape ``(all rows, ...)``, equal on every replica.
        rows: How many rows a replica holds; the same for all of them.
    """
    if replica_count() == 1:
        return tensor
    first = tf.distribute.get_replica_context().replica_id_in_sync_group * rows
    return tensor[first : first + rows]


def _carried(tensor: tf.Tensor) -> tf.Tensor:
    """Returns a tensor as replicas can tell it one another.

    An entry of the batch itself is on no device, which a worker of one device does not send.
    """
    return tf.identity(tf.cast(tensor, _carrier(tensor.dtype)))


def _carrier(dtype: tf.DType) -> tf.DType:
    """Returns the type in which replicas can tell one another values of a type."""
    if dtype in _CARRIED:
        return dtype
    return tf.float32 if dtype.is_floating else tf.int32
