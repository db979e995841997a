"""The data set that everything else sees: facts about it, and batches of its three parts."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import tensorflow as tf

from tfkd.data import batch as batches
from tfkd.data import mixing, randomness
from tfkd.data.augmentation import Augmentation
from tfkd.data.mixing import Mixing
from tfkd.data.sharding import Shard
from tfkd.data.source import ExampleRefs, ImageSource
from tfkd.errors import TfkdError


@dataclasses.dataclass(frozen=True)
class DataInfo:
    """What is known about a data set.

    Attributes:
        name: The name it was loaded by.
        num_classes: Number of classes; labels are 0 .. num_classes - 1.
        image_shape: (height, width, channels).
        train_size: Examples of the training part, without those set apart for validation.
        validation_size: Examples of the validation part; 0 if there is none.
        test_size: Examples of the test part.
        mean: Mean of each channel over the training part, in pixel units 0..255 (for CIFAR the
            published value).
        std: Standard deviation likewise.
        class_names: Names of the classes, in the order of the labels.
    """

    name: str
    num_classes: int
    image_shape: tuple[int, int, int]
    train_size: int
    validation_size: int
    test_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    class_names: tuple[str, ...]


class DataSet:
    """Train, validation and test batches of one data set, all of them dicts.

    Made by `tfkd.data.load` and `tfkd.data.from_arrays`. A training batch is a pure function of
    (seed, global step): the order within an epoch depends on (seed, epoch), the augmentation on
    (seed, step), and no generator keeps a state. A run that continues at step g asks for
    `train(first_step=g)` and gets what it would have got.

    Attributes:
        info: The facts (see DataInfo).
        batch_size: Rows of a global batch.
        seed: Seed of order and augmentation.
        augmentation: How training images are varied.
        mixing: How training batches are mixed.
    """

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
        whole = isinstance(batch_size, int) and not isinstance(batch_size, bool)
        if not whole or batch_size < 1:
            raise TfkdError(f"batch_size: found {batch_size!r}, wanted a whole number from 1 on")
        self.info = info
        self.batch_size = batch_size
        self.seed = randomness.check_seed(seed)
        self.augmentation = augmentation
        self.mixing = mixing
        self._train = train
        self._test = test
        self._validation = validation

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in the training part; the images left over change with every epoch."""
        self.check_training()
        return self._train.size // self.batch_size

    def check_training(self) -> None:
        """Checks that there is something to train on; evaluation works with any batch size.

        Raises:
            TfkdError: The training part does not fill one batch.
        """
        if self.batch_size > self._train.size:
            raise TfkdError(
                f"batch_size: found {self.batch_size}, wanted at most {self._train.size}, the "
                f"number of training images of {self.info.name}"
            )

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
            first_step: Global step of the first batch. Those before it cost nothing (with record
                files: reading, but no decoding).
            last_step: Global step to stop before; None never stops.
            batch_keys: Further entries wanted in every batch, such as "index".
            input_context: Given by `strategy.distribute_datasets_from_function`. The data set then
                yields one batch of batch_size / replicas rows for each local replica and step, so
                that the replicas together see the global batch of a one-replica run.

        Returns:
            Yields dicts of `image` uint8 (B, H, W, C), augmented pixels 0..255, `label` int32
            (B,), and the batch_keys:
            `index` int32 (B,), the position in the un-shuffled training part;
            `image_second`, `image_third`, like `image` but augmented independently;
            `image_strong`, likewise, then changed by RandAugment(2, 10);
            `image_pair`, likewise, of an image drawn uniformly from the same class;
            `image_rotations` uint8 (4B, H, W, C), row 4 i + r being image i, mirrored or not,
            turned counter-clockwise by r * 90 degrees, and then cropped on its own;
            `heldout_image` uint8 (B, H, W, C) and `heldout_label` int32 (B,), a batch of the
            validation part, un-augmented, from a shuffled walk of its own.
            Where batches are mixed, `label` is float32 (B, num_classes).

        Raises:
            TfkdError: Steps out of order, an unknown extra, one that the images do not have or
                that cannot be mixed, or a batch that the replicas cannot share evenly.
        """
        if first_step < 0 or (last_step is not None and last_step < first_step):
            raise TfkdError(
                f"training steps: found {first_step} to {last_step}, wanted 0 <= first <= last"
            )
        self.check_training()
        makers = batches.makers(batch_keys, self._train)
        shard = Shard.of(self.batch_size, input_context)
        if self.mixing:
            self.mixing.check(makers, shard.rows)
        self._train.prepare(self.augmentation)
        walk = self._train.shuffled(self.seed, self.batch_size, first_step)
        if any(name in batches.HELDOUT for name in makers):
            self._check_heldout()
            second = self._validation.shuffled(self.seed, self.batch_size, first_step, "heldout ")
            walk = tf.data.Dataset.zip(walk, second).map(batches.with_heldout)
        if last_step is not None:
            walk = walk.take(last_step - first_step)

        def make(step: tf.Tensor, first_row: tf.Tensor, refs: ExampleRefs) -> dict[str, tf.Tensor]:
            batch = batches.Batch(
                self._train,
                refs,
                self.augmentation,
                self.seed,
                self.batch_size,
                step,
                first_row,
                self._validation,
            )
            made = {name: maker(batch) for name, maker in makers.items()}
            if self.mixing:
                made = mixing.mix(made, self.mixing, self.info.num_classes, self.seed, step)
            return made

        made = shard.mapped(walk.enumerate(first_step), make)
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
                f"the training images apart, such as validation=0.1"
            )

    def validation(
        self, *, input_context: tf.distribute.InputContext | None = None
    ) -> tf.data.Dataset:
        """Returns the validation part; form and arguments as for `test`.

        Raises:
            TfkdError: There is no validation part.
        """
        if self._validation is None:
            raise TfkdError(
                f"{self.info.name}: has no validation part; wanted a fraction or a number of "
                f"training images to set apart, such as validation=0.1"
            )
        return self._in_order(self._validation, input_context)

    def test(self, *, input_context: tf.distribute.InputContext | None = None) -> tf.data.Dataset:
        """Returns the test part, un-augmented and in order.

        Args:
            input_context: As for `train`.

        Returns:
            Yields dicts of `image` uint8 (B, H, W, C), `label` int32 (B,) and `sample_weight`
            float32 (B,). Every batch is full: rows that only fill up the last one repeat an image
            and have the weight 0, the others 1.
        """
        return self._in_order(self._test, input_context)

    def train_evaluation(
        self, *, input_context: tf.distribute.InputContext | None = None
    ) -> tf.data.Dataset:
        """Returns the training part un-augmented and in order; form as for `test`."""
        return self._in_order(self._train, input_context)

    def _in_order(
        self, source: ImageSource, input_context: tf.distribute.InputContext | None
    ) -> tf.data.Dataset:
        shard = Shard.of(self.batch_size, input_context)
        walk = source.in_order().batch(self.batch_size).map(self._filled)

        def make(step: tf.Tensor, first_row: tf.Tensor, refs: ExampleRefs) -> dict[str, tf.Tensor]:
            del step, first_row
            return {
                "image": source.pixels(refs),
                "label": source.labels(refs),
                "sample_weight": refs["weight"],
            }

        made = shard.mapped(walk.enumerate(), make)
        count = -(-source.size // self.batch_size) * shard.count
        return made.apply(tf.data.experimental.assert_cardinality(count))

    def _filled(self, refs: ExampleRefs) -> ExampleRefs:
        """Returns a batch of full size: the last row repeated, with the weight 0."""
        found = tf.shape(refs["index"])[0]
        rows = tf.range(self.batch_size)
        filled = {key: tf.gather(value, tf.minimum(rows, found - 1)) for key, value in refs.items()}
        return filled | {"weight": tf.cast(rows < found, tf.float32)}
