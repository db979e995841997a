"""The adder convolution in stock TensorFlow operations, for where the compiled op is missing.

Patches of the zero-padded input are the columns of a matrix X with K = height * width * channels
rows, filters are a matrix F (K, filters), and with the gradient G of the outputs

    forward          Y[p, f]  = -sum_k |X[k, p] - F[k, f]|
    input gradient   dX[k, p] = sum_f clip(F[k, f] - X[k, p], -1, 1) * G[p, f]
    filter gradient  dF[k, f] = sum_p (X[k, p] - F[k, f]) * G[p, f]

The filter gradient is that of a convolution, less F * sum_p G; the compiled op takes it from here,
too. The other two need all K * pixels * filters differences of X and F. They are formed for a group
of images and a block of rows at a time: about as many as fit into a cache, whatever the batch.

Source: Chen et al., "AdderNet: Do We Really Need Multiplications in Deep Learning?", CVPR 2020,
https://arxiv.org/abs/1912.13200; both gradients as in the authors' code.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import tensorflow as tf

# Differences of one image group and one row, and of one block: the fastest of those measured.
_GROUP_SIZE = 2**16
_BLOCK_SIZE = 2**20

# In eager mode the loops below would be Python loops. Besides, forward accumulators ignore
# ``tf.custom_gradient`` outside of a ``tf.function``.
_compiled = tf.function(autograph=False)


@_compiled
def convolution(
    x: tf.Tensor, filters: tf.Tensor, strides: Sequence[int], padding: Sequence[int]
) -> tf.Tensor:
    """Minus the L1 distances of every patch to every filter.

    Args:
        x: (batch, height, width, channels), float32 or float64.
        filters: (kernel height, kernel width, channels, filters), of the same type.
        strides: Steps down and to the right.
        padding: Rows of zeros above and below, columns of zeros left and right. Zeros are not
            neutral: a padded cell adds ``-|filter|``.

    Returns:
        (batch, output height, output width, filters), at most 0.
    """

    @tf.custom_gradient
    def differentiable(x, filters):
        def gradients(upstream):
            settings = strides, padding
            for_x = input_gradient(x, filters, upstream, *settings)
            return for_x, filter_gradient(x, filters, upstream, *settings)

        return _distances(_Blocks(x, filters, strides, padding)), gradients

    return differentiable(x, filters)


def _distances(blocks: _Blocks) -> tf.Tensor:
    """Minus the sums of absolute differences."""

    def one_group(images):
        def add(total, block):
            columns, weights = block
            return total - tf.reduce_sum(tf.abs(columns - weights), axis=0)

        return blocks.images(blocks.sum(add, [blocks.columns(images), blocks.filters]))

    return blocks.map(one_group, [blocks.x])


@_compiled
def input_gradient(
    x: tf.Tensor,
    filters: tf.Tensor,
    gradient: tf.Tensor,
    strides: Sequence[int],
    padding: Sequence[int],
) -> tf.Tensor:
    """The clipped gradient with respect to the input.

    Args:
        x: As for ``convolution``.
        filters: As for ``convolution``.
        gradient: The gradient of the outputs, in their shape.
        strides: As for ``convolution``.
        padding: As for ``convolution``.

    Returns:
        A tensor of the shape of ``x``.
    """

    @tf.custom_gradient
    def differentiable(x, filters, gradient):
        def gradients(direction):
            return input_gradient_gradients(x, filters, gradient, direction, strides, padding)

        return _clipped_products(_Blocks(x, filters, strides, padding), gradient), gradients

    return differentiable(x, filters, gradient)


def _clipped_products(blocks: _Blocks, gradient: tf.Tensor) -> tf.Tensor:
    """The sums of products of the clipped differences with the gradient of the outputs."""

    def one_group(images, gradients):
        gradients = blocks.pixels(gradients)

        def rows(block):
            columns, weights = block
            clipped = tf.clip_by_value(weights - columns, -1.0, 1.0)
            return tf.reduce_sum(clipped * gradients, axis=-1)

        return blocks.from_rows(rows, [blocks.columns(images), blocks.filters])

    return blocks.cropped(blocks.map(one_group, [blocks.x, gradient]))


def filter_gradient(
    x: tf.Tensor,
    filters: tf.Tensor,
    gradient: tf.Tensor,
    strides: Sequence[int],
    padding: Sequence[int],
) -> tf.Tensor:
    """The gradient with respect to the filters, not normalized, by that of a convolution.

    Args:
        x: As for ``convolution``.
        filters: As for ``convolution``.
        gradient: The gradient of the outputs, in their shape.
        strides: As for ``convolution``.
        padding: As for ``convolution``.

    Returns:
        A tensor of the shape of ``filters``.
    """
    # "SAME" saves the padded copy where it means the same zeros.
    same = _is_same(x.shape[1:3], filters.shape[:2], strides, padding)
    products = tf.raw_ops.Conv2DBackpropFilter(
        input=x if same else _padded(x, padding),
        filter_sizes=tf.shape(filters),
        out_backprop=gradient,
        strides=[1, *strides, 1],
        padding="SAME" if same else "VALID",
    )
    # As a matrix: TensorFlow sums its rows faster than three axes.
    rows = tf.reshape(gradient, (-1, tf.shape(filters)[-1]))
    return products - filters * tf.reduce_sum(rows, axis=0)


@_compiled
def input_gradient_gradients(
    x: tf.Tensor,
    filters: tf.Tensor,
    gradient: tf.Tensor,
    direction: tf.Tensor,
    strides: Sequence[int],
    padding: Sequence[int],
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """The gradients of ``<direction, input_gradient(x, filters, gradient)>``.

    The last of them is the derivative of the outputs along ``direction``. The other two use the
    derivative of clip(d, -1, 1): 1 where |d| < 1 and 0 elsewhere.

    Args:
        x: As for ``convolution``.
        filters: As for ``convolution``.
        gradient: The gradient of the outputs, in their shape.
        direction: A tensor of the shape of ``x``.
        strides: As for ``convolution``.
        padding: As for ``convolution``.

    Returns:
        The gradients with respect to ``x``, ``filters`` and ``gradient``.
    """
    blocks = _Blocks(x, filters, strides, padding)

    def for_gradient(images, directions):
        def add(total, block):
            columns, weights, along = block
            clipped = tf.clip_by_value(weights - columns, -1.0, 1.0)
            return total + tf.reduce_sum(clipped * along, axis=0)

        parts = [blocks.columns(images), blocks.filters, blocks.columns(directions)]
        return blocks.images(blocks.sum(add, parts))

    def inside(columns, weights):
        return tf.cast(tf.abs(weights - columns) < 1.0, x.dtype)

    def for_x(images, gradients, directions):
        gradients = blocks.pixels(gradients)

        def rows(block):
            columns, weights, along = block
            total = tf.reduce_sum(inside(columns, weights) * gradients, axis=-1)
            return -tf.squeeze(along, -1) * total

        parts = [blocks.columns(images), blocks.filters, blocks.columns(directions)]
        return blocks.from_rows(rows, parts)

    def for_filters(images, gradients, directions):
        gradients = blocks.pixels(gradients)

        def rows(block):
            columns, weights, along = block
            return tf.reduce_sum(inside(columns, weights) * gradients * along, axis=1)

        parts = [blocks.columns(images), blocks.filters, blocks.columns(directions)]
        return blocks.rows(rows, parts)

    padded = _padded(direction, padding)
    weights = blocks.fold(for_filters, [blocks.x, gradient, padded], blocks.rows_of_filters)
    return (
        blocks.cropped(blocks.map(for_x, [blocks.x, gradient, padded])),
        tf.reshape(weights, filters.shape),
        blocks.map(for_gradient, [blocks.x, padded]),
    )


def _padded(x: tf.Tensor, padding: Sequence[int]) -> tf.Tensor:
    top, bottom, left, right = padding
    return tf.pad(x, [[0, 0], [top, bottom], [left, right], [0, 0]]) if any(padding) else x


def _is_same(
    size: Sequence[int | None],
    kernel: Sequence[int],
    strides: Sequence[int],
    padding: Sequence[int],
) -> bool:
    """Whether TensorFlow's "SAME" is known to put these zeros around images of a size.

    "SAME" makes ceil(size / stride) outputs; of an odd number of zeros the extra one comes last.
    """
    zeros = []
    for length, window, stride in zip(size, kernel, strides):
        if length is None:
            if stride > 1:
                return False
            length = window  # With stride 1 any length gives the same zeros.
        total = max((-(-length // stride) - 1) * stride + window - length, 0)
        zeros += [total // 2, total - total // 2]
    return zeros == list(padding)


def _sizes(tensor: tf.Tensor) -> list:
    """The sizes of a tensor: whole numbers where they are known, else scalar tensors."""
    shape = tf.shape(tensor)
    return [shape[axis] if size is None else size for axis, size in enumerate(tensor.shape)]


def _smaller(one, other):
    """The smaller of two sizes, a whole number if both are."""
    if isinstance(one, int) and isinstance(other, int):
        return min(one, other)
    return tf.minimum(one, other)


def _at_least_one(size):
    return max(size, 1) if isinstance(size, int) else tf.maximum(size, 1)


class _Blocks:
    """The matrices of one adder convolution, cut into groups of images and blocks of rows.

    A block of columns has the shape (rows, pixels, 1) and one of filters (rows, 1, filters), so
    their difference is (rows, pixels, filters). The rows that fill up the last block are zero in
    both and add nothing.

    Args:
        x: The input, not padded.
        filters: The filters.
        strides: Steps down and to the right.
        padding: Zeros above, below, left and right.
    """

    def __init__(self, x, filters, strides, padding):
        self._padding, self._strides = padding, strides
        self._input_size = _sizes(x)[1:3]
        self.x = _padded(x, padding)
        *self._kernel, self._channels, self._count = filters.shape
        batch, height, width, _ = _sizes(self.x)
        self._height = (height - self._kernel[0]) // strides[0] + 1
        self._width = (width - self._kernel[1]) // strides[1] + 1
        self._rows = self._kernel[0] * self._kernel[1] * self._channels
        # At least one image and one row, however large.
        row = self._height * self._width * self._count
        self._images = _at_least_one(_smaller(_GROUP_SIZE // _at_least_one(row), batch))
        group = self._images * row
        self._block = _at_least_one(_smaller(_BLOCK_SIZE // _at_least_one(group), self._rows))
        self.rows_of_filters = tf.reshape(filters, (self._rows, self._count))
        self.filters = self._cut(self.rows_of_filters)[:, :, None, :]

    def _cut(self, rows: tf.Tensor) -> tf.Tensor:
        """(rows, n) -> (blocks, rows of a block, n), filled up with zeros."""
        count = -(-self._rows // self._block)
        filled = tf.pad(rows, [[0, count * self._block - self._rows], [0, 0]])
        return tf.reshape(filled, (count, self._block, _sizes(rows)[1]))

    def columns(self, images: tf.Tensor) -> tf.Tensor:
        """Padded images (n, height, width, channels) -> (blocks, rows of a block, pixels, 1)."""
        patches = tf.image.extract_patches(
            images, [1, *self._kernel, 1], [1, *self._strides, 1], [1, 1, 1, 1], "VALID"
        )
        return self._cut(tf.transpose(tf.reshape(patches, (-1, self._rows))))[..., None]

    def pixels(self, images: tf.Tensor) -> tf.Tensor:
        """Outputs or their gradients (n, height, width, filters) -> (pixels, filters)."""
        return tf.reshape(images, (-1, self._count))

    def images(self, pixels: tf.Tensor) -> tf.Tensor:
        """(pixels, filters) -> (n, height, width, filters)."""
        return tf.reshape(pixels, (-1, self._height, self._width, self._count))

    def sum(self, add: Callable, parts: Sequence[tf.Tensor]) -> tf.Tensor:
        """Folds ``add(total, block)`` over the blocks of rows; a total is (pixels, filters)."""
        start = tf.zeros((self._images * self._height * self._width, self._count), self.x.dtype)
        return tf.foldl(add, tuple(parts), start)

    def rows(self, rows: Callable, parts: Sequence[tf.Tensor]) -> tf.Tensor:
        """Joins ``rows(block)``, (rows of a block, n), of all blocks to (rows, n)."""
        found = tf.map_fn(rows, tuple(parts), fn_output_signature=self.x.dtype)
        blocks, block, count = _sizes(found)
        return tf.reshape(found, (blocks * block, count))[: self._rows]

    def from_rows(self, rows: Callable, parts: Sequence[tf.Tensor]) -> tf.Tensor:
        """Adds the entries of columns back to the padded images that they were taken from."""
        (kernel_height, kernel_width), (down, right) = self._kernel, self._strides
        shape = (
            kernel_height,
            kernel_width,
            self._channels,
            self._images,
            self._height,
            self._width,
        )
        taps = tf.transpose(tf.reshape(self.rows(rows, parts), shape), (0, 1, 3, 4, 5, 2))
        size = (self._images, *_sizes(self.x)[1:])
        total = tf.zeros(size, self.x.dtype)
        for row in range(kernel_height):
            for column in range(kernel_width):
                # One tap of the kernel read these rows and columns, a stride apart.
                last = row + (self._height - 1) * down, column + (self._width - 1) * right
                total += tf.raw_ops.StridedSliceGrad(
                    shape=size,
                    begin=(0, row, column, 0),
                    end=(0, last[0] + 1, last[1] + 1, 0),
                    strides=(1, down, right, 1),
                    dy=taps[row, column],
                    begin_mask=0b1001,
                    end_mask=0b1001,
                )
        return total

    def cropped(self, padded: tf.Tensor) -> tf.Tensor:
        """The part of padded images that is not padding."""
        top, _, left, _ = self._padding
        height, width = self._input_size
        return padded[:, top : top + height, left : left + width]

    def _grouped(self, batches: Sequence[tf.Tensor]) -> tuple[tf.Tensor, ...]:
        """Every (batch, ...) -> (groups, images of a group, ...), filled up with zeros."""
        batch = _sizes(self.x)[0]
        groups = -(-batch // self._images)
        grouped = []
        for each in batches:
            fill = [[0, groups * self._images - batch], [0, 0], [0, 0], [0, 0]]
            shape = (groups, self._images, *_sizes(each)[1:])
            grouped.append(tf.reshape(tf.pad(each, fill), shape))
        return tuple(grouped)

    def map(self, one_group: Callable, batches: Sequence[tf.Tensor]) -> tf.Tensor:
        """Joins ``one_group(images, ...)`` over the groups of the batch."""
        found = tf.map_fn(
            lambda parts: one_group(*parts),
            self._grouped(batches),
            fn_output_signature=self.x.dtype,
        )
        groups, images, *size = _sizes(found)
        return tf.reshape(found, (groups * images, *size))[: _sizes(self.x)[0]]

    def fold(self, one_group: Callable, batches: Sequence[tf.Tensor], like: tf.Tensor) -> tf.Tensor:
        """Adds up ``one_group(images, ...)``, of the shape of ``like``, over the groups."""
        return tf.foldl(
            lambda total, parts: total + one_group(*parts),
            self._grouped(batches),
            tf.zeros_like(like),
        )
