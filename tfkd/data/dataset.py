"""A data set: facts about it, and the batches of its training, validation and test parts."""

from __future__ import annotations

import copy
import dataclasses
import functools
from collections.abc import Iterable
from typing import Any

import numpy as np
import tensorflow as tf

from tfkd.data import batch as batches
from tfkd.data import mixing, randomness
from tfkd.data.augmentation import Augmentation
from tfkd.data.columns import Column
from tfkd.data.mixing import Mixing
from tfkd.data.sharding import Shard
from tfkd.data.source import ExampleRefs, ImageSource
from tfkd.data.statistics import Statistics
from tfkd.errors import TfkdError, unknown

_PARTS = ("train", "validation", "test")


@dataclasses.dataclass(frozen=True)
class DataInfo:
    """Facts about a data set.

    Attributes:
        name: The name it was loaded by.
        num_classes: Number of classes; labels are 0 .. num_classes - 1.
        image_shape: (height, width, channels).
        train_size: Examples of the training part, without those set apart for validation.
        validation_size: Examples of the validation part; 0 if there is none.
        test_size: Examples of the test part.
        statistics: Mean and standard deviation over the training part (for CIFAR the published
            values); of a set that streams they are measured when they are first asked for.
        class_names: Names of the classes, in the order of the labels.
        task: Name of the task that the labels are for.
        crop: How images of other sizes become those of ``image_shape``: ``center`` (the shorter
            side becomes 8/7 of the height, then the middle is cut out), ``whole`` (whatever the
            proportions), or None where none was resized.
    """

    name: str
    num_classes: int
    image_shape: tuple[int, int, int]
    train_size: int
    validation_size: int
    test_size: int
    statistics: Statistics = dataclasses.field(repr=False)
    class_names: tuple[str, ...]
    task: str = "classification"
    crop: str | None = None

    @property
    def mean(self) -> tuple[float, ...]:
        """Mean of each channel over the training part, in pixel units 0..255."""
        return self.statistics.values[0]

    @property
    def std(self) -> tuple[float, ...]:
        """Standard deviation of each channel likewise."""
        return self.statistics.values[1]


