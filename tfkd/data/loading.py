"""From the name of a data set to its batches."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from tfkd.data import arrays, catalogue, folder
from tfkd.data.dataset import DataSet
from tfkd.data.parts import Parts
from tfkd.errors import TfkdError

IN_MEMORY_BYTES = 2**30


def load(
    name: str,
    *,
    batch_size: int = 64,
    seed: int = 0,
    validation: float | int | None = None,
    train_size: int | None = None,
    image_size: int | Sequence[int] | None = None,
    augment: str | None = None,
    directory: str | None = None,
    download: bool = False,
    skip_corrupt: bool = False,
    in_memory_bytes: int = IN_MEMORY_BYTES,
) -> DataSet:
    """Loads a data set by name.

    Args:
        name: `digits` (scikit-learn's, embedded: 1,077 training, 360 validation, 360 test images
            of 8 x 8 x 1); a tensorflow-datasets name of image classification (`cifar10`,
            `cifar100`, ...); or `folder:PATH` with PATH/split/class/*.jpg, *.jpeg or *.png, the
            splits being train, test and perhaps val or validation.
        batch_size: Rows of a global batch.
        seed: Seed of order and augmentation, 0 .. 2**31 - 1.
        validation: Training images to set apart, as a fraction in (0, 1) or a number; the same
            ones whatever the seed, and alike in every class (of record files that stream: the
            last ones). None: what the set itself brings (CIFAR: none). 0: none.
        train_size: Number of training images to keep of those that are left, alike in every class
            and the same ones whatever the seed; None keeps all.
        image_size: Height and width to resize to, one number or two; None keeps the size, which
            all images must then share.
        augment: "none", "crop_flip" (pad 4, crop, mirror), "crop", "flip" or "shift" (pad 1,
            crop). None: "shift" for digits, "crop" for sets of signs such as mnist, otherwise
            "crop_flip".
        directory: Where tensorflow-datasets keeps prepared sets; None for its own place.
        download: Allow the download of a tensorflow-datasets set that is not prepared.
        skip_corrupt: Leave out image files of a folder that cannot be decoded, with a warning
            that counts them. With a set that streams, this decodes every file once at the start.
        in_memory_bytes: A set larger than this when decoded streams from its files.

    Returns:
        The data set.

    Raises:
        TfkdError: Anything named above is wrong, or missing; the message says what is wanted.
    """
    size = _image_size(image_size)
    kind, _, path = str(name).partition(":")
    if kind == "folder":
        parts = _from_folder(
            path, folder.state(path), validation, size, skip_corrupt, in_memory_bytes
        )
        default = "crop_flip"
    elif name == "digits":
        parts = arrays.digit_parts(validation, size)
        default = "shift"
    else:
        parts = catalogue.load(
            str(name),
            validation=validation,
            image_size=size,
            directory=directory,
            download=download,
            in_memory_bytes=in_memory_bytes,
        )
        default = catalogue.default_augmentation(str(name))
    if train_size is not None:
        parts = parts.with_train_size(train_size)
    return parts.data_set(str(name), default if augment is None else augment, batch_size, seed)


@functools.lru_cache(maxsize=1)
def _from_folder(
    path: str,
    state: str,
    validation: float | int | None,
    image_size: tuple[int, int] | None,
    skip_corrupt: bool,
    in_memory_bytes: int,
) -> Parts:
    """Returns the parts of a folder; the last ones are kept, for the next run of a comparison.

    Args:
        path: The folder.
        state: What `folder.state` says of it, so that a changed folder is read again.
        validation, image_size, skip_corrupt, in_memory_bytes: As for `folder.load`.
    """
    del state
    return folder.load(
        path,
        validation=validation,
        image_size=image_size,
        skip_corrupt=skip_corrupt,
        in_memory_bytes=in_memory_bytes,
    )


def _image_size(image_size: int | Sequence[int] | None) -> tuple[int, int] | None:
    """Returns (height, width) or None; raises TfkdError for anything else."""
    if image_size is None:
        return None
    pair = image_size if isinstance(image_size, Sequence) else (image_size, image_size)
    if len(pair) != 2 or not all(isinstance(each, int) and each > 0 for each in pair):
        raise TfkdError(
            f"image_size: found {image_size!r}, wanted one number or (height, width), from 1 on"
        )
    return tuple(pair)
