"""What one batch is made of, and the table of the entries that can be asked for."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable

import tensorflow as tf

from tfkd.data import augmentation as augmentations
from tfkd.data.augmentation import Augmentation
from tfkd.data.source import ImageSource, Tokens
from tfkd.errors import unknown


class Batch:
    """Some rows of one global batch (all of them, or one replica's), inside the graph.

    This is what a maker of a batch entry sees; b is the number of rows here.

    Attributes:
        source: The training images.
        tokens: The examples of these rows.
        augmentation: How an image is varied.
        seed: Seed of the data set.
        batch_size: Rows of the global batch.
        step: Global step, int64 scalar.
        first_row: Position of the first of these rows in the global batch, scalar.
        rows: b.
    """

    def __init__(
        self,
        source: ImageSource,
        tokens: Tokens,
        augmentation: Augmentation,
        seed: int,
        batch_size: int,
        step: tf.Tensor,
        first_row: tf.Tensor,
    ):
        self.source = source
        self.tokens = tokens
        self.augmentation = augmentation
        self.seed = seed
        self.batch_size = batch_size
        self.step = step
        self.first_row = first_row
        self.rows = tokens["index"].shape[0]

    @property
    def index(self) -> tf.Tensor:
        """Positions in the un-shuffled training set, int32 (b,)."""
        return self.tokens["index"]

    @functools.cached_property
    def label(self) -> tf.Tensor:
        """Labels, int32 (b,)."""
        return self.source.labels(self.tokens)

    @functools.cached_property
    def pixels(self) -> tf.Tensor:
        """The images as they are, uint8 (b, H, W, C)."""
        return self.source.pixels(self.tokens)

    def view(self, stream: str) -> tf.Tensor:
        """Returns one augmented view of the images, uint8 (b, H, W, C).

        Args:
            stream: Name of the view. Views of other names are drawn independently.
        """
        placement = augmentations.draw(
            self.augmentation,
            self.seed,
            stream,
            self.step,
            self.batch_size,
            self.first_row,
            self.rows,
        )
        return self.source.crops(self.tokens, self.pixels, placement, self.augmentation)


Maker = Callable[[Batch], tf.Tensor]

# Entries beside image and label, by key. A method that needs another one adds its maker here.
EXTRAS: dict[str, Maker] = {"index": lambda batch: batch.index}


def makers(extras: Iterable[str]) -> dict[str, Maker]:
    """Returns the makers of the keys of a training batch: image, label and the extras.

    Raises:
        TfkdError: An extra is unknown; the message names those available.
    """
    wanted: dict[str, Maker] = {
        "image": lambda batch: batch.view("image"),
        "label": lambda batch: batch.label,
    }
    for name in [extras] if isinstance(extras, str) else extras:
        if name in wanted:
            continue
        if name not in EXTRAS:
            raise unknown("batch entry", name, EXTRAS)
        wanted[name] = EXTRAS[name]
    return wanted
