"""Images in folders: PATH/split/class/*.jpg, *.png, *.webp, *.bmp or *.gif.

The ending says that a file is meant as an image, its content of which kind it is. What else lies
in the folder is left out and said.
"""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import os
import stat
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from tfkd.data import decoding, one_by_one, resizedcrop, survey
from tfkd.data.class_choice import ClassChoice
from tfkd.data.decoding import Form
from tfkd.data.file_digest import IMAGE_ENDINGS, file_digest, stable_digest
from tfkd.data.histogram import mean_and_std
from tfkd.data.holdout import Holdout, held_out
from tfkd.data.source import (
    NAMES_AND_SIZES,
    ExampleRefs,
    ImageSource,
    LabeledSource,
    MemoryImages,
)
from tfkd.data.splits import Splits
from tfkd.data.statistics import Statistics, kept_or_measured
from tfkd.errors import TfkdError, TfkdWarning

_WANTED = "*.jpg, *.jpeg, *.png, *.webp, *.bmp or *.gif"
_STATISTICS_SAMPLE = 4096


class FileImages(LabeledSource):
    """Image files, decoded whenever a batch needs them."""

    def __init__(
        self,
        paths: np.ndarray,
        labels: np.ndarray,
        form: Form,
        sizes: np.ndarray,
        orientations: np.ndarray | None = None,
    ):
        """Keeps what is known of the files.

        Args:
            paths: Strings (N,).
            labels: Integers (N,).
            form: Size and channels of the images.
            sizes: Integers (N, 2), height and width of the upright images.
            orientations: Integers (N,), those of ``decoding.upright``; None if all are upright.
        """
        super().__init__(labels, form.shape)
        self._form = form
        with tf.device("CPU:0"):
            self._paths = tf.constant(paths.tolist())
            self._sizes = tf.constant(sizes, tf.int32)
            self._orientations = None
            if orientations is not None:
                self._orientations = tf.constant(orientations, tf.int32)

    def at(self, positions: np.ndarray) -> ImageSource:
        paths = np.asarray([path.decode() for path in self._paths.numpy()[positions]])
        turned = self._orientations
        turned = None if turned is None else turned.numpy()[positions]
        labels, sizes = (each.numpy()[positions] for each in (self._labels, self._sizes))
        return FileImages(paths, labels, self._form, sizes, turned)

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

    def _files(self, refs: ExampleRefs) -> tuple[tf.Tensor, tf.Tensor | None]:
        """Returns the paths and the orientations of some examples."""
        index = refs["index"]
        turned = self._orientations
        return tf.gather(self._paths, index), None if turned is None else tf.gather(turned, index)

    def pixels(self, refs: ExampleRefs) -> tf.Tensor:
        paths, orientations = self._files(refs)
        turns = () if orientations is None else (orientations,)

        def make(path: tf.Tensor, *turn: tf.Tensor) -> tf.Tensor:
            return decoding.decode(tf.io.read_file(path), self._form, *turn)

        return one_by_one.each_of(make, (paths, *turns), paths, self._form)

    def resized_crops(self, refs: ExampleRefs, draws: tf.Tensor, fast: bool) -> tf.Tensor:
        paths, orientations = self._files(refs)
        turns = () if orientations is None else (orientations,)
        height, width = tf.unstack(tf.gather(self._sizes, refs["index"]), axis=1)
        places = resizedcrop.stored_windows(draws, height, width, orientations)

        def make(
            path: tf.Tensor, drawn: tf.Tensor, place: tf.Tensor, turn: tf.Tensor | None = None
        ) -> tf.Tensor:
            return resizedcrop.decode(
                tf.io.read_file(path),
                drawn,
                self._form,
                fast=fast,
                orientation=turn,
                jpeg_window=place,
            )

        return one_by_one.each_of(make, (paths, draws, places, *turns), paths, self._form)


@dataclasses.dataclass(frozen=True)
class _Split:
    """The files of one split, by class and then by name, and their images if kept in memory.

    Attributes:
        paths: Strings (N,).
        labels: int32 (N,).
        facts: What their headers say, ``survey.FACTS`` (N,).
        images: uint8 (N, H, W, C), or None.
    """

    paths: np.ndarray
    labels: np.ndarray
    facts: np.ndarray
    images: np.ndarray | None = None

    @property
    def orientations(self) -> np.ndarray | None:
        """The orientations of the files; None if all are upright."""
        stored = self.facts["orientation"].astype(np.int32)
        return stored if (stored > 1).any() else None

    def take(self, places: np.ndarray) -> _Split:
        images = None if self.images is None else self.images[places]
        return _Split(self.paths[places], self.labels[places], self.facts[places], images)

    def source(self, form: Form) -> ImageSource:
        if self.images is None:
            sizes = np.stack([self.facts["height"], self.facts["width"]], 1)
            return FileImages(self.paths, self.labels, form, sizes, self.orientations)
        return MemoryImages(self.images, self.labels)


