"""The input pipelines of images in memory and of large ones in files, beside plain ones."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import tensorflow as tf

from tfkd.benchmarks.measure import Case, Comparison, Experiment
from tfkd.data import measure_crops
from tfkd.data.measure import pipelines

# Batches that a pipeline may have ready before its turn begins.
_BUFFERED = 100
# Batches of large images that are drawn before the clock starts, and in one run, for each
# processor: each may have one in the making.
_STARTED, _DRAWN = 2, 4


def experiments(tiny: bool) -> Iterator[Experiment]:
    """Yields the comparisons of the pipelines.

    They are those of `tfkd.data.measure.pipelines` and `tfkd.data.measure_crops.pipelines`.
    """
    yield _in_memory(tiny)
    with tempfile.TemporaryDirectory() as folder:
        yield _crops(Path(folder), tiny)


def _in_memory(tiny: bool) -> Experiment:
    batch_size, images = (8, 64) if tiny else (64, 50_000)
    cases = [
        _case(name, iter(pipeline), _BUFFERED)
        for name, pipeline in pipelines(batch_size, images).items()
    ]
    return Experiment(
        f"pad 4, crop, mirror, normalize, {images:,} images 32x32x3 in memory",
        f"batch of {batch_size} images",
        cases,
        [
            Comparison("tfkd", ("per_image_map",), 4.5, at_least=True),
            Comparison(
                "tfkd",
                ("tfkd_no_augmentation",),
                0.75,
                at_least=True,
                name="tfkd, cost of augmentation",
            ),
        ],
    )


def _crops(folder: Path, tiny: bool) -> Experiment:
    images, (height, width), size = (16, (45, 60), 32) if tiny else (512, (375, 500), 224)
    batch_size = 8 if tiny else 64
    measure_crops.write(folder, images, (height, width))
    found = measure_crops.pipelines(folder, batch_size, size)
    goals = {"plain": 1.0, "plain_fast": 0.9}
    running: dict[str, Iterator] = {}
    return Experiment(
        f"random crops of {size} px, mirror, {images:,} JPEG files of {width}x{height}",
        f"batch of {batch_size} images",
        [_alone(name, pipeline, running) for name, pipeline in found.items()],
        [
            Comparison(f"{source}{plain.removeprefix('plain')}", (plain,), goal, at_least=True)
            for plain, goal in goals.items()
            for source in ("folder", "records")
        ],
    )


def _alone(name: str, pipeline: tf.data.Dataset, running: dict[str, Iterator]) -> Case:
    """Returns the case of a pipeline that runs in its own turns alone.

    One that went on would fill its buffers in the turns of others, at their cost.

    Args:
        name: Name of the case.
        pipeline: Endless.
        running: Holds the one pipeline that runs, by its name; all cases share it.
    """
    told = hasattr(os, "sched_getaffinity")
    processors = len(os.sched_getaffinity(0)) if told else os.cpu_count() or 1

    def prepare() -> None:
        running.clear()
        running[name] = iter(pipeline)
        for _ in range(_STARTED * processors):
            next(running[name])

    def run() -> None:
        if name not in running:
            prepare()
        for _ in range(_DRAWN * processors):
            next(running[name])

    return Case(name, run, prepare, units=_DRAWN * processors)


def _case(name: str, batches: Iterator, buffered: int) -> Case:
    def prepare() -> None:
        for _ in range(buffered):
            next(batches)

    return Case(name, lambda: next(batches), prepare)
