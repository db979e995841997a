"""An exported ResNet-20, batch normalization folded, beside Keras' export of the same network."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from tfkd import export, models
from tfkd.benchmarks.measure import Case, Comparison, Experiment
from tfkd.benchmarks.networks import as_trained

_ERROR = 1e-5
"""Largest error wanted, relative to the largest absolute logit."""

Function = Callable[[tf.Tensor], tf.Tensor]


def experiments(tiny: bool) -> Iterator[Experiment]:
    """Yields one comparison for each batch size; normalized float32 images go in."""
    name, shape = ("resnet8", (8, 8, 3)) if tiny else ("resnet20", (32, 32, 3))
    model = as_trained(name, 100, shape)
    with tempfile.TemporaryDirectory() as folder:
        plain = _keras_export(models.stock(model), Path(folder, "keras"))
        ours = _tfkd_export(model, Path(folder, "tfkd"))
        for batch_size, goal in ((1, 0.82), (2 if tiny else 64, 0.77)):
            images = tf.random.stateless_normal((batch_size, *shape), (0, batch_size))
            facts, sound = agreement(plain(images).numpy(), ours(images).numpy())
            yield Experiment(
                f"{name} as a SavedModel",
                f"call on {batch_size} image{'s'[: batch_size > 1]}",
                [
                    Case("keras export", lambda images=images: plain(images)),
                    Case("tfkd export, folded", lambda images=images: ours(images)),
                ],
                [
                    Comparison(
                        "tfkd export, folded", ("keras export",), goal, False, None, facts, sound
                    )
                ],
            )


def agreement(wanted: np.ndarray, found: np.ndarray) -> tuple[dict[str, object], bool]:
    """Returns error and equality of classes of two arrays of logits, and whether both are right."""
    error = float(np.max(np.abs(wanted - found)) / np.max(np.abs(wanted)))
    same = bool(np.array_equal(np.argmax(wanted, -1), np.argmax(found, -1)))
    return {"max error": error, "same arg-max": same}, error <= _ERROR and same


def _keras_export(model: keras.Model, folder: Path) -> Function:
    model.export(str(folder), verbose=False)
    loaded = tf.saved_model.load(str(folder))
    signature = loaded.signatures["serving_default"]
    # `loaded` owns the variables that the signature reads, so it must live as long.
    (argument,) = signature.structured_input_signature[1]
    (output,) = signature.structured_outputs
    return lambda images, loaded=loaded: signature(**{argument: images})[output]


def _tfkd_export(model: keras.Model, folder: Path) -> Function:
    export.save(model, folder)
    loaded = tf.saved_model.load(str(folder))
    signature = loaded.signatures["normalised"]
    return lambda images, loaded=loaded: signature(image=images)["logits"]
