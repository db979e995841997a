"""What Caffe computes, in NumPy and float64, as its layers are documented: slow and plain."""

import math

import numpy as np


def outputs(net, images):
    """The output of each layer by its name, for images (batch, channels, height, width)."""
    blobs, found = {}, {}
    for layer in net:
        if layer.type == "Input":
            result = images.astype(np.float64)
        else:
            inputs = [blobs[bottom] for bottom in layer.bottoms]
            weights = [each.astype(np.float64) for each in layer.blobs]
            result = LAYERS[layer.type](inputs, weights, layer.parameters)
        for top in layer.tops:
            blobs[top] = result
        found[layer.name] = result
    return found


def pair(parameters, both, one, default=None):
    value = parameters.get(both, default)
    height, width = value if isinstance(value, (list, tuple)) else (value, value)
    return parameters.get(f"{one}_h", height), parameters.get(f"{one}_w", width)


def convolution(inputs, weights, parameters):
    (images,), (kernel, *bias) = inputs, weights
    height, width = pair(parameters, "kernel_size", "kernel")
    pads = pair(parameters, "pad", "pad", 0)
    strides = pair(parameters, "stride", "stride", 1)
    dilations, groups = pair(parameters, "dilation", "dilation", 1), parameters.get("group", 1)
    padded = np.pad(images, ((0, 0), (0, 0), (pads[0],) * 2, (pads[1],) * 2))
    reach = [step * (size - 1) + 1 for step, size in zip(dilations, (height, width))]
    counts = [
        (length - whole) // stride + 1
        for length, whole, stride in zip(padded.shape[2:], reach, strides)
    ]
    filters, channels = kernel.shape[:2]
    found = np.zeros((len(images), filters, *counts))
    for number in range(filters):
        group = number // (filters // groups)
        part = padded[:, group * channels : (group + 1) * channels]
        for row in range(counts[0]):
            for column in range(counts[1]):
                top, left = row * strides[0], column * strides[1]
                rows = slice(top, top + reach[0], dilations[0])
                columns = slice(left, left + reach[1], dilations[1])
                window = part[:, :, rows, columns]
                found[:, number, row, column] = (window * kernel[number]).sum((1, 2, 3))
        if bias:
            found[:, number] += bias[0][number]
    return found


def pooling(inputs, weights, parameters):
    (images,) = inputs
    lengths = images.shape[2:]
    kernel = pair(parameters, "kernel_size", "kernel")
    if parameters.get("global_pooling"):
        kernel = lengths
    strides, pads = pair(parameters, "stride", "stride", 1), pair(parameters, "pad", "pad", 0)
    is_floor = parameters.get("round_mode") == "FLOOR" or not parameters.get("ceil_mode", True)
    places = []
    for length, size, stride, pad in zip(lengths, kernel, strides, pads):
        steps = (length + 2 * pad - size) / stride
        count = (math.floor(steps) if is_floor else math.ceil(steps)) + 1
        if any(pads) and (count - 1) * stride >= length + pad:
            count -= 1
        starts = [number * stride - pad for number in range(count)]
        places.append([(start, min(start + size, length + pad)) for start in starts])
    found = np.zeros((*images.shape[:2], *map(len, places)))
    for row, (top, bottom) in enumerate(places[0]):
        for column, (left, right) in enumerate(places[1]):
            window = images[:, :, max(top, 0) : bottom, max(left, 0) : right]
            if parameters.get("pool", "MAX") == "MAX":
                found[:, :, row, column] = window.max((2, 3))
            else:
                found[:, :, row, column] = window.sum((2, 3)) / ((bottom - top) * (right - left))
    return found


def inner_product(inputs, weights, parameters):
    kernel, bias = weights
    kernel = kernel if parameters.get("transpose") else kernel.T
    return inputs[0].reshape(len(inputs[0]), -1) @ kernel + bias


def of_channels(values, like):
    return values.reshape(1, -1, *[1] * (like.ndim - 2))


def batch_norm(inputs, weights, parameters):
    mean, variance, factor = weights
    scale = 0 if factor[0] == 0 else 1 / factor[0]
    deviation = np.sqrt(variance * scale + parameters.get("eps", 1e-5))
    (values,) = inputs
    return (values - of_channels(mean * scale, values)) / of_channels(deviation, values)


def scaled(inputs, weights, parameters):
    found = inputs[0] * of_channels(weights[0], inputs[0])
    return found + of_channels(weights[1], inputs[0]) if len(weights) > 1 else found


def prelu(inputs, weights, parameters):
    slope = of_channels(weights[0].reshape(-1), inputs[0])
    return np.maximum(inputs[0], 0) + slope * np.minimum(inputs[0], 0)


def relu(inputs, weights, parameters):
    slope = parameters.get("negative_slope", 0)
    return np.maximum(inputs[0], 0) + slope * np.minimum(inputs[0], 0)


def response_normalization(inputs, weights, parameters):
    (values,) = inputs
    size = parameters.get("local_size", 5)
    half, alpha, beta = size // 2, parameters.get("alpha", 1), parameters.get("beta", 0.75)
    squares = values**2
    if parameters.get("norm_region") == "WITHIN_CHANNEL":
        padded = np.pad(squares, ((0, 0), (0, 0), (half, half), (half, half)))
        height, width = values.shape[2:]
        near = sum(
            padded[:, :, top : top + height, left : left + width]
            for top in range(size)
            for left in range(size)
        )
        return values / (1 + alpha * near / size**2) ** beta
    padded = np.pad(squares, ((0, 0), (half, half), (0, 0), (0, 0)))
    near = sum(padded[:, first : first + values.shape[1]] for first in range(size))
    return values / (parameters.get("k", 1) + alpha * near / size) ** beta


def eltwise(inputs, weights, parameters):
    operation = parameters.get("operation", "SUM")
    if operation == "SUM":
        factors = parameters.get("coeff", [1] * len(inputs))
        return sum(factor * each for factor, each in zip(factors, inputs))
    return (np.prod if operation == "PROD" else np.max)(inputs, axis=0)


def softmax(inputs, weights, parameters):
    exponents = np.exp(inputs[0] - inputs[0].max(1, keepdims=True))
    return exponents / exponents.sum(1, keepdims=True)


LAYERS = {
    "BatchNorm": batch_norm,
    "Concat": lambda inputs, weights, parameters: np.concatenate(inputs, 1),
    "Convolution": convolution,
    "Dropout": lambda inputs, weights, parameters: inputs[0],
    "Eltwise": eltwise,
    "Flatten": lambda inputs, weights, parameters: inputs[0].reshape(len(inputs[0]), -1),
    "InnerProduct": inner_product,
    "LRN": response_normalization,
    "PReLU": prelu,
    "Pooling": pooling,
    "ReLU": relu,
    "Scale": scaled,
    "Sigmoid": lambda inputs, weights, parameters: 1 / (1 + np.exp(-inputs[0])),
    "Softmax": softmax,
    "Split": lambda inputs, weights, parameters: inputs[0],
    "TanH": lambda inputs, weights, parameters: np.tanh(inputs[0]),
}
