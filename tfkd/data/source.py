"""Where images come from: the walk through one split, and the pixels of a batch of it.

A walk yields *refs*: small tensors that name examples (a position; for record files the encoded
record too). Shuffling, skipping and the sharing between replicas work on refs, so that none of
them costs a decoded image; pixels are made last.
"""

from __future__ import annotations

import abc

import numpy as np
import tensorflow as tf

from tfkd.data import holdout, randomness
from tfkd.data.augmentation import Augmentation, Placement, crop_pixels
from tfkd.data.croptable import CropTable
from tfkd.errors import TfkdError

ExampleRefs = dict[str, tf.Tensor]


class ImageSource(abc.ABC):
    """The images and labels of one split.

    Attributes:
        size: Number of examples.
        image_shape: (height, width, channels) of every image.
    """

    size: int
    image_shape: tuple[int, int, int]

    @abc.abstractmethod
    def in_order(self) -> tf.data.Dataset:
        """Returns the refs of the examples one by one, un-shuffled."""

    @abc.abstractmethod
    def shuffled(
        self, seed: int, batch_size: int, first_step: int, stream: str = ""
    ) -> tf.data.Dataset:
        """Returns an endless walk of token batches (batch_size,), from a global step on.

        Each epoch (size // batch_size steps) is shuffled anew, by (seed, epoch) alone. Walks of
        another stream are independent.
        """

    @abc.abstractmethod
    def pixels(self, refs: ExampleRefs) -> tf.Tensor:
        """Returns the images as they are, uint8 (B, H, W, C)."""

    @abc.abstractmethod
    def labels(self, refs: ExampleRefs) -> tf.Tensor:
        """Returns the labels, int32 (B,)."""

    @abc.abstractmethod
    def subset(self, count: int) -> ImageSource:
        """Returns a source of that many of the examples, the same ones at every call."""

    def check(self, augmentation: Augmentation) -> None:
        """Raises TfkdError if the images cannot be varied in that way."""

    def prepare(self, augmentation: Augmentation) -> None:
        """Called once before crops of that augmentation are wanted."""

    def crops(
        self, refs: ExampleRefs, pixels: tf.Tensor, placement: Placement, augmentation: Augmentation
    ) -> tf.Tensor:
        """Returns augmented images, uint8 (B, H, W, C).

        Args:
            refs: The examples.
            pixels: Their images as they are, for sources that have nothing quicker; an entry
                that nothing uses is dropped from the graph and costs nothing.
            placement: One crop for each example.
            augmentation: What the placements were drawn for.
        """
        del refs
        return crop_pixels(pixels, placement, augmentation)

    def resized_crops(self, refs: ExampleRefs, draws: tf.Tensor) -> tf.Tensor:
        """Returns random rectangles of the images, resized, uint8 (B, H, W, C).

        Only for sources that passed `check` for such an augmentation.

        Args:
            refs: The examples.
            draws: What `resizedcrop.draw` drew for them.
        """
        raise NotImplementedError


class IndexedSource(ImageSource):
    """A source that reaches any example by its position: arrays and image files."""

    def __init__(self, labels: np.ndarray, image_shape: tuple[int, int, int]):
        """Keeps the labels, integers (N,), and the shape of the images."""
        self.size = len(labels)
        self.image_shape = tuple(int(each) for each in image_shape)
        # The input pipeline runs on the host, also where the networks do not.
        with tf.device("CPU:0"):
            self._labels = tf.constant(labels, tf.int32)

    def in_order(self) -> tf.data.Dataset:
        positions = tf.data.Dataset.range(self.size, output_type=tf.int32)
        return positions.map(lambda position: {"index": position})

    def shuffled(
        self, seed: int, batch_size: int, first_step: int, stream: str = ""
    ) -> tf.data.Dataset:
        steps = self.size // batch_size
        first_epoch, skipped = divmod(first_step, steps)

        def order(epoch: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            return epoch, randomness.permutation(self.size, seed, f"{stream}order", epoch)

        def batches(epoch: tf.Tensor, shuffled: tf.Tensor) -> tf.data.Dataset:
            table = tf.reshape(shuffled[: steps * batch_size], [steps, batch_size])
            start = tf.where(epoch == first_epoch, skipped, 0)
            return tf.data.Dataset.from_tensor_slices({"index": table[start:]})

        # The next epoch's order is made while the present one is running.
        return tf.data.Dataset.counter(first_epoch).map(order).prefetch(1).flat_map(batches)

    def labels(self, refs: ExampleRefs) -> tf.Tensor:
        return tf.gather(self._labels, refs["index"])

    def subset(self, count: int) -> ImageSource:
        kept, _ = holdout.stratified(self._labels.numpy(), self.size - count)
        return self.at(kept)

    @abc.abstractmethod
    def at(self, positions: np.ndarray) -> ImageSource:
        """Returns a source of the examples at some positions, integers (n,)."""


class MemoryImages(IndexedSource):
    """Decoded images in memory."""

    def __init__(self, images: np.ndarray, labels: np.ndarray):
        """Keeps uint8 images (N, H, W, C) and integer labels (N,)."""
        super().__init__(labels, images.shape[1:])
        with tf.device("CPU:0"):
            self._images = tf.constant(images)
        self._tables: dict[Augmentation, CropTable] = {}

    def pixels(self, refs: ExampleRefs) -> tf.Tensor:
        return tf.gather(self._images, refs["index"])

    def check(self, augmentation: Augmentation) -> None:
        if augmentation.resized:
            raise TfkdError(
                "augmentation 'imagenet': found images in memory, wanted files or records, which "
                "hold their full size; in memory: none, crop_flip, crop, flip, shift"
            )

    def at(self, positions: np.ndarray) -> ImageSource:
        return MemoryImages(self._images.numpy()[positions], self._labels.numpy()[positions])

    def prepare(self, augmentation: Augmentation) -> None:
        if augmentation.varies and augmentation not in self._tables:
            self._tables[augmentation] = CropTable(self._images.numpy(), augmentation)

    def crops(
        self, refs: ExampleRefs, pixels: tf.Tensor, placement: Placement, augmentation: Augmentation
    ) -> tf.Tensor:
        if not augmentation.varies:
            return pixels
        return self._tables[augmentation].crop(refs["index"], placement)
