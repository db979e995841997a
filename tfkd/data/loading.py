"""Loading of a data set by its name."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tfkd.data import arrays, augmentation, folder, presets, tfds_source, tiny_imagenet
from tfkd.data.class_choice import ClassChoice
from tfkd.data.data_dir import prepared_sets
from tfkd.data.dataset import DataSet
from tfkd.data.decoding import CENTER, WHOLE
from tfkd.data.file_digest import Scan, scan
from tfkd.data.holdout import Holdout
from tfkd.data.mixing import Mixing
from tfkd.data.splits import Splits
from tfkd.errors import TfkdError, TfkdWarning

IN_MEMORY_BYTES = 2**30
_MOST = 4096
"""Pixels of a side, beyond those of any published network."""

_CROP_SIZE = 224

_looked_at: dict[str, Scan | None] = {}


def load(
    name: str,
    *,
    batch_size: int = 64,
    seed: int = 0,
    validation_split: float | None = None,
    validation_size: int | None = None,
    train_size: int | None = None,
    classes: Sequence[str] | None = None,
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
        name: ``digits`` (scikit-learn's, embedded: 1,077 training, 360 validation, 360 test images
            of 8 x 8 x 1); a tensorflow-datasets name of image classification (``cifar10``,
            ``cifar100``, ``stl10``, ``imagenet2012``, ...); ``tiny_imagenet``, prepared by
            ``tools/prepare_data.py``; or ``folder:PATH`` with PATH/split/class/ and JPEG, PNG,
            WebP, BMP or GIF files in it, the splits being train, test and perhaps val or
            validation.
        batch_size: Rows of a global batch.
        seed: Seed of order and augmentation, 0 .. 2**31 - 1.
        validation_split: Fraction of the training images to set apart for validation, the same
            ones whatever the seed and alike in every class (of a set that streams from records, the
            first use on a machine reads all of them). 0 sets none apart. Where neither this nor
            ``validation_size`` is given, the set keeps its own validation split, if any (CIFAR:
            none).
        validation_size: Number of them; at most one of the two is given.
        train_size: Number of the remaining training images to keep, alike in every class and the
            same ones whatever the seed; None keeps all.
        classes: Names of the classes to keep, in any order; they are numbered from 0 in the order
            of the set, which is as if it held no others. Not for record files that stream.
        image_size: Height and width to resize to (bilinear, antialiased), one number or two; None
            keeps the size, which all images must then share. With the augmentation "imagenet",
            the side of the crops, 224 unless given.
        augment: "none", "crop_flip" (pad 4, crop, mirror), "crop", "flip", "shift" (pad 1, crop)
            or "imagenet": training on rectangles of 8 to 100 % of the area, resized and mirrored,
            evaluation on the center of the whole image; the images stream from files or records.
            "imagenet_fast": the same, but the rectangles are decoded by JPEG's fast transform and
            resized without antialiasing. None: "shift" for digits, "crop" for sets of signs such as
            mnist, "imagenet" for imagenet2012, otherwise "crop_flip".
        mixup: Alpha of mixup for the training batches, whose labels are then dense; 0 for none.
        cutmix: Alpha of cutmix likewise; with both, each step draws one of them.
        directory: Folder of the prepared sets; None for tensorflow-datasets' own.
        download: Allow the download of a tensorflow-datasets set that is not prepared.
        skip_corrupt: Leave out image files of a folder that cannot be decoded, with a warning
            that counts them; of other sets none is left out. A folder that streams then decodes
            every file once, at its first start.
        in_memory_bytes: A set larger than this when decoded streams from its files.

    Returns:
        The data set.

    Raises:
        TfkdError: An argument is wrong, or the set is missing.
    """
    name = str(name)
    kind, _, path = name.partition(":")
    augment = _usual_augment(name) if augment is None else augment
    center = augmentation.named(augment).resized
    size = _image_size(_CROP_SIZE if center and image_size is None else image_size)
    if center:
        # Random rectangles are cut from images of full size, which only the files hold.
        in_memory_bytes = 0
        if size[0] != size[1]:
            raise TfkdError(
                f"image_size: found {image_size!r}, wanted one number, because augment={augment!r} "
                f"cuts squares"
            )
    holdout, choice = Holdout(validation_split, validation_size), ClassChoice.of(classes)
    settings = (holdout, size, skip_corrupt, in_memory_bytes, center)
    found = None
    if kind == "folder":
        found = _look(path)
        splits = _from_folder(path, found and found.state, *settings, choice)
    elif name == tiny_imagenet.NAME:
        place = tiny_imagenet.find(directory)
        found = scan(place)
        choice = tiny_imagenet.numbered(choice, place)
        splits = _from_folder(str(place), found and found.state, *settings, choice)
        splits = tiny_imagenet.described(splits, place)
    elif name == "digits":
        _tell_of_skipping(name, skip_corrupt)
        splits = arrays.digits(holdout, size, choice)
    else:
        _tell_of_skipping(name, skip_corrupt)
        splits = tfds_source.load(
            name,
            holdout=holdout,
            image_size=size,
            directory=directory,
            download=download,
            in_memory_bytes=in_memory_bytes,
            center=center,
            classes=choice,
        )
    if train_size is not None:
        splits = splits.with_train_size(train_size)
    made = splits.data_set(name, augment, batch_size, seed, Mixing(mixup, cutmix))
    made.files = files(name, directory) if found is None else found.listing
    return made


