"""Tiny-ImageNet, 200 classes at 64 x 64 pixels, from the official ``tiny-imagenet-200.zip``.

Ya Le and Xuan Yang, "Tiny ImageNet visual recognition challenge", Stanford CS 231N, 2015. 500
training and 50 validation images a class. The labels of the test images were never published: the
set is tested on the validation images.

Prepared, the set is an ordinary folder of images, ``tiny_imagenet/{train,test}/WNID/*.JPEG``, with
the words of the classes in ``classes.txt``; the classes are in the order of their WordNet numbers.
"""

from __future__ import annotations

import dataclasses
import os
import re
import zipfile
from pathlib import Path, PurePosixPath

from tqdm import tqdm

from tfkd import archives
from tfkd.data import presets, tfds_source
from tfkd.data.class_choice import ClassChoice
from tfkd.data.data_dir import prepared_sets, workplace
from tfkd.data.splits import Splits
from tfkd.data.statistics import Statistics
from tfkd.errors import TfkdError, unknown

NAME = "tiny_imagenet"

_ROOT = "tiny-imagenet-200"
_ARCHIVE = f"{_ROOT}.zip"
_CLASSES = "classes.txt"
_WANTED = f"wanted the official {_ARCHIVE}"
_TRAIN_IMAGE = re.compile(rf"{_ROOT}/train/(n\d{{8}})/images/([\w.-]+\.JPEG)")
_VAL_IMAGE = re.compile(rf"{_ROOT}/val/images/([\w.-]+\.JPEG)")
_JPEG_START = b"\xff\xd8\xff"
# Several times what the official files have.
_MOST_OF_TEXT, _MOST_OF_IMAGE = 2**25, 2**20


def find(directory: str | None) -> Path:
    """Returns the folder of images that ``prepare`` made.

    Args:
        directory: Folder of the prepared sets; None for tensorflow-datasets' own.

    Raises:
        TfkdError: The set is not prepared.
    """
    place = prepared_sets(directory) / NAME
    if not (place / _CLASSES).is_file():
        raise tfds_source.not_prepared(NAME, str(place))
    return place


def numbered(choice: ClassChoice, place: Path) -> ClassChoice:
    """Returns a choice of classes by their WordNet numbers, as the folder ``place`` names them.

    Args:
        choice: By these numbers or by the words of the classes.
        place: The folder of images.
    """
    if choice.names is None:
        return choice
    words = _words_of(place)
    called = {
        name: [each for each in words if name in (each, words[each])] for name in choice.names
    }
    for name, numbers in called.items():
        if not numbers:
            raise unknown(f"class of {NAME}", name, words.values())
        if len(numbers) > 1:
            raise TfkdError(
                f"classes: found {name!r}, which {' and '.join(numbers)} of {NAME} are called, "
                "wanted the WordNet number"
            )
    return ClassChoice(tuple(number for numbers in called.values() for number in numbers))


def described(splits: Splits, place: Path) -> Splits:
    """Returns the splits of the folder ``place`` with the words of the classes and the preset."""
    words = _words_of(place)
    published = Statistics.of(presets.preset(NAME).statistics)
    names = tuple(words.get(each, each) for each in splits.class_names)
    return dataclasses.replace(splits, class_names=names, statistics=published)


def _words_of(place: Path) -> dict[str, str]:
    """Returns the words of each class of a prepared folder, by its WordNet number."""
    lines = (place / _CLASSES).read_text("utf-8").splitlines()
    return dict(line.split("\t", 1) for line in lines)


def prepare(archive: str, directory: str | None = None) -> Path:
    """Unpacks the official archive into a folder of images, entirely or not at all.

    Args:
        archive: The official zip file, under any name.
        directory: Folder of the prepared sets; None for tensorflow-datasets' own.

    Returns:
        The folder of the prepared set; a set that is there already is left as it is.

    Raises:
        TfkdError: The file is missing, damaged, or not laid out like the official one.
    """
    place = prepared_sets(directory) / NAME
    if (place / _CLASSES).is_file():
        return place
    if not os.path.isfile(archive):
        raise TfkdError(f"{archive}: no such file; {_WANTED}")
    try:
        with zipfile.ZipFile(archive) as packed:
            plan = _plan(archive, packed)
            words = _words(archive, packed)
            with workplace(place.parent, NAME) as work:
                # Another process may have been faster.
                if not (place / _CLASSES).is_file():
                    _unpack(archive, packed, plan, work)
                    lines = [f"{each}\t{words[each]}\n" for each in sorted(words)]
                    (work / _CLASSES).write_text("".join(lines), "utf-8")
                    work.rename(place)
    except TfkdError:
        raise
    except (ValueError, *archives.DAMAGES) as error:
        raise TfkdError(f"{archive}: cannot be unpacked ({error}); {_WANTED}") from error
    except OSError as error:
        raise TfkdError(f"{NAME}: cannot be prepared in {place.parent}: {error}") from error
    return place