def load(
    path: str,
    *,
    state: str | None,
    holdout: Holdout,
    image_size: tuple[int, int] | None,
    skip_corrupt: bool,
    in_memory_bytes: int,
    center: bool = False,
    choice: ClassChoice = ClassChoice(),
) -> Splits:
    """Opens a folder of images.

    The splits are ``train``, ``test`` and ``val`` or ``validation``. A folder with a validation
    split but no test split (ImageNet's layout) is tested on the former and has no validation part.
    A set of gray images has one channel, any other three; size and channels are decided from the
    headers of all images, which are kept in the cache.

    Args:
        path: The folder.
        state: Changes whenever a file of it does, such as ``file_digest.Scan.state``.
        holdout: How many training images to set apart for validation; if not given, the folder
            keeps its own validation split, if any.
        image_size: (height, width) to resize to; None if all images have one size.
        skip_corrupt: Leave out files that cannot be decoded, with a warning, instead of refusing.
        in_memory_bytes: Sets that are larger when decoded stream from their files; their mean and
            deviation are then measured on 4,096 images when they are asked for.
        center: Crop the center to ``image_size`` (see ``decoding.Form``).
        choice: The classes that are kept; the folder is then as if it held no others.

    Raises:
        TfkdError: A split, a class or an image is missing or cannot be used; the message names it.
    """
    root = Path(path).expanduser()
    if not path or not root.is_dir():
        raise TfkdError(f"folder:{path}: no such folder; wanted split/class/ with {_WANTED} in it")
    left_out = _LeftOut()
    names = _split_names(root, left_out)
    if holdout and "validation" in names:
        raise TfkdError(
            f"folder:{path}: found a split {names['validation']!r} and {holdout}; wanted only one "
            f"of them"
        )
    if holdout.given:
        names.pop("validation", None)
    known = _class_names(root / names["train"])
    classes = [known[number] for number in choice.kept(known, f"folder:{path}")]
    found = {part: _listed(root / name, known, classes, left_out) for part, name in names.items()}
    looked = _look(root, state, found, classes if choice else None)

    for each in found.values():
        if not skip_corrupt and not each.facts["kind"].all():
            bad = each.paths[np.argmin(each.facts["kind"])]
            raise TfkdError(one_by_one.problem(bad, Form(1, 1, 3, resize=True)))
    form = _form(found, image_size, center, skip_corrupt)
    streams = sum(len(each.paths) for each in found.values()) * form.bytes > in_memory_bytes
    if streams:
        # Training reads its own part, and would end before it met a damaged image of another one.
        if _decode_all([each for part, each in found.items() if skip_corrupt or part != "train"]):
            looked.keep()
    found = {
        part: _opened(each, root / names[part], classes, form, streams, skip_corrupt)
        for part, each in found.items()
    }
    _say(path, found, left_out)
    if holdout:
        count = holdout.count(len(found["train"].paths))
        names = ["/".join(Path(each).parts[-2:]) for each in found["train"].paths]
        kept, apart = held_out(found["train"].labels, count, names)
        found["validation"] = found["train"].take(apart)
        found["train"] = found["train"].take(kept)

    statistics = _statistics(found["train"], form)
    sources = {part: each.source(form) for part, each in found.items()}
    validation = sources.get("validation")
    return Splits(
        sources["train"],
        sources["test"],
        validation,
        statistics,
        tuple(classes),
        crop=form.crop,
    )


class _LeftOut:
    """What lies in the folder and is not used, by kind."""

    def __init__(self):
        self._paths: dict[str, list[str]] = collections.defaultdict(list)

    def add(self, kind: str, path: str) -> None:
        self._paths[kind].append(path)

    def __str__(self) -> str:
        """Lists the kinds, each with its number and its first path; empty if there are none."""
        most = sorted(self._paths.items(), key=lambda item: -len(item[1]))
        return ", ".join(f"{len(paths)} {kind} (the first {paths[0]})" for kind, paths in most)