def _tell_of_skipping(name: str, skip_corrupt: bool) -> None:
    if skip_corrupt:
        warnings.warn(
            f"skip_corrupt: no image of {name} is left out, which is no folder of images; one that "
            f"cannot be decoded stops the run",
            TfkdWarning,
            stacklevel=3,
        )


def crop_of(
    name: str, augment: str | None = None, image_size: int | Sequence[int] | None = None
) -> str | None:
    """Returns how ``load`` resizes the images that are evaluated, as ``DataInfo.crop``.

    Args:
        name: As ``load`` takes it.
        augment: Likewise.
        image_size: Likewise.
    """
    if augmentation.named(_usual_augment(name) if augment is None else augment).resized:
        return CENTER
    return None if image_size is None else WHOLE


def _usual_augment(name: str) -> str:
    return "crop_flip" if name.startswith("folder:") else presets.preset(name).augment


def files(name: str, directory: str | None = None) -> dict[str, Any] | None:
    """Returns what the files of a data set are by their relative names and sizes; reads none.

    Files beside the images count as well: where the answer is another one, the images may still be
    the same, which ``DataSet.identity`` knows.

    Args:
        name: As ``load`` takes it.
        directory: Likewise.

    Returns:
        See ``file_digest.Scan.listing``; None for digits, and for a set that is not there.
    """
    kind, _, path = str(name).partition(":")
    if name == "digits":
        return None
    if kind == "folder":
        found = _look(path)
    else:
        found = scan(prepared_sets(directory) / kind.partition("/")[0])
    return None if found is None else found.listing


def images_digest(name: str) -> str | None:
    """Returns what tells a folder of images from others, wherever it lies; reads no image.

    It is what was there when ``load`` or ``files`` last looked, or now if they did not.

    Args:
        name: As ``load`` takes it.

    Returns:
        A digest of the relative names and sizes of the images; None for a folder that is not
        there, and for a set that is none, whose name says what it is.
    """
    kind, _, path = str(name).partition(":")
    if kind != "folder":
        return None
    found = _looked_at[path] if path in _looked_at else _look(path)
    return None if found is None else found.images


def _look(path: str) -> Scan | None:
    """Looks at all files of a folder, and remembers what was found."""
    found = scan(Path(path).expanduser()) if path else None
    _looked_at[path] = found
    return found


@functools.lru_cache(maxsize=1)
def _from_folder(
    path: str,
    state: str | None,
    holdout: Holdout,
    image_size: tuple[int, int] | None,
    skip_corrupt: bool,
    in_memory_bytes: int,
    center: bool,
    choice: ClassChoice,
) -> Splits:
    """Returns the splits of a folder; the last ones are kept for the next run of a comparison.

    Args:
        path: The folder.
        state: Its ``Scan.state``: a changed folder is read again.
        holdout, image_size, skip_corrupt, in_memory_bytes, center, choice: As for ``folder.load``.
    """
    return folder.load(
        path,
        state=state,
        holdout=holdout,
        image_size=image_size,
        skip_corrupt=skip_corrupt,
        in_memory_bytes=in_memory_bytes,
        center=center,
        choice=choice,
    )


def _image_size(image_size: int | Sequence[int] | None) -> tuple[int, int] | None:
    """Returns (height, width) or None; raises TfkdError for anything else."""
    if image_size is None:
        return None
    pair = image_size if isinstance(image_size, Sequence) else (image_size, image_size)
    if len(pair) != 2 or not all(isinstance(each, int) and 0 < each <= _MOST for each in pair):
        raise TfkdError(
            f"image_size: found {image_size!r}, wanted one number or (height, width), from 1 to "
            f"{_MOST:,}"
        )
    return tuple(pair)
