"""How fast an export runs here."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tfkd import adder, files, models
from tfkd.core.tasks.exit_choice import checked_thresholds
from tfkd.errors import TfkdError
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
    # The signature alone does not keep what it reads alive.
    loaded, known = _load(directory)
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


def early_exit_speed(
    directory: str | os.PathLike,
    images: np.ndarray,
    thresholds: Sequence[float | str],
    batch: int = 64,
    rounds: int = 3,
) -> tuple[float, float]:
    """Runs an export of a classifier with exits on images that leave early, and to the last exit.

    Both take turns, so that what slows the machine slows both.

    Args:
        directory: An export of tfkd.
        images: Pixels, uint8 ``(images, height, width, channels)``.
        thresholds: One an exit, as :func:`tfkd.evaluation.exits_taken` takes them.
        batch: Images of one call; the last one may have fewer.
        rounds: Turns of each.

    Returns:
        The images per second, in the median turn, where each leaves early and where all exits run.

    Raises:
        TfkdError: When the folder is no export that leaves early, or its op cannot be had.
    """
    loaded, _ = _load(directory)
    if "early_exit" not in loaded.signatures:
        raise TfkdError(
            f"SavedModel {str(directory)!r}: found no signature early_exit, wanted the export of a "
            "classifier with several exits"
        )
    given = tf.constant(checked_thresholds(thresholds, len(thresholds)))
    batches = [tf.constant(images[at : at + batch]) for at in range(0, len(images), batch)]
    calls: dict[str, dict] = {"early_exit": {"thresholds": given}, "serving_default": {}}
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(rounds + 1):
        for name, further in calls.items():
            start = time.perf_counter()
            for each in batches[: None if turn else 1]:  # The first call of each is not timed.
                for output in loaded.signatures[name](image=each, **further).values():
                    output.numpy()
            if turn:
                seconds[name].append(time.perf_counter() - start)
    early, whole = (len(images) / statistics.median(each) for each in seconds.values())
    return early, whole


def _load(directory: str | os.PathLike) -> tuple[Any, dict[str, Any]]:
    """Returns an export, loaded, and what it says of itself."""
    known = describe(directory)
    load = adder.load if known.get("adder") == "op" else tf.saved_model.load
    with files.without_wildcards(directory) as path:
        return load(str(path)), known


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
