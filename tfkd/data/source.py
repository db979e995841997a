"""Sources of images: the order of the examples, and the pixels and labels of a batch of them.

The order is a stream of *refs*, small tensors that name examples by their positions. Shuffling,
skipping and sharding work on refs and read nothing; the pixels are made last.
"""

from __future__ import annotations

import abc
import hashlib

import numpy as np
import tensorflow as tf

from tfkd.data import randomness
from tfkd.data.augmentation import Augmentation, Placement, crop_pixels
from tfkd.data.croptable import CropTable
from tfkd.data.holdout import stratified
from tfkd.errors import TfkdError

ExampleRefs = dict[str, tf.Tensor]
"""References to examples: ``index`` int32, the position, and whatever a source has fetched."""

CONTENTS, NAMES_AND_SIZES = "contents", "names and sizes"
"""What a digest of images covers: every pixel, or the relative names and sizes of their files."""


class ImageSource(abc.ABC):
    """The images and labels of one split, any of which can be had by its position.

    Attributes:
        size: Number of examples.
        image_shape: (height, width, channels) of every image.
        order: Number of the rule by which training batches are ordered; it grows with the rule.
    """

    order = 1

    def __init__(self, size: int, image_shape: tuple[int, int, int]):
        self.size = size
        self.image_shape = tuple(int(each) for each in image_shape)

    def in_order(self) -> tf.data.Dataset:
        """Returns the refs of the examples one by one, un-shuffled."""
        positions = tf.data.Dataset.range(self.size, output_type=tf.int32)
        return positions.map(lambda position: {"index": position})

    def shuffled(
        self, seed: int, batch_size: int, first_step: int, stream: str = ""
    ) -> tf.data.Dataset:
        """Returns endless batches of refs, tensors (batch_size, ...), from a global step on.

        Each epoch of size // batch_size steps has a new order, which depends on (seed, stream,
        epoch) alone.
        """
        steps = self.size // batch_size
        first_epoch, skipped = divmod(first_step, steps)

        def order(epoch: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            return epoch, randomness.permutation(self.size, seed, f"{stream}order", epoch)

        def batches(epoch: tf.Tensor, shuffled: tf.Tensor) -> tf.data.Dataset:
            table = tf.reshape(shuffled[: steps * batch_size], [steps, batch_size])
            start = tf.where(epoch == first_epoch, skipped, 0)
            return tf.data.Dataset.from_tensor_slices({"index": table[start:]})

        # The order of the next epoch is drawn while the present one runs.
        return tf.data.Dataset.counter(first_epoch).map(order).prefetch(1).flat_map(batches)

    @abc.abstractmethod
    def at(self, positions: np.ndarray) -> ImageSource:
        """Returns a source of the examples at the given positions, integers (n,)."""

    def fetched(self, refs: ExampleRefs) -> ExampleRefs:
        """Returns the refs of a batch with whatever several of its entries are made of."""
        return refs

    @abc.abstractmethod
    def pixels(self, refs: ExampleRefs) -> tf.Tensor:
        """Returns the un-augmented images, uint8 (B, H, W, C)."""

    @abc.abstractmethod
    def labels(self, refs: ExampleRefs) -> tf.Tensor:
        """Returns the labels, int32 (B,)."""

    @abc.abstractmethod
    def all_labels(self) -> np.ndarray:
        """Returns the labels of all examples in their order, int32 (size,); decodes no image."""

    @abc.abstractmethod
    def digest(self) -> str:
        """Returns a digest of images and labels in their order; files by name, size and time."""

    @abc.abstractmethod
    def identity(self) -> tuple[str, str]:
        """Returns a digest that is the same wherever the images lie, and what went into it.

        Returns:
            The digest of the images and labels in their order, and CONTENTS or NAMES_AND_SIZES.
        """

    @abc.abstractmethod
    def subset(self, count: int) -> ImageSource:
        """Returns a source of ``count`` of the examples, the same ones at every call."""

    def check(self, augmentation: Augmentation) -> None:
        """Raises TfkdError if the source cannot apply the augmentation."""
        del augmentation

    def prepare(self, augmentation: Augmentation) -> None:
        """Builds the tables of ``crops`` for the augmentation, where the source has any."""
        del augmentation

    def crops(
        self, refs: ExampleRefs, pixels: tf.Tensor, placement: Placement, augmentation: Augmentation
    ) -> tf.Tensor:
        """Returns augmented images, uint8 (B, H, W, C).

        Args:
            refs: The examples.
            pixels: Their un-augmented images, for sources that have nothing faster. Where they are
                not used, the graph drops them and they cost nothing.
            placement: One crop for each example.
            augmentation: The augmentation that the placements were drawn for.
        """
        del refs
        return crop_pixels(pixels, placement, augmentation)

    def resized_crops(self, refs: ExampleRefs, draws: tf.Tensor, fast: bool) -> tf.Tensor:
        """Returns resized random rectangles of the images, uint8 (B, H, W, C).

        Only for a source whose ``check`` accepts an augmentation with ``resized``.

        Args:
            refs: The examples.
            draws: The rows of ``resizedcrop.draw`` for them.
            fast: Whether they are decoded and resized by the faster means; see
                ``resizedcrop.decode``.
        """
        raise NotImplementedError


class LabeledSource(ImageSource):
    """A source whose labels are in memory: arrays and image files."""

    def __init__(self, labels: np.ndarray, image_shape: tuple[int, int, int]):
        """Keeps the labels, integers (N,), and the shape of the images."""
        super().__init__(len(labels), image_shape)
        # The input pipeline runs on the host, also where the networks do not.
        with tf.device("CPU:0"):
            self._labels = tf.constant(labels, tf.int32)

    def labels(self, refs: ExampleRefs) -> tf.Tensor:
        return tf.gather(self._labels, refs["index"])

    def all_labels(self) -> np.ndarray:
        return self._labels.numpy()

    def subset(self, count: int) -> ImageSource:
        kept, _ = stratified(self._labels.numpy(), self.size - count)
        return self.at(kept)


class MemoryImages(LabeledSource):
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
                "keep their full size; in memory: none, crop_flip, crop, flip, shift"
            )

    def digest(self) -> str:
        digest = hashlib.sha256(repr(self._images.shape).encode())
        digest.update(self._images.numpy())
        digest.update(self._labels.numpy())
        return digest.hexdigest()

    def identity(self) -> tuple[str, str]:
        return self.digest(), CONTENTS

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
