"""The adder convolution in NumPy float64, patch by patch, and values of its published form."""

import numpy as np

IMAGE = np.arange(1, 17, dtype=np.float64).reshape(1, 4, 4, 1) / 4
KERNEL = ((np.arange(9, dtype=np.float64) - 4) / 2).reshape(3, 3, 1, 1)

# The gradient of the outputs is 1 everywhere; of the normalized gradient, the kernel's first row.
CASES = {
    1: {
        "outputs": [
            [-7, -6.5, -7.5, -10.5],
            [-10.25, -13.5, -15.75, -16.25],
            [-16.25, -22.5, -24.75, -22.25],
            [-20.5, -27, -28.5, -23.5],
        ],
        "raw": [[45.5, 43.5, 31.75], [32, 34, 19], [6.5, 7.5, -7.25]],
        "norm": 87.536421,
        "first_row": [0.311870, 0.298162, 0.217624],
        "input": [
            [-3, -4.5, -5, -3.5],
            [-4, -6, -6.75, -4.5],
            [-5.75, -8.5, -8.75, -6],
            [-4, -6, -6, -4],
        ],
    },
    2: {
        "outputs": [[-7, -7.5], [-16.25, -24.75]],
        "raw": [[9.5, 9, 7.5], [5, 6, 5], [1, 4, 3]],
        "norm": 18.425526,
        "first_row": [0.309353, 0.293072, 0.244226],
        "input": [
            [-0.25, -1, -0.75, -0.5],
            [-0.75, -2, -1.25, -1],
            [-1, -2, -1, -1],
            [-1, -2, -1, -1],
        ],
    },
}

# Two patches of three inputs, which are 1x1 images of three channels, and two filters.
MATRIX_X = [[0.5, -1, 2], [1.5, 0.25, -0.5]]
MATRIX_W = [[1, 0], [0.5, -2], [-1, 0.5]]
MATRIX_G = [[1, -0.5], [2, 0.25]]
MATRIX_Y = [[-5, -3], [-1.25, -4.75]]
MATRIX_RAW = [[0.5, 0.125], [-2, 0.0625], [4, -1]]
MATRIX_NORMALIZED = [[0.053112, 0.013278], [-0.212450, 0.006639], [0.424900, -0.106225]]
MATRIX_INPUT = [[0.75, 1.5, -0.5], [-1.25, 0.25, -0.75]]


def as_images(rows):
    """(patches, channels) as (patches, 1, 1, channels)."""
    return np.asarray(rows, np.float64)[:, None, None, :]


def as_filters(matrix):
    """(channels, filters) as (1, 1, channels, filters)."""
    return np.asarray(matrix, np.float64)[None, None]


def patches(x, kernel, strides, padding):
    """Yields the place of every output, and the patch that it reads of the padded images."""
    top, bottom, left, right = padding
    x = np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)))
    for row in range((x.shape[1] - kernel[0]) // strides[0] + 1):
        for column in range((x.shape[2] - kernel[1]) // strides[1] + 1):
            at = (
                slice(None),
                slice(row * strides[0], row * strides[0] + kernel[0]),
                slice(column * strides[1], column * strides[1] + kernel[1]),
            )
            yield (slice(None), row, column), at, x[at]


def reference(x, filters, gradient_of, strides, padding):
    """Outputs, input gradient and raw filter gradient.

    Args:
        x: (batch, height, width, channels).
        filters: (height, width, channels, filters).
        gradient_of: Returns the gradient of the outputs for their shape.
        strides: Down and right.
        padding: Top, bottom, left, right.
    """
    x, filters = np.asarray(x, np.float64), np.asarray(filters, np.float64)
    kernel, count = filters.shape[:2], filters.shape[-1]
    all_patches = list(patches(x, kernel, strides, padding))
    (_, last_row, last_column), _, _ = all_patches[-1]
    outputs = np.zeros((len(x), last_row + 1, last_column + 1, count))
    for place, _, patch in all_patches:
        outputs[place] = -np.abs(patch[..., None] - filters).sum((1, 2, 3))
    gradient = np.asarray(gradient_of(outputs.shape), np.float64)
    top, _, left, _ = padding
    for_x = np.zeros_like(np.pad(x, ((0, 0), padding[:2], padding[2:], (0, 0))))
    for_filters = np.zeros_like(filters)
    for place, at, patch in all_patches:
        upstream = gradient[place][:, None, None, None, :]
        difference = filters - patch[..., None]
        for_x[at] += (np.clip(difference, -1, 1) * upstream).sum(-1)
        for_filters -= (difference * upstream).sum(0)
    height, width = x.shape[1:3]
    return outputs, for_x[:, top : top + height, left : left + width], for_filters
