"""The weights of a network: a NetParameter in binary form, in Caffe's ``.caffemodel`` files."""

from __future__ import annotations

import os
from pathlib import Path

from tfkd.caffe.blobs import Blob, parsed, read_blob
from tfkd.caffe.errors import CaffeFormatError, shown, within
from tfkd.caffe.foreign import check_binary
from tfkd.caffe.schema import LayerParameter, V1LayerParameter, as_text
from tfkd.caffe.wire import BYTES, Field, Wire

_WANTED = "a .caffemodel file of Caffe's (a NetParameter in binary form)"
_LAYERS, _LAYER = 2, 100
_BLOBS = {_LAYERS: 6, _LAYER: 7}
_MESSAGES = {_LAYERS: V1LayerParameter, _LAYER: LayerParameter}


def read_weights(path: str | os.PathLike) -> dict[str, tuple[Blob, ...]]:
    """Returns the blobs of each layer of a ``.caffemodel`` file by the layer's name.

    Files of both forms of Caffe's are read: with ``layer`` (V2) or ``layers`` (V1), blobs with a
    ``shape`` or with the four older lengths, numbers packed, unpacked, in parts or of double
    precision. No numbers are kept in memory: a blob reads them off the file when it is asked.

    Args:
        path: The file.

    Returns:
        Those of layers that have some, in the order of the file.

    Raises:
        CaffeFormatError: For a file that is missing, cut off or something else, one of Caffe's
            first months (V0), blobs whose numbers are not those of their shape, infinite or none,
            and layers with blobs that have no name or that of another one.
    """
    path = Path(path)
    with within(f"caffemodel {str(path)!r}"):
        if not path.is_file():
            raise CaffeFormatError(f"no such file, wanted {_WANTED}")
        check_binary(path, _WANTED)
        with path.open("rb") as file:
            wire = Wire(file)
            layers = [
                field
                for field in wire.fields(0, wire.size)
                if field.number in _BLOBS and field.kind == BYTES
            ]
            if not layers:
                raise CaffeFormatError(f"found no layer, wanted {_WANTED}")
            if len({field.number for field in layers}) > 1:
                raise CaffeFormatError("found both 'layer' and 'layers', wanted one of them")
            return _named(wire, path, layers)


def _named(wire: Wire, path: Path, layers: list[Field]) -> dict[str, tuple[Blob, ...]]:
    found: dict[str, tuple[Blob, ...]] = {}
    for position, field in enumerate(layers):
        name, blobs = _layer(wire, path, field, position)
        if not blobs:
            continue
        if not name:
            raise CaffeFormatError(f"layer {position}: found blobs and no name, wanted one")
        if name in found:
            raise CaffeFormatError(
                f"layer {shown(name)}: found two of that name with blobs, wanted one"
            )
        found[name] = blobs
    if not found:
        raise CaffeFormatError("found no layer with weights, wanted those of a trained network")
    return found


def _layer(wire: Wire, path: Path, field: Field, position: int) -> tuple[str, tuple[Blob, ...]]:
    rest, places = [], []
    with within(f"layer {position}"):
        for each in wire.fields(field.start, field.end):
            is_blob = each.number == _BLOBS[field.number] and each.kind == BYTES
            (places if is_blob else rest).append(each)
        message = parsed(_MESSAGES[field.number], wire, rest)
        if field.number == _LAYERS and message.HasField("layer"):
            raise CaffeFormatError(
                "found the form V0 of Caffe's first months, wanted V1 or V2 (Caffe's "
                "upgrade_net_proto_binary makes it)"
            )
    name = as_text(message.name)
    blobs = []
    for number, each in enumerate(places):
        with within(f"layer {shown(name)}, blob {number}"):
            blob = read_blob(wire, path, each.start, each.end)
            blob.check_finite()
            blobs.append(blob)
    return name, tuple(blobs)
