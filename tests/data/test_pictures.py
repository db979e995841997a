"""What a picture is: kinds of files, orientation, depth, channels, and what is left out.

The pixels wanted are Pillow's.
"""

import io
import os
import struct
import warnings

import numpy as np
import pytest
from PIL import Image, ImageOps

import tfkd
from tests.data.batches import images_and_labels
from tfkd import data
from tfkd.data import headers, survey
from tfkd.data.decoding import Form, decodable, read_all

MEMORY_AND_STREAM = pytest.mark.parametrize("in_memory_bytes", [data.IN_MEMORY_BYTES, 0])
ORIENTATION = 274


def pixels(seed=0, shape=(10, 8, 3)):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def encoded(image, kind, **settings):
    """Returns the contents of a file."""
    written = io.BytesIO()
    image.save(written, kind, **settings)
    return written.getvalue()


def exif(orientation):
    facts = Image.Exif()
    facts[ORIENTATION] = orientation
    return facts


def picture(seed=0, mode="RGB"):
    return Image.fromarray(pixels(seed)).convert(mode)


def transparent():
    return Image.fromarray(np.dstack([pixels(), pixels(1)[..., 0]]))


def make(root, contents=None, count=2):
    """Writes a folder of two classes with PNG files, and the given test images of the first one."""
    for part in ("train", "test"):
        for number, name in enumerate(("ant", "bee")):
            (root / part / name).mkdir(parents=True)
            for each in range(count):
                path = root / part / name / f"{each}.png"
                path.write_bytes(encoded(picture(10 * number + each), "PNG"))
    for name, content in (contents or {}).items():
        (root / "test" / "ant" / name).write_bytes(content)
    return root


def load(root, **settings):
    return data.load(f"folder:{root}", **({"batch_size": 2} | settings))