def _entries(folder: Path) -> list[os.DirEntry]:
    """Returns what lies in a folder, by name.

    Raises:
        TfkdError: The folder cannot be read, or something in it is neither a file nor a folder.
    """
    try:
        with os.scandir(folder) as found:
            entries = sorted(found, key=lambda entry: entry.name)
    except OSError as error:
        raise TfkdError(f"{folder}: cannot be read ({error.strerror})") from error
    for entry in entries:
        if not entry.is_file(follow_symlinks=False) and not entry.is_dir(follow_symlinks=False):
            _require_usual(entry)
        try:
            entry.name.encode()
        except UnicodeEncodeError:
            raise TfkdError(
                f"{folder}: found the name {entry.name!a}, wanted names in UTF-8"
            ) from None
    return entries


def _require_usual(entry: os.DirEntry) -> None:
    """Raises TfkdError for what is neither a file nor a folder nor a link to one."""
    wanted = "wanted image files; remove it"
    try:
        mode = os.stat(entry.path).st_mode
    except OSError:
        raise TfkdError(f"{entry.path}: found a broken link, {wanted}") from None
    kinds = (
        (stat.S_ISFIFO, "a named pipe"),
        (stat.S_ISSOCK, "a socket"),
        (stat.S_ISCHR, "a device"),
        (stat.S_ISBLK, "a device"),
    )
    for is_kind, kind in kinds:
        if is_kind(mode):
            raise TfkdError(f"{entry.path}: found {kind}, {wanted}")


def _split_names(root: Path, left_out: _LeftOut) -> dict[str, str]:
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
    for entry in _entries(root):
        if entry.name[0] == "." or entry.name in names.values():
            continue
        if entry.is_dir():
            left_out.add("folders that are no split", entry.path)
        elif _is_named_as_image(entry):
            left_out.add("outside of the class folders", entry.path)
    return names


def _is_named_as_image(entry: os.DirEntry) -> bool:
    return os.path.splitext(entry.name)[1].lower() in IMAGE_ENDINGS


def _images_in_hidden(folder: str) -> list[str]:
    """Returns the images in a folder in which anything may lie."""
    try:
        with os.scandir(folder) as found:
            return sorted(entry.path for entry in found if _is_named_as_image(entry))
    except OSError:
        return []


def _class_names(folder: Path, left_out: _LeftOut | None = None) -> list[str]:
    """Returns the names of the classes of a split; hidden folders are none."""
    names = []
    for entry in _entries(folder):
        if entry.name[0] == ".":
            if left_out is not None and entry.is_dir():
                for image in _images_in_hidden(entry.path):
                    left_out.add("in hidden folders", image)
            continue
        if entry.is_dir():
            names.append(entry.name)
        elif left_out is not None:
            left_out.add("outside of the class folders", entry.path)
    if not names:
        raise TfkdError(f"{folder}: found no class folders, wanted {folder}/CLASS/ with {_WANTED}")
    return names


def _listed(folder: Path, known: list[str], classes: list[str], left_out: _LeftOut) -> _Split:
    """Returns the image files of one split; raises TfkdError for a class that has none.

    Args:
        folder: The folder of the split.
        known: The classes of the training split.
        classes: Those that are kept.
        left_out: Takes in what is no image.
    """
    present = _class_names(folder, left_out)
    surplus = sorted(set(present) - set(known))
    if surplus:
        raise TfkdError(
            f"{folder / surplus[0]}: a class that the training split does not have; "
            f"wanted the classes of {folder.parent / 'train'}"
        )
    paths, labels = [], []
    for label, name in enumerate(classes):
        if name not in present:
            raise TfkdError(f"{folder}: has no class {name!r}, wanted all those of the train split")
        found, others = [], _LeftOut()
        for entry in _entries(folder / name):
            ending = os.path.splitext(entry.name)[1].lower()
            if entry.name[0] == ".":
                if ending in IMAGE_ENDINGS:
                    left_out.add("hidden", entry.path)
            elif entry.is_dir():
                left_out.add("folders inside a class", entry.path)
            elif ending in IMAGE_ENDINGS:
                found.append(entry.path)
            else:
                kind = f"named *{ending}" if ending else "without an ending"
                left_out.add(kind, entry.path)
                others.add(kind, entry.path)
        if not found:
            beside = f" but {others}" if str(others) else ""
            raise TfkdError(f"{folder / name}: found no images{beside}, wanted {_WANTED}")
        paths.extend(found)
        labels.extend([label] * len(found))
    facts = np.zeros(len(paths), survey.FACTS)
    return _Split(np.array(paths, dtype=object), np.array(labels, dtype=np.int32), facts)


