"""The outputs of an imported network beside those of OpenCV, which reads Caffe's files itself."""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np

from tfkd import models
from tfkd.caffe.importing import Imported
from tfkd.caffe.layers.inner_product import InnerProduct
from tfkd.errors import TfkdError, reason

TOLERANCE = 1e-4
_WANTED = "opencv-python-headless>=4.10,<5, which reads them"


@dataclass(frozen=True)
class Difference:
    """How far two outputs of a layer are apart.

    Attributes:
        layer: The layer, by Caffe's name.
        difference: The largest difference of two values, as a part of the largest value.
    """

    layer: str
    difference: float


def check(
    imported: Imported, prototxt: str | os.PathLike, caffemodel: str | os.PathLike
) -> Sequence[Difference]:
    """Compares every layer of a network with OpenCV's on one random image.

    Args:
        imported: The network.
        prototxt: The definition that it was made of.
        caffemodel: Its weights.

    Returns:
        What was found for each layer, the furthest apart first.

    Raises:
        TfkdError: When OpenCV is not installed, cannot read the files or reads them otherwise than
            Caffe, or an output of a layer differs by more than 1e-4 of its largest value.
    """
    for node in imported.plan.nodes:
        if isinstance(node.operation, InnerProduct) and node.operation.transpose:
            raise TfkdError(
                f"layer {node.name!r}: found transpose: true, which OpenCV does not heed, wanted "
                "no comparison with it"
            )
    names = {node.name: imported.layers[node.name] for node in imported.plan.nodes}
    random = np.random.default_rng(0)
    channels, *sides = imported.plan.shape
    pixels = random.integers(0, 256, (1, *sides, channels)).astype(np.uint8)
    images = np.asarray(imported.network.preprocess(pixels))
    seen = images if imported.pixels.image is None else imported.pixels.normalize(images)
    tapped = models.tapped(imported.network.model, names)
    found = tapped(images, training=False)
    wanted = outputs(prototxt, caffemodel, np.asarray(seen).transpose(0, 3, 1, 2), list(names))
    differences = [
        Difference(name, _apart(np.asarray(found[name]), wanted[name])) for name in names
    ]
    differences.sort(key=lambda each: -each.difference)
    worst = differences[0]
    # Written so that NaN fails.
    if not worst.difference <= TOLERANCE:
        raise TfkdError(
            f"layer {worst.layer!r}: found an output that differs from OpenCV's by "
            f"{worst.difference:.2e} of its largest value, wanted at most {TOLERANCE:g}"
        )
    return differences


def outputs(
    prototxt: str | os.PathLike,
    caffemodel: str | os.PathLike,
    images: np.ndarray,
    layers: Sequence[str],
) -> dict[str, np.ndarray]:
    """Returns what OpenCV computes.

    Args:
        prototxt: A definition.
        caffemodel: Its weights.
        images: (batch, channels, height, width), float32.
        layers: Names of layers.

    Returns:
        The output of each layer, (batch, channels, height, width) or (batch, values).

    Raises:
        TfkdError: When OpenCV is not installed or does not read the files.
    """
    cv2 = _opencv()
    files = (np.frombuffer(Path(each).read_bytes(), np.uint8) for each in (prototxt, caffemodel))
    try:
        network = cv2.dnn.readNetFromCaffe(*files)
        # What is fused with a layer would change the output of that.
        network.enableFusion(False)
        network.setInput(images.astype(np.float32))
        return {name: np.array(network.forward(name)) for name in layers}
    except cv2.error as error:
        raise TfkdError(
            f"prototxt {str(prototxt)!r} with caffemodel {str(caffemodel)!r}: OpenCV cannot run it "
            f"({reason(error)[:200]}), wanted files that it takes, or no comparison"
        ) from None


def _opencv() -> ModuleType:
    try:
        cv2 = importlib.import_module("cv2")
    except ImportError:
        raise TfkdError(f"comparison with OpenCV: found no module cv2, wanted {_WANTED}") from None
    if not hasattr(cv2.dnn, "readNetFromCaffe"):
        raise TfkdError(f"comparison with OpenCV: found {cv2.__version__}, wanted {_WANTED}")
    return cv2


def _apart(found: np.ndarray, wanted: np.ndarray) -> float:
    """The largest difference, as a part of the largest value."""
    if found.ndim == 4:
        found = found.transpose(0, 3, 1, 2)
    if found.size != wanted.size:
        return float("inf")
    difference = np.max(np.abs(found.reshape(-1) - wanted.reshape(-1)))
    return float(difference / max(float(np.max(np.abs(wanted))), 1e-30))
