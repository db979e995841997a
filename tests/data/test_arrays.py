"""Arrays and the embedded digits: sizes, statistics, validation images, wrong arrays."""

import warnings

import numpy as np
import pytest
from sklearn.datasets import load_digits

import tfkd
from tests.data.batches import images_and_labels
from tfkd import data
from tfkd.data.statistics import Statistics


def arrays(size=30, seed=0, shape=(4, 4, 3), classes=3):
    generator = np.random.default_rng(seed)
    return (
        generator.integers(0, 256, (size, *shape), np.uint8),
        generator.integers(0, classes, size),
    )


def test_digits_are_scikit_learns_images_each_in_one_part():
    dataset = data.load("digits")
    info = dataset.info
    assert (info.train_size, info.validation_size, info.test_size) == (1077, 360, 360)
    assert (info.name, info.num_classes, info.image_shape) == ("digits", 10, (8, 8, 1))
    assert dataset.steps_per_epoch == 16
    parts = [
        images_and_labels(part)
        for part in (dataset.train_evaluation(), dataset.validation(), dataset.test())
    ]
    for _, labels in parts:
        share = np.bincount(labels, minlength=10) / len(labels)
        assert np.abs(share - 0.1).max() < 0.01
    bunch = load_digits()
    wanted = sorted(
        (int(label), np.round(image * 15.9375).astype(np.uint8).tobytes())
        for image, label in zip(bunch.images, bunch.target)
    )
    found = sorted(
        (int(label), image.tobytes())
        for images, labels in parts
        for image, label in zip(images, labels)
    )
    assert found == wanted


def test_digits_parts_do_not_depend_on_the_seed():
    zero, one = data.load("digits", seed=0), data.load("digits", seed=7)
    np.testing.assert_array_equal(
        images_and_labels(zero.test())[0], images_and_labels(one.test())[0]
    )
    np.testing.assert_array_equal(
        images_and_labels(zero.validation())[0], images_and_labels(one.validation())[0]
    )


def test_digits_with_another_validation_part_and_size():
    without = data.load("digits", validation_size=0)
    assert (without.info.train_size, without.info.validation_size) == (1437, 0)
    fraction = data.load("digits", validation_split=0.1, image_size=16)
    assert (fraction.info.train_size, fraction.info.validation_size) == (1293, 144)
    assert fraction.info.image_shape == (16, 16, 1)
    same = images_and_labels(without.test())[0]
    np.testing.assert_array_equal(images_and_labels(data.load("digits").test())[0], same)


def test_mean_and_std_are_those_of_the_training_part():
    train, test = arrays(500), arrays(10, 1)
    dataset = data.from_arrays(train, test, validation_size=100, batch_size=10)
    images, _ = images_and_labels(dataset.train_evaluation())
    assert images.shape == (400, 4, 4, 3)
    np.testing.assert_allclose(dataset.info.mean, images.mean((0, 1, 2), np.float64), rtol=1e-12)
    np.testing.assert_allclose(dataset.info.std, images.std((0, 1, 2), np.float64), rtol=1e-12)


def test_a_channel_that_never_changes_has_deviation_one():
    images = np.full((4, 2, 2, 1), 9, np.uint8)
    dataset = data.from_arrays((images, np.zeros(4, int)), (images, np.zeros(4, int)), batch_size=2)
    assert (dataset.info.mean, dataset.info.std) == ((9.0,), (1.0,))


def test_given_names_and_statistics_are_kept():
    dataset = data.from_arrays(
        arrays(),
        arrays(),
        num_classes=5,
        class_names="abcde",
        name="mine",
        mean=(1, 2, 3),
        std=(4, 5, 6),
        batch_size=3,
        task="sorting",
    )
    info = dataset.info
    assert info == data.DataInfo(
        "mine",
        5,
        (4, 4, 3),
        30,
        0,
        30,
        Statistics.of(((1.0, 2.0, 3.0), (4.0, 5.0, 6.0))),
        tuple("abcde"),
        "sorting",
    )


@pytest.mark.parametrize(
    "settings, count",
    [
        ({"validation_split": 0.2}, 20),
        ({"validation_size": 7}, 7),
        ({"validation_split": 0.001}, 1),
        ({"validation_size": 0}, 0),
        ({"validation_split": 0}, 0),
        ({}, 0),
    ],
)
def test_validation_images_are_set_apart_alike_in_every_class(settings, count):
    images = np.arange(100, dtype=np.uint8).reshape(100, 1, 1, 1)
    labels = np.repeat([0, 1, 2], [60, 30, 10])
    dataset = data.from_arrays((images, labels), (images, labels), **settings)
    assert dataset.info.validation_size == count
    kept, kept_labels = images_and_labels(dataset.train_evaluation())
    assert (np.diff(kept.ravel().astype(int)) > 0).all()
    if count == 0:
        return
    apart, apart_labels = images_and_labels(dataset.validation())
    assert sorted([*kept.ravel(), *apart.ravel()]) == list(range(100))
    exact = np.array([60, 30, 10]) * count / 100
    assert (np.abs(np.bincount(apart_labels, minlength=3) - exact) < 1).all()
    # They are not the first ones.
    if count == 20:
        assert apart.ravel()[:12].max() > 12


