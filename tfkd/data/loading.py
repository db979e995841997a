"""From the name of a data set to its batches."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from tfkd.data import arrays, augmentation, folder, presets, tfds_source, tiny_imagenet
from tfkd.data.dataset import DataSet
from tfkd.data.mixing import Mixing
from tfkd.data.splits import Splits
from tfkd.errors import TfkdError

IN_MEMORY_BYTES = 2**30

_CROP_SIZE = 224


def load(
    name: str,
    *,
    batch_size: int = 64,
    seed: int = 0,
    validation: float | int | None = None,
    train_size: int | None = None,
    image_size: int | Sequence[int] | None = None,
    augment: str | None = None,
    mixup: float = 0.0,
    cutmix: float = 0.0,
    directory: str | None = None,
    download: bool = False,
    skip_corrupt: bool = False,
    in_memory_bytes: int = IN_MEMORY_BYTES,
) -> DataSet:
    """Loads a data set by name.

    Args:
        name: `digits` (scikit-learn's, embedded: 1,077 training, 360 validation, 360 test images
            of 8 x 8 x 1); a tensorflow-datasets name of image classification (`cifar10`,
            `cifar100`, `stl10`, `imagenet2012`, ...); `tiny_imagenet`, as `tools/prepare_data.py`
            prepares it; or `folder:PATH` with PATH/split/class/*.jpg, *.jpeg or *.png, the splits
            being train, test and perhaps val or validation.
        batch_size: Rows of a global batch.
        seed: Seed of order and augmentation, 0 .. 2**31 - 1.
        validation: Training images to set apart, as a fraction in (0, 1) or a number; the same
            ones whatever the seed, and alike in every class (of record files that stream: the
            last ones). None: what the set itself brings (CIFAR: none). 0: none.
        train_size: Number of training images to keep of those that are left, alike in every class
            and the same ones whatever the seed; None keeps all.
        image_size: Height and width to resize to (bilinear, antialiased), one number or two; None
            keeps the size, which all images must then share. With the augmentation "imagenet",
            the side of the crops, 224 unless given.
        augment: "none", "crop_flip" (pad 4, crop, mirror), "crop", "flip", "shift" (pad 1, crop)
            or "imagenet": rectangles of 8 to 100 % of the area, resized and mirrored, to train
            on, the middle of the whole image to evaluate on; it streams from files or records.
            None: "shift" for digits, "crop" for sets of signs such as mnist, "imagenet" for
            imagenet2012, otherwise "crop_flip".
        mixup: Alpha of mixup for the training batches, whose labels are then dense; 0 for none.
        cutmix: Alpha of cutmix likewise; with both, each step draws one of them.
        directory: Where prepared sets are kept; None for tensorflow-datasets' own place.
        download: Allow the download of a tensorflow-datasets set that is not prepared.
        skip_corrupt: Leave out image files of a folder that cannot be decoded, with a warning
            that counts them. With a set that streams, this decodes every file once at the start.
        in_memory_bytes: A set larger than this when decoded streams from its files.

    Returns:
        The data set.

    Raises:
        TfkdError: Anything named above is wrong, or missing; the message says what is wanted.
    """
    name = str(name)
    kind, _, path = name.partition(":")
    if augment is None:
        augment = "crop_flip" if kind == "folder" else presets.preset(name).augment
    centre = augmentation.named(augment).resized
    size = _image_size(_CROP_SIZE if centre and image_size is None else image_size)
    if centre:
        # Random rectangles are cut from images of full size, which only their files hold.
        in_memory_bytes = 0
        if size[0] != size[1]:
            raise TfkdError(
                f"image_size: found {image_size!r}, wanted one number, because augment={augment!r} "
                f"cuts squares"
            )
    in_folder = (validation, size, skip_corrupt, in_memory_bytes, centre)
    if kind == "folder":
        parts = _from_folder(path, folder.state(path), *in_folder)
    elif name == tiny_imagenet.NAME:
        place = tiny_imagenet.find(directory)
        parts = _from_folder(str(place), folder.state(str(place)), *in_folder)
        parts = tiny_imagenet.described(parts, place)
    elif name == "digits":
        parts = arrays.digit_parts(validation, size)
    else:
        parts = tfds_source.load(
            name,
            validation=validation,
            image_size=size,
            directory=directory,
            download=download,
            in_memory_bytes=in_memory_bytes,
            centre=centre,
        )
    if train_size is not None:
        parts = parts.with_train_size(train_size)
    return parts.data_set(name, augment, batch_size, seed, Mixing(mixup, cutmix))


@functools.lru_cache(maxsize=1)
def _from_folder(
    path: str,
    state: str,
    validation: float | int | None,
    image_size: tuple[int, int] | None,
    skip_corrupt: bool,
    in_memory_bytes: int,
    centre: bool,
) -> Splits:
    """Returns the parts of a folder; the last ones are kept, for the next run of a comparison.

    Args:
        path: The folder.
        state: What `folder.state` says of it, so that a changed folder is read again.
        validation, image_size, skip_corrupt, in_memory_bytes, centre: As for `folder.load`.
    """
    del state
    return folder.load(
        path,
        validation=validation,
        image_size=image_size,
        skip_corrupt=skip_corrupt,
        in_memory_bytes=in_memory_bytes,
        centre=centre,
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
