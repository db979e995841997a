"""From a prototxt and a caffemodel to a folder that tfkd takes for a trained network."""

from __future__ import annotations

import dataclasses
import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tfkd import models
from tfkd.caffe.builder import build
from tfkd.caffe.caffemodel import read_weights
from tfkd.caffe.definition import Transform, defined
from tfkd.caffe.errors import sizes, within
from tfkd.caffe.matching import matched
from tfkd.caffe.pixels import Pixels, pixels_of
from tfkd.caffe.plan import Plan, planned
from tfkd.caffe.prototxt import read_prototxt
from tfkd.errors import TfkdError, TfkdWarning
from tfkd.models.class_count import check_count
from tfkd.models.imported import output_file
from tfkd.models.saving import save_network_file


@dataclass(frozen=True)
class Imported:
    """A network of Caffe's.

    Attributes:
        network: The network, which takes pixels 0..255 in red, green, blue.
        plan: Its layers, as Caffe has them.
        pixels: What is done to pixels.
        layers: The name of the Keras layer that gives the output of each layer of Caffe.
        path: The file that was written; None for none.
    """

    network: models.Network
    plan: Plan
    pixels: Pixels
    layers: dict[str, str]
    path: Path | None = None


def load(
    prototxt: str | os.PathLike,
    caffemodel: str | os.PathLike,
    *,
    keep_softmax: bool = False,
    image_size: int | None = None,
    class_names: Sequence[str] | None = None,
    **pixels,
) -> Imported:
    """Returns the network that a prototxt defines, with the weights of a caffemodel.

    The model is a functional one of stock Keras layers and functions of ``keras.ops``, which bear
    the names of Caffe's layers, and takes images (batch, height, width, channels). It computes what
    Caffe does at inference. A last Softmax is left off, so that the outputs are logits.

    Args:
        prototxt: The definition, V1 or V2. Layers of training and data are left out.
        caffemodel: The weights, in the binary form of either version.
        keep_softmax: Whether a last Softmax stays.
        image_size: Height and width of images, in pixels; None for those of the prototxt.
        class_names: The names of the classes in the order of the logits, if they are known.
        **pixels: ``channel_order``, ``mean``, ``mean_as`` and ``scale`` of
            :func:`tfkd.caffe.pixels.pixels_of`; without them the ``transform_param`` of the
            prototxt holds.

    Raises:
        CaffeFormatError: For files that are damaged or something else, do not fit each other, or
            hold what is not supported.
        TfkdError: For other arguments that are wrong.
    """
    with within(f"prototxt {str(prototxt)!r}"):
        definition = defined(read_prototxt(prototxt))
    weights = read_weights(caffemodel)
    with within(f"prototxt {str(prototxt)!r} with caffemodel {str(caffemodel)!r}"):
        plan = planned(definition, weights, keep_softmax=keep_softmax, image_size=image_size)
    folder = Path(prototxt).parent
    with within(f"prototxt {str(prototxt)!r}"):
        transform = definition.transforms.get(plan.input, Transform())
        done = pixels_of(transform, plan.shape, folder=folder, **pixels)
    name = " ".join(plan.name.split()) or Path(prototxt).stem
    if done.is_unknown:
        warnings.warn(
            f"{name} is recorded as taking pixels 0..255 without a mean, for neither the prototxt "
            "nor an argument says one",
            TfkdWarning,
            stacklevel=2,
        )
    built = build(plan, done.normalize)
    taps = {old: new for old, new in built.names.items() if old != new}
    network = models.Network(built.model, done.preprocess, name, taps=taps, class_names=class_names)
    check_count(network, f"network {name!r}")
    return Imported(network, plan, done, built.names)


def import_network(
    prototxt: str | os.PathLike,
    caffemodel: str | os.PathLike,
    output: str | os.PathLike,
    *,
    network: str | None = None,
    check: Callable[[Imported], object] | None = None,
    **settings,
) -> Imported:
    """Writes a network of Caffe's as a training run leaves one.

    The folder holds ``student.keras``, which plain Keras opens, and ``network.json``, which says
    how pixels reach it. So it can be a config's ``teacher.workdir`` or, by its file,
    ``teacher.weights``, and be evaluated and exported.

    Args:
        prototxt: As for :func:`load`.
        caffemodel: Likewise.
        output: A folder, or the ``.keras`` file to write in one.
        network: The name of a network of tfkd to fill with the weights in their order, and to write
            in the place of the one that the prototxt defines.
        check: Called with the network of the prototxt before anything is written.
        **settings: The other arguments of :func:`load`.

    Raises:
        CaffeFormatError: As :func:`load`.
        TfkdError: As :func:`load`, for a network of tfkd that is another one, and for a folder that
            holds something else.
    """
    path = output_file(output)
    if network is not None:
        models.check_name(network)
    imported = load(prototxt, caffemodel, **settings)
    if check is not None:
        check(imported)
    if network is not None:
        if imported.pixels.image is not None:
            raise TfkdError(
                f"network {network!r}: found a mean image, which it cannot subtract, wanted a mean "
                "of each channel"
            )
        filled = matched(imported.network, network)
        filled = dataclasses.replace(filled, name=network)
        return dataclasses.replace(imported, network=filled, path=save_network_file(filled, path))
    return dataclasses.replace(
        imported, path=save_network_file(imported.network, path, is_stock=True)
    )


def table(plan: Plan) -> str:
    """Returns the layers of a network, their blobs and numbers, as text."""
    rows = [("layer", "type", "blobs", "parameters", "output")]
    for node in plan.nodes:
        params = sum(blob.count for blob in node.blobs)
        rows.append(
            (
                # Whatever is in a name, it is shown in one line of plain characters.
                ", ".join(ascii(name)[1:-1] for name in node.names),
                node.type,
                ", ".join(sizes(blob.shape) for blob in node.blobs) or "-",
                f"{params:,}" if params else "-",
                sizes(node.shape),
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column == 3 else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths))
        ).rstrip()
        for row in rows
    )