BAD = {
    "floats": (lambda: (arrays()[0] / 255, arrays()[1]), ["uint8", "float64"]),
    "flat": (lambda: (arrays()[0].reshape(30, -1), arrays()[1]), ["(30, 48)"]),
    "one_hot": (lambda: (arrays()[0], np.eye(30)), ["labels", "float64"]),
    "lengths": (lambda: (arrays()[0], arrays()[1][:-1]), ["30 images", "29 labels"]),
    "empty": (lambda: (arrays()[0][:0], arrays()[1][:0]), ["0 images"]),
    "negative": (lambda: (arrays()[0], arrays()[1] - 1), ["label -1"]),
    "alone": (lambda: arrays()[0], ["pair"]),
}


@pytest.mark.parametrize("part", ["train", "test"])
@pytest.mark.parametrize("case", BAD)
def test_wrong_arrays_are_named(case, part):
    make, words = BAD[case]
    parts = {"train": arrays(), "test": arrays()} | {part: make()}
    with pytest.raises(tfkd.TfkdError) as caught:
        data.from_arrays(**parts)
    message = str(caught.value)
    assert f"arrays, {part}" in message and "\n" not in message
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"num_classes": 2}, ["label 2", "0 to 1"]),
        ({"class_names": ["a", "b"]}, ["label 2"]),
        ({"class_names": "abcd", "num_classes": 3}, ["4 class names", "3"]),
        ({"mean": (1, 2)}, ["2 values of mean", "3"]),
        ({"std": (1,)}, ["1 values of std", "3"]),
        ({"validation_size": 30}, ["validation_size=30", "30 of 30", "29"]),
        ({"validation_size": -1}, ["validation_size", "-1", "validation_split"]),
        ({"validation_size": 0.1}, ["validation_size", "0.1", "validation_split"]),
        ({"validation_size": True}, ["validation_size", "True"]),
        ({"validation_split": 0.99}, ["validation_split=0.99", "30 of 30"]),
        ({"validation_split": 1.0}, ["validation_split", "1.0", "below 1", "validation_size"]),
        ({"validation_split": -0.1}, ["validation_split", "-0.1"]),
        ({"validation_split": float("nan")}, ["validation_split", "nan"]),
        ({"validation_split": "0.1"}, ["validation_split", "'0.1'"]),
        ({"validation_split": 0.1, "validation_size": 3}, ["0.1 and 3", "at most one"]),
        ({"validation": 0.1}, ["arrays, validation", "pair"]),
        ({"validation": arrays(), "validation_size": 0}, ["arrays and validation_size=0"]),
        ({"validation": arrays(shape=(4, 5, 3))}, ["validation", "(4, 5, 3)", "(4, 4, 3)"]),
    ],
)
def test_wrong_settings_are_named(settings, words):
    with pytest.raises(tfkd.TfkdError) as caught:
        data.from_arrays(arrays(), arrays(), **({"batch_size": 4} | settings))
    for word in words:
        assert word in str(caught.value)


def labeled(labels, **settings):
    images = np.zeros((len(labels), 4, 4, 3), np.uint8)
    return data.from_arrays((images, np.asarray(labels)), (images, labels), **settings)


def test_classes_without_an_image_are_told():
    for labels, words in (
        ([1, 2, 3, 4, 5], "labels from 1 to 5, which make 6 classes, 1 of .*the first: 0"),
        ([0, 3], "labels from 0 to 3, which make 4 classes, 2 of .*the first: 1"),
    ):
        with pytest.warns(tfkd.TfkdWarning, match=words):
            assert labeled(labels, batch_size=1).info.num_classes == max(labels) + 1
        with warnings.catch_warnings():
            warnings.simplefilter("error", tfkd.TfkdWarning)
            labeled(labels, batch_size=1, num_classes=6)
            labeled(range(6), batch_size=1)


@pytest.mark.parametrize("size", [0, (8,), "8", (8, 0), (1, 2, 3), 8.0])
def test_a_wrong_image_size_is_named(size):
    with pytest.raises(tfkd.TfkdError, match="image_size"):
        data.load("digits", image_size=size)