def _look(
    root: Path, state: str | None, found: dict[str, _Split], kept: list[str] | None
) -> survey.Survey:
    """Looks through all files; the splits then hold views of the facts of the survey."""
    paths = np.concatenate([each.paths for each in found.values()])
    looked = survey.Survey(root, state, paths, kept)
    start = 0
    for part, each in found.items():
        stop = start + len(each.paths)
        found[part] = dataclasses.replace(each, facts=looked.facts[start:stop])
        start = stop
    return looked


def _decode_all(splits: Sequence[_Split]) -> int:
    """Decodes every image that was not decoded before, and notes which are damaged.

    Returns:
        How many were decoded.
    """
    count = 0
    for each in splits:
        rest = np.flatnonzero((each.facts["kind"] > 0) & (each.facts["decoded"] == 0))
        if len(rest):
            sound = decoding.decodable(each.paths[rest])
            each.facts["decoded"][rest] = np.where(sound, survey.SOUND, survey.DAMAGED)
        count += len(rest)
    return count


def _form(
    found: dict[str, _Split], image_size: tuple[int, int] | None, center: bool, skip_corrupt: bool
) -> Form:
    """Returns the form of all images, from what their headers say."""
    if not found["train"].facts["kind"].any():
        raise TfkdError(
            f"{found['train'].paths[0]}: cannot be decoded, nor can any other image of its split"
        )
    paths = np.concatenate([each.paths for each in found.values()])
    facts = np.concatenate([each.facts for each in found.values()])
    images = facts["kind"] > 0
    channels = survey.channels(facts[images])
    if image_size is not None:
        return Form(*image_size, channels=channels, resize=True, center=center)
    if skip_corrupt:
        # What a damaged file says of its size is no reason to refuse the others.
        _, odd = survey.sizes(facts[images])
        places = np.flatnonzero(images)[odd]
        images[places] = decoding.decodable(paths[places])
    size = survey.require_one_size(paths[images], facts[images])
    return Form(*size, channels=channels, resize=False)


def _opened(
    split: _Split, folder: Path, classes: list[str], form: Form, streams: bool, skip_corrupt: bool
) -> _Split:
    """Returns the split with its images, if kept in memory, and without the files to skip."""
    read = (split.facts["kind"] > 0) & (split.facts["decoded"] != survey.DAMAGED)
    if not streams:
        places = np.flatnonzero(read)
        whole = split if read.all() else split.take(places)
        images, decoded = decoding.read_all(whole.paths, form, whole.orientations)
        read[places] = decoded
        if not decoded.all():
            images = images[decoded]
    kept = split if read.all() else split.take(np.flatnonzero(read))
    if not streams:
        kept = dataclasses.replace(kept, images=images)
    if read.all():
        return kept

    unread = split.paths[~read]
    sound = decoding.decodable(unread)
    if not skip_corrupt or sound.any():
        raise TfkdError(one_by_one.problem(unread[np.argmax(sound)], form))
    _warn(
        f"{folder}: skipped {len(unread)} of {len(read)} images that cannot be decoded, "
        f"the first of them {unread[0]}"
    )
    for label in range(len(classes)):
        if label not in kept.labels:
            raise TfkdError(f"{folder / classes[label]}: no image of this class can be decoded")
    return kept


def _say(path: str, found: dict[str, _Split], left_out: _LeftOut) -> None:
    """Warns of what is left out and of what is converted."""
    if str(left_out):
        _warn(f"folder:{path}: left out, as they are no images of the set: {left_out}")
    converted = survey.remarks(
        np.concatenate([each.paths for each in found.values()]),
        np.concatenate([each.facts for each in found.values()]),
    )
    if converted:
        _warn(f"folder:{path}: {converted}")


def _warn(message: str) -> None:
    warnings.warn(message, TfkdWarning, stacklevel=5)


def _statistics(train: _Split, form: Form) -> Statistics:
    if train.images is not None:
        return Statistics.of(mean_and_std([train.images]))
    sample = train.take(_evenly(len(train.paths), _STATISTICS_SAMPLE))

    def images() -> Iterator[np.ndarray]:
        read = np.zeros(len(sample.paths), bool)
        for places, chunk in decoding.read_chunks(sample.paths, form, sample.orientations):
            read[places] = True
            yield chunk
        if not read.all():
            raise TfkdError(one_by_one.problem(sample.paths[~read][0], form))

    return Statistics(
        lambda: kept_or_measured(sample.source(form).digest(), len(sample.paths), images)
    )


def _evenly(size: int, wanted: int) -> np.ndarray:
    """Returns at most ``wanted`` positions of 0 .. size - 1, evenly spaced."""
    return np.unique(np.linspace(0, size - 1, min(size, wanted)).astype(int))
