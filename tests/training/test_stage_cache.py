"""What a stage keeps of its frozen parts: which taps, for how many bytes, and when nothing."""

import keras
import numpy as np
import pytest

import tfkd
from tfkd.training.stage_cache import cached_keys, with_cached_taps

# Of 20 images: maps of 4x4x2 and 4 logits, in four bytes each.
MAPS, LOGITS = 20 * 4 * 4 * 2 * 4, 20 * 4 * 4


def dataset(**settings):
    rng = np.random.default_rng(0)
    pixels, labels = rng.integers(0, 256, (20, 8, 8, 3), np.uint8), np.arange(20) % 4
    return tfkd.data.from_arrays((pixels, labels), (pixels, labels), batch_size=8, **settings)


@pytest.fixture
def distiller():
    image = keras.Input((8, 8, 3))
    maps = keras.layers.Conv2D(2, 3, 2, "same", name="maps")(image)
    logits = keras.layers.Dense(4, name="early")(keras.layers.Flatten(name="flat")(maps))
    model = keras.Model(image, keras.layers.Dense(4, name="logits")(logits))
    preprocess = tfkd.models.Preprocess((100.0,) * 3, (50.0,) * 3)
    return tfkd.Distiller(None, tfkd.models.Network(model, preprocess))


def stage(distiller, **fields):
    made = tfkd.Stage(
        "late",
        trainable=lambda distiller: distiller.student.get_layer("logits").trainable_variables,
        cached=("early", "maps"),
        **fields,
    )
    distiller.enter_stage(made)
    return made


@pytest.mark.parametrize("on_disk", [False, True])
def test_taps_are_columns_as_far_as_the_bytes_hold_them(on_disk, distiller, tmp_path):
    data, said = dataset(), []
    folder = str(tmp_path / "cache") if on_disk else None
    for limit, kept in (
        (LOGITS + MAPS, ["cached_early", "cached_maps"]),
        (LOGITS + MAPS - 1, ["cached_early"]),
        (LOGITS - 1, []),
    ):
        made = stage(distiller, cache_bytes=limit, cache_folder=folder)
        found = with_cached_taps(made, distiller, data, lambda line, **_: said.append(line))
        assert cached_keys(made, found) == kept
        if kept:
            batch = next(iter(found.train(batch_keys=kept)))
            wanted = tfkd.models.tapped(distiller.student, ["early"])(
                distiller.network("student").preprocess(batch["image"])
            )["early"]
            np.testing.assert_allclose(batch["cached_early"], wanted, rtol=1e-5, atol=1e-5)
    where = "on disk" if on_disk else "in memory"
    assert said[:3] == [
        f"stage late: early of all images, {LOGITS:,} bytes: computed once, {where}",
        f"stage late: maps of all images, {MAPS:,} bytes: computed once, {where}",
        f"stage late: early of all images, {LOGITS:,} bytes: computed once, {where}",
    ]
    assert said[3].endswith(f"{MAPS:,} bytes: at every step, because {MAPS - 1:,} are left")
    assert (tmp_path / "cache").is_dir() == on_disk


def test_images_that_change_with_every_epoch_have_no_cache(distiller):
    for settings in ({"augment": "flip"}, {"mixup": 0.2}):
        data, said = dataset(**settings), []
        made = stage(distiller, cache_bytes=10**9)
        assert with_cached_taps(made, distiller, data, said.append) is data
        assert said == ["stage late: no cache, because training images change with every epoch"]
    data = dataset()
    assert with_cached_taps(stage(distiller), distiller, data, print) is data