class DataSet:
    """Train, validation and test batches of one data set, all of them dicts.

    Made by ``tfkd.data.load`` and ``tfkd.data.from_arrays``. A training batch is a pure function of
    (seed, global step): the order within an epoch depends on (seed, epoch), the augmentation on
    (seed, step), and no generator keeps a state. A run that is resumed at step g asks for
    ``train(first_step=g)`` and gets the batches that it would have got.

    Attributes:
        info: The facts (see DataInfo).
        batch_size: Rows of a global batch.
        seed: Seed of order and augmentation.
        augmentation: The augmentation of training images.
        mixing: The mixing of training batches.
        files: What ``tfkd.data.files`` said when the set was loaded; None for arrays.
    """

    files: dict[str, Any] | None = None

    def __init__(
        self,
        info: DataInfo,
        train: ImageSource,
        test: ImageSource,
        validation: ImageSource | None,
        augmentation: Augmentation,
        batch_size: int,
        seed: int,
        mixing: Mixing = Mixing(),
    ):
        """Puts the parts together.

        Raises:
            TfkdError: The batch size is not a whole number of at least 1, or the seed is out of
                range.
        """
        self.info = info
        self.batch_size = _checked_batch_size(batch_size)
        self.seed = randomness.check_seed(seed)
        self.augmentation = augmentation
        self.mixing = mixing
        self._sources = {"train": train, "test": test}
        if validation is not None:
            self._sources["validation"] = validation
        self._columns: dict[str, dict[str, Column]] = {part: {} for part in self._sources}

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in the training part; the images left over change with every epoch."""
        self.check_training()
        return self.info.train_size // self.batch_size

    @functools.cached_property
    def train_labels(self) -> np.ndarray:
        """Labels of the whole training part in index order, int32 (train_size,), read-only.

        No image is decoded. Of record files that stream, the first use on a machine reads all
        records.
        """
        labels = self.labels("train")
        labels.setflags(write=False)
        return labels

    def labels(self, part: str) -> np.ndarray:
        """Returns the labels of a part in index order, int32; decodes no image.

        Args:
            part: "train", "validation" or "test".

        Raises:
            TfkdError: There is no such part.
        """
        return self._source(part).all_labels()

    def check_training(self) -> None:
        """Checks that there is something to train on; evaluation works with any batch size.

        Raises:
            TfkdError: The training part does not fill one batch.
        """
        if self.batch_size > self.info.train_size:
            raise TfkdError(
                f"batch_size: found {self.batch_size}, wanted at most {self.info.train_size}, the "
                f"number of training images of {self.info.name}"
            )

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns of the training part, see ``with_column``."""
        return tuple(self._columns["train"])

    def with_column(self, name: str, array, *, test=None, validation=None) -> DataSet:
        """Returns the same data set with a further value for each training image.

        ``train(batch_keys=[name])`` then yields the values of the images of each batch, and
        ``train_evaluation`` yields them always:

            logits = np.load("teacher.npy", mmap_mode="r")
            data = data.with_column("teacher_logits", logits)
            batch = next(iter(data.train(batch_keys=["teacher_logits"])))

        Args:
            name: Key of the values in a batch.
            array: Numbers or booleans (info.train_size, ...), row i being the value of the image
                with ``index`` i. An array in memory is copied. Of a memory-mapped array or an
                ``h5py.Dataset``, only the rows of a batch are read, whenever the batch is made.
            test: Likewise for the test images, (info.test_size, ...); ``test`` then yields them.
            validation: Likewise for the validation images.

        Raises:
            TfkdError: The name is taken, an array has another length or holds no numbers, or there
                is no validation part.
        """
        batches.check_column_name(name, self._columns["train"])
        given = {"train": array, "test": test, "validation": validation}
        made = copy.copy(self)
        made._columns = dict(self._columns)
        for part, values in given.items():
            if values is None and part != "train":
                continue
            source = self._source(part)
            column = Column(name, part, values, source.size)
            made._columns[part] = self._columns[part] | {name: column}
        return made

    def with_batch_size(self, batch_size: int) -> DataSet:
        """Returns the same data set in batches of another size.

        Raises:
            TfkdError: The batch size is not a whole number of at least 1.
        """
        made = copy.copy(self)
        made.batch_size = _checked_batch_size(batch_size)
        return made

    def sample(self, count: int) -> tf.data.Dataset:
        """Returns some training images un-augmented, alike in every class; form as for ``test``.

        They are the same at every call; of record files that stream, the first ones.

        Args:
            count: How many; all of them where there are no more.
        """
        source = self._source("train")
        made = copy.copy(self)
        made._sources = {"train": source if count >= source.size else source.subset(count)}
        made._columns = {"train": {}}
        return made.train_evaluation()

    def digest(self, part: str = "train") -> str:
        """Returns a digest of the images and labels of a part and of their order.

        Images in memory count in full, files by their names, sizes and times.

        Args:
            part: "train", "validation" or "test".

        Raises:
            TfkdError: There is no such part.
        """
        return self._source(part).digest()

    def identity(self) -> dict[str, dict[str, Any]]:
        """Returns what tells these images from others, wherever they lie and whenever they came.

        Unlike ``digest`` it heeds neither times nor absolute paths.

        Returns:
            For each part ``images``, their number, ``digest``, and ``by``, what is in the digest:
            ``contents`` of images in memory, ``names and sizes`` of the files of others; of the
            training part also ``order``, the number of the rule that orders its batches, if it is
            not the first.
        """
        found = {}
        for part in _PARTS:
            if part in self._sources:
                digest, by = self._sources[part].identity()
                found[part] = {"images": self._sources[part].size, "digest": digest, "by": by}
        order = self._sources["train"].order
        if order > 1:
            found["train"]["order"] = order
        return found

    def train(
        self,
        first_step: int = 0,
        last_step: int | None = None,
        *,
        batch_keys: Iterable[str] = (),
        input_context: tf.distribute.InputContext | None = None,
    ) -> tf.data.Dataset:
        """Returns the training batches first_step, first_step + 1, ... last_step - 1.

        Args:
            first_step: Global step of the first batch. Those before it cost nothing.
            last_step: Global step to stop before; None never stops.
            batch_keys: Further entries wanted in every batch, such as "index".
            input_context: Given by ``strategy.distribute_datasets_from_function``. The data set
                then yields one batch of batch_size / replicas rows for each local replica and step;
                the replicas together see the global batch of a one-replica run.

        Returns:
            Yields dicts of ``image`` uint8 (B, H, W, C), augmented pixels 0..255, ``label`` int32
            (B,), and the batch_keys:
            ``index`` int32 (B,), the position in the un-shuffled training part;
            ``image_second``, ``image_third``, like ``image`` but augmented independently;
            ``image_strong``, likewise, then changed by RandAugment(2, 10);
            ``image_pair``, likewise, of an image drawn uniformly from the same class;
            ``image_rotations`` uint8 (4B, H, W, C), row 4 i + r being image i, mirrored or not,
            turned counter-clockwise by r * 90 degrees, and then cropped on its own;
            ``heldout_image`` uint8 (B, H, W, C) and ``heldout_label`` int32 (B,), a batch of the
            validation part, un-augmented, in a shuffled order of its own;
            the names of columns (see ``with_column``), (B, ...).
            Where batches are mixed, ``label`` is float32 (B, num_classes).

        Raises:
            TfkdError: Steps out of order, an unknown key, one that the images do not have or that
                cannot be mixed, or a batch that the replicas cannot share evenly.
        """
        if first_step < 0 or (last_step is not None and last_step < first_step):
            raise TfkdError(
                f"training steps: found {first_step} to {last_step}, wanted 0 <= first <= last"
            )
        self.check_training()
        source, columns = self._sources["train"], self._columns["train"]
        makers = batches.makers(batch_keys, source, columns)
        shard = Shard.of(self.batch_size, input_context)
        if self.mixing:
            self.mixing.check(makers, columns, shard.rows)
        source.prepare(self.augmentation)
        refs = source.shuffled(self.seed, self.batch_size, first_step)
        validation = None
        if any(name in batches.HELDOUT for name in makers):
            self._check_heldout()
            validation = self._sources["validation"]
            heldout = validation.shuffled(self.seed, self.batch_size, first_step, "heldout ")
            refs = tf.data.Dataset.zip(refs, heldout).map(batches.with_heldout)
        if last_step is not None:
            refs = refs.take(last_step - first_step)

        def make(step: tf.Tensor, first_row: tf.Tensor, refs: ExampleRefs) -> dict[str, tf.Tensor]:
            batch = batches.Batch(
                source,
                refs,
                self.augmentation,
                self.seed,
                self.batch_size,
                step,
                first_row,
                validation,
            )
            made = {name: maker(batch) for name, maker in makers.items()}
            if self.mixing:
                made = mixing.mix(made, self.mixing, self.info.num_classes, self.seed, step)
            return made

        made = shard.mapped(refs.enumerate(first_step), make)
        count = tf.data.INFINITE_CARDINALITY
        if last_step is not None:
            count = (last_step - first_step) * shard.count
        return made.apply(tf.data.experimental.assert_cardinality(count))

    def _check_heldout(self) -> None:
        """Checks that the validation part fills a batch for every training step."""
        found = self.info.validation_size
        if found < self.batch_size:
            raise TfkdError(
                f"{', '.join(batches.HELDOUT)}: found {found or 'no'} validation images of "
                f"{self.info.name}, wanted at least a batch of {self.batch_size}; set a part of "
                f"the training images apart, such as validation_split=0.1"
            )

    def validation(
        self, *, input_context: tf.distribute.InputContext | None = None
    ) -> tf.data.Dataset:
        """Returns the validation part; form and arguments as for ``test``.

        Raises:
            TfkdError: There is no validation part.
        """
        return self._in_order("validation", input_context)

    def test(self, *, input_context: tf.distribute.InputContext | None = None) -> tf.data.Dataset:
        """Returns the test part, un-augmented and in order.

        Args:
            input_context: As for ``train``.

        Returns:
            Yields dicts of ``image`` uint8 (B, H, W, C), ``label`` int32 (B,), ``sample_weight``
            float32 (B,), ``filler`` bool (B,) and the columns of the part. Every batch is full:
            rows that only fill up the last one repeat an image, have the weight 0 and are marked
            as ``filler``; the others have the weight 1. Its ``class_names`` are those of ``info``.
        """
        return self._in_order("test", input_context)

    def train_evaluation(
        self, *, input_context: tf.distribute.InputContext | None = None
    ) -> tf.data.Dataset:
        """Returns the training part un-augmented and in order; form as for ``test``."""
        return self._in_order("train", input_context)

    def _source(self, part: str) -> ImageSource:
        """Returns the images of a part; raises TfkdError where there is no such part."""
        if part not in _PARTS:
            raise unknown("part", part, _PARTS)
        if part not in self._sources:
            raise TfkdError(
                f"{self.info.name}: has no {part} part; wanted training images to set apart, such "
                f"as validation_split=0.1 or validation_size=1000"
            )
        return self._sources[part]

    def _in_order(
        self, part: str, input_context: tf.distribute.InputContext | None
    ) -> tf.data.Dataset:
        source = self._source(part)
        columns = self._columns[part]
        shard = Shard.of(self.batch_size, input_context)
        refs = source.in_order().batch(self.batch_size).map(self._filled)

        def make(step: tf.Tensor, first_row: tf.Tensor, refs: ExampleRefs) -> dict[str, tf.Tensor]:
            del step, first_row
            refs = source.fetched(refs)
            made = {
                "image": source.pixels(refs),
                "label": source.labels(refs),
                "sample_weight": tf.where(refs["filler"], 0.0, 1.0),
                "filler": refs["filler"],
            }
            return made | {name: column.rows(refs["index"]) for name, column in columns.items()}

        made = shard.mapped(refs.enumerate(), make)
        count = -(-source.size // self.batch_size) * shard.count
        made = made.apply(tf.data.experimental.assert_cardinality(count))
        made.class_names = self.info.class_names  # As Keras' data sets of images have them.
        return made

    def _filled(self, refs: ExampleRefs) -> ExampleRefs:
        """Returns a batch of full size: the last row repeated, and marked."""
        found = tf.shape(refs["index"])[0]
        rows = tf.range(self.batch_size)
        filled = {key: tf.gather(value, tf.minimum(rows, found - 1)) for key, value in refs.items()}
        return filled | {"filler": rows >= found}


def same_images(first: dict[str, Any] | None, second: dict[str, Any] | None) -> bool:
    """Returns whether two entries of ``DataSet.identity`` are of the same images.

    How training batches are ordered does not count. None is a part that is not there.
    """
    if first is None or second is None:
        return first is second
    return {**first, "order": 0} == {**second, "order": 0}


def _checked_batch_size(batch_size: int) -> int:
    whole = isinstance(batch_size, int) and not isinstance(batch_size, bool)
    if not whole or batch_size < 1:
        raise TfkdError(f"batch_size: found {batch_size!r}, wanted a whole number from 1 on")
    return batch_size
