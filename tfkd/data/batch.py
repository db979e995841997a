"""What one batch is made of, and the table of the entries that can be asked for."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable

import tensorflow as tf

from tfkd.data import augmentation as augmentations
from tfkd.data import pairs, randaugment, resizedcrop, rotations
from tfkd.data.augmentation import Augmentation
from tfkd.data.source import ExampleRefs, ImageSource
from tfkd.errors import unknown


class Batch:
    """Some rows of one global batch (all of them, or one replica's), inside the graph.

    This is what a maker of a batch entry sees; b is the number of rows here.

    Attributes:
        source: The training images.
        refs: The examples of these rows.
        augmentation: How an image is varied.
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
        self.refs = refs
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
        """The images as they are, uint8 (b, H, W, C)."""
        return self.source.pixels(self.refs)

    def view(self, stream: str) -> tf.Tensor:
        """Returns one augmented view of the images, uint8 (b, H, W, C).

        Args:
            stream: Name of the view. Views of other names are drawn independently.
        """
        if self.augmentation.resized:
            draws = resizedcrop.draw(self.seed, stream, self.epoch, self.index)
            return self.source.resized_crops(self.refs, draws)
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
        """A batch of the validation images; only where the walk brings their refs."""
        refs = {
            key.removeprefix(_HELDOUT_TOKEN): value
            for key, value in self.refs.items()
            if key.startswith(_HELDOUT_TOKEN)
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
            index: int32 (b,), their positions in a source that reaches any example by position.
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
    """Returns the maker of an augmented view that is independent of those of other names."""
    return lambda batch: batch.view(stream)


def _strong(source: ImageSource) -> Maker:
    """Returns the maker of a view that RandAugment has changed as well."""
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


# Entries beside image and label, by key: what makes the maker for a training source, or raises
# TfkdError where the source has no such entry. A method that needs another one adds it here.
EXTRAS: dict[str, Callable[[ImageSource], Maker]] = {
    "index": lambda source: lambda batch: batch.index,
    "image_second": lambda source: _view("image_second"),
    "image_third": lambda source: _view("image_third"),
    "image_strong": _strong,
    "image_pair": _pair,
    "image_rotations": _rotations,
    "heldout_image": lambda source: lambda batch: batch.heldout.pixels,
    "heldout_label": lambda source: lambda batch: batch.heldout.label,
}
# Those that are made of validation images, whose refs must then walk beside the others.
HELDOUT = ("heldout_image", "heldout_label")

_HELDOUT_TOKEN = "heldout "


def with_heldout(refs: ExampleRefs, heldout: ExampleRefs) -> ExampleRefs:
    """Returns the refs of a training batch together with those of a validation batch."""
    return refs | {f"{_HELDOUT_TOKEN}{key}": value for key, value in heldout.items()}


def makers(batch_keys: Iterable[str], source: ImageSource) -> dict[str, Maker]:
    """Returns the makers of the keys of a training batch: image, label and the batch_keys.

    Args:
        batch_keys: The keys wanted beside image and label.
        source: The training images.

    Raises:
        TfkdError: An extra is unknown, and the message names those available; or the training
            images have no such entry.
    """
    wanted: dict[str, Maker] = {
        "image": _view("image"),
        "label": lambda batch: batch.label,
    }
    for name in [batch_keys] if isinstance(batch_keys, str) else batch_keys:
        if name in wanted:
            continue
        if name not in EXTRAS:
            raise unknown("batch entry", name, EXTRAS)
        wanted[name] = EXTRAS[name](source)
    return wanted
