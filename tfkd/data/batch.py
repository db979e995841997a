"""The parts of one training batch, and the table of the entries that it can have."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping

import tensorflow as tf

from tfkd.data import augmentation as augmentations
from tfkd.data import pairs, randaugment, resizedcrop, rotations
from tfkd.data.augmentation import Augmentation
from tfkd.data.columns import Column
from tfkd.data.source import ExampleRefs, ImageSource
from tfkd.errors import TfkdError, unknown


class Batch:
    """Some rows of one global batch (all of them, or one replica's), inside the graph.

    A maker of a batch entry is given such a batch; b is the number of rows here.

    Attributes:
        source: The training images.
        refs: The examples of these rows.
        augmentation: The augmentation of the training images.
        seed: Seed of the data set.
        batch_size: Rows of the global batch.
        step: Global step, int64 scalar.
        first_row: Position of the first of these rows in the global batch, scalar.
        validation: The validation images, None if there are none.
        rows: b.
    """

    def __init__(
        self,
        source: ImageSource,
        refs: ExampleRefs,
        augmentation: Augmentation,
        seed: int,
        batch_size: int,
        step: tf.Tensor,
        first_row: tf.Tensor,
        validation: ImageSource | None = None,
    ):
        self.source = source
        self.refs = source.fetched(refs)
        self.augmentation = augmentation
        self.seed = seed
        self.batch_size = batch_size
        self.step = step
        self.first_row = first_row
        self.validation = validation
        self.rows = refs["index"].shape[0]

    @property
    def epoch(self) -> tf.Tensor:
        """Epoch of the step, int64 scalar."""
        return self.step // (self.source.size // self.batch_size)

    @property
    def index(self) -> tf.Tensor:
        """Positions in the un-shuffled training set, int32 (b,)."""
        return self.refs["index"]

    @functools.cached_property
    def label(self) -> tf.Tensor:
        """Labels, int32 (b,)."""
        return self.source.labels(self.refs)

    @functools.cached_property
    def pixels(self) -> tf.Tensor:
        """The un-augmented images, uint8 (b, H, W, C)."""
        return self.source.pixels(self.refs)

    def view(self, stream: str) -> tf.Tensor:
        """Returns one augmented view of the images, uint8 (b, H, W, C).

        Args:
            stream: Name of the view. Views of other names are drawn independently.
        """
        if self.augmentation.resized:
            draws = resizedcrop.draw(self.seed, stream, self.epoch, self.index)
            return self.source.resized_crops(self.refs, draws, self.augmentation.fast)
        placement = augmentations.draw(
            self.augmentation,
            self.seed,
            stream,
            self.step,
            self.batch_size,
            self.first_row,
            self.rows,
        )
        return self.source.crops(self.refs, self.pixels, placement, self.augmentation)

    @functools.cached_property
    def heldout(self) -> Batch:
        """A batch of the validation images, where ``refs`` names them too (``with_heldout``)."""
        refs = {
            key.removeprefix(_HELDOUT_REF): value
            for key, value in self.refs.items()
            if key.startswith(_HELDOUT_REF)
        }
        return Batch(
            self.validation,
            refs,
            self.augmentation,
            self.seed,
            self.batch_size,
            self.step,
            self.first_row,
        )

    def exchanged(self, index: tf.Tensor) -> Batch:
        """Returns the batch with other examples in the same rows.

        Args:
            index: int32 (b,), their positions in the source.
        """
        return Batch(
            self.source,
            {"index": index},
            self.augmentation,
            self.seed,
            self.batch_size,
            self.step,
            self.first_row,
        )


Maker = Callable[[Batch], tf.Tensor]


def _view(stream: str) -> Maker:
    """Returns the maker of an augmented view; views of other streams are independent."""
    return lambda batch: batch.view(stream)


def _strong(source: ImageSource) -> Maker:
    """Returns the maker of an augmented view to which RandAugment is applied as well."""
    randaugment.check_shape(source.image_shape)

    def make(batch: Batch) -> tf.Tensor:
        drawn = randaugment.draw(batch.seed, "randaugment", batch.epoch, batch.index)
        return randaugment.apply(batch.view("image_strong"), *drawn)

    return make


def _pair(source: ImageSource) -> Maker:
    """Returns the maker of a view of another image of the same class."""
    table = pairs.ClassTable(source)

    def make(batch: Batch) -> tf.Tensor:
        partners = table.partners(batch.seed, batch.epoch, batch.index, batch.label)
        return batch.exchanged(partners).view("image_pair")

    return make


def _rotations(source: ImageSource) -> Maker:
    """Returns the maker of the four rotations of each image."""
    rotations.check_shape(source.image_shape)

    def make(batch: Batch) -> tf.Tensor:
        if batch.augmentation.resized:
            return rotations.turned(batch.view("image_rotations"))
        return rotations.views(
            batch.pixels,
            batch.augmentation,
            batch.seed,
            batch.step,
            batch.batch_size,
            batch.first_row,
        )

    return make


def _column(column: Column) -> Maker:
    """Returns the maker of the values of a column."""
    return lambda batch: column.rows(batch.index)


# The entries beside image and label, by key. Each function returns the maker of the entry for a
# training source, or raises TfkdError where the source cannot have it.
BATCH_KEYS: dict[str, Callable[[ImageSource], Maker]] = {
    "index": lambda source: lambda batch: batch.index,
    "image_second": lambda source: _view("image_second"),
    "image_third": lambda source: _view("image_third"),
    "image_strong": _strong,
    "image_pair": _pair,
    "image_rotations": _rotations,
    "heldout_image": lambda source: lambda batch: batch.heldout.pixels,
    "heldout_label": lambda source: lambda batch: batch.heldout.label,
}
# The entries that are made of validation images, whose refs a batch must then have as well.
HELDOUT = ("heldout_image", "heldout_label")

_HELDOUT_REF = "heldout "
_OWN_PREFIXES = ("image_", "heldout_")


def with_heldout(refs: ExampleRefs, heldout: ExampleRefs) -> ExampleRefs:
    """Returns the refs of a training batch together with those of a validation batch."""
    return refs | {f"{_HELDOUT_REF}{key}": value for key, value in heldout.items()}


def check_column_name(name: str, columns: Iterable[str]) -> None:
    """Raises TfkdError unless a column may have the name.

    Args:
        name: The name.
        columns: The names of the columns that exist.
    """
    if not isinstance(name, str) or not name:
        raise TfkdError(f"column: found the name {name!r}, wanted a text")
    taken = {"image", "label", "sample_weight", "filler", *BATCH_KEYS, *columns}
    if name in taken or name.startswith(_OWN_PREFIXES):
        raise TfkdError(
            f"column {name!r}: is the name of another batch entry; wanted one that does not begin "
            f"with {' or '.join(_OWN_PREFIXES)} and is none of {', '.join(sorted(taken))}"
        )


def makers(
    batch_keys: Iterable[str], source: ImageSource, columns: Mapping[str, Column] | None = None
) -> dict[str, Maker]:
    """Returns the makers of the entries of a training batch, by key.

    Args:
        batch_keys: The keys wanted beside image and label.
        source: The training images.
        columns: The columns of the training part, by name.

    Raises:
        TfkdError: A key is unknown, or the training images cannot have the entry.
    """
    columns = columns or {}
    wanted: dict[str, Maker] = {
        "image": _view("image"),
        "label": lambda batch: batch.label,
    }
    for name in [batch_keys] if isinstance(batch_keys, str) else batch_keys:
        if name in wanted:
            continue
        if name in columns:
            wanted[name] = _column(columns[name])
        elif name in BATCH_KEYS:
            wanted[name] = BATCH_KEYS[name](source)
        else:
            raise unknown("batch entry", name, [*BATCH_KEYS, *columns])
    return wanted
