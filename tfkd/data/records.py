"""Record files of tensorflow-datasets that are too large for memory."""

from __future__ import annotations

import hashlib

import numpy as np
import tensorflow as tf

from tfkd.data import decoding, one_by_one, resizedcrop
from tfkd.data.decoding import Form
from tfkd.data.file_digest import file_digest, stable_digest
from tfkd.data.record_index import FRAME, RecordIndex
from tfkd.data.source import NAMES_AND_SIZES, ExampleRefs, ImageSource
from tfkd.errors import TfkdError

_RECORD, _IMAGE, _LABEL = "record", "encoded", "label"


def index_of(builder, split: str) -> RecordIndex:
    """Returns the index of a split of a prepared tensorflow-datasets builder.

    Raises:
        TfkdError: The split is not stored as TFRecord files, or one of them is not whole.
    """
    if builder.info.file_format.value != "tfrecord":
        raise TfkdError(
            f"{builder.name}: is stored as {builder.info.file_format.value} files and too "
            f"large for memory; wanted tfrecord files"
        )
    facts = builder.info.splits[split]
    return RecordIndex([str(path) for path in facts.filepaths], facts.shard_lengths)


class RecordImages(ImageSource):
    """Some records of one prepared split, each read whenever a batch needs it.

    Attributes:
        order: 2; by the first rule records were shuffled in windows.
    """

    order = 2

    def __init__(
        self, index: RecordIndex, features, keys: tuple[str, str], positions: np.ndarray, form: Form
    ):
        """Keeps where the records lie.

        Args:
            index: The index of the split.
            features: Those of its tensorflow-datasets builder.
            keys: The names of image and label among them.
            positions: Integers (n,): the records, counted in the order of the files.
            form: Size and channels of the images.
        """
        super().__init__(len(positions), form.shape)
        self._index, self._features, self._keys = index, features, keys
        self._positions, self._form = np.asarray(positions, np.int64), form
        # The input pipeline runs on the host, also where the networks do not.
        with tf.device("CPU:0"):
            self._paths = tf.constant(index.paths)
            self._file, self._number, self._start, self._length = (
                tf.constant(each[self._positions])
                for each in (index.file, index.number, index.start, index.length)
            )

    def at(self, positions: np.ndarray) -> RecordImages:
        return RecordImages(
            self._index, self._features, self._keys, self._positions[positions], self._form
        )

    def subset(self, count: int) -> RecordImages:
        """Returns a source of the first examples: the files were shuffled when written."""
        return self.at(np.arange(count))

    def fetched(self, refs: ExampleRefs) -> ExampleRefs:
        if _RECORD in refs:
            return refs
        record = self._read(refs["index"])
        kinds = {
            key: tf.io.FixedLenFeature([], kind)
            for key, kind in zip(self._keys, (tf.string, tf.int64))
        }
        parsed = tf.io.parse_example(record, kinds)
        image, label = (parsed[key] for key in self._keys)
        return refs | {_RECORD: record, _IMAGE: image, _LABEL: tf.cast(label, tf.int32)}

    def _read(self, index: tf.Tensor) -> tf.Tensor:
        """Returns some records, strings (B,)."""
        rows = [tf.gather(each, index) for each in (self._file, self._start, self._length)]
        places = tf.data.Dataset.from_tensor_slices((tf.range(tf.size(index)), *rows))

        def one(
            place: tf.Tensor, file: tf.Tensor, start: tf.Tensor, length: tf.Tensor
        ) -> tf.data.Dataset:
            records = tf.raw_ops.TFRecordDatasetV2(  # It compares the checksums.
                filenames=[self._paths[file]],
                compression_type="",
                buffer_size=length + FRAME,
                byte_offsets=[start],
            )
            kind = tf.TensorSpec([], tf.string)
            record = tf.data.experimental.from_variant(records, kind).take(1)
            return tf.data.Dataset.zip(tf.data.Dataset.from_tensors(place), record)

        read = places.flat_map(one)
        return one_by_one.all_of(read, self._names(index), tf.constant(""), self._form)

    def _names(self, index: tf.Tensor) -> tf.Tensor:
        """Returns what records are called in messages, strings (B,)."""
        file, number = (tf.gather(each, index) for each in (self._file, self._number))
        return one_by_one.record_names(tf.gather(self._paths, file), number)

    def pixels(self, refs: ExampleRefs) -> tf.Tensor:
        refs = self.fetched(refs)

        def make(contents: tf.Tensor) -> tf.Tensor:
            image = self._features[self._keys[0]].decode_example(contents)
            return decoding.fit(image, self._form)

        return one_by_one.each_of(make, (refs[_IMAGE],), self._names(refs["index"]), self._form)

    def resized_crops(self, refs: ExampleRefs, draws: tf.Tensor, fast: bool) -> tf.Tensor:
        refs = self.fetched(refs)

        def make(contents: tf.Tensor, drawn: tf.Tensor) -> tf.Tensor:
            return resizedcrop.decode(contents, drawn, self._form, fast=fast)

        names = self._names(refs["index"])
        return one_by_one.each_of(make, (refs[_IMAGE], draws), names, self._form)

    def labels(self, refs: ExampleRefs) -> tf.Tensor:
        return self.fetched(refs)[_LABEL]

    def all_labels(self) -> np.ndarray:
        kind = {self._keys[1]: tf.io.FixedLenFeature([], tf.int64)}

        def parse(records: tf.Tensor) -> tf.Tensor:
            return tf.cast(tf.io.parse_example(records, kind)[self._keys[1]], tf.int32)

        return self._index.labels(parse)[self._positions]

    def digest(self) -> str:
        return self._digest(file_digest(self._index.paths))

    def identity(self) -> tuple[str, str]:
        return self._digest(stable_digest(self._index.paths, parts=1)), NAMES_AND_SIZES

    def _digest(self, files: str) -> str:
        start, stop = int(self._positions[0]), int(self._positions[-1]) + 1
        places = (start, stop)
        if not np.array_equal(self._positions, np.arange(start, stop)):
            places = (hashlib.sha256(self._positions.tobytes()).hexdigest(),)
        facts = (files, *places, self._form, self._keys)
        return hashlib.sha256(repr(facts).encode()).hexdigest()
