"""Record files of tensorflow-datasets that are too large for memory."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from tfkd.data import class_choice, decoding, one_by_one, resizedcrop
from tfkd.data.decoding import Form
from tfkd.data.file_digest import file_digest, stable_digest
from tfkd.data.record_index import FRAME, RecordIndex
from tfkd.data.source import NAMES_AND_SIZES, ExampleRefs, ImageSource
from tfkd.errors import TfkdError

_RECORD, _IMAGE, _LABEL = "record", "encoded", "label"


def opened(builder, split: str, keys: tuple[str, str], form: Form) -> RecordImages:
    """Returns a whole split of a prepared tensorflow-datasets builder.

    Args:
        builder: The builder.
        split: Name of the split.
        keys: The names of image and label among its features.
        form: Size and channels of the images.

    Raises:
        TfkdError: The split is not stored as TFRecord files, one of them is not whole, or the
            records are empty, unlabeled or of another kind.
    """
    if builder.info.file_format.value != "tfrecord":
        raise TfkdError(
            f"{builder.name}: is stored as {builder.info.file_format.value} files and too "
            f"large for memory; wanted tfrecord files"
        )
    facts = builder.info.splits[split]
    index = RecordIndex([str(path) for path in facts.filepaths], facts.shard_lengths)
    where = f"{builder.name}: the split {split!r}"
    if not len(index.length):
        raise TfkdError(f"{where}: found no examples, wanted one or more")
    source = RecordImages(index, builder.info.features, keys, np.arange(len(index.length)), form)
    try:
        label = int(source.labels({"index": tf.zeros([1], tf.int32)})[0])
    except tf.errors.InvalidArgumentError as error:
        raise one_by_one.explain(error) or TfkdError(
            f"{where}: found records without {' and '.join(keys)}, wanted those of its features; "
            f"prepare the set anew"
        ) from None
    if label < 0:
        raise TfkdError(f"{where}: has no labels (found {label})")
    return source


class RecordImages(ImageSource):
    """Some records of one prepared split, each read whenever a batch needs it.

    Attributes:
        order: 2; by the first rule records were shuffled in windows.
    """

    order = 2

    def __init__(
        self,
        index: RecordIndex,
        features,
        keys: tuple[str, str],
        positions: np.ndarray,
        form: Form,
        classes: Sequence[int] | None = None,
    ):
        """Keeps where the records lie.

        Args:
            index: The index of the split.
            features: Those of its tensorflow-datasets builder.
            keys: The names of image and label among them.
            positions: Integers (n,): the records, counted in the order of the files.
            form: Size and channels of the images.
            classes: Numbers of the classes that the records are of, ascending, which become the
                labels 0, 1, ...; None for all.
        """
        super().__init__(len(positions), form.shape)
        self._index, self._features, self._keys = index, features, keys
        self._positions, self._form = np.asarray(positions, np.int64), form
        self._classes = None if classes is None else tuple(map(int, classes))
        # The input pipeline runs on the host, also where the networks do not.
        with tf.device("CPU:0"):
            self._paths = tf.constant(index.paths)
            self._file, self._number, self._start, self._length = (
                tf.constant(each[self._positions])
                for each in (index.file, index.number, index.start, index.length)
            )

    def at(self, positions: np.ndarray) -> RecordImages:
        return self._of(self._positions[positions], self._classes)

    def of_classes(self, kept: Sequence[int], where: str) -> RecordImages:
        """Returns the source of some classes of one that holds all; see ``class_choice``."""
        places, _ = class_choice.of_classes(self.all_labels(), kept, where)
        return self._of(self._positions[places], kept)

    def _of(self, positions: np.ndarray, classes: Sequence[int] | None) -> RecordImages:
        return RecordImages(self._index, self._features, self._keys, positions, self._form, classes)

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
        files, starts, lengths = (
            tf.gather(each, index) for each in (self._file, self._start, self._length)
        )
        places = tf.data.Dataset.from_tensor_slices(
            (tf.range(tf.size(index)), files, starts, lengths)
        )

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

        names = self._names(index)
        found = one_by_one.all_of(places.flat_map(one), names, tf.constant(""), self._form)
        # Another length: the file has changed since it was indexed.
        same = tf.cast(tf.strings.length(found), tf.int64) == lengths
        return one_by_one.checked(found, same, names, self._form)

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
        names = self._names(refs["index"])
        # The rectangles of a batch at once cost less than one by one.
        sizes = one_by_one.each_of(
            resizedcrop.jpeg_size, (refs[_IMAGE],), names, self._form, tf.zeros([2], tf.int32)
        )
        places = resizedcrop.windows(draws, *tf.unstack(sizes, axis=1))

        def make(contents: tf.Tensor, drawn: tf.Tensor, place: tf.Tensor) -> tf.Tensor:
            return resizedcrop.decode(contents, drawn, self._form, fast=fast, jpeg_window=place)

        return one_by_one.each_of(make, (refs[_IMAGE], draws, places), names, self._form)

    def labels(self, refs: ExampleRefs) -> tf.Tensor:
        labels = self.fetched(refs)[_LABEL]
        return labels if self._classes is None else tf.searchsorted(self._classes, labels)

    def all_labels(self) -> np.ndarray:
        kind = {self._keys[1]: tf.io.FixedLenFeature([], tf.int64)}

        def parse(records: tf.Tensor) -> tf.Tensor:
            return tf.cast(tf.io.parse_example(records, kind)[self._keys[1]], tf.int32)

        labels = self._index.labels(parse)[self._positions]
        if self._classes is None:
            return labels
        return np.searchsorted(self._classes, labels).astype(np.int32)

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
        if self._classes is not None:
            facts += (self._classes,)
        return hashlib.sha256(repr(facts).encode()).hexdigest()
