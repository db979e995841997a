"""How pixels become what a network of Caffe's was trained on: its mean and scale, and BGR.

Caffe subtracts a mean, of each channel or of each value of the image, and then multiplies by a
scale; nearly all published networks take blue, green, red.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

from tfkd.caffe.blobs import Blob, read_blob
from tfkd.caffe.definition import Transform
from tfkd.caffe.errors import CaffeFormatError, shown, sizes, within
from tfkd.caffe.foreign import check_binary
from tfkd.caffe.layers import Shape
from tfkd.caffe.wire import Wire
from tfkd.errors import TfkdError, unknown
from tfkd.models import Preprocess

CHANNEL_ORDERS = ("bgr", "rgb")
MEANS = ("channel", "image")
_WANTED = "a mean of Caffe's (a BlobProto in binary form, mean.binaryproto)"


@dataclass(frozen=True)
class Pixels:
    """What is done to pixels 0..255, red, green, blue.

    Attributes:
        preprocess: What is done before the network.
        image: A mean of each value, (height, width, channels) in the network's own order, which the
            network then subtracts itself; None where it is a mean of each channel, or none.
        scale: What the network multiplies by after that.
    """

    preprocess: Preprocess
    image: np.ndarray | None = None
    scale: float = 1.0

    @property
    def is_unknown(self) -> bool:
        """Whether nothing says that pixels are normalized."""
        return self.image is None and not self.preprocess.mean

    def normalize(self, images, name: str = "image_mean"):
        """Returns images less the mean image, times the scale: by a layer that holds them.

        Args:
            images: (batch, height, width, channels).
            name: The layer's name.
        """
        if self.image is None:
            return images
        layer = keras.layers.Normalization(axis=(1, 2, 3), name=name)
        layer.build(images.shape)
        layer.adapt_mean.assign(self.image)
        layer.adapt_variance.assign(np.full_like(self.image, self.scale**-2))
        layer.finalize_state()
        return layer(images)

    def __str__(self) -> str:
        if self.image is None:
            return str(self.preprocess)
        order = ", blue, green, red" if self.preprocess.bgr else ""
        return f"less a mean image, times {self.scale:.4g}{order}"


def pixels_of(
    transform: Transform,
    shape: Shape,
    *,
    folder: Path,
    channel_order: str = "bgr",
    mean: Sequence[float] | str | os.PathLike | None = None,
    mean_as: str | None = None,
    scale: float | None = None,
) -> Pixels:
    """Returns what is done to pixels.

    Args:
        transform: What the prototxt says.
        shape: Channels, height and width of the input.
        folder: The folder of the prototxt, where a file that it names is looked for.
        channel_order: The order that the network takes three channels in: ``"bgr"`` or ``"rgb"``.
        mean: The mean of each channel in that order, or of all; or a file of Caffe's (``mean
            .binaryproto``); None for that of the prototxt.
        mean_as: Of a file: ``"channel"`` for the mean of each channel, ``"image"`` for each value,
            of which the middle is taken where images are smaller; None for what Caffe does with a
            file that the prototxt names, ``"image"``, and for ``"channel"`` with one of ``mean``.
        scale: The factor; None for that of the prototxt.

    Raises:
        CaffeFormatError: For a file of a mean that is missing, something else or too small.
        TfkdError: For numbers that are none, or not one for each channel, and other words.
    """
    for what, word, known in (
        ("channel order", channel_order, CHANNEL_ORDERS),
        ("form of a mean", mean_as, MEANS),
    ):
        if word is not None and word not in known:
            raise unknown(what, word, known)
    scale = transform.scale if scale is None else scale
    if not (math.isfinite(scale) and scale > 0):
        raise TfkdError(f"scale: found {scale}, wanted a number above 0")
    bgr = channel_order == "bgr" and shape[0] == 3
    if mean is None:
        mean = transform.mean or _file_of(transform, folder)
        mean_as = mean_as or "image"
    if isinstance(mean, (str, os.PathLike)):
        values = _read_mean(Path(mean), shape[0])
        if mean_as == "image":
            return Pixels(Preprocess(bgr=bgr), _middle(values, shape, mean), scale)
        mean = values.mean(axis=(1, 2)).tolist()
    means = tuple(_numbers(() if mean is None else mean, shape[0]))
    if not means and scale != 1:
        means = (0.0,)
    return Pixels(Preprocess(means, (1 / scale,) * len(means), bgr))


def _numbers(mean: Sequence[float], channels: int) -> list[float]:
    numbers = [float(each) for each in mean]
    if len(numbers) not in (0, 1, channels) or not all(map(math.isfinite, numbers)):
        raise TfkdError(
            f"mean: found {numbers}, wanted a number, or one for each of {channels} channels"
        )
    return numbers


def _file_of(transform: Transform, folder: Path) -> Path | None:
    """The file of a mean that the prototxt names, beside the prototxt."""
    if not transform.mean_file:
        return None
    found = folder / Path(transform.mean_file).name
    if not found.is_file():
        raise CaffeFormatError(
            f"mean_file {shown(transform.mean_file)}: found no {found.name!r} beside the prototxt, "
            "wanted it there, or another mean"
        )
    return found


def _read_mean(path: Path, channels: int) -> np.ndarray:
    """The numbers of a file of a mean, (channels, height, width)."""
    with within(f"mean {str(path)!r}"):
        if not path.is_file():
            raise CaffeFormatError(f"no such file, wanted {_WANTED}")
        check_binary(path, _WANTED)
        with path.open("rb") as file:
            wire = Wire(file)
            blob: Blob = read_blob(wire, path, 0, wire.size)
        shape = blob.shape[1:] if len(blob.shape) == 4 and blob.shape[0] == 1 else blob.shape
        if len(shape) != 3 or shape[0] != channels:
            raise CaffeFormatError(
                f"found the shape {sizes(blob.shape)}, wanted 1x{channels}xHEIGHTxWIDTH"
            )
        blob.check_finite()
        return blob.values().reshape(shape)


def _middle(values: np.ndarray, shape: Shape, path: str | os.PathLike) -> np.ndarray:
    """The middle of a mean image, as large as the input, (height, width, channels)."""
    _, height, width = values.shape
    if height < shape[1] or width < shape[2]:
        raise CaffeFormatError(
            f"mean {str(path)!r}: found {height} x {width} values, wanted at least {shape[1]} x "
            f"{shape[2]}, those of the input"
        )
    top, left = (height - shape[1]) // 2, (width - shape[2]) // 2
    return values[:, top : top + shape[1], left : left + shape[2]].transpose(1, 2, 0)
