"""The speed of random crops from files and records, beside the plain pipelines of their quality."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import tensorflow as tf

from tfkd.data.loading import load
from tfkd.data.resizedcrop import ASPECTS, ATTEMPTS, SMALLEST_AREA

_CLASSES = ("a", "b")
_RECORDS = "measured_pictures"


def write(folder: Path, images: int, shape: tuple[int, int] = (375, 500)) -> None:
    """Writes pictures as JPEG files in a folder of images, and the same ones as records.

    They are of noise and rectangles, in quality 85: 50 kB each at the usual size.

    Args:
        folder: An empty folder.
        images: Number of training images, 2 or more.
        shape: Their height and width.
    """
    paths: dict[str, list[tuple[str, str]]] = {"train": [], "test": []}
    for part, count in (("train", images), ("test", len(_CLASSES))):
        for number in range(count):
            name = _CLASSES[number % len(_CLASSES)]
            path = folder / "images" / part / name / f"{number}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            encoded = tf.io.encode_jpeg(_picture(number, shape), quality=85)
            path.write_bytes(encoded.numpy())
            paths[part].append((str(path), name))
    _write_records(folder / "records", paths)


def _picture(number: int, shape: tuple[int, int]) -> np.ndarray:
    random = np.random.default_rng(number)
    coarse = random.integers(0, 256, (8, 10, 3)).astype(np.float32)
    picture = tf.image.resize(coarse, shape, method="bicubic").numpy()
    for _ in range(12):
        top, left = (int(random.integers(0, side)) for side in shape)
        height, width = (int(random.integers(1, 1 + side // 3)) for side in shape)
        picture[top : top + height, left : left + width] = random.integers(0, 256, 3)
    return np.uint8(np.clip(picture + random.normal(0, 10, picture.shape), 0, 255))


def _write_records(directory: Path, paths: dict[str, list[tuple[str, str]]]) -> None:
    import tensorflow_datasets as tfds  # slow to import, wanted here only

    class MeasuredPictures(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        """Files as they are, with the names of their classes."""

        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            features = {
                "image": tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg"),
                "label": tfds.features.ClassLabel(names=list(_CLASSES)),
            }
            return tfds.core.DatasetInfo(
                builder=self,
                features=tfds.features.FeaturesDict(features),
                supervised_keys=("image", "label"),
            )

        def _split_generators(self, dl_manager):
            return {part: self._generate_examples(found) for part, found in paths.items()}

        def _generate_examples(self, found):
            for path, name in found:
                yield path, {"image": path, "label": name}

    builder = MeasuredPictures(data_dir=str(directory))
    config = tfds.download.DownloadConfig(num_shards=len(_CLASSES), try_download_gcs=False)
    with contextlib.redirect_stdout(None):  # It speaks of a download.
        builder.download_and_prepare(download_config=config)


def plain(folder: Path, batch_size: int, size: int, fast: bool) -> tf.data.Dataset:
    """Returns a pipeline as it is usually written, image by image in ``map``: endless, uint8.

    Args:
        folder: What ``write`` wrote.
        batch_size: Rows of a batch.
        size: Height and width of the crops.
        fast: Whether JPEG is decoded by the fast transform, and resized without antialiasing.
    """
    paths = sorted(map(str, (folder / "images" / "train").glob("*/*.jpg")))

    def one(path: tf.Tensor) -> tf.Tensor:
        contents = tf.io.read_file(path)
        begin, extent, _ = tf.image.sample_distorted_bounding_box(
            tf.image.extract_jpeg_shape(contents),
            tf.zeros([0, 0, 4]),
            area_range=(SMALLEST_AREA, 1.0),
            aspect_ratio_range=ASPECTS,
            max_attempts=ATTEMPTS,
            use_image_if_no_bounding_boxes=True,
        )
        image = tf.image.decode_and_crop_jpeg(
            contents,
            tf.concat([begin[:2], extent[:2]], 0),
            channels=3,
            dct_method="INTEGER_FAST" if fast else "INTEGER_ACCURATE",
        )
        image = tf.image.resize(image, (size, size), antialias=not fast)
        return tf.cast(tf.image.random_flip_left_right(image), tf.uint8)

    files = tf.data.Dataset.from_tensor_slices(paths).shuffle(len(paths)).repeat()
    crops = files.map(one, num_parallel_calls=tf.data.AUTOTUNE)
    return crops.batch(batch_size, drop_remainder=True).prefetch(tf.data.AUTOTUNE)


def pipelines(folder: Path, batch_size: int = 64, size: int = 224) -> dict[str, tf.data.Dataset]:
    """Returns endless pipelines over the pictures that ``write`` wrote; all of them yield uint8.

    Args:
        folder: The folder.
        batch_size: Rows of a batch.
        size: Height and width of the crops.

    Returns:
        ``plain`` and ``plain_fast``, see there; ``folder`` and ``records``, the training batches of
        this package with the augmentation "imagenet", and ``folder_fast`` and ``records_fast``,
        with "imagenet_fast".
    """
    found = {}
    for suffix, fast in (("", False), ("_fast", True)):
        settings = {"batch_size": batch_size, "augment": f"imagenet{suffix}", "image_size": size}
        found[f"plain{suffix}"] = plain(folder, batch_size, size, fast)
        found[f"folder{suffix}"] = load(f"folder:{folder / 'images'}", **settings).train()
        records = load(_RECORDS, directory=str(folder / "records"), **settings)
        found[f"records{suffix}"] = records.train()
    return found
