"""RandAugment: every operation against plain NumPy, and what each image draws."""

import math

import numpy as np
import pytest
import tensorflow as tf

from tfkd import data
from tfkd.data import pixel_operations as operations
from tfkd.data import randaugment

NAMES = [operation.__name__ for operation in operations.OPERATIONS]
SIGNED = [operation.__name__ for operation in operations.SIGNED]


def pictures(channels=3, height=12, width=10):
    """Noise, dark noise, a ramp, one value only, two values."""
    generator = np.random.default_rng(2)
    shape = (height, width, channels)
    noise = generator.integers(0, 256, shape)
    dark = generator.integers(30, 91, shape)
    ramp = np.arange(math.prod(shape)).reshape(shape) * 255 // math.prod(shape)
    flat = np.full(shape, 77)
    halves = np.where(np.arange(width)[None, :, None] < 3, 40, np.full(shape, 200))
    return np.stack([noise, dark, ramp, flat, halves]).astype(np.uint8)


# One image after another, in whole numbers or double precision; values in, values out.


def fetched(image, source):
    """Pixel (x, y) comes from the pixel that holds source(x + 1/2, y + 1/2); else black."""
    height, width = image.shape[:2]
    result = np.zeros_like(image)
    for y in range(height):
        for x in range(width):
            column, row = (math.floor(each) for each in source(x + 0.5, y + 0.5))
            if 0 <= column < width and 0 <= row < height:
                result[y, x] = image[row, column]
    return result


def turned(image, level):
    """The pixel at an angle of a + level degrees shows what was at the angle a."""
    height, width = image.shape[:2]
    angle = math.radians(level)

    def source(x, y):
        right, up = x - width / 2, height / 2 - y
        radius, direction = math.hypot(right, up), math.atan2(up, right) - angle
        return (
            width / 2 + radius * math.cos(direction),
            height / 2 - radius * math.sin(direction),
        )

    return fetched(image, source)


def shifted(image, level, axis):
    pixels = int(image.shape[axis] * 150 / 331 * abs(level) / 30)
    result = np.zeros_like(image)
    kept = image.shape[axis] - pixels
    image, into = np.moveaxis(image, axis, 0), np.moveaxis(result, axis, 0)
    if level >= 0:
        into[pixels:] = image[:kept]
    else:
        into[:kept] = image[pixels:]
    return result


def gray(image):
    if image.shape[2] == 1:
        return image.astype(int)
    red, green, blue = np.moveaxis(image.astype(int), 2, 0)
    return ((red * 19595 + green * 38470 + blue * 7471 + 32768) >> 16)[:, :, None]


def mixed(degenerate, image, level):
    """(1 - f) * degenerate + f * image with f = 1 + 0.9 * level / 30."""
    hundredfold = (-3 * level) * np.asarray(degenerate) + (100 + 3 * level) * image.astype(int)
    return np.clip(hundredfold, 0, 25500) // 100


def smoothed(image):
    result = image.astype(int)
    for y in range(1, image.shape[0] - 1):
        for x in range(1, image.shape[1] - 1):
            around = image[y - 1 : y + 2, x - 1 : x + 2].astype(int).sum((0, 1))
            result[y, x] = (2 * (around + 4 * image[y, x].astype(int)) + 13) // 26
    return result


def stretched(image):
    result = image.copy()
    for channel in range(image.shape[2]):
        values = image[:, :, channel].astype(int)
        least, greatest = values.min(), values.max()
        if greatest > least:
            result[:, :, channel] = 255 * (values - least) // (greatest - least)
    return result


