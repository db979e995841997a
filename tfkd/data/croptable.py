"""Crops of images in memory, faster than a gather of rows or pixels.

A crop of height x width pixels from a padded image is not one piece of memory: it is ``height``
pieces, and TensorFlow's gathers copy each of them (or each pixel) on its own. Two observations
make it nearly as cheap as copying whole images:

* If all rows of a padded image have the same stride, the bytes from the crop's first pixel to its
  last one are ONE piece, and the crop is every row of it cut to one fixed width. The offset of the
  crop is its first byte.
* ``tf.strings.substr`` copies, for each image of a batch, a piece that begins at any byte.

Every image is therefore one byte string. The black columns right of a row are also those left of
the next row: the table is 1.41 times the size of a 32 x 32 set with 4 pixels of padding. Crops are
mirrored after they are cut: a second table of mirrored images would gain a few percent for twice
the memory.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from tfkd.data.augmentation import Augmentation, Placement

_CHUNK = 4096


class CropTable:
    """Padded images as byte strings."""

    def __init__(self, images: np.ndarray, augmentation: Augmentation):
        """Builds the table.

        Args:
            images: uint8 (N, H, W, C).
            augmentation: The padding and whether crops may be mirrored.
        """
        self._shape = images.shape[1:]
        self._augmentation = augmentation
        self._stride = (self._shape[1] + augmentation.pad) * self._shape[2]
        # The input pipeline runs on the host, also where the networks do not.
        with tf.device("CPU:0"):
            chunks = [
                tf.constant(_padded_strings(images[start : start + _CHUNK], augmentation.pad))
                for start in range(0, len(images), _CHUNK)
            ]
            self._strings = tf.concat(chunks, 0)

    def crop(self, index: tf.Tensor, placement: Placement) -> tf.Tensor:
        """Cuts one crop from each image named.

        Args:
            index: int (B,), positions in the array the table was built from.
            placement: One crop for each of them.

        Returns:
            uint8 (B, H, W, C).
        """
        batch = index.shape[0]
        if not self._augmentation.flip:
            return tf.reshape(self._cut(index, placement), [batch, *self._shape])
        # The rows are grouped, so that only mirrored ones are copied a second time; the stitch
        # puts each row back in its place.
        groups = tf.dynamic_partition(tf.range(batch), placement.mirrored, 2)
        order = tf.concat(groups, 0)
        crops = self._cut(tf.gather(index, order), placement.rows(order))
        upright = tf.size(groups[0])
        height, width, channels = self._shape
        mirrored = tf.reverse(tf.reshape(crops[upright:], [-1, width, channels]), [1])
        mirrored = tf.reshape(mirrored, [-1, height * width * channels])
        crops = tf.dynamic_stitch(groups, [crops[:upright], mirrored])
        return tf.reshape(crops, [batch, *self._shape])

    def _cut(self, index: tf.Tensor, placement: Placement) -> tf.Tensor:
        """Returns the crops, not mirrored, as uint8 (B, H * W * C)."""
        height, width, channels = self._shape
        first = placement.top * self._stride + placement.left * channels
        # The last row ends with the crop, not with the stride: a crop in the corner has no bytes
        # after it. decode_raw pads the rest.
        length = height * self._stride - self._augmentation.pad * channels
        pieces = tf.strings.substr(
            tf.gather(self._strings, index), first, tf.fill(tf.shape(first), length)
        )
        whole = tf.io.decode_raw(pieces, tf.uint8, fixed_length=height * self._stride)
        rows = tf.reshape(whole, [-1, self._stride])[:, : width * channels]
        return tf.reshape(rows, [-1, height * width * channels])


def _padded_strings(images: np.ndarray, pad: int) -> list[bytes]:
    """Returns one byte string per image: padded rows of one stride, then ``pad`` black pixels."""
    count, height, width, channels = images.shape
    padded = np.zeros((count, height + 2 * pad, width + pad, channels), np.uint8)
    padded[:, pad : pad + height, pad:] = images
    size = padded[0].size
    everything = padded.tobytes()
    tail = bytes(pad * channels)
    return [everything[each * size : (each + 1) * size] + tail for each in range(count)]
