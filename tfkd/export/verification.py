"""The check that a written SavedModel computes what its network computes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from tfkd import files, models
from tfkd.adder import has_adder_layers
from tfkd.core.tasks import Task
from tfkd.core.tasks.task import Outputs
from tfkd.errors import TfkdError
from tfkd.models.graph.outputs import LOGITS, by_name
from tfkd.models.saving import in_precision

TOLERANCE = 1e-5
# An adder layer subtracts large sums, and the normalization after it divides the rest by a small
# deviation: two float32 computations of such a network differ by more than those of a convolution.
_ROUNDINGS = 4
# Two best logits closer than a few float32 roundings may change places without any fault.
_TIE = 1e-6
_IMAGES = 16
# For a network without a fixed image size.
_SIZE = 64


@dataclass(frozen=True)
class _Wanted:
    """An output of the network, and how far that of an export may be from it.

    Attributes:
        values: The output, ``(batch, ...)``.
        tolerance: Largest difference.
        tie: How close the two best logits of an image may be for another class to be no fault.
    """

    values: np.ndarray
    tolerance: float
    tie: float = 0.0


def verify(directory: Path, network: models.Network, model: keras.Model, task: Task) -> None:
    """Loads a SavedModel again and compares both signatures with the network it came from.

    Random uint8 images go through ``serving_default`` and, normalized, through ``normalised``.
    Everything runs on the CPU, where float32 is float32 (a GPU may round to TensorFloat-32).

    An output of the network may differ by 1e-5 of its max |value|. Adder networks are compared with
    themselves in float64 instead, and may differ by four times as much as they do in float32, where
    that is more. What the task derives from the outputs is compared, within 1e-5 of its max
    |value|, with what it derives from those that were found.

    Args:
        directory: The SavedModel.
        network: The network: its preprocessing is the reference.
        model: Its model in float32, not folded: the reference.
        task: Says what is derived from the outputs, and whether the largest logit is an answer.

    Raises:
        TfkdError: When an output is missing or differs by more than that, or the logits name
            another class.
    """
    images = random_images(model)
    with tf.device("/CPU:0"):
        normalized = tf.convert_to_tensor(network.preprocess(tf.constant(images)))
        expected = by_name(model(normalized, training=False))
        wanted = _wanted(model, normalized, expected)
        with files.without_wildcards(directory) as path:
            signatures = tf.saved_model.load(str(path)).signatures
        found = {
            "serving_default": signatures["serving_default"](image=tf.constant(images)),
            "normalised": signatures["normalised"](image=normalized),
        }
        for name, outputs in found.items():
            _compare(f"export of {network.name!r}, {name}", outputs, expected, wanted, task)


def random_images(model: keras.Model) -> np.ndarray:
    """Returns the images that exports are checked with, uint8 ``(batch, height, width, ...)``."""
    height, width, channels = (size or _SIZE for size in model.input_shape[1:])
    random = np.random.default_rng(0)
    return random.integers(0, 256, (_IMAGES, height, width, channels), dtype=np.uint8)


def _wanted(model: keras.Model, images: tf.Tensor, expected: Outputs) -> dict[str, _Wanted]:
    values = {name: np.asarray(output) for name, output in expected.items()}
    largest = {name: _largest(array) for name, array in values.items()}
    if not has_adder_layers(model):
        return {
            name: _Wanted(array, TOLERANCE * largest[name], _TIE * largest[name])
            for name, array in values.items()
        }
    in_float64 = by_name(in_precision(models.stock(model), "float64")(images, training=False))
    wanted = {}
    for name, array in values.items():
        exact = np.asarray(in_float64[name])
        tolerance = max(TOLERANCE * largest[name], _ROUNDINGS * _largest(array - exact))
        wanted[name] = _Wanted(exact, tolerance, 2 * tolerance)
    return wanted


def _compare(
    what: str, found: Outputs, expected: Outputs, wanted: Mapping[str, _Wanted], task: Task
) -> None:
    """Raises unless an export gave what the task serves of a network's outputs.

    Args:
        what: Export and signature, for messages.
        found: What the export gave.
        expected: The outputs of the network.
        wanted: The same, with tolerances.
        task: The task.
    """
    served = dict(task.served(expected))
    if set(found) != set(served):
        raise TfkdError(
            f"{what}: found the outputs {', '.join(sorted(found))}, wanted "
            f"{', '.join(sorted(served))}"
        )
    unchanged = [name for name in served if served[name] is expected.get(name)]
    for name in unchanged:
        _compare_values(what, name, np.asarray(found[name]), wanted[name])
    if LOGITS in unchanged and task.agreement(expected, expected) is not None:
        _compare_classes(what, np.asarray(found[LOGITS]), wanted[LOGITS])
    # Derived from the outputs that were found: a softmax, say, amplifies their rounding.
    derived = task.served({**expected, **{name: found[name] for name in unchanged}})
    for name in served.keys() - unchanged:
        values = np.asarray(derived[name])
        allowed = _Wanted(values, TOLERANCE * _largest(values))
        _compare_values(what, name, np.asarray(found[name]), allowed)


def _compare_values(what: str, name: str, found: np.ndarray, wanted: _Wanted) -> None:
    if found.shape != wanted.values.shape:
        raise TfkdError(
            f"{what}: found {name} of shape {found.shape}, wanted {wanted.values.shape}"
        )
    largest = _largest(wanted.values)
    difference = _largest(found.astype(np.float64) - wanted.values)
    # Written so that NaN fails.
    if not difference <= wanted.tolerance:
        part = wanted.tolerance / largest if largest else 0.0
        raise TfkdError(
            f"{what}: found {name} that differ by {difference:.2e} from the network's, "
            f"wanted at most {part:.2g} of max |{name}| = {largest:.4g}"
        )


def _compare_classes(what: str, found: np.ndarray, wanted: _Wanted) -> None:
    best = np.sort(wanted.values, axis=-1)
    clear = best[..., -1] - best[..., -2] > wanted.tie if best.shape[-1] > 1 else False
    other = int(np.sum(clear & (np.argmax(found, -1) != np.argmax(wanted.values, -1))))
    if other:
        raise TfkdError(f"{what}: found another class for {other} of {len(found)} images, wanted 0")


def _largest(values: np.ndarray) -> float:
    return float(np.max(np.abs(values.astype(np.float64)), initial=0.0))
