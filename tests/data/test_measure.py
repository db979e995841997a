"""The pipelines that the benchmark sets side by side do the same work."""

import numpy as np
import pytest

from tfkd.data import measure


@pytest.mark.parametrize("normalized", [False, True])
def test_the_three_pipelines_yield_batches_of_one_kind(normalized):
    for name, pipeline in measure.pipelines(8, images=64, normalized=normalized).items():
        batch = next(iter(pipeline))
        image = batch[0] if name == "per_image_map" else batch["image"]
        assert image.shape == (8, 32, 32, 3)
        assert image.dtype == (np.float32 if normalized else np.uint8)
        # Random pixels: mean 127.5, deviation 73.9, against the constants of `normalize`.
        low, high = (-0.2, 0.3) if normalized else (115, 140)
        if name == "tfkd_no_augmentation":
            assert low < np.mean(image) < high


def test_normalize():
    pixels = np.array([[125, 123, 114], [0, 255, 1]], np.uint8)
    wanted = (pixels - np.array([125.3, 123.0, 113.9])) / [63.0, 62.1, 66.7]
    np.testing.assert_allclose(measure.normalize(pixels), wanted, rtol=1e-5, atol=1e-6)


def test_every_pipeline_gets_its_rate():
    rates = measure.images_per_second(8, images=64, rounds=1, seconds=0.01)
    assert set(rates) == {"per_image_map", "tfkd", "tfkd_no_augmentation"}
    assert all(rate > 0 for rate in rates.values())