def _plan(archive: str, packed: zipfile.ZipFile) -> dict[str, PurePosixPath]:
    """Returns the target of each image, split/class/file; raises TfkdError for a wrong layout."""
    names = packed.namelist()
    for name in names:
        # No such name is ever used as a path, but the official archive has none.
        if name.startswith("/") or "\\" in name or ".." in PurePosixPath(name).parts:
            raise TfkdError(f"{archive}: found the file {name!r}, which leads out of it; {_WANTED}")
    classes = _text(archive, packed, "wnids.txt").split()
    label = {}
    for line in _text(archive, packed, "val/val_annotations.txt").splitlines():
        columns = line.split("\t")
        if len(columns) < 2:
            raise TfkdError(
                f"{archive}: val/val_annotations.txt: found the line {line[:60]!r}, wanted columns "
                f"of file and class"
            )
        label[columns[0]] = columns[1]

    plan = {}
    for name in names:
        if found := _TRAIN_IMAGE.fullmatch(name):
            plan[name] = PurePosixPath("train", *found.groups())
        elif found := _VAL_IMAGE.fullmatch(name):
            if found[1] not in label:
                raise TfkdError(f"{archive}: {name}: has no class in val/val_annotations.txt")
            plan[name] = PurePosixPath("test", label.pop(found[1]), found[1])
    if label:
        raise TfkdError(f"{archive}: has no val/images/{min(label)}, which has a class; {_WANTED}")
    for split in ("train", "test"):
        present = {target.parts[1] for target in plan.values() if target.parts[0] == split}
        for each in sorted(present.symmetric_difference(classes)):
            where = "images, but is not in wnids.txt" if each in present else "no images"
            raise TfkdError(f"{archive}: the class {each!r} has {where} ({split}); {_WANTED}")
    if not plan:
        raise TfkdError(f"{archive}: wnids.txt names no classes; {_WANTED}")
    return plan


def _words(archive: str, packed: zipfile.ZipFile) -> dict[str, str]:
    """Returns the words of each class, by its WordNet number."""
    lines = _text(archive, packed, "words.txt").splitlines()
    words = dict(line.split("\t", 1) for line in lines if "\t" in line)
    classes = _text(archive, packed, "wnids.txt").split()
    for each in classes:
        if each not in words:
            raise TfkdError(f"{archive}: words.txt has no words for the class {each!r}")
    return {each: words[each] for each in classes}


def _text(archive: str, packed: zipfile.ZipFile, name: str) -> str:
    try:
        return archives.read(packed, f"{_ROOT}/{name}", _MOST_OF_TEXT).decode()
    except TfkdError as error:
        raise TfkdError(f"{archive}: {error}; {_WANTED}") from None
    except KeyError:
        raise TfkdError(f"{archive}: has no {_ROOT}/{name}; {_WANTED}") from None


def _unpack(
    archive: str, packed: zipfile.ZipFile, plan: dict[str, PurePosixPath], work: Path
) -> None:
    for name in plan:
        size = packed.getinfo(name).file_size
        if size > _MOST_OF_IMAGE:
            raise TfkdError(
                f"{archive}: {name}: found {size:,} bytes, wanted {_MOST_OF_IMAGE:,} at most; "
                f"{_WANTED}"
            )
    for target in set(each.parent for each in plan.values()):
        (work / target).mkdir(parents=True)
    # Without a terminal there is no bar.
    for name, target in tqdm(plan.items(), desc=NAME, unit=" images", disable=None):
        contents = packed.read(name)  # checks the checksum of the file
        if not contents.startswith(_JPEG_START):
            raise TfkdError(f"{archive}: {name}: found a file that is no JPEG image; {_WANTED}")
        (work / target).write_bytes(contents)
