"""Image classification sets of tensorflow-datasets, by name."""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from tfkd.data import one_by_one, presets, records
from tfkd.data.class_choice import ClassChoice, of_classes
from tfkd.data.decoding import Form, fit
from tfkd.data.histogram import mean_and_std
from tfkd.data.holdout import Holdout, held_out
from tfkd.data.records import RecordImages
from tfkd.data.source import MemoryImages
from tfkd.data.splits import Splits
from tfkd.data.statistics import Statistics, kept_or_measured
from tfkd.data.survey import SeveralSizes
from tfkd.errors import TfkdError, did_you_mean

_CHUNK = 500
_STATISTICS_SAMPLE = 4096
_MEASURED = 64


def builder_for(name: str, directory: str | None):
    """Returns the tensorflow-datasets builder of that name; touches no network.

    Args:
        name: Name, perhaps with a configuration ("emnist/letters").
        directory: Folder of the prepared sets; None for tensorflow-datasets' own.

    Raises:
        TfkdError: There is no such set.
    """
    import tensorflow_datasets as tfds  # slow to import, wanted here only

    base = name.split("/")[0].split(":")[0]
    known = tfds.list_builders(with_community_datasets=False)
    # A prepared set is found in its folder even where its code is not installed.
    prepared = directory is not None and os.path.isdir(os.path.join(directory, base))
    if not base or (base not in known and not prepared):
        names = sorted({*known, *presets.PRESETS})
        raise TfkdError(
            f"unknown data set {name!r}{did_you_mean(base, names)} (wanted digits, tiny_imagenet, "
            f"a tensorflow-datasets name such as cifar10, or folder:PATH)"
        )
    try:
        return tfds.builder(name, data_dir=directory, try_gcs=False)
    except (ValueError, AssertionError, FileNotFoundError) as error:
        raise TfkdError(f"data set {name!r}: {_first_line(error)}") from error


def load(
    name: str,
    *,
    holdout: Holdout,
    image_size: tuple[int, int] | None,
    directory: str | None,
    download: bool,
    in_memory_bytes: int,
    center: bool = False,
    classes: ClassChoice = ClassChoice(),
) -> Splits:
    """Opens a set of tensorflow-datasets.

    A set without a labeled test split is tested on its validation split and has no validation
    part.

    Args:
        name: Name of the set.
        holdout: How many training images to set apart for validation; if not given, the set keeps
            its own validation split, if any.
        image_size: (height, width) to resize to; None if all images have one size.
        directory: Folder of the prepared sets; None for tensorflow-datasets' own.
        download: Download and prepare the set if it is not there; otherwise the network is never
            used.
        in_memory_bytes: Sets that are larger when decoded stream from their files; their mean and
            deviation are then measured on the first 4,096 images when they are asked for, unless
            they are published.
        center: Crop the center to ``image_size`` (see ``decoding.Form``).
        classes: The classes that are kept.

    Raises:
        TfkdError: The set is unknown, not prepared, or not one of image classification; or its
            record files are not whole.
    """
    builder = builder_for(name, directory)
    image_key, label_key = _keys(builder, name)
    if download and not presets.preset(name).manual:
        _download(builder, name)
    _require_prepared(builder, name)
    names = _split_names(builder, name)
    if holdout and "validation" in names:
        raise TfkdError(
            f"{name}: has a split 'validation' of its own, found {holdout}; wanted only one of them"
        )
    if holdout.given:
        names.pop("validation", None)
    form = _form(builder.info.features[image_key].shape, name, image_size, center)
    published = presets.preset(name).statistics
    label = builder.info.features[label_key]
    class_names = tuple(label.names or map(str, range(label.num_classes)))
    kept_classes = classes.kept(class_names, name)
    if published is not None:
        statistics = Statistics.of(published)

    sizes = {part: _count(builder, split) for part, split in names.items()}
    if sum(sizes.values()) * form.bytes > in_memory_bytes:
        sources = {
            part: records.opened(builder, split, (image_key, label_key), form)
            for part, split in names.items()
        }
        if classes:
            sources = {
                part: source.of_classes(kept_classes, f"{name}, {part}")
                for part, source in sources.items()
            }
        if holdout:
            count = holdout.count(sources["train"].size)
            kept, apart = held_out(sources["train"].all_labels(), count)
            sources["validation"] = sources["train"].at(apart)
            sources["train"] = sources["train"].at(kept)
        if published is None:
            statistics = _measured_later(sources["train"])
    else:
        arrays = {
            part: _arrays(builder, split, (image_key, label_key), form, name)
            for part, split in names.items()
        }
        for part, (images, labels) in arrays.items():
            places, labels = of_classes(labels, kept_classes, f"{name}, {part}")
            arrays[part] = (images if len(places) == len(images) else images[places]), labels
        if holdout:
            images, labels = arrays["train"]
            kept, apart = held_out(labels, holdout.count(len(labels)))
            arrays["train"] = images[kept], labels[kept]
            arrays["validation"] = images[apart], labels[apart]
        if published is None:
            statistics = Statistics.of(mean_and_std([arrays["train"][0]]))
        sources = {part: MemoryImages(*pair) for part, pair in arrays.items()}

    return Splits(
        train=sources["train"],
        test=sources["test"],
        validation=sources.get("validation"),
        statistics=statistics,
        class_names=tuple(class_names[number] for number in kept_classes),
        crop=form.crop,
    )


