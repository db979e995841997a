"""The state dict of a file of weights, whatever it is stored as and wrapped in."""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path

import numpy as np

from tfkd.errors import TfkdError, reason, unknown
from tfkd.torch import legacy, npz, pickles, safetensors, zip_format
from tfkd.torch.tensors import Tensor

_WRAPPERS = ("model", "state_dict", "model_state_dict", "net", "network", "weights")
_PARALLEL = "module."
_COUNTER = "num_batches_tracked"
_FORMATS = "a .pth file of torch.save, a .safetensors or an .npz file"


def read(
    path: str | os.PathLike, key: str | None = None, prefix: str = ""
) -> dict[str, np.ndarray]:
    """Returns the weights of a file by name.

    The format is known by the content: `torch.save` (a zip archive, or the older form), safetensors
    or `numpy.savez`. Nothing in the file is run, and what it claims to hold is checked before it is
    made. Of a checkpoint that holds more than weights, such as ``{"epoch": 240, "model": ...}``,
    the state dict in it is taken. `module.` of `torch.nn.DataParallel` before the names is left
    out, and so are single numbers, such as `num_batches_tracked`.

    Args:
        path: The file.
        key: The entry of the checkpoint that is the state dict; None finds it.
        prefix: Takes only the names that begin so, without it: ``"student."`` of a file that holds
            a student and a teacher.

    Returns:
        Read-only arrays in torch's layouts and in the order of the file.

    Raises:
        TfkdError: For a file that is missing, damaged or of another format, that holds anything
            besides tensors, numbers and strings, or no (or several) state dicts.
    """
    path = Path(path)
    if not path.is_file():
        raise TfkdError(f"checkpoint {str(path)!r}: no such file, wanted {_FORMATS}")
    try:
        data = path.read_bytes()
        weights = _weights(_content(data), key)
        return _named(weights, prefix)
    except TfkdError as error:
        raise TfkdError(f"checkpoint {str(path)!r}: {error}") from None
    # A damaged file fails in as many ways as it has parts: zip, pickle, JSON, numbers.
    except Exception as error:
        raise TfkdError(
            f"checkpoint {str(path)!r}: found {path.stat().st_size} bytes that cannot be read "
            f"({reason(error)[:200]}), wanted a whole file: {_FORMATS}"
        ) from error


def _content(data: bytes) -> object:
    """What a file holds: numbers, strings, dicts, lists, arrays and `Tensor`."""
    if data[:4] == b"PK\x03\x04":
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if zip_format.pickle_name(archive):
                return zip_format.read(archive, len(data))
            if any(name.endswith(".npy") for name in archive.namelist()):
                return npz.read(archive, len(data))
        raise TfkdError(f"found a zip archive of something else, wanted {_FORMATS}")
    if data[8:9] == b"{":
        return safetensors.read(data)
    if data[:1] == pickles.START:
        return legacy.read(data)
    raise TfkdError(f"found a file that begins with {data[:8]!r}, wanted {_FORMATS}")


def _is_weights(value) -> bool:
    """Whether a value is a dict of tensors that are more than a number."""
    return isinstance(value, dict) and any(_shape(each) for each in value.values())


def _shape(value) -> tuple[int, ...]:
    return value.shape if isinstance(value, (Tensor, np.ndarray)) else ()


def _weights(content, key: str | None) -> dict:
    """The state dict in what a file holds."""
    if not isinstance(content, dict):
        raise TfkdError(f"found a {type(content).__name__}, wanted a state dict")
    inside = {name: each for name, each in content.items() if _is_weights(each)}
    if key is not None:
        if key not in inside:
            raise unknown("key of the checkpoint", key, inside)
        return inside[key]
    usual = [name for name in _WRAPPERS if name in inside]
    if len(usual) == 1:
        return inside[usual[0]]
    if not inside and _is_weights(content):
        return content
    if len(inside) == 1:
        return next(iter(inside.values()))
    found = ", ".join(repr(name)[:40] for name in list(inside or content)[:20]) or "nothing"
    raise TfkdError(
        f"found {len(inside)} state dicts in a checkpoint of {found}, wanted one, or its key"
    )


def _named(weights: dict, prefix: str) -> dict[str, np.ndarray]:
    """The arrays of a state dict by the names that the network itself would give them."""
    found = {
        name: value
        for name, value in weights.items()
        if isinstance(name, str) and _shape(value) and not name.endswith(_COUNTER)
    }
    found = _without(found, _PARALLEL)
    if prefix:
        chosen = {name: value for name, value in found.items() if name.startswith(prefix)}
        if not chosen:
            raise TfkdError(
                f"found no name that begins with {prefix!r}, but {next(iter(found), None)!r}"
            )
        found = _without(_without(chosen, prefix), _PARALLEL)
    return {
        name: value.array() if isinstance(value, Tensor) else value for name, value in found.items()
    }


def _without(weights: dict, prefix: str) -> dict:
    """The weights without a prefix that all names have."""
    if not all(name.startswith(prefix) for name in weights):
        return weights
    return {name.removeprefix(prefix): value for name, value in weights.items()}
