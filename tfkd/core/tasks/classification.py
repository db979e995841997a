"""What a label means: the one place that knows that an image has a class."""

from __future__ import annotations

import inspect
from collections.abc import Mapping

import keras
import tensorflow as tf

from tfkd.core.divergences import cross_entropy
from tfkd.errors import TfkdError


class Classification:
    """One class for each image.

    The distiller, the context and the objectives ask the task for everything that depends on what
    ``label`` is; another task (detection, say) offers the same methods.

    Args:
        loss: The label loss: a Keras loss name, function or object of ``(labels, logits)``. ``None``
            is softmax cross-entropy on logits, for class numbers and for dense labels.

    Raises:
        TfkdError: For a loss of probabilities.
    """

    def __init__(self, loss=None) -> None:
        self._loss = keras.losses.get(loss)
        if _wants_probabilities(self._loss):
            raise TfkdError(
                f"label loss {loss!r}: found a loss of probabilities, wanted one of logits: None, or "
                "a Keras loss object with from_logits=True"
            )

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

    def label_loss(self, labels: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
        """Returns the label loss of each sample, shape ``(batch,)``, in float32.

        Args:
            labels: As in the batch.
            outputs: The student's logits, ``(batch, classes)``.
        """
        if self._loss is None:
            return cross_entropy(labels, outputs)
        function = self._loss.call if isinstance(self._loss, keras.Loss) else self._loss
        values = tf.cast(function(labels, outputs), tf.float32)
        further = list(range(1, values.shape.rank))
        return tf.reduce_mean(values, axis=further) if further else values

    def correct(self, labels: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
        """Returns 1 for each sample whose label is the largest output, else 0; ``(batch,)``, float32.

        Args:
            labels: As in the batch.
            outputs: Logits, ``(batch, classes)``.
        """
        return _class_matches(labels, outputs)

    def metrics(self) -> list[keras.metrics.Metric]:
        """Returns fresh metrics of ``(labels, logits)`` for one run: the top-1 accuracy."""
        return [ClassAccuracy()]


def _wants_probabilities(loss) -> bool:
    if loss is None or isinstance(loss, keras.Loss):
        return getattr(loss, "from_logits", None) is False
    parameter = inspect.signature(loss).parameters.get("from_logits")
    return parameter is not None and parameter.default is False


class ClassAccuracy(keras.metrics.MeanMetricWrapper):
    """Top-1 accuracy for class numbers and for dense labels (whose largest entry counts)."""

    def __init__(self, name: str = "accuracy", dtype=None) -> None:
        super().__init__(fn=_class_matches, name=name, dtype=dtype)
        self._direction = "up"


def _class_matches(labels: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
    labels = tf.convert_to_tensor(labels)
    if labels.shape.rank == 2 and labels.shape[-1] == outputs.shape[-1] and labels.shape[-1] != 1:
        labels = tf.argmax(labels, axis=-1)
    labels = tf.cast(tf.reshape(labels, [-1]), tf.int64)
    return tf.cast(tf.equal(labels, tf.argmax(outputs, axis=-1)), tf.float32)