def _keys(builder, name: str) -> tuple[str, str]:
    """Returns the feature names of image and label."""
    import tensorflow_datasets as tfds

    keys, features = builder.info.supervised_keys, builder.info.features
    if (
        keys is None
        or len(keys) != 2
        or not (
            isinstance(features[keys[0]], tfds.features.Image)
            and isinstance(features[keys[1]], tfds.features.ClassLabel)
        )
    ):
        raise TfkdError(
            f"{name}: is not a set of image classification; found supervised keys {keys}, wanted "
            f"an image and a class label"
        )
    return keys


def _download(builder, name: str) -> None:
    import tensorflow_datasets as tfds

    try:
        builder.download_and_prepare(
            download_config=tfds.download.DownloadConfig(try_download_gcs=False)
        )
    # Downloads fail in many ways, and the user needs the reason, not the stack of a library.
    except Exception as error:
        raise TfkdError(f"{name}: download failed: {_first_line(error)}") from error


def _require_prepared(builder, name: str) -> None:
    try:
        builder.as_dataset(split="train")
    except AssertionError as error:
        raise not_prepared(name, builder.data_dir) from error
    except ValueError as error:
        raise TfkdError(f"{name}: has no split 'train': {_first_line(error)}") from error


def not_prepared(name: str, place: str) -> TfkdError:
    """Returns the error for a set that is not prepared, with all ways to get it.

    Args:
        name: Name of the set.
        place: The folder in which it was looked for.
    """
    known = presets.preset(name)
    archives = " ".join(f"--archive={each}" for each in known.archives or ("FILE",))
    ways = [
        f"prepare it from its local archive with tools/prepare_data.py --name={name} {archives}",
        "use images of your own with folder:PATH",
    ]
    if not known.manual:
        ways.insert(0, "download it with --config.data.download=True")
    return TfkdError(f"{name}: not prepared in {place}; wanted one of: {'; '.join(ways)}")


def _split_names(builder, name: str) -> dict[str, str]:
    """Returns the name of each split there is: train, test and perhaps validation."""
    present = list(builder.info.splits) or ["train", "test"]
    names = {part: part for part in ("train", "test", "validation") if part in present}
    if presets.preset(name).unlabeled_test:
        names.pop("test", None)
    if "test" not in names and "validation" in names:
        names["test"] = names.pop("validation")
    if "train" not in names or "test" not in names:
        raise TfkdError(
            f"{name}: found the splits {', '.join(present)}, wanted train and test or validation"
        )
    return names


def _form(shape: tuple, name: str, image_size: tuple[int, int] | None, center: bool) -> Form:
    channels = shape[2]
    if channels not in (1, 3):
        raise TfkdError(f"{name}: found images of {channels} channels, wanted 1 or 3")
    if image_size is not None:
        return Form(*image_size, channels=channels, resize=True, center=center)
    if None in shape:
        raise SeveralSizes(f"{name}: has images of several sizes; set image_size to resize them")
    return Form(shape[0], shape[1], channels, resize=False)


def _count(builder, split: str) -> int:
    if split in builder.info.splits:
        return builder.info.splits[split].num_examples
    return int(builder.as_dataset(split=split).cardinality())


def _arrays(
    builder, split: str, keys: tuple[str, str], form: Form, name: str
) -> tuple[np.ndarray, np.ndarray]:
    """Returns all images and labels of a split, in the order of its files."""
    import tensorflow_datasets as tfds

    examples = builder.as_dataset(
        split=split, read_config=tfds.ReadConfig(interleave_cycle_length=1)
    )
    pairs = examples.map(
        lambda example: (fit(example[keys[0]], form), tf.cast(example[keys[1]], tf.int32)),
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=True,
    )
    chunks = list(pairs.batch(_CHUNK).prefetch(tf.data.AUTOTUNE).as_numpy_iterator())
    if not chunks:
        raise TfkdError(f"{name}: found no examples in the split {split!r}")
    images, labels = (np.concatenate(each) for each in zip(*chunks))
    if labels.min() < 0:
        raise TfkdError(f"{name}: the split {split!r} has no labels (found {labels.min()})")
    return images, labels


def _measured_later(train: RecordImages) -> Statistics:
    """Returns the statistics of the first training images."""
    sample = train.subset(min(_STATISTICS_SAMPLE, train.size))

    def images() -> Iterator[np.ndarray]:
        refs = sample.in_order().batch(_MEASURED)
        chunks = refs.map(sample.pixels, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        try:
            yield from chunks.as_numpy_iterator()
        except tf.errors.InvalidArgumentError as error:
            raise one_by_one.explain(error) or error from None

    return Statistics(lambda: kept_or_measured(sample.digest(), sample.size, images))


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
