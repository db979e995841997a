"""Images in folders: PATH/split/class/*.jpg, .jpeg or .png."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import warnings
from pathlib import Path

import numpy as np
import tensorflow as tf

from tfkd.data import decoding, resizedcrop
from tfkd.data.decoding import Form
from tfkd.data.file_digest import file_digest, stable_digest
from tfkd.data.holdout import Holdout, held_out
from tfkd.data.source import (
    NAMES_AND_SIZES,
    ExampleRefs,
    ImageSource,
    IndexedSource,
    MemoryImages,
)
from tfkd.data.splits import Splits
from tfkd.data.statistics import Statistics, mean_and_std
from tfkd.errors import TfkdError, TfkdWarning

_SUFFIXES = (".jpg", ".jpeg", ".png")
_COLOR_SAMPLE = 256
_STATISTICS_SAMPLE = 4096


class FileImages(IndexedSource):
    """Image files, decoded whenever a batch needs them."""

    def __init__(self, paths: np.ndarray, labels: np.ndarray, form: Form):
        """Keeps the paths, strings (N,), and the integer labels (N,)."""
        super().__init__(labels, form.shape)
        self._form = form
        with tf.device("CPU:0"):
            self._paths = tf.constant(paths.tolist())

    def at(self, positions: np.ndarray) -> ImageSource:
        paths = np.asarray([path.decode() for path in self._paths.numpy()[positions]])
        return FileImages(paths, self._labels.numpy()[positions], self._form)

    def digest(self) -> str:
        digest = hashlib.sha256(repr(self._form).encode())
        digest.update(self._labels.numpy())
        digest.update(file_digest(path.decode() for path in self._paths.numpy()).encode())
        return digest.hexdigest()

    def identity(self) -> tuple[str, str]:
        paths = (path.decode() for path in self._paths.numpy())
        digest = hashlib.sha256(repr(self._form).encode())
        digest.update(self._labels.numpy())
        digest.update(stable_digest(paths, parts=2).encode())
        return digest.hexdigest(), NAMES_AND_SIZES

    def pixels(self, refs: ExampleRefs) -> tf.Tensor:
        return decoding.read_batch(tf.gather(self._paths, refs["index"]), self._form)

    def resized_crops(self, refs: ExampleRefs, draws: tf.Tensor) -> tf.Tensor:
        paths = tf.gather(self._paths, refs["index"])
        return decoding.read_batch(paths, self._form, draws, resizedcrop.decode)


@dataclasses.dataclass(frozen=True)
class _Split:
    """The files of one split, by class and then by name, and their images if kept in memory."""

    paths: np.ndarray
    labels: np.ndarray
    images: np.ndarray | None = None

    def take(self, places: np.ndarray) -> _Split:
        images = None if self.images is None else self.images[places]
        return _Split(self.paths[places], self.labels[places], images)

    def source(self, form: Form) -> ImageSource:
        if self.images is None:
            return FileImages(self.paths, self.labels, form)
        return MemoryImages(self.images, self.labels)


def load(
    path: str,
    *,
    holdout: Holdout,
    image_size: tuple[int, int] | None,
    skip_corrupt: bool,
    in_memory_bytes: int,
    center: bool = False,
) -> Splits:
    """Opens a folder of images.

    The splits are ``train``, ``test`` and ``val`` or ``validation``. A folder with a validation
    split but no test split (ImageNet's layout) is tested on the former and has no validation part.
    A set of gray images has one channel, any other three.

    Args:
        path: The folder.
        holdout: How many training images to set apart for validation; if not given, the folder
            keeps its own validation split, if any.
        image_size: (height, width) to resize to; None if all images have one size.
        skip_corrupt: Leave out files that cannot be decoded, with a warning, instead of refusing.
        in_memory_bytes: Sets that are larger when decoded stream from their files; their mean and
            deviation are then measured on 4,096 images.
        center: Crop the center to ``image_size`` (see ``decoding.Form``).

    Raises:
        TfkdError: A split, a class or an image is missing or cannot be used; the message names it.
    """
    root = Path(path).expanduser()
    if not path or not root.is_dir():
        raise TfkdError(f"folder:{path}: no such folder; wanted split/class/*.jpg or *.png in it")
    names = _split_names(root)
    if holdout and "validation" in names:
        raise TfkdError(
            f"folder:{path}: found a split {names['validation']!r} and {holdout}; wanted only one "
            f"of them"
        )
    if holdout.given:
        names.pop("validation", None)
    classes = _class_names(root / names["train"])
    found = {part: _listed(root / name, classes) for part, name in names.items()}

    form = _form(found["train"].paths, image_size, center)
    streams = sum(len(each.paths) for each in found.values()) * form.bytes > in_memory_bytes
    if _is_gray(found, streams):
        form = dataclasses.replace(form, channels=1)
    found = {
        part: _opened(each, root / names[part], classes, form, streams, skip_corrupt)
        for part, each in found.items()
    }
    if holdout:
        count = holdout.count(len(found["train"].paths))
        names = ["/".join(Path(each).parts[-2:]) for each in found["train"].paths]
        kept, apart = held_out(found["train"].labels, count, names)
        found["validation"] = found["train"].take(apart)
        found["train"] = found["train"].take(kept)

    mean, std = _statistics(found["train"], form)
    sources = {part: each.source(form) for part, each in found.items()}
    validation = sources.get("validation")
    return Splits(sources["train"], sources["test"], validation, mean, std, tuple(classes))


def _split_names(root: Path) -> dict[str, str]:
    """Returns the folder name of each split there is: train, test and perhaps validation."""
    held = [name for name in ("validation", "val") if (root / name).is_dir()]
    if len(held) == 2:
        raise TfkdError(f"folder:{root}: found both 'val' and 'validation', wanted one of them")
    names = {name: name for name in ("train", "test") if (root / name).is_dir()}
    if held:
        names["validation" if "test" in names else "test"] = held[0]
    for part in ("train", "test"):
        if part not in names:
            present = sorted(each.name for each in root.iterdir() if each.is_dir())
            raise TfkdError(
                f"folder:{root}: has no split {part!r}; found {', '.join(present) or 'nothing'}, "
                f"wanted train and test (and val or validation)"
            )
    return names


def _class_names(folder: Path) -> list[str]:
    names = sorted(each.name for each in folder.iterdir() if each.is_dir() and each.name[0] != ".")
    if not names:
        raise TfkdError(f"{folder}: found no class folders, wanted {folder}/CLASS/*.jpg or *.png")
    return names


def _listed(folder: Path, classes: list[str]) -> _Split:
    """Returns the image files of one split; raises TfkdError for a class that has none."""
    present = _class_names(folder)
    surplus = sorted(set(present) - set(classes))
    if surplus:
        raise TfkdError(
            f"{folder / surplus[0]}: a class that the training split does not have; "
            f"wanted the classes of {folder.parent / 'train'}"
        )
    paths, labels = [], []
    for label, name in enumerate(classes):
        if name not in present:
            raise TfkdError(f"{folder}: has no class {name!r}, wanted all those of the train split")
        with os.scandir(folder / name) as entries:
            files = sorted(each.name for each in entries if each.name.lower().endswith(_SUFFIXES))
        if not files:
            raise TfkdError(f"{folder / name}: found no images, wanted *.jpg, *.jpeg or *.png")
        paths.extend(str(folder / name / each) for each in files)
        labels.extend([label] * len(files))
    return _Split(np.array(paths, dtype=object), np.array(labels, dtype=np.int32))


def _form(paths: np.ndarray, image_size: tuple[int, int] | None, center: bool) -> Form:
    """Returns the form of the given size, or that of the first readable image."""
    if image_size is not None:
        return Form(*image_size, channels=3, resize=True, center=center)
    for path in paths:
        shape = decoding.native_shape(path)
        if shape is not None:
            return Form(*shape[:2], channels=3, resize=False)
    raise TfkdError(f"{paths[0]}: cannot be decoded, nor can any other image of its split")


def _is_gray(found: dict[str, _Split], streams: bool) -> bool:
    """Whether the images are gray; all headers are read only if a sample is gray."""
    train = found["train"].paths
    if not decoding.all_gray(train[_evenly(len(train), _COLOR_SAMPLE)]):
        return False
    return streams or decoding.all_gray(np.concatenate([each.paths for each in found.values()]))


def _opened(
    split: _Split, folder: Path, classes: list[str], form: Form, streams: bool, skip_corrupt: bool
) -> _Split:
    """Returns the split with its images, if kept in memory, and without the files to skip."""
    if not streams:
        images, read = decoding.read_all(split.paths, form)
        split = dataclasses.replace(split, images=images)
    elif skip_corrupt:
        read = decoding.readable(split.paths, form)
    else:
        return split
    if read.all():
        return split

    unread = split.paths[~read]
    for path in unread:
        if not skip_corrupt or decoding.native_shape(path) is not None:
            raise TfkdError(decoding.problem(path, form))
    warnings.warn(
        f"{folder}: skipped {len(unread)} of {len(read)} images that cannot be decoded, "
        f"the first of them {unread[0]}",
        TfkdWarning,
        stacklevel=4,
    )
    split = split.take(np.flatnonzero(read))
    for label in range(len(classes)):
        if label not in split.labels:
            raise TfkdError(f"{folder / classes[label]}: no image of this class can be decoded")
    return split


def _statistics(train: _Split, form: Form) -> Statistics:
    if train.images is not None:
        return mean_and_std(train.images)
    sample = train.paths[_evenly(len(train.paths), _STATISTICS_SAMPLE)]
    images, read = decoding.read_all(sample, form)
    if not read.all():
        raise TfkdError(decoding.problem(sample[~read][0], form))
    return mean_and_std(images)


def _evenly(size: int, wanted: int) -> np.ndarray:
    """Returns at most ``wanted`` positions of 0 .. size - 1, evenly spaced."""
    return np.unique(np.linspace(0, size - 1, min(size, wanted)).astype(int))
