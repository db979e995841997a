"""The non-parametric Bayes classifier of AuxVar as one matrix in the place of the linear layer.

With ``p(z | y) = p(y | z) / sum_z' p(y | z')`` over all training images ``z``::

    m_y  = sum_z p(z | y) v_z,   mu_y = m_y / |m_y|,   score_y = mu_y . W h

``kappa m_y . u`` is a lower bound of ``log sum_z p(z | y) exp(kappa v_z . u)`` (Jensen). The length
of ``W h`` is the same for all classes and changes no ranking, so that ``mu W`` is all there is: a
matrix ``(classes, width)``, as large as that of the linear layer, whose bias is 0. The scores rank
classes; their softmax is not calibrated. It takes the place of all that follows the feature: of a
student with more than a linear layer there, :func:`check_student` warns.
"""

from __future__ import annotations

import dataclasses
import itertools
import warnings
from collections.abc import Callable, Iterator

import keras
import numpy as np
import tensorflow as tf

from tfkd import models
from tfkd.errors import TfkdError, TfkdWarning
from tfkd.models.graph.calls import is_functional
from tfkd.models.graph.outputs import LOGITS

REMARK = "Bayes head, probabilities not calibrated"
"""What the name of a student with this classifier says."""

Embed = Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]
"""From pixels 0..255 to ``v``, of length 1 but not centered, and ``p(y | z)`` of the images."""


class Prototypes:
    """The directions ``mu`` of the classes, summed up image by image.

    Args:
        classes: Number of classes.
        width: Width of the embeddings.
    """

    def __init__(self, classes: int, width: int) -> None:
        self._vectors = np.zeros((classes, width))
        self._mass = np.zeros((classes, 1))

    def add(self, vectors: np.ndarray, classes: np.ndarray) -> None:
        """Adds images.

        Args:
            vectors: Their embeddings ``v``, ``(images, width)``.
            classes: Their ``p(y | z)``, ``(images, classes)``.
        """
        classes = np.asarray(classes, np.float64)
        self._vectors += classes.T @ np.asarray(vectors, np.float64)
        self._mass += classes.sum(axis=0)[:, None]

    def means(self) -> np.ndarray:
        """Returns ``m``, float64 ``(classes, width)``; zeros for a class that no image has."""
        return np.divide(
            self._vectors, self._mass, out=np.zeros_like(self._vectors), where=self._mass > 0
        )

    def directions(self) -> np.ndarray:
        """Returns ``mu``, of the same form."""
        return _unit(self.means())


def directions(
    embed: Embed, batches: Callable[[], tf.data.Dataset], center: bool = False
) -> np.ndarray:
    """Returns ``mu`` of the classes over all training images, float64 ``(classes, width)``.

    Args:
        embed: What the teacher makes of pixels.
        batches: Gives the training images, un-augmented, as often as it is called.
        center: Whether the mean of all ``v`` is taken from each, and the rest brought to length 1;
            the images are then read twice.
    """
    mean: np.ndarray | float = 0.0
    if center:
        sums = [(vectors.sum(axis=0), len(vectors)) for vectors, _ in _rows(embed, batches())]
        mean = np.sum([each for each, _ in sums], axis=0) / sum(count for _, count in sums)
    found: Prototypes | None = None
    for vectors, classes in _rows(embed, batches()):
        if found is None:
            found = Prototypes(classes.shape[1], vectors.shape[1])
        if center:
            vectors = _unit(vectors - mean)
        found.add(vectors, classes)
    return found.directions()


def _rows(embed: Embed, batches: tf.data.Dataset) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields embeddings and classes of batches, without the rows that fill up the last one."""
    for batch in batches:
        kept = int(np.count_nonzero(~np.asarray(batch["filler"])))
        vectors, classes = embed(batch["image"])
        yield vectors[:kept].numpy().astype(np.float64), classes[:kept].numpy()


def _unit(vectors: np.ndarray) -> np.ndarray:
    """Returns vectors of length 1; one of zeros stays so."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)


def folded(directions: np.ndarray, projector: np.ndarray) -> np.ndarray:
    """Returns the kernel of the one linear layer, ``(features, classes)``.

    Args:
        directions: ``mu``, ``(classes, width)``.
        projector: Kernel of the student's projector, ``(features, width)``: ``W h`` is
            ``h @ projector``.
    """
    return np.asarray(projector, np.float64) @ directions.T


def check_student(who: str, student: models.Network, tap: str, classes: int) -> None:
    """Warns where the student has other layers behind a feature than one that is linear.

    Args:
        who: Who says it.
        student: The student.
        tap: Its feature, a vector.
        classes: Number of classes.

    Raises:
        TfkdError: For a student whose layers cannot be replaced.
    """
    if not is_functional(student.model):
        raise TfkdError(
            f"{who}: found the student {student.name!r}, which is no functional model, wanted one: "
            f"the Bayes head is a layer behind its {tap!r}"
        )
    inner = models.tapped(student.model, student.paths([tap]))
    width = inner.output[tap].shape[-1]
    behind = student.model.count_params() - inner.count_params()
    if behind not in (width * classes, (width + 1) * classes):
        warnings.warn(
            f"{who}: found {behind:,} parameters behind {tap!r} of student {student.name!r}, "
            f"wanted the {(width + 1) * classes:,} of one linear layer; a student with the Bayes "
            "head has such a layer in the place of all of them, and is another network",
            TfkdWarning,
            stacklevel=2,
        )


def with_kernel(student: models.Network, tap: str, kernel: np.ndarray) -> models.Network:
    """Returns the student with a linear layer behind a feature, over the same weights before it.

    Args:
        student: The student.
        tap: Its feature, a vector.
        kernel: Kernel of the layer, ``(features, classes)``; its bias is 0.
    """
    model = student.model
    inner = models.tapped(model, student.paths([tap]))
    layer = keras.layers.Dense(kernel.shape[1], dtype="float32", name=_free_name(inner))
    logits = layer(inner.output[tap])
    layer.set_weights([kernel.astype(np.float32), np.zeros(kernel.shape[1], np.float32)])
    made = student.with_model(keras.Model(inner.input, logits, name=model.name))
    return dataclasses.replace(made, name=f"{student.name} ({REMARK})")


def _free_name(model: keras.Model) -> str:
    """Returns the usual name of the last layer, or, where a layer has it, one like it."""
    taken = {operation.name for operation in model.operations}
    names = itertools.chain([LOGITS], (f"bayes_{LOGITS}{n or ''}" for n in itertools.count()))
    return next(name for name in names if name not in taken)
