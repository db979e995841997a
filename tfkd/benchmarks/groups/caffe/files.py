"""A VGG-16 in Caffe's files, with random weights: as large as the Oxford one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

_CONVOLUTION, _INNER_PRODUCT = 4, 14
_BLOCKS = ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512))


def write(folder: Path, tiny: bool) -> tuple[Path, Path]:
    """Writes a prototxt and a caffemodel of the form V1.

    Args:
        folder: An existing folder.
        tiny: Whether images are of 32 pixels and layers of few channels.

    Returns:
        Their paths.
    """
    prototxt, caffemodel = folder / "deploy.prototxt", folder / "vgg16.caffemodel"
    size, part = (32, 16) if tiny else (224, 1)
    random = np.random.default_rng(0)
    lines = ['input: "data"', *(f"input_dim: {n}" for n in (10, 3, size, size))]
    with caffemodel.open("wb") as file:
        for name, kind, shape, text in _layers(size, part):
            lines.append(text)
            kernel = random.standard_normal(shape, np.float32)
            kernel *= np.prod(shape[1:]) ** -0.5
            _write_layer(file, name, kind, kernel, np.zeros(shape[0], np.float32))
    prototxt.write_text("\n".join(lines), encoding="utf-8")
    return prototxt, caffemodel


def _layers(size: int, part: int) -> Iterator[tuple[str, int, tuple[int, ...], str]]:
    """Name, type, shape of the weights, and text of each layer with some, of what follows too."""
    before, channels = "data", 3
    for block, (count, width) in enumerate(_BLOCKS, start=1):
        for number in range(1, count + 1):
            name, filters = f"conv{block}_{number}", width // part
            text = _text(name, "CONVOLUTION", before, name, _convolution(filters))
            text += _text(f"relu{block}_{number}", "RELU", name, name)
            if number == count:
                window = "pooling_param { kernel_size: 2 stride: 2 }"
                text += _text(f"pool{block}", "POOLING", name, f"pool{block}", window)
            yield name, _CONVOLUTION, (filters, channels, 3, 3), text
            before, channels = name, filters
        before = f"pool{block}"
    values = channels * (size // 32) ** 2
    for name, outputs in (("fc6", 4096 // part), ("fc7", 4096 // part), ("fc8", 1000 // part)):
        given = f"inner_product_param {{ num_output: {outputs} }}"
        text = _text(name, "INNER_PRODUCT", before, name, given)
        if name != "fc8":
            text += _text(f"relu{name[2:]}", "RELU", name, name)
            text += _text(f"drop{name[2:]}", "DROPOUT", name, name)
        yield name, _INNER_PRODUCT, (outputs, values), text
        before, values = name, outputs


def _convolution(filters: int) -> str:
    return f"convolution_param {{ num_output: {filters} kernel_size: 3 pad: 1 }}"


def _text(name: str, kind: str, bottom: str, top: str, parameters: str = "") -> str:
    return (
        f'layers {{ name: "{name}" type: {kind} bottom: "{bottom}" top: "{top}" {parameters} }}\n'
    )


def _write_layer(file: BinaryIO, name: str, kind: int, *blobs: np.ndarray) -> None:
    """Writes a V1LayerParameter: name 4, type 5, blobs 6."""
    heads = [_blob_head(blob) for blob in blobs]
    start = _bytes(4, name.encode()) + _varint(5 << 3) + _varint(kind)
    begins = [_begin(6, len(head) + blob.nbytes) for head, blob in zip(heads, blobs)]
    length = sum(len(a) + len(b) + c.nbytes for a, b, c in zip(begins, heads, blobs))
    file.write(_begin(2, len(start) + length) + start)
    for begin, head, blob in zip(begins, heads, blobs):
        file.write(begin + head)
        file.write(blob.astype("<f4", copy=False).data)


def _blob_head(blob: np.ndarray) -> bytes:
    """A BlobProto up to its numbers: num 1, channels 2, height 3, width 4, data 5."""
    # Blobs of V1 have four lengths.
    lengths = (1,) * (4 - blob.ndim) + blob.shape
    sizes = b"".join(
        _varint(number << 3) + _varint(length) for number, length in enumerate(lengths, start=1)
    )
    return sizes + _begin(5, blob.nbytes)


def _bytes(number: int, content: bytes) -> bytes:
    return _begin(number, len(content)) + content


def _begin(number: int, length: int) -> bytes:
    return _varint(number << 3 | 2) + _varint(length)


def _varint(value: int) -> bytes:
    found = bytearray()
    while value >= 0x80:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])
