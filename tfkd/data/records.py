"""Record files of tensorflow-datasets that are too large for memory."""

from __future__ import annotations

import copy
import hashlib

import numpy as np
import tensorflow as tf

from tfkd.data import decoding, randomness, resizedcrop
from tfkd.data.decoding import Form
from tfkd.data.file_digest import file_digest, stable_digest
from tfkd.data.source import NAMES_AND_SIZES, ExampleRefs, ImageSource
from tfkd.errors import TfkdError

_READERS = 16
_WINDOW = 1024


class RecordImages(ImageSource):
    """A range of the examples of one prepared split, read record by record.

    There is no access by position. In an epoch the files come in an order drawn from (seed, epoch),
    sixteen of them are read in turn, and their records are shuffled in windows of 1,024. Starting
    in the middle of an epoch reads the records before it, without decoding them.
    """

    def __init__(self, builder, split: str, start: int, stop: int, form: Form):
        """Opens a split of a prepared tensorflow-datasets builder.

        Args:
            builder: The prepared builder, with the features ``image`` and ``label``.
            split: Name of the split.
            start: First example used, counted in the order of the files.
            stop: Example to stop before.
            form: Size and channels of the images.

        Raises:
            TfkdError: The split is not stored as TFRecord files.
        """
        facts = builder.info.splits[split]
        if builder.info.file_format.value != "tfrecord":
            raise TfkdError(
                f"{builder.name}: is stored as {builder.info.file_format.value} files and too "
                f"large for memory; wanted tfrecord files"
            )
        self.size = stop - start
        self.image_shape = form.shape
        self._form = form
        self._start, self._stop = start, stop
        self._features = builder.info.features
        self._keys = builder.info.supervised_keys
        self._paths = [str(path) for path in facts.filepaths]
        self._offsets = np.cumsum([0, *facts.shard_lengths[:-1]])

    def subset(self, count: int) -> RecordImages:
        """Returns a source of the first examples: the files were shuffled when written."""
        part = copy.copy(self)
        part.size, part._stop = count, self._start + count
        return part

    def _records(self, paths: tf.Tensor, offsets: tf.Tensor, readers: int) -> tf.data.Dataset:
        """Returns the refs of some files, in the order of the files."""

        def one_file(path: tf.Tensor, offset: tf.Tensor) -> tf.data.Dataset:
            return tf.data.TFRecordDataset(path).enumerate(offset)

        def inside(position: tf.Tensor, record: tf.Tensor) -> tf.Tensor:
            del record
            return (position >= self._start) & (position < self._stop)

        def refs(position: tf.Tensor, record: tf.Tensor) -> ExampleRefs:
            return {"index": tf.cast(position - self._start, tf.int32), "record": record}

        files = tf.data.Dataset.from_tensor_slices((paths, offsets))
        records = files.interleave(one_file, cycle_length=readers)
        return records.filter(inside).map(refs)

    def in_order(self) -> tf.data.Dataset:
        return self._records(self._paths, self._offsets, readers=1)

    def shuffled(
        self, seed: int, batch_size: int, first_step: int, stream: str = ""
    ) -> tf.data.Dataset:
        steps = self.size // batch_size
        first_epoch, skipped = divmod(first_step, steps)
        windows = -(-self.size // _WINDOW)

        def epoch_batches(epoch: tf.Tensor) -> tf.data.Dataset:
            order = randomness.permutation(len(self._paths), seed, f"{stream}files", epoch)
            paths, offsets = tf.gather(self._paths, order), tf.gather(self._offsets, order)

            def mix(number: tf.Tensor, refs: ExampleRefs) -> ExampleRefs:
                size = tf.size(refs["index"])
                counter = epoch * windows + number
                window = randomness.permutation(size, seed, f"{stream}records", counter)
                return {key: tf.gather(value, window) for key, value in refs.items()}

            records = self._records(paths, offsets, readers=min(_READERS, len(self._paths)))
            mixed = records.batch(_WINDOW).enumerate().map(mix).unbatch()
            batches = mixed.batch(batch_size, drop_remainder=True)
            return batches.skip(tf.where(epoch == first_epoch, tf.cast(skipped, tf.int64), 0))

        return tf.data.Dataset.counter(first_epoch).flat_map(epoch_batches)

    def _parsed(self, refs: ExampleRefs, key: str, kind: tf.TensorSpec) -> tf.Tensor:
        def one(record: tf.Tensor) -> tf.Tensor:
            value = self._features.deserialize_example(record)[key]
            if kind.dtype == tf.uint8:
                return decoding.fit(value, self._form)
            return tf.cast(value, tf.int32)

        return tf.map_fn(one, refs["record"], fn_output_signature=kind)

    def _encoded(self, record: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns the features of a record; the image is left encoded."""
        import tensorflow_datasets as tfds  # slow to import, wanted here only

        encoded = {self._keys[0]: tfds.decode.SkipDecoding()}
        return self._features.deserialize_example(record, decoders=encoded)

    def all_labels(self) -> np.ndarray:
        def one(refs: ExampleRefs) -> tf.Tensor:
            return tf.cast(self._encoded(refs["record"])[self._keys[1]], tf.int32)

        labels = self.in_order().map(one, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        chunks = labels.batch(_WINDOW).prefetch(tf.data.AUTOTUNE)
        return np.concatenate(list(chunks.as_numpy_iterator()))

    def digest(self) -> str:
        facts = (file_digest(self._paths), self._start, self._stop, self._form, self._keys)
        return hashlib.sha256(repr(facts).encode()).hexdigest()

    def identity(self) -> tuple[str, str]:
        files = stable_digest(self._paths, parts=1)
        facts = (files, self._start, self._stop, self._form, self._keys)
        return hashlib.sha256(repr(facts).encode()).hexdigest(), NAMES_AND_SIZES

    def resized_crops(self, refs: ExampleRefs, draws: tf.Tensor, fast: bool) -> tf.Tensor:
        def one(each: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
            record, drawn = each
            contents = self._encoded(record)[self._keys[0]]
            return resizedcrop.decode(contents, drawn, self._form, fast=fast)

        kind = tf.TensorSpec(self.image_shape, tf.uint8)
        return tf.map_fn(one, (refs["record"], draws), fn_output_signature=kind)

    def pixels(self, refs: ExampleRefs) -> tf.Tensor:
        return self._parsed(refs, self._keys[0], tf.TensorSpec(self.image_shape, tf.uint8))

    def labels(self, refs: ExampleRefs) -> tf.Tensor:
        return self._parsed(refs, self._keys[1], tf.TensorSpec([], tf.int32))
