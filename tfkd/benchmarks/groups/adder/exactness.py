"""The error of the op against float64, beside that of a plain sum of absolute differences."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from tfkd.adder import compiled_ops, fallback
from tfkd.benchmarks.groups.adder.shapes import normal
from tfkd.benchmarks.measure import Case, Comparison, Experiment

_NO_PADDING = (0, 0, 0, 0)


def experiment(lengths: Sequence[int]) -> Experiment:
    """The op beside its fallback, which forms the sum of absolute differences as it stands.

    A goal holds only if the op's error is at most that of a running sum in float32.

    Args:
        lengths: Terms of a sum, multiples of 9.
    """
    operations = compiled_ops.operations()
    cases, comparisons = [], []
    for length in lengths:
        images = normal(8, 6, 6, length // 9)
        filters = normal(3, 3, length // 9, 24)

        def compiled(images=images, filters=filters):
            return operations.tfkd_adder_conv2d(
                x=images, filter=filters, strides=[1, 1], padding=_NO_PADDING
            )

        def direct(images=images, filters=filters):
            return fallback.convolution(images, filters, (1, 1), _NO_PADDING)

        facts, sound = {}, True
        for words, offset in (("", 0.0), (" at offset 100", 100.0)):
            wanted, running = _sums(images + offset, filters + offset)
            error = _largest_error(compiled(images + offset, filters + offset), wanted)
            plain = _largest_error(running, wanted)
            sound = sound and error <= plain
            facts |= {f"error{words}": error, f"of a running sum{words}": plain}
        name, baseline = f"{length} terms", f"{length} terms, fallback"
        cases += [Case(name, compiled), Case(baseline, direct)]
        comparisons.append(Comparison(name, (baseline,), 1.0, facts=facts, sound=sound))
    return Experiment(
        "exactness against float64, 3x3 on 6x6", "batch of 8 images", cases, comparisons
    )


def _sums(images: tf.Tensor, filters: tf.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Minus the sums of absolute differences, in float64, and as a running sum in float32."""
    patches = tf.image.extract_patches(images, [1, 3, 3, 1], [1] * 4, [1] * 4, "VALID").numpy()
    columns = filters.numpy().reshape(-1, filters.shape[-1]).T
    differences = np.abs(patches[..., None, :] - columns)
    exact = np.abs(np.float64(patches)[..., None, :] - columns).sum(-1)
    return -exact, -np.cumsum(differences, axis=-1, dtype=np.float32)[..., -1]


def _largest_error(found, wanted: np.ndarray) -> float:
    """The largest relative error."""
    return float(np.abs(np.asarray(found, np.float64) / wanted - 1).max())
