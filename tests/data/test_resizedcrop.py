"""ImageNet's crops of encoded files: random rectangles to train on, centers to evaluate on."""

import numpy as np
import pytest
import tensorflow as tf

import tfkd
from tfkd import data
from tfkd.data import resizedcrop
from tfkd.data.decoding import Form, fit

FORM = Form(16, 16, 3, resize=True, center=True)
SIZES = [(40, 60), (70, 33), (24, 24), (50, 48)]


def smooth(height, width, phase=0.0):
    """A picture without sharp edges, which survives JPEG and resizing."""
    rows, columns = np.mgrid[:height, :width] / np.array([height, width])[:, None, None]
    waves = [np.sin(3 * rows + phase), np.cos(4 * columns), np.sin(2 * (rows + columns) + phase)]
    return np.uint8(127.5 + 100 * np.stack(waves, -1))


def make(root, splits=("train", "val"), suffix=".JPEG"):
    for part in splits:
        for name in ("n01", "n02"):
            (root / part / name).mkdir(parents=True)
            for number, size in enumerate(SIZES):
                image = smooth(*size, phase=number + len(part))
                kind = tf.io.encode_png if suffix == ".png" else tf.io.encode_jpeg
                encoded = kind(image).numpy()
                (root / part / name / f"{name}_{number}{suffix}").write_bytes(encoded)
    return root


def load(root, **settings):
    settings = {"augment": "imagenet", "image_size": 16, "batch_size": 4} | settings
    return data.load(f"folder:{root}", **settings)


def windows(height, width, count=4000):
    draws = resizedcrop.draw(0, "image", 0, tf.range(count))
    return resizedcrop.windows(draws, tf.fill([count], height), tf.fill([count], width)).numpy()


def test_rectangles_have_the_areas_and_shapes_of_the_recipe():
    high, wide = 400, 500
    top, left, rows, columns = windows(high, wide).T
    assert (top >= 0).all() and (left >= 0).all()
    assert (top + rows <= high).all() and (left + columns <= wide).all()
    area = rows * columns / (high * wide)
    assert 0.078 < area.min() < 0.1 and area.max() > 0.9
    aspect = np.log(columns / rows)
    assert abs(aspect).max() < np.log(4 / 3) + 0.02
    # Small rectangles nearly always fit: their shapes are even in the logarithm,
    small = area < 0.5
    counts, _ = np.histogram(aspect[small], bins=6, range=(-np.log(4 / 3), np.log(4 / 3)))
    assert counts.min() > 0.8 * counts.mean() and counts.max() < 1.2 * counts.mean()
    # and so are their areas,
    counts, _ = np.histogram(area, bins=4, range=(0.08, 0.5))
    assert counts.min() > 0.8 * counts.mean() and counts.max() < 1.2 * counts.mean()
    # and their places, which have nothing to do with each other.
    place = [
        (top / np.maximum(high - rows, 1))[small],
        (left / np.maximum(wide - columns, 1))[small],
    ]
    for each in place:
        counts, _ = np.histogram(each, bins=5, range=(0, 1))
        assert counts.min() > 0.8 * counts.mean()
    assert abs(np.corrcoef(*place)[0, 1]) < 0.1


@pytest.mark.parametrize(
    "shape, wanted", [((10, 400), (0, 193, 10, 13)), ((400, 12), (192, 0, 16, 12))]
)
def test_an_image_too_narrow_for_any_rectangle_is_cropped_at_its_center(shape, wanted):
    # Of an image so long, the smallest area in the flattest shape does not fit.
    assert {tuple(each) for each in windows(*shape, count=20)} == {wanted}


def test_tiny_images_have_rectangles():
    for shape in ((1, 1), (1, 2), (3, 2)):
        for top, left, rows, columns in windows(*shape, count=50):
            assert 0 <= top and 1 <= rows and top + rows <= shape[0]
            assert 0 <= left and 1 <= columns and left + columns <= shape[1]


@pytest.mark.parametrize("kind", ["jpeg", "png", "gray", "fast"])
def test_a_crop_is_the_resized_rectangle_of_the_whole_image(kind):
    image = smooth(60, 81)
    if kind == "gray":
        image = image[..., :1]
    encode = tf.io.encode_png if kind == "png" else tf.io.encode_jpeg
    contents, fast = encode(image), kind == "fast"
    method = "INTEGER_FAST" if fast else "INTEGER_ACCURATE"
    whole = tf.io.decode_jpeg(contents, channels=3, dct_method=method).numpy()
    decode = tf.function(lambda row: resizedcrop.decode(contents, row, FORM, fast=fast))
    mirrored = []
    for row in resizedcrop.draw(1, "image", 0, tf.range(12)):
        sizes = [tf.constant([side]) for side in whole.shape[:2]]
        top, left, rows, columns = resizedcrop.windows(row[None], *sizes)[0].numpy()
        part = tf.cast(whole[top : top + rows, left : left + columns], tf.float32)
        wanted = tf.round(tf.image.resize(part, (16, 16), antialias=not fast)).numpy()
        found = decode(row).numpy()
        assert found.dtype == np.uint8
        mirrored.append(bool(row[0] < 0.5))
        wanted = wanted[:, ::-1] if mirrored[-1] else wanted
        # At its border, a JPEG decoded in part is without the colors beyond it.
        assert np.abs(found - wanted).max() <= (0 if kind == "png" else 4)
        assert np.abs(found - wanted).mean() <= 0.5
    assert 2 < sum(mirrored) < 10