def equalized(image):
    result = image.copy()
    for channel in range(image.shape[2]):
        values = image[:, :, channel]
        step = np.sum(values != values.max()) // 255
        if step:
            for value in np.unique(values):
                new = min((np.sum(values < value) + step // 2) // step, 255)
                result[:, :, channel][values == value] = new
    return result


REFERENCES = {
    "identity": lambda image, level: image,
    "shear_x": lambda image, level: fetched(image, lambda x, y: (x + level / 100 * y, y)),
    "shear_y": lambda image, level: fetched(image, lambda x, y: (x, y + level / 100 * x)),
    "translate_x": lambda image, level: shifted(image, level, axis=1),
    "translate_y": lambda image, level: shifted(image, level, axis=0),
    "rotate": turned,
    "brightness": lambda image, level: mixed(0, image, level),
    "color": lambda image, level: mixed(gray(image), image, level),
    "contrast": lambda image, level: mixed(math.floor(gray(image).mean() + 0.5), image, level),
    "sharpness": lambda image, level: mixed(smoothed(image), image, level),
    "posterize": lambda image, level: image >> round(level / 7.5) << round(level / 7.5),
    "solarize": lambda image, level: np.where(image >= 255 * (30 - level) / 30, 255 - image, image),
    "autocontrast": lambda image, level: stretched(image),
    "equalize": lambda image, level: equalized(image),
}


def function(name):
    return operations.OPERATIONS[NAMES.index(name)]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", NAMES)
def test_every_operation_matches_its_numpy_definition(name, channels):
    images = pictures(channels)
    # Levels at which no pixel is fetched from just between two others.
    levels = [-30, -10, 0, 10, 13] if name in SIGNED else [0, 5, 10, 17, 30]
    # Each image at each level, in one batch.
    batch, level = np.repeat(images, 5, axis=0), np.tile(levels, len(images)).astype(np.int32)
    found = function(name)(tf.constant(batch), tf.constant(level))
    assert found.dtype == tf.uint8 and found.shape == batch.shape
    for result, image, each in zip(found.numpy(), batch, level):
        wanted = REFERENCES[name](image, int(each))
        np.testing.assert_array_equal(result, wanted, err_msg=f"{name} {each}")


def test_equalize_on_an_image_large_enough_to_be_changed():
    """Fewer than 256 pixels of other than the greatest value stay as they are."""
    images = pictures(3, 32, 32)
    found = operations.equalize(tf.constant(images), tf.zeros([len(images)], tf.int32)).numpy()
    for result, image in zip(found, images):
        np.testing.assert_array_equal(result, equalized(image))
    assert (found[1] != images[1]).mean() > 0.5
    assert found[1].min() == 0 and found[1].max() >= 250
    np.testing.assert_array_equal(found[3], images[3])


@pytest.mark.parametrize("quarters", [-1, 1, 2, 3])
def test_whole_turns_are_exact(quarters):
    images = pictures(height=11, width=11)
    level = tf.fill([len(images)], 90 * quarters)
    np.testing.assert_array_equal(
        operations.rotate(tf.constant(images), level), np.rot90(images, quarters, (1, 2))
    )


def test_pixel_values_by_hand():
    gray_value = np.array([0, 9, 100, 169, 170, 200, 255], np.uint8)
    row = tf.constant(gray_value[None, None, :, None])

    def after(name, level):
        return function(name)(row, tf.constant([level])).numpy().ravel().tolist()

    assert after("solarize", 10) == [0, 9, 100, 169, 85, 55, 0]
    assert after("posterize", 10) == [0, 8, 100, 168, 170, 200, 254]
    assert after("brightness", 10) == [0, 11, 130, 219, 221, 255, 255]
    assert after("brightness", -10) == [0, 6, 70, 118, 119, 140, 178]
    assert after("translate_x", 10) == [0, *gray_value[:-1].tolist()]
    assert after("autocontrast", 10) == gray_value.tolist()


def test_operations_on_small_images_and_empty_batches():
    for operation in operations.OPERATIONS:
        for shape in ((2, 1, 1, 3), (2, 2, 5, 1), (0, 6, 6, 3)):
            images = tf.zeros(shape, tf.uint8) + 9
            result = operation(images, tf.fill([shape[0]], 10))
            assert result.shape == shape, (operation.__name__, shape)


def test_every_image_of_a_batch_meets_its_own_operations():
    """A batch of all operations, in a mixed order, is as one image after another."""
    images = np.concatenate([pictures()[[0, 1]]] * len(NAMES))
    generator = np.random.default_rng(0)
    chosen = np.stack([generator.permutation(np.tile(np.arange(len(NAMES)), 2)) for _ in range(2)])
    chosen = chosen.T.astype(np.int32)
    levels = np.array(
        [
            [10 * generator.choice([-1, 1]) if NAMES[each] in SIGNED else 10 for each in row]
            for row in chosen
        ],
        np.int32,
    )
    found = tf.function(randaugment.apply)(tf.constant(images), chosen, levels).numpy()
    for result, image, names, level in zip(found, images, chosen, levels):
        for each, bin_ in zip(names, level):
            image = REFERENCES[NAMES[each]](image, int(bin_)).astype(np.uint8)
        np.testing.assert_array_equal(result, image)


def test_operations_are_drawn_evenly_and_by_seed_epoch_and_index():
    index = tf.range(6000)
    chosen, levels = (each.numpy() for each in randaugment.draw(3, "view", 4, index))
    assert chosen.shape == levels.shape == (6000, 2)
    assert set(np.unique(levels)) == {-10, 10}
    # All 196 pairs of operations are equally frequent: Pearson's statistic has mean 195 and
    # deviation 20.
    counts = np.bincount(chosen[:, 0] * 14 + chosen[:, 1], minlength=196)
    expected = 6000 / 196
    assert ((counts - expected) ** 2 / expected).sum() < 195 + 5 * 20
    signed = np.isin(chosen, [NAMES.index(name) for name in SIGNED])
    assert (levels[~signed] == 10).all()
    for column in range(2):
        negative = levels[signed[:, column], column] < 0
        assert abs(negative.mean() - 0.5) < 5 * 0.5 / np.sqrt(negative.size)
    both = signed.all(1)
    assert abs(np.corrcoef(levels[both].T)[0, 1]) < 0.1

    order = np.random.default_rng(0).permutation(6000)[:50].astype(np.int32)
    again, _ = randaugment.draw(3, "view", 4, tf.constant(order))
    np.testing.assert_array_equal(again, chosen[order])
    for other in (
        randaugment.draw(4, "view", 4, index),
        randaugment.draw(3, "view", 5, index),
        randaugment.draw(3, "other", 4, index),
    ):
        assert abs((other[0].numpy() == chosen).mean() - 1 / 14) < 0.02


def test_rounds_and_magnitude_can_be_chosen():
    chosen, levels = randaugment.draw(0, "view", 0, tf.range(40), rounds=3, magnitude=4)
    assert chosen.shape == (40, 3) and set(np.unique(levels)) == {-4, 4}


def strong(batch_size, epoch, seed=0):
    """The strong views of one epoch of un-cropped images, by position."""
    images = pictures(height=9, width=9).repeat(4, axis=0)
    labels = np.zeros(len(images), int)
    dataset = data.from_arrays((images, labels), (images, labels), batch_size=batch_size, seed=seed)
    steps = dataset.steps_per_epoch
    batches = dataset.train(
        epoch * steps, (epoch + 1) * steps, batch_keys=("index", "image_strong")
    ).as_numpy_iterator()
    return {
        index: image
        for batch in batches
        for index, image in zip(batch["index"], batch["image_strong"])
    }, images


def test_a_strong_view_is_two_operations_and_depends_on_seed_epoch_and_index_alone():
    found, images = strong(5, epoch=2)
    assert len(found) == len(images)
    other_batches, _ = strong(4, epoch=2)
    chosen, levels = randaugment.draw(0, "randaugment", 2, tf.range(len(images)))
    for index, image in found.items():
        np.testing.assert_array_equal(image, other_batches[index])
        wanted = images[index]
        for each, level in zip(chosen[index].numpy(), levels[index].numpy()):
            wanted = REFERENCES[NAMES[each]](wanted, int(level)).astype(np.uint8)
        np.testing.assert_array_equal(image, wanted)
    for others in (strong(5, epoch=3)[0], strong(5, epoch=2, seed=1)[0]):
        noise = range(4)  # the other pictures are simple: many operations leave them alike
        assert any((others[index] != found[index]).any() for index in noise)
