"""Features: the taps of a network over one part of a data set, in memory or in a cache."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import urllib.parse
from collections.abc import Iterable, Iterator
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from tfkd import data, models
from tfkd.core import tasks
from tfkd.core.classes import aligned
from tfkd.data.data_dir import workplace
from tfkd.errors import TfkdError, reason, unknown
from tfkd.evaluation.fingerprint import fingerprint
from tfkd.evaluation.subjects import split_of
from tfkd.files import writing

Features = dict[str, np.ndarray]

_CONVERSIONS = {(1, 3): tf.image.grayscale_to_rgb, (3, 1): tf.image.rgb_to_grayscale}
"""What becomes of images, by their channels and those that a network takes."""


def features(
    network: models.Network | keras.Model,
    taps: Iterable[str],
    dataset: data.DataSet,
    cache: str | os.PathLike | None = None,
    part: str = "train",
    batch_size: int | None = None,
    convert_channels: bool = False,
) -> Features:
    """Returns taps of a network for every image of a part, un-augmented and in index order.

    The network runs once over the part, in inference mode and with its preprocessing:

        found = features(teacher, ["pooled", "logits"], dataset, cache="features")
        dataset = dataset.with_column("teacher_logits", found["logits"])

    Args:
        network: A network, or a model that takes pixels 0..255 as they are.
        taps: Names of taps: those of the network, or of its model (see ``tfkd.models.tapped``).
        dataset: The data set.
        cache: A folder that keeps the features, or None to keep them in memory. A later call for
            the same network, taps and images reads them from there. They are found by a digest of
            the operations and weights of the network and of the images and labels (image files
            by name, size and time): those of another network or other images never match.
        part: "train", "validation" or "test".
        batch_size: Images in a batch; None for those of the data set.
        convert_channels: Whether a network of RGB is given gray images as three equal channels, and
            one of gray images the brightness of RGB ones; such images are otherwise refused.

    Returns:
        Float32 arrays (images, ...) by tap; with a cache they are memory-mapped and read-only. The
        logits are in the order of the classes of the data: a warning says so where that is another
        one than the network's.

    Raises:
        TfkdError: There is no such tap or part, the network takes other images, its logits are
            wanted and it has as many other classes, or the cache cannot be used.
    """
    taps = _listed(taps)
    network = _in_order(models.as_network(network), taps, dataset.info)
    images = _size(dataset, part)
    function = _tapped(network, taps, dataset.info, convert_channels)
    if batch_size is not None:
        dataset = dataset.with_batch_size(batch_size)
    rows = _rows(network, function, split_of(dataset, part))
    if cache is None:
        return _in_memory(rows, images)
    facts = {
        "taps": sorted(taps),
        "data": dataset.info.name,
        "part": part,
        "images": images,
        "image_shape": list(dataset.info.image_shape),
    }
    # Whatever the network is called: another head on the same layers has the same features.
    digests = fingerprint(function.get_concrete_function()), dataset.digest(part)
    key = hashlib.sha256(json.dumps([facts, *digests]).encode()).hexdigest()
    folder = Path(cache).expanduser() / key
    wanted = "a folder with write permission and space"
    with writing(f"cache {str(cache)!r} of features", wanted):
        if not folder.is_dir():
            _write(folder, {"network": network.name, **facts}, rows)
    return {tap: _read(folder / _file_name(tap), images) for tap in taps}


def feature_bytes(
    network: models.Network | keras.Model,
    taps: Iterable[str],
    dataset: data.DataSet,
    part: str = "train",
) -> int:
    """Returns the bytes that ``features`` will take in memory or in its cache.

    The network runs on one black image. Arguments and errors are those of ``features``.
    """
    network = models.as_network(network)
    function = _tapped(network, _listed(taps), dataset.info)
    found = _checked(network, function(tf.zeros((1, *dataset.info.image_shape), tf.uint8)), 1)
    return 4 * _size(dataset, part) * sum(math.prod(each.shape) for each in found.values())


def _in_order(
    network: models.Network, taps: tuple[str, ...], info: data.DataInfo
) -> models.Network:
    """Returns the network with its classes in the order of the data, where they are asked for."""
    if len(network.class_names or ()) != len(info.class_names):
        return network
    task = tasks.create(network.task, network)
    of_classes = task.class_outputs(models.outputs(network.model))
    if not set(of_classes) & set(network.paths(taps).values()):
        return network
    return aligned(
        network,
        info.class_names,
        task,
        who=f"features of {network.name}",
        whose=info.name,
        accept="a Network with class_names=None",
    )


def _listed(taps: Iterable[str]) -> tuple[str, ...]:
    # A string alone would be taken letter by letter.
    if isinstance(taps, str):
        raise TfkdError(f"taps: found the string {taps!r}; wanted a list of names")
    return tuple(dict.fromkeys(taps))


def _size(dataset: data.DataSet, part: str) -> int:
    """Returns the number of images of a part."""
    info = dataset.info
    sizes = {"train": info.train_size, "validation": info.validation_size, "test": info.test_size}
    if part not in sizes:
        raise unknown("part", part, sizes)
    return sizes[part]


def _tapped(
    network: models.Network,
    taps: tuple[str, ...],
    info: data.DataInfo,
    convert_channels: bool = False,
):
    """Returns a ``tf.function`` from raw pixels of any number of images to float32 taps."""
    takes = getattr(network.model, "input_shape", None)
    convert, shape = (lambda images: images), info.image_shape
    if takes and convert_channels and (shape[2], takes[3]) in _CONVERSIONS:
        convert, shape = _CONVERSIONS[shape[2], takes[3]], (*shape[:2], takes[3])
    if takes and any(side not in (None, has) for side, has in zip(takes[1:], shape)):
        raise TfkdError(
            f"features of {network.name!r}: found images {tuple(info.image_shape)} of {info.name}, "
            f"wanted {tuple(takes[1:])}"
        )
    model = models.tapped(network.model, network.paths(taps))

    @tf.function(input_signature=[tf.TensorSpec((None, *info.image_shape), tf.uint8)])
    def function(images: tf.Tensor) -> dict[str, tf.Tensor]:
        found = model(network.preprocess(convert(images)), training=False)
        return {tap: tf.cast(value, tf.float32) for tap, value in found.items()}

    return function


def _rows(
    network: models.Network, function, batches: tf.data.Dataset
) -> Iterator[tuple[int, Features]]:
    """Yields the taps of every batch, without padding, and the position of its first image."""
    # Without a terminal there is no bar.
    bar = tqdm(batches, desc=f"features of {network.name}", unit=" batches", disable=None)
    first = 0
    try:
        for batch in bar:
            kept = int(np.count_nonzero(~np.asarray(batch["filler"])))
            found = _checked(network, function(batch["image"]), len(batch["image"]))
            yield first, {tap: value[:kept].numpy() for tap, value in found.items()}
            first += kept
    except tf.errors.InvalidArgumentError as error:
        raise data.explain(error) or error from None


def _checked(network: models.Network, found: dict[str, tf.Tensor], images: int):
    """Returns taps of some images; raises TfkdError for one that has no row for each."""
    for tap, value in found.items():
        if value.shape[:1] != (images,):
            raise TfkdError(
                f"tap {tap!r} of {network.name!r}: found the shape {tuple(value.shape)} for "
                f"{images} images, wanted ({images}, ...)"
            )
    return found


def _in_memory(rows: Iterator[tuple[int, Features]], images: int) -> Features:
    found: Features = {}
    for first, batch in rows:
        for tap, values in batch.items():
            if tap not in found:
                found[tap] = np.empty((images, *values.shape[1:]), np.float32)
            found[tap][first : first + len(values)] = values
    return found


def _write(folder: Path, facts: dict, rows: Iterator[tuple[int, Features]]) -> None:
    """Writes features batch by batch to a folder, entirely or not at all."""
    with workplace(folder.parent, "features") as work, contextlib.ExitStack() as stack:
        # Another process may have been faster.
        if folder.is_dir():
            return
        files = {}
        for _, batch in rows:
            for tap, values in batch.items():
                if tap not in files:
                    files[tap] = stack.enter_context((work / _file_name(tap)).open("wb"))
                    shape = (facts["images"], *values.shape[1:])
                    header = {"descr": "<f4", "fortran_order": False, "shape": shape}
                    np.lib.format.write_array_header_1_0(files[tap], header)
                files[tap].write(np.asarray(values, "<f4").tobytes())
        (work / "features.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
        stack.close()
        work.rename(folder)


def _read(path: Path, images: int) -> np.ndarray:
    """Returns a file of features, memory-mapped."""
    try:
        found = np.lib.format.open_memmap(path, mode="r")
    except (OSError, ValueError) as error:
        raise TfkdError(
            f"features {str(path)!r}: cannot be read ({reason(error)}), wanted those written "
            f"before; remove the folder"
        ) from error
    if found.shape[:1] != (images,):
        raise TfkdError(
            f"features {str(path)!r}: found {found.shape}, wanted {images} rows; remove the folder"
        )
    return found


def _file_name(tap: str) -> str:
    # The name of a tap inside a sub-model has slashes.
    return f"{urllib.parse.quote(tap, safe='')}.npy"
