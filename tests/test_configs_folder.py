"""configs/folder.py: the recipe follows from the images that are there."""

import numpy as np
import pytest
from PIL import Image

from tfkd.data.glance import glance
from tfkd.training import config as configs
from tfkd.training import config_checks, run, teachers


def folder_of(root, images, side, splits=("train", "test")):
    """A folder of two classes; ``train`` has so many images, the others have four."""
    drawn = np.random.default_rng(0)
    for split in splits:
        for label in ("a", "b"):
            place = root / split / label
            place.mkdir(parents=True)
            for number in range((images if split == "train" else 4) // 2):
                pixels = drawn.integers(0, 256, (side, side + 8, 3), np.uint8)
                Image.fromarray(pixels).save(place / f"{number}.png")
    return f"folder:{root}"


@pytest.mark.parametrize(
    "argument, images, side, wanted",
    [
        ("kd,resnet20,resnet8", 200, 40, (32, "crop_flip", 0.0, 8, 200, 0.00625)),
        ("kd,resnet34,resnet18", 700, 100, (96, "imagenet", 0.1, 32, 200, 0.025)),
        ("plain,resnet8", 8, 100, (64, "crop_flip", 0.0, 8, 200, 0.00625)),
    ],
)
def test_the_recipe_fits_the_images_and_a_flag_wins(argument, images, side, wanted, tmp_path):
    name = folder_of(tmp_path, images, side)
    config = configs.override(configs.load(f"folder:{argument}"), data__name=name)
    config_checks.validate(config)
    data, train = config.data, config.train
    found = (data.image_size, data.augment, data.validation_split, train.batch_size, train.epochs)
    assert (*found, train.learning_rate) == wanted
    changed = configs.override(config, data__image_size=20, train__epochs=3)
    assert (changed.data.image_size, changed.train.epochs, config.train.epochs) == (20, 3, 200)
    if config.teacher.config:
        teacher, _ = teachers.reference(changed)
        assert (teacher.data.image_size, teacher.train.batch_size) == (20, train.batch_size)
        assert teacher.train.epochs == train.epochs


def test_validation_images_of_the_folder_are_kept(tmp_path):
    name = folder_of(tmp_path, 600, 8, ("train", "val", "test"))
    assert glance(name).held_out
    assert configs.override(configs.load("folder"), data__name=name).data.validation_split is None
    assert not glance(folder_of(tmp_path / "two", 600, 8, ("train", "val"))).held_out


def test_a_network_trains_on_a_folder(tmp_path):
    name = folder_of(tmp_path / "images", 20, 16)
    config = configs.load("folder:plain,resnet8")
    config = configs.override(config, data__name=name, train__epochs=1, train__verbose=0)
    result = run(config, tmp_path / "run")
    assert (result["epochs"], result["steps"]) == (1, 2)