@pytest.mark.parametrize("shape", [(256, 341), (100, 70), (9, 30), (20, 20)])
def test_evaluation_uses_the_center(shape):
    image = smooth(*shape)
    form = Form(224, 224, 3, resize=True, center=True)
    found = fit(tf.constant(image), form).numpy()
    # The shorter side becomes 256, the longer one is rounded down.
    high, wide = (side * 256 // min(shape) for side in shape)
    wanted = tf.image.resize(tf.cast(image, tf.float32), (high, wide), antialias=True)
    top, left = (high - 224) // 2, (wide - 224) // 2
    wanted = tf.round(wanted[top : top + 224, left : left + 224])
    np.testing.assert_array_equal(found, wanted)


def test_a_folder_of_large_images_trains_on_crops_and_is_tested_on_centers(tmp_path):
    dataset = load(make(tmp_path))
    info = dataset.info
    assert info.image_shape == (16, 16, 3)
    assert (info.train_size, info.validation_size, info.test_size) == (8, 0, 8)
    images = [batch["image"] for batch in dataset.test().as_numpy_iterator()]
    for found, size in zip(np.concatenate(images), enumerate(SIZES)):
        number, shape = size
        whole = tf.io.encode_jpeg(smooth(*shape, phase=number + 3))
        whole = tf.io.decode_jpeg(whole, dct_method="INTEGER_ACCURATE")
        np.testing.assert_array_equal(found, fit(whole, FORM))
    batches = list(dataset.train(0, 4, batch_keys=("index",)).as_numpy_iterator())
    by_index = [
        {index: image for batch in half for index, image in zip(batch["index"], batch["image"])}
        for half in (batches[:2], batches[2:])
    ]
    assert set(by_index[0]) == set(range(8))
    assert all((by_index[0][index] != by_index[1][index]).any() for index in range(8))


def test_a_crop_depends_on_seed_epoch_and_index_alone(tmp_path):
    make(tmp_path)
    batch_keys = ("index", "image_second", "image_rotations")
    whole = list(load(tmp_path).train(0, 5, batch_keys=batch_keys).as_numpy_iterator())
    later = list(load(tmp_path).train(3, 5, batch_keys=batch_keys).as_numpy_iterator())
    for left, right in zip(later, whole[3:], strict=True):
        for key in left:
            np.testing.assert_array_equal(left[key], right[key], err_msg=key)
    # Another batch size, another order, the same crops.
    smaller = list(
        load(tmp_path, batch_size=2).train(4, 8, batch_keys=("index",)).as_numpy_iterator()
    )
    crops = {i: image for b in smaller for i, image in zip(b["index"], b["image"])}
    for batch in whole[2:4]:
        for index, image in zip(batch["index"], batch["image"]):
            np.testing.assert_array_equal(image, crops[index])
    (other,) = load(tmp_path, seed=1).train(2, 3, batch_keys=("index",)).as_numpy_iterator()
    assert any(
        (crops[index] != image).any() for index, image in zip(other["index"], other["image"])
    )
    assert (whole[0]["image"] != whole[0]["image_second"]).any()
    context = tf.distribute.InputContext(1, 0, 2)
    parts = list(load(tmp_path).train(3, 4, input_context=context).as_numpy_iterator())
    np.testing.assert_array_equal(
        np.concatenate([part["image"] for part in parts]), whole[3]["image"]
    )
    # Rotations are turns of one crop.
    for row in range(4):
        for turn in range(4):
            views = whole[0]["image_rotations"]
            np.testing.assert_array_equal(views[4 * row + turn], np.rot90(views[4 * row], turn))


def test_the_default_crop_has_224_pixels(tmp_path):
    assert load(make(tmp_path), image_size=None).info.image_shape == (224, 224, 3)


def test_a_truncated_jpeg_is_named_when_it_is_read(tmp_path, capfd):
    dataset = load(make(tmp_path))
    bad = tmp_path / "train" / "n02" / "n02_1.JPEG"
    bad.write_bytes(bad.read_bytes()[:-40])
    with pytest.raises(tf.errors.InvalidArgumentError) as caught:
        list(dataset.train(0, 2))
    assert str(bad) in str(data.explain(caught.value))
    assert "JPEG" not in capfd.readouterr().err


def test_a_jpeg_with_trailing_bytes_is_read(tmp_path):
    make(tmp_path)
    odd = tmp_path / "train" / "n02" / "n02_1.JPEG"
    odd.write_bytes(odd.read_bytes() + b"and more")
    assert len(list(load(tmp_path).train(0, 2))) == 2


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda root: load(root, image_size=(16, 8)), ["(16, 8)", "one number", "squares"]),
        (lambda root: data.load("digits", augment="imagenet"), ["imagenet", "in memory"]),
        (lambda root: load(root, augment="imagenets"), ["did you mean 'imagenet'"]),
    ],
)
def test_wrong_crop_settings_are_named(tmp_path, call, words):
    make(tmp_path)
    with pytest.raises(tfkd.TfkdError) as caught:
        call(tmp_path)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message
