"""The input pipeline of images in memory, beside the per-image one and one without augmentation."""

from __future__ import annotations

from collections.abc import Iterator

from tfkd.benchmarks.measure import Case, Comparison, Experiment
from tfkd.data.measure import pipelines

# Batches that a pipeline may have ready before its turn begins.
_BUFFERED = 100


def experiments(tiny: bool) -> Iterator[Experiment]:
    """Yields the comparison of the pipelines; see `tfkd.data.measure.pipelines`."""
    batch_size, images = (8, 64) if tiny else (64, 50_000)
    cases = [
        _case(name, iter(pipeline)) for name, pipeline in pipelines(batch_size, images).items()
    ]
    yield Experiment(
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


def _case(name: str, batches: Iterator) -> Case:
    def prepare() -> None:
        for _ in range(_BUFFERED):
            next(batches)

    return Case(name, lambda: next(batches), prepare)
