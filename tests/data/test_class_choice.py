"""Some classes of a set: as if it held no others."""

import shutil

import numpy as np
import pytest

from tests.data.batches import images_and_labels
from tests.fixtures import shades
from tfkd import TfkdError, data

PARTS = ("train_evaluation", "test")


def of_part(dataset, part):
    return images_and_labels(getattr(dataset, part)())


def test_digits_keep_their_division_and_are_numbered_in_their_order():
    whole = data.load("digits", augment="none")
    some = data.load("digits", augment="none", classes=["8", "3", "5"])
    assert some.info.class_names == ("3", "5", "8") and some.info.num_classes == 3
    for part in (*PARTS, "validation"):
        images, labels = of_part(whole, part)
        places = np.flatnonzero(np.isin(labels, [3, 5, 8]))
        found, numbers = of_part(some, part)
        np.testing.assert_array_equal(found, images[places])
        np.testing.assert_array_equal(np.array([3, 5, 8])[numbers], labels[places])
    assert some.info.mean != whole.info.mean
    assert some.identity() == data.load("digits", classes=("3", "5", "8")).identity()
    others = data.load("digits", classes=("3", "5", "9"))
    assert some.identity()["train"]["digest"] != others.identity()["train"]["digest"]


def test_numbers_of_images_are_those_of_the_kept_classes():
    some = data.load("digits", classes=["0", "1"], validation_size=40, train_size=100)
    assert (some.info.train_size, some.info.validation_size) == (100, 40)
    counts = np.bincount(some.train_labels)
    assert len(counts) == 2 and abs(counts[0] - counts[1]) < 5


@pytest.mark.parametrize("in_memory_bytes", [data.IN_MEMORY_BYTES, 0])
def test_a_folder_is_as_if_it_held_no_other_classes(tmp_path, in_memory_bytes):
    shades.write(tmp_path / "all")
    shutil.copytree(tmp_path / "all", tmp_path / "some")
    for part in ("train", "test"):
        shutil.rmtree(tmp_path / "some" / part / "bee")
    settings = {"validation_size": 4, "in_memory_bytes": in_memory_bytes, "batch_size": 4}
    # What is wrong with a class that is not kept does not matter.
    (tmp_path / "all" / "train" / "bee" / "0.png").write_bytes(b"no image")
    chosen = data.load(f"folder:{tmp_path}/all", classes=["dog", "ant", "cat"], **settings)
    wanted = data.load(f"folder:{tmp_path}/some", **settings)
    assert chosen.info.class_names == wanted.info.class_names == ("ant", "cat", "dog")
    assert (chosen.info.mean, chosen.info.std) == (wanted.info.mean, wanted.info.std)
    assert chosen.identity() == wanted.identity()
    for part in (*PARTS, "validation"):
        for found, expected in zip(of_part(chosen, part), of_part(wanted, part)):
            np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (["ant", "bea"], r"unknown class of folder:.* 'bea'; did you mean 'bee'"),
        (["ant"], r"classes: found \['ant'\], wanted the names of two or more"),
        (["ant", "bee", "ant"], "classes: found 'ant' twice"),
        ("ant,bee", "classes: found 'ant,bee', wanted a list"),
    ],
)
def test_a_wrong_choice_is_one_line(tmp_path, classes, message):
    with pytest.raises(TfkdError, match=message):
        data.load(shades.write(tmp_path / "data"), classes=classes, batch_size=4)
