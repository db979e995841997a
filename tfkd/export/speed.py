"""How fast an export runs here."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

import numpy as np
import tensorflow as tf

from tfkd import adder, files, models
from tfkd.export.description import describe
from tfkd.export.saved_model import ADDER_FORMS, save

# For a network without a fixed image size.
_SIZE = 64


def images_per_second(directory: str | os.PathLike, batch: int = 32, calls: int = 5) -> float:
    """Runs an export on random images and returns the speed of its fastest call.

    Args:
        directory: An export of tfkd.
        batch: Images of one call.
        calls: How many calls to time, after one that is not.

    Raises:
        TfkdError: When the folder is no export, or its op cannot be had.
    """
    known = describe(directory)
    load = adder.load if known.get("adder") == "op" else tf.saved_model.load
    with files.without_wildcards(directory) as path:
        # The signature alone does not keep what it reads alive.
        loaded = load(str(path))
    shape = [size or _SIZE for size in known["input_shape"]]
    pixels = np.random.default_rng(0).integers(0, 256, (batch, *shape), dtype=np.uint8)
    images = tf.constant(pixels)
    seconds = []
    for _ in range(calls + 1):
        start = time.perf_counter()
        for output in loaded.signatures["serving_default"](image=images).values():
            output.numpy()
        seconds.append(time.perf_counter() - start)
    return batch / min(seconds[1:])


def speed_of_adder_forms(
    network: models.Network, directory: str | os.PathLike, *, fold: bool = True
) -> dict[str, float]:
    """Returns the images per second of both forms of an adder network's export.

    Args:
        network: The network of the export.
        directory: The export, in either form; the other is written to a temporary folder.
        fold: As the export was made.

    Returns:
        The speed by form; of the plain form alone where the op cannot be had.
    """
    forms = ADDER_FORMS if adder.compiled_operations() is not None else ("plain",)
    speeds = {}
    with tempfile.TemporaryDirectory() as folder:
        for form in forms:
            place = Path(directory)
            if describe(directory)["adder"] != form:
                place = save(network, Path(folder) / form, fold=fold, verify=False, adder=form)
            speeds[form] = images_per_second(place)
    return speeds