def opened(root, **settings):
    """Returns the test images and the lines that tfkd said."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        images, _ = images_and_labels(load(root, **settings).test())
    said = [str(each.message) for each in caught if each.category is tfkd.TfkdWarning]
    assert not any("\n" in line for line in said)
    return images, said


def failure(root, **settings):
    with pytest.raises(tfkd.TfkdError) as caught:
        load(root, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def palette(kind, **settings):
    return encoded(picture().quantize(), kind, **settings)


ANIMATED_WEBP = encoded(picture(), "WEBP", lossless=True, save_all=True, append_images=[picture(1)])
FILES = {
    "a WebP": encoded(picture(), "WEBP"),
    "a WebP without loss": encoded(picture(), "WEBP", lossless=True),
    "a transparent WebP with loss": encoded(transparent(), "WEBP", exact=True),
    "a transparent WebP": encoded(transparent(), "WEBP", lossless=True, exact=True),
    "a GIF": palette("GIF"),
    "an animated GIF": palette("GIF", save_all=True, append_images=[picture(1).quantize()]),
    "a BMP": encoded(picture(), "BMP"),
    "a BMP with a palette": palette("BMP"),
    "a gray BMP": encoded(picture(mode="L"), "BMP"),
    "a BMP of 32 bits": encoded(transparent(), "BMP"),
    "a PNG with a palette": palette("PNG"),
    "a transparent PNG": encoded(transparent(), "PNG"),
    "a gray and transparent PNG": encoded(transparent().convert("LA"), "PNG"),
    "an animated PNG": encoded(picture(), "PNG", save_all=True, append_images=[picture(1)]),
}


def test_every_kind_is_read_by_its_content(tmp_path):
    """All of them are named .jpg."""
    paths = []
    for name, contents in FILES.items():
        paths.append(str(tmp_path / f"{name}.jpg"))
        open(paths[-1], "wb").write(contents)
        found = headers.read(paths[-1])
        assert (found.height, found.width, found.orientation) == (10, 8, 1), name
    images, read = read_all(paths, Form(10, 8, 3, resize=False))
    assert read.all() and decodable(paths).all()
    for image, (name, contents) in zip(images, FILES.items(), strict=True):
        wanted = Image.open(io.BytesIO(contents)).convert("RGB")
        np.testing.assert_array_equal(image, wanted, err_msg=name)


@MEMORY_AND_STREAM
def test_a_webp_named_jpg_is_an_image_like_the_others(tmp_path, in_memory_bytes):
    contents = encoded(picture(5), "WEBP", lossless=True)
    make(tmp_path, {"9.jpg": contents, "8.webp": contents})
    images, said = opened(tmp_path, in_memory_bytes=in_memory_bytes)
    for image in images[2:4]:
        np.testing.assert_array_equal(image, pixels(5))
    assert not said


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_every_orientation_is_read_and_obeyed(tmp_path, kind):
    settings = {"lossless": True} if kind == "WEBP" else {}
    files, orientations = [], np.arange(1, 9)
    for orientation in orientations:
        contents = encoded(picture(), kind, exif=exif(orientation), **settings)
        found = headers.parse(io.BytesIO(contents))
        upright = ImageOps.exif_transpose(Image.open(io.BytesIO(contents)))
        assert (found.orientation, found.width, found.height) == (orientation, *upright.size)
        files.append((str(tmp_path / f"{orientation}"), np.array(upright), contents))
        open(files[-1][0], "wb").write(contents)
    for places, form in ((slice(0, 4), (10, 8)), (slice(4, 8), (8, 10))):
        paths = [path for path, _, _ in files[places]]
        form = Form(*form, 3, resize=False)
        images, read = read_all(paths, form, orientations[places])
        assert read.all()
        for image, (_, wanted, _) in zip(images, files[places], strict=True):
            # Of JPEG, Pillow's decoder may round another way.
            assert np.abs(image - wanted.astype(int)).max() <= (2 if kind == "JPEG" else 0)


@MEMORY_AND_STREAM
def test_a_photo_stored_on_its_side_equals_the_upright_one(tmp_path, in_memory_bytes):
    side = Image.fromarray(np.rot90(pixels(3)))  # to the left: turned to the right it is upright
    make(tmp_path, {"7.png": encoded(side, "PNG", exif=exif(6))})
    images, (said,) = opened(tmp_path, in_memory_bytes=in_memory_bytes)
    np.testing.assert_array_equal(images[2], pixels(3))
    np.testing.assert_array_equal(images[0], pixels(0))
    for words in ("of 9 images, 1 are turned upright", "EXIF", str(tmp_path / "test/ant/7.png")):
        assert words in said


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_random_crops_lie_in_the_upright_image(tmp_path, kind):
    """A folder of photos in all orientations gives the crops of the upright photos."""
    rows, columns = np.mgrid[:40, :60] / np.array([40, 60])[:, None, None]
    smooth = np.stack([np.sin(3 * rows), np.cos(4 * columns), np.sin(2 * rows + columns)], -1)
    image = Image.fromarray(np.uint8(127.5 + 100 * smooth))
    turns = [None, *(each.value for each in Image.Transpose)]
    batches = []
    for place, stored in ((tmp_path / "a", False), (tmp_path / "b", True)):
        for part in ("train", "test"):
            for name in ("x", "y"):
                (place / part / name).mkdir(parents=True)
                for orientation in range(1, 9):
                    facts, file = {}, image
                    if stored:
                        # The turn that the orientation undoes.
                        file = next(
                            turned
                            for turn in turns
                            for turned in [image if turn is None else image.transpose(turn)]
                            if upright_as(turned, orientation) == image
                        )
                        facts = {"exif": exif(orientation)}
                    path = place / part / name / f"{orientation}.jpg"
                    settings = {"quality": 100, "subsampling": 0} if kind == "JPEG" else {}
                    path.write_bytes(encoded(file, kind, **facts, **settings))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", tfkd.TfkdWarning)
            dataset = load(place, augment="imagenet", image_size=16, batch_size=8)
        batches.append([batch["image"].numpy().astype(int) for batch in dataset.train(0, 2)])
    difference = np.abs(np.subtract(*batches))
    assert difference.max() <= (0 if kind == "PNG" else 6) and difference.mean() < 1


def upright_as(image, orientation):
    image = image.copy()
    image.getexif()[ORIENTATION] = orientation
    return ImageOps.exif_transpose(image)


@MEMORY_AND_STREAM
def test_16_bits_are_cut_to_the_upper_8_and_that_is_said(tmp_path, in_memory_bytes):
    deep = np.random.default_rng(0).integers(0, 2**16, (10, 8), np.uint16)
    make(tmp_path, {"9.png": encoded(Image.fromarray(deep), "PNG")})
    images, (said,) = opened(tmp_path, in_memory_bytes=in_memory_bytes)
    np.testing.assert_array_equal(images[2], np.repeat(deep[..., None] >> 8, 3, axis=2))
    assert "1 are of 16 bits a channel, of which the upper 8 are kept" in said
    assert "1 are gray, beside colored ones" in said


@MEMORY_AND_STREAM
def test_channels_are_those_of_the_whole_set_and_conversions_are_counted(tmp_path, in_memory_bytes):
    """One colored image, wherever it lies, makes the set a colored one."""
    make(tmp_path, count=0)
    for part in ("train", "test"):
        for name in ("ant", "bee"):
            for number in range(20):
                path = tmp_path / part / name / f"{number}.png"
                path.write_bytes(encoded(picture(number, "L"), "PNG"))
    images, said = opened(tmp_path, in_memory_bytes=in_memory_bytes)
    assert images.shape[1:] == (10, 8, 1) and not said
    (tmp_path / "test" / "bee" / "7.png").write_bytes(encoded(transparent(), "PNG"))
    images, (said,) = opened(tmp_path, in_memory_bytes=in_memory_bytes)
    np.testing.assert_array_equal(images[1], picture(1, "L").convert("RGB"))
    assert "of 80 images, 79 are gray" in said and "1 are transparent in part" in said
    assert str(tmp_path / "test/bee/7.png") in said


def test_other_traits_are_counted(tmp_path):
    make(
        tmp_path,
        {
            "5.jpg": encoded(picture(mode="CMYK"), "JPEG"),
            "6.png": palette("PNG"),
            "7.gif": FILES["an animated GIF"],
        },
    )
    _, (said,) = opened(tmp_path)
    for words in ("1 are in CMYK", "1 are stored with a table of colors", "1 are animated"):
        assert words in said


@MEMORY_AND_STREAM
def test_an_image_of_another_size_is_found_before_training(tmp_path, in_memory_bytes):
    make(tmp_path)
    odd = tmp_path / "train" / "ant" / "0.png"  # the first image of the set
    odd.write_bytes(encoded(Image.fromarray(pixels(0, (10, 9, 3))), "PNG"))
    message = failure(tmp_path, in_memory_bytes=in_memory_bytes)
    assert message.startswith(str(odd)) and "10 x 9" in message
    assert "10 x 8 as 7 of 8 images" in message and "image_size" in message


def test_an_orientation_in_a_long_number_is_obeyed():
    block = struct.pack("<4sIHHHIII", b"II*\0", 8, 1, ORIENTATION, 4, 1, 6, 0)
    contents = encoded(picture(), "PNG", exif=block)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(contents)))
    found = headers.parse(io.BytesIO(contents))
    assert (found.orientation, found.width, found.height) == (6, *upright.size) == (6, 10, 8)


def test_what_is_no_image_of_the_set_is_counted_and_said(tmp_path):
    make(tmp_path, {"a.tif": b"II*\0", "b.tif": b"II*\0", "readme": b"", ".x.png": b""})
    (tmp_path / "train" / "notes.txt").write_text("")
    (tmp_path / "train" / "bee" / "more").mkdir()
    (tmp_path / "unlabeled").mkdir()
    (tmp_path / "one.png").write_bytes(b"")
    (tmp_path / "README").write_bytes(b"")
    (tmp_path / "train" / ".old").mkdir()
    for name in ("a.png", "b.png", "c.txt"):
        (tmp_path / "train" / ".old" / name).write_bytes(b"")
    images, (said,) = opened(tmp_path)
    assert len(images) == 4
    for words in (
        f"2 named *.tif (the first {tmp_path / 'test/ant/a.tif'})",
        "1 without an ending",
        "1 hidden",
        "2 outside of the class folders",
        f"2 in hidden folders (the first {tmp_path / 'train/.old/a.png'})",
        "1 folders inside a class",
        "1 folders that are no split",
    ):
        assert words in said, words


def test_a_class_of_other_endings_only_says_which(tmp_path):
    make(tmp_path, count=0)
    (tmp_path / "train" / "ant" / "a.tif").write_bytes(b"II*\0")
    message = failure(tmp_path)
    assert "found no images but 1 named *.tif" in message and "*.webp" in message


@pytest.mark.parametrize("skip_corrupt", [False, True])
@pytest.mark.parametrize(
    "place, found",
    [
        ("train/bee/9.png", "a named pipe"),
        ("train/bee/9.png", "a broken link"),
        ("train/bee/9.png", "a device"),
        ("train/cat", "a broken link"),
        ("train/bee/9.png", "a link to itself"),
        ("train/cat", "a link to itself"),
        ("loop", "a link to itself"),
    ],
)
def test_what_is_no_file_is_refused_by_name(tmp_path, place, found, skip_corrupt):
    path = make(tmp_path) / place
    if "pipe" in found:
        os.mkfifo(path)
    elif "itself" in found:
        path.symlink_to(path.name)
        found = "a broken link"
    else:
        path.symlink_to("/dev/null" if "device" in found else "nowhere")
    assert f"{path}: found {found}, wanted" in failure(tmp_path, skip_corrupt=skip_corrupt)


def test_links_to_files_and_folders_are_followed(tmp_path):
    root = make(tmp_path / "set")
    (root / "test" / "bee").rename(tmp_path / "bee")
    (root / "test" / "bee").symlink_to(tmp_path / "bee")
    (root / "test" / "ant" / "9.png").symlink_to(tmp_path / "bee" / "1.png")
    images, said = opened(root)
    np.testing.assert_array_equal(images[2], pixels(11))
    assert len(images) == 5 and not said
    # A change behind a link is a change of the folder.
    (tmp_path / "bee" / "1.png").write_bytes(encoded(picture(99), "PNG"))
    images, _ = opened(root)
    np.testing.assert_array_equal(images[2], pixels(99))


@pytest.mark.parametrize(
    "contents, found",
    [
        (b"II*\0" + bytes(99), "a TIFF image"),
        (b"\0\0\0\x18ftypheic" + bytes(99), "a HEIC or AVIF image"),
        (b"hello", "something else"),
        (b"", "an empty file"),
        (FILES["a BMP"][:20], "ends within its header"),
        (encoded(picture(mode="1"), "BMP"), "a BMP of a rare form"),
        (ANIMATED_WEBP, "an animated WebP image"),
        (FILES["a WebP"][:60], "a damaged image"),
        (FILES["a PNG with a palette"][:90], "a damaged image"),
    ],
)
def test_what_is_no_image_is_named(tmp_path, contents, found):
    make(tmp_path, {"9.jpg": contents})
    message = failure(tmp_path)
    assert f"{tmp_path / 'test/ant/9.jpg'}: cannot be decoded" in message and found in message


def test_the_transparent_parts_of_a_gif_are_black(tmp_path):
    make(tmp_path, {"9.gif": palette("GIF", transparency=3)})
    images, (said,) = opened(tmp_path)
    beneath = np.array(Image.open(tmp_path / "test/ant/9.gif").convert("RGB"))
    clear = np.array(picture().quantize()) == 3
    assert clear.any()
    np.testing.assert_array_equal(images[2], np.where(clear[..., None], 0, beneath))
    assert "1 are transparent in part" in said


def test_no_animated_webp_reaches_the_decoder(tmp_path):
    """It would corrupt the memory of the process; also where a file changes after the look."""
    path = tmp_path / "0.webp"
    path.write_bytes(ANIMATED_WEBP)
    assert not decodable([str(path)] * 20).any()
    assert not read_all([str(path)], Form(10, 8, 3, resize=False))[1].any()


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_damage_is_found_under_the_augmentation_imagenet(tmp_path, suffix):
    """Whatever its kind and wherever it lies, a damaged file is skipped on request."""
    noise = Image.fromarray(pixels(0, (64, 64, 3)))
    whole = encoded(noise, "JPEG" if suffix == "jpg" else "PNG")
    make(tmp_path)
    for name, contents in ((f"8.{suffix}", whole[: len(whole) // 2]), ("9.jpg", b"hello")):
        (tmp_path / "train" / "bee" / name).write_bytes(contents)
    settings = {"augment": "imagenet", "image_size": 8}
    with pytest.warns(tfkd.TfkdWarning, match="skipped 2 of 6 images") as caught:
        dataset = load(tmp_path, skip_corrupt=True, **settings)
    assert str(tmp_path / "train/bee" / f"8.{suffix}") in str(caught[0].message)
    assert dataset.info.train_size == 4 and len(list(dataset.train(0, 2))) == 2
    assert "9.jpg: cannot be decoded" in failure(tmp_path, **settings)
    # Training does not read the test images, and would end before it met this one.
    (tmp_path / "train" / "bee" / "9.jpg").unlink()
    (tmp_path / "train" / "bee" / f"8.{suffix}").rename(tmp_path / "test" / "bee" / f"8.{suffix}")
    assert f"test/bee/8.{suffix}: cannot be decoded" in failure(tmp_path, **settings)


def test_the_findings_are_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("TFKD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(survey, "_KEPT_FROM", 1)
    read = []
    whole = headers.read
    monkeypatch.setattr(headers, "read", lambda path: read.append(path) or whole(path))
    root = make(tmp_path / "set")
    paths = [str(path) for path in sorted(root.glob("*/*/*"))]
    first = survey.Survey(root, "a state", paths)
    assert read == paths
    first.facts["decoded"][3] = survey.DAMAGED
    first.keep()
    again = survey.Survey(root, "a state", paths)
    assert len(read) == len(paths) and again.facts["decoded"][3] == survey.DAMAGED
    np.testing.assert_array_equal(again.facts, first.facts)
    # A changed folder is looked through again, and so is one whose findings are damaged.
    assert not survey.Survey(root, "another state", paths).facts["decoded"].any()
    (kept,) = (tmp_path / "cache" / "folders").iterdir()
    kept.write_bytes(kept.read_bytes()[:50])
    survey.Survey(root, "another state", paths)
    assert len(read) == 3 * len(paths)
    # Where nothing can be kept, it is looked through every time.
    monkeypatch.setenv("TFKD_CACHE", "/dev/null/nowhere")
    assert survey.Survey(root, "another state", paths).facts["kind"].all()


def test_a_header_that_is_cut_anywhere_is_no_failure():
    for contents in FILES.values():
        for stop in range(60):
            try:
                headers.parse(io.BytesIO(contents[:stop]))
            except headers.Unreadable:
                pass
