"""The losses that a network holds itself, Keras' ``model.losses``.

They are those of its weights, a regularizer of each variable, and those that layers add while they
are called: activity regularizers (which Keras divides by the rows) and ``add_loss``. Keras adds all
of them to the loss of a model that it trains; here they belong to the label loss of the network.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Collection, Iterable, Iterator, Sequence

import keras
import tensorflow as tf


def own_losses(
    variables: Iterable[keras.Variable], added: Sequence[tf.Tensor] = ()
) -> tf.Tensor | None:
    """Returns the sum of the losses of weights and layers, float32, or ``None`` without any.

    Args:
        variables: The variables of the network that train.
        added: What its layers added.
    """
    of_weights = [v.regularizer(v) for v in variables if v.regularizer is not None]
    found = [tf.reduce_sum(tf.cast(each, tf.float32)) for each in (*of_weights, *added)]
    return tf.add_n(found) if found else None


def is_regularized(model: keras.Model) -> bool:
    """Returns whether weights or activities of a model are regularized."""
    return any(v.regularizer is not None for v in model.trainable_variables) or any(
        layer.activity_regularizer is not None for layer in model._flatten_layers()
    )


class AddedLosses:
    """What the layers of a model add by ``add_loss`` while it is called.

    Keras keeps that in the layers, and forgets it at their next call. Replicas are traced in turns,
    each in a thread of its own, and share the layers: so every thread has a list here.

    Args:
        model: The model.
        others: Identities of layers whose losses do not count.
    """

    def __init__(self, model: keras.Model, others: Collection[int] = ()) -> None:
        self._layers = [each for each in model._flatten_layers() if id(each) not in others]
        self._of_thread = threading.local()
        self._callers = 0

    @contextlib.contextmanager
    def collected(self) -> Iterator[list[tf.Tensor]]:
        """Gives the list to which calls of the model, by this thread, add their losses."""
        found = self._of_thread.found = []
        self._callers += 1
        if self._callers == 1:
            for layer in self._layers:
                layer.add_loss = self._add
        try:
            yield found
        finally:
            self._of_thread.found = None
            self._callers -= 1
            if not self._callers:
                for layer in self._layers:
                    del layer.add_loss

    def _add(self, loss) -> None:
        found = getattr(self._of_thread, "found", None)
        if found is not None:  # Otherwise it is another view of the same layers that is called.
            found.extend(keras.tree.flatten(loss))
