"""Keras' ``fit`` under several replicas, several workers and several steps for each call.

Keras 3 builds its training function so that neither ``steps_per_execution > 1`` under replicas nor
several workers run at all. This mix-in replaces that one function: one compiled call runs the steps
in a loop, skips what must not run (after a non-finite loss, or beyond the end of an epoch), and
reduces the metrics over replicas.
"""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Callable

import tensorflow as tf

from tfkd.core.host import Host
from tfkd.core.step.replicas import mirrors
from tfkd.errors import TfkdError, original


class DistributedFit(Host):
    """Mix-in for a ``keras.Model`` with steps of its own.

    Those are ``train_step`` and ``test_step``, and ``train_results`` and ``test_results``, the
    metrics of an epoch and of an evaluation.

    The model must hold all its variables (optimizer and metrics included) before the first call: a
    variable made inside a compiled function under a strategy ends in an error that names no cause.
    :meth:`prepare_for` is called with the form of a batch in time to make them.
    """

    train_function: Callable | None
    test_function: Callable | None

    def may_step(self) -> tf.Tensor:
        """Returns whether another training step may run; a scalar bool read inside the graph."""
        return tf.constant(True)

    short_step: Callable | None = None
    """A step that stands in for ``train_step`` where :meth:`takes_short_step` says so.

    ``None`` where a method has none. The choice stands outside of the step, because under mirrored
    replicas no optimizer may stand in a condition.
    """

    def takes_short_step(self) -> tf.Tensor:
        """Returns whether the next training step is the short one; a scalar bool."""
        return tf.constant(False)

    def step_scope(self) -> contextlib.AbstractContextManager:
        """Returns what surrounds a training step while it is traced."""
        return contextlib.nullcontext()

    def prepare_for(self, element_spec) -> None:
        """Checks the form of the batches and makes what is still missing.

        Args:
            element_spec: ``tf.TypeSpec`` structure of one batch of one replica.
        """

    def _maybe_symbolic_build(self, iterator=None, data_batch=None) -> None:
        if iterator is not None:
            spec = iterator._distributed_dataset.element_spec
            replicas = self.distribute_strategy.num_replicas_in_sync
            last = iterator.data_adapter.partial_batch_size
            if last and last < replicas:
                raise TfkdError(
                    f"last batch of size {last} under {replicas} replicas: found fewer images than "
                    "replicas, wanted another batch_size or number of images"
                )
            if replicas > 1:
                spec = tf.nest.map_structure(
                    lambda each: getattr(each, "_component_specs", (each,))[0], spec
                )
        else:
            data = tuple(each for each in data_batch if each is not None)
            spec = tf.nest.map_structure(
                lambda each: tf.type_spec_from_value(tf.constant(each)), data
            )
        self.prepare_for(spec)

    def make_train_function(self, force: bool = False):
        if self.train_function is not None and not force:
            return self.train_function
        self.train_function = self._steps_function(
            self.train_step, self.train_results, self.may_step, self.step_scope, self.short_step
        )
        return self.train_function

    def make_test_function(self, force: bool = False):
        if self.test_function is not None and not force:
            return self.test_function
        self.test_function = self._steps_function(
            self.test_step, self.test_results, lambda: tf.constant(True), contextlib.nullcontext
        )
        return self.test_function

    def _steps_function(self, step, results, may_run, scope, short_step=None):
        strategy = self.distribute_strategy
        if self.jit_compile:
            if mirrors(strategy):
                raise TfkdError(
                    f"jit_compile=True (XLA) under {strategy.num_replicas_in_sync} mirrored "
                    "replica(s): XLA cannot reach mirrored variables; use no strategy or "
                    "jit_compile=False"
                )
            step, short_step = (
                each and tf.function(each, jit_compile=True, autograph=False, reduce_retracing=True)
                for each in (step, short_step)
            )

        def take(step, data) -> tf.Tensor:
            def after_data(data) -> None:
                # An iterator at its end is an operation that fails while others, independent of it,
                # run on: without this, counters would count a step that never was.
                parts = tf.nest.flatten(data, expand_composites=True)
                with tf.control_dependencies([part for part in parts if tf.is_tensor(part)]):
                    step(data)

            strategy.run(after_data, args=(data,))
            return tf.constant(True)

        @tf.autograph.experimental.do_not_convert
        def run(data) -> None:
            with scope():
                if short_step is None:
                    take(step, data)
                else:
                    tf.cond(
                        self.takes_short_step(),
                        lambda: take(short_step, data),
                        lambda: take(step, data),
                    )

        @tf.autograph.experimental.do_not_convert
        def metrics() -> dict:
            values = strategy.run(results)
            return tf.nest.map_structure(
                lambda value: strategy.reduce(tf.distribute.ReduceOp.MEAN, value, axis=None), values
            )

        def single(iterator):
            if may_run():
                run(next(iterator))
            return metrics()

        def several(iterator):
            # The step stands once in this graph: the end of the data is a flag, not an exception.
            done, ended = tf.constant(0), tf.constant(False)
            for _ in tf.range(self.steps_per_execution):
                if may_run() and not ended:
                    following = iterator.get_next_as_optional()
                    ended = tf.logical_not(following.has_value())
                    if following.has_value():
                        run(following.get_value())
                        done += 1
            return metrics(), tf.logical_and(ended, done == 0)

        def one(data):
            if may_run():
                run(data)
            return metrics()

        if not self.run_eagerly:
            # Partial, because TensorFlow counts tracings by the code of a function and would warn
            # of those of other distillers.
            single, several, one = (
                tf.function(functools.partial(each), reduce_retracing=True)
                for each in (single, several, one)
            )

        def function(iterator):
            if not isinstance(iterator, (tf.data.Iterator, tf.distribute.DistributedIterator)):
                return one(next(iterator))
            if self.steps_per_execution == 1:
                return single(iterator)
            values, nothing_left = several(iterator)
            if nothing_left:
                raise StopIteration
            return values

        def plainly(iterator):
            try:
                return function(iterator)
            except Exception as error:
                found = original(error) or _of_labels(error)
                if found is None:
                    raise
                raise found from None

        return plainly


def _of_labels(error: Exception) -> TfkdError | None:
    """Returns the line for a label that TensorFlow finds beyond the classes; ``None`` for others.

    Those of a data set are not known before they are read; on GPUs they make a loss of NaN.
    """
    told = re.search(r"label value of (-?\d+) which is outside .* \[0, (\d+)\)", str(error))
    if not isinstance(error, tf.errors.InvalidArgumentError) or told is None:
        return None
    return TfkdError(
        f"labels: found {told[1]}, wanted 0 to {int(told[2]) - 1}, classes of the student"
    )
