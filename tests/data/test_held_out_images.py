"""Which images are held out: in each class those with the smallest hash of their names."""

import hashlib
import shutil

import hypothesis
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import strategies as some

from tfkd import data
from tfkd.data.file_digest import scan
from tfkd.data.holdout import Holdout, held_out


def write(root, count, parts=("train", "test"), classes="abcd"):
    """Writes ``count`` images a class and part, each of one color of its own."""
    color = 0
    for part in parts:
        for name in classes:
            (root / part / name).mkdir(parents=True, exist_ok=True)
            for number in range(count):
                color += 1
                image = np.full((4, 4, 3), (color % 256, color // 256, 7), np.uint8)
                path = root / part / name / f"{number:03d}.png"
                path.write_bytes(tf.io.encode_png(image).numpy())


def colors(batches):
    """Returns the images of a part by their colors."""
    found = set()
    for batch in batches.as_numpy_iterator():
        kept = batch["image"][batch["sample_weight"] > 0]
        found |= {tuple(image[0, 0]) for image in kept}
    return found


@pytest.mark.parametrize("in_memory_bytes", [data.IN_MEMORY_BYTES, 0])
def test_of_240_images_with_one_removed_at_most_one_held_out_was_trained_on(
    tmp_path, in_memory_bytes
):
    write(tmp_path, 60)

    def parts():
        dataset = data.load(
            f"folder:{tmp_path}", validation_size=40, in_memory_bytes=in_memory_bytes
        )
        return colors(dataset.train_evaluation()), colors(dataset.validation())

    trained, held = parts()
    assert (len(trained), len(held)) == (200, 40)
    # One of the images held out, whose place another one takes, and one of the others.
    for number in ("000", "017", "059"):
        path = tmp_path / "train" / "b" / f"{number}.png"
        kept = path.read_bytes()
        path.unlink()
        _, others = parts()
        assert len(others) == 40
        assert len(others & trained) <= 1
        assert len(held - others) <= 2
        path.write_bytes(kept)


SIZES = [33, 38, 9, 15, 8, 18, 23, 36, 5, 14, 33, 13, 36, 15, 12, 8]


@hypothesis.settings(max_examples=50, deadline=None, derandomize=True)
@hypothesis.given(
    sizes=some.lists(some.integers(1, 40), min_size=1, max_size=20).filter(lambda s: sum(s) > 2),
    part=some.floats(0.01, 0.7),
    as_size=some.booleans(),
    removed=some.integers(0, 799),
)
@hypothesis.example(sizes=SIZES, part=0.2, as_size=False, removed=149)
def test_one_file_less_moves_at_most_one_in_and_one_out(sizes, part, as_size, removed):
    """Of the sizes of the example three came in and three went out before."""
    labels = np.repeat(np.arange(len(sizes)), sizes)
    names = np.array([f"{label}/{number}.png" for number, label in enumerate(labels)])
    left = np.arange(len(labels)) != removed % len(labels)
    whole = Holdout(split=part).count(len(labels))
    holdout = Holdout(size=min(whole, len(labels) - 2)) if as_size else Holdout(split=part)

    def held(labels, names):
        count = holdout.count(len(labels))
        _, apart = held_out(labels, count, names)
        assert len(apart) == count
        return set(names[apart])

    before, after = held(labels, names), held(labels[left], names[left])
    assert len(after - before) <= 1
    assert len(before - after - set(names[~left])) <= 1


@pytest.mark.parametrize("count, first", [(1000, 100), (1003, 101)])
def test_classes_of_one_size_give_the_same_but_for_the_remainder(count, first):
    labels = np.arange(50_000) % 10
    _, apart = held_out(labels, count)
    number = np.bincount(labels[apart])
    assert number.tolist() == [first] * (count - 1000) + [100] * (1010 - count)


def test_arrays_are_held_out_by_the_smallest_hash_of_their_positions():
    labels = np.arange(30) % 3
    kept, apart = held_out(labels, 6)
    for label in range(3):
        members = [str(at) for at in range(30) if labels[at] == label]
        first = sorted(members, key=lambda at: hashlib.sha256(at.encode()).hexdigest())[:2]
        assert sorted(apart[labels[apart] == label]) == sorted(map(int, first))
    assert sorted([*kept, *apart]) == list(range(30))
    images = np.arange(30 * 3, dtype=np.uint8).reshape(30, 1, 1, 3)
    dataset = data.from_arrays((images, labels), (images, labels), validation_size=6)
    assert colors(dataset.validation()) == {tuple(images[at, 0, 0]) for at in apart}


def test_the_digits_keep_the_division_of_their_own():
    # The sums of all pixels, as they have been since the first version.
    dataset = data.load("digits", augment="none")
    sums = {}
    for part in ("train_evaluation", "validation", "test"):
        batches = getattr(dataset, part)().as_numpy_iterator()
        sums[part] = sum(
            int((each["image"].astype(np.int64) * each["sample_weight"][:, None, None, None]).sum())
            for each in batches
        )
    assert sums == DIGITS


DIGITS = {"train_evaluation": 5379671, "validation": 1785468, "test": 1788662}


@pytest.mark.parametrize("in_memory_bytes", [data.IN_MEMORY_BYTES, 0])
def test_a_copied_folder_has_the_identity_of_the_first(tmp_path, in_memory_bytes):
    write(tmp_path / "first", 3, classes="ab")

    def identity(name):
        place = f"folder:{tmp_path / name}"
        settings = {"batch_size": 2, "in_memory_bytes": in_memory_bytes}
        return data.load(place, **settings).identity(), data.files(place)

    first, files = identity("first")
    shutil.copytree(tmp_path / "first", tmp_path / "moved" / "second", copy_function=shutil.copy)
    assert identity("moved/second") == (first, files)
    assert {each["by"] for each in first.values()} == {
        "contents" if in_memory_bytes else "names and sizes"
    }
    assert [first[part]["images"] for part in ("train", "test")] == [6, 6]
    assert files["files"] == 12

    # One class more of another part leaves the training part what it was.
    image = tmp_path / "moved" / "second" / "test" / "a" / "003.png"
    image.write_bytes((tmp_path / "first" / "test" / "a" / "002.png").read_bytes())
    changed, other = identity("moved/second")
    assert changed["train"] == first["train"] and changed["test"] != first["test"]
    assert other["files"] == 13 and other["digest"] != files["digest"]


def test_a_listing_follows_links_and_heeds_names_and_sizes(tmp_path):
    write(tmp_path / "real", 2, parts=("train",), classes="ab")
    (tmp_path / "linked" / "train").mkdir(parents=True)
    for name in "ab":
        (tmp_path / "linked" / "train" / name).symlink_to(tmp_path / "real" / "train" / name)
    (tmp_path / "linked" / ".cache").write_text("not of the data")
    before = scan(tmp_path / "real")
    assert scan(tmp_path / "linked") == before
    path = tmp_path / "real" / "train" / "a" / "000.png"
    path.rename(path.with_name("9.png"))
    assert scan(tmp_path / "real").listing["digest"] != before.listing["digest"]
    assert scan(tmp_path / "nowhere") is None
