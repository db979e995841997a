"""The speed of the in-memory input pipeline, beside the plain one that it replaces."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from tfkd.data.arrays import from_arrays

_MEAN = (125.3, 123.0, 113.9)
_STD = (63.0, 62.1, 66.7)


def normalize(image: tf.Tensor) -> tf.Tensor:
    """Returns pixels, uint8 (..., 3), as float32 of about zero mean and unit deviation."""
    return (tf.cast(image, tf.float32) - tf.constant(_MEAN)) / tf.constant(_STD)


def pipelines(
    batch_size: int = 64, images: int = 50_000, normalized: bool = True
) -> dict[str, tf.data.Dataset]:
    """Returns three endless pipelines over the same random 32 x 32 x 3 uint8 images in memory.

    Args:
        batch_size: Rows of a batch.
        images: Number of images.
        normalized: Whether the batches end as normalized float32, as a plain pipeline yields them,
            or stay uint8, as tfkd's own yield them (its networks normalize on the device).

    Returns:
        ``per_image_map``: shuffle, then pad 4, random crop, random mirror (and normalize) image by
        image in ``map``, then batch and prefetch. ``tfkd``: the training batches of this package.
        ``tfkd_no_augmentation``: the same with augment="none".
    """
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (images, 32, 32, 3), np.uint8)
    labels = generator.integers(0, 10, images)
    last = normalize if normalized else tf.identity

    def one(image: tf.Tensor, label: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        image = tf.image.random_crop(tf.pad(image, [[4, 4], [4, 4], [0, 0]]), [32, 32, 3])
        return last(tf.image.random_flip_left_right(image)), label

    plain = tf.data.Dataset.from_tensor_slices((pixels, labels)).shuffle(images).repeat()
    plain = plain.map(one, num_parallel_calls=tf.data.AUTOTUNE)
    plain = plain.batch(batch_size, drop_remainder=True).prefetch(tf.data.AUTOTUNE)

    def ours(augment: str) -> tf.data.Dataset:
        data = from_arrays(
            (pixels, labels),
            (pixels[:1], labels[:1]),
            num_classes=10,
            augment=augment,
            mean=_MEAN,
            std=_STD,
            batch_size=batch_size,
        )
        batches = data.train()
        if not normalized:
            return batches
        return batches.map(
            lambda batch: batch | {"image": normalize(batch["image"])},
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=True,
        ).prefetch(tf.data.AUTOTUNE)

    return {
        "per_image_map": plain,
        "tfkd": ours("crop_flip"),
        "tfkd_no_augmentation": ours("none"),
    }


def images_per_second(
    batch_size: int = 64,
    images: int = 50_000,
    normalized: bool = True,
    rounds: int = 7,
    seconds: float = 0.5,
) -> dict[str, float]:
    """Measures the pipelines of ``pipelines``, one after the other in every round.

    Args:
        batch_size: Rows of a batch.
        images: Number of images.
        normalized: See ``pipelines``.
        rounds: Rounds to take the median of.
        seconds: Time for each pipeline in each round.

    Returns:
        Images per second of each pipeline, by its name.
    """
    timers = {
        name: _timer(iter(pipeline), batch_size, seconds)
        for name, pipeline in pipelines(batch_size, images, normalized).items()
    }
    found = [{name: timer() for name, timer in timers.items()} for _ in range(rounds)]
    return {name: statistics.median(each[name] for each in found) for name in timers}


def _timer(iterator, batch_size: int, seconds: float) -> Callable[[], float]:
    """Returns a function that draws batches for some time and tells the images per second."""

    def measure() -> float:
        # While the others were measured this pipeline filled its buffers: those come first.
        for _ in range(20):
            next(iterator)
        drawn, start = 0, time.perf_counter()
        while time.perf_counter() - start < seconds:
            next(iterator)
            drawn += batch_size
        return drawn / (time.perf_counter() - start)

    return measure
