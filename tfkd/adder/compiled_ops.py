"""The compiled ops of the adder layer, loaded once in a process.

``operations()`` returns a module with two functions, named by TensorFlow after the ops:

* ``tfkd_adder_conv2d(x=, filter=, strides=, padding=)``, the op ``TfkdAdderConv2D``: the output of
  the layer, ``-sum |patch - filter|``;
* ``tfkd_adder_conv2d_input_grad(x=, filter=, gradient=, strides=, padding=)``, the op
  ``TfkdAdderConv2DInputGrad``: ``sum clip(filter - x, -1, 1) * gradient``.

``x`` is NHWC, ``filter`` HWIO, both float32; ``strides`` is (height, width) and ``padding`` the
zeros on (top, bottom, left, right).

A NaN in an input or a filter makes the outputs that see it NaN. So does an infinite input or filter
of positive sign, where the true output would be -inf; it is -inf where an infinite filter meets
only zeros around the image.

The library holds its inner loops for AVX-512 (long vectors, and short ones with its 32 registers),
AVX2 with FMA, and any processor. Those that are fastest in a measurement of a millisecond are in
use; ``instructions()`` names them. All are one template, for vectors of 16, 8, 8 and 4 floats, and
give the same bits, except for the input gradient of the portable one, which has no fused
multiply-add.
"""

from __future__ import annotations

import ctypes
import os
import threading
import types
import warnings
from dataclasses import dataclass

import tensorflow as tf

from tfkd.adder import building
from tfkd.errors import TfkdError, TfkdWarning, unknown

INSTRUCTIONS = ("portable", "avx2", "avx512vl", "avx512")
_SWITCH = "TFKD_ADDER_OP"
_CHOICE = "TFKD_ADDER_INSTRUCTIONS"


@dataclass(frozen=True)
class _Library:
    """The loaded library: its TensorFlow ops, and its plain C functions."""

    operations: types.ModuleType
    functions: ctypes.CDLL


_lock = threading.Lock()
_loaded: list[_Library | None] = []


def operations() -> types.ModuleType | None:
    """Returns the module of compiled ops, or None where they are not available or switched off.

    The first call compiles them if that has not been done before (:mod:`tfkd.adder.building`). If
    that fails, one warning tells why, and this call and all later ones return None. With
    ``TFKD_ADDER_OP=off`` in the environment they return None without a warning.
    ``TFKD_ADDER_INSTRUCTIONS`` names the one of ``INSTRUCTIONS`` to use instead of the fastest.

    Raises:
        TfkdError: ``TFKD_ADDER_OP`` is neither ``on`` nor ``off``, or ``TFKD_ADDER_INSTRUCTIONS``
            names unknown instructions or some that the processor lacks.
    """
    library = _library()
    return None if library is None else library.operations


def instructions() -> str | None:
    """Returns the one of ``INSTRUCTIONS`` that is in use, or None where there are no ops."""
    library = _library()
    return None if library is None else library.functions.tfkd_adder_instructions().decode()


def use_instructions(name: str) -> None:
    """Makes the ops of this process use other instructions, for tests and measurements.

    Args:
        name: One of ``INSTRUCTIONS``.

    Raises:
        TfkdError: The name is unknown, the processor lacks them, or there are no ops.
    """
    library = _library()
    if library is None:
        raise TfkdError(f"instructions {name!r}: found no compiled adder op, wanted one")
    _choose(library.functions, name)


def _library() -> _Library | None:
    switch = os.environ.get(_SWITCH) or "on"
    if switch not in ("on", "off"):
        raise TfkdError(f"environment variable {_SWITCH}: found {switch!r}, wanted 'on' or 'off'")
    if switch == "off":
        return None
    with _lock:
        if not _loaded:
            _loaded.append(_load())
        return _loaded[0]


def _load() -> _Library | None:
    try:
        path = str(building.build())
        library = _Library(tf.load_op_library(path), _functions(path))
    except (TfkdError, tf.errors.OpError) as error:
        warnings.warn(
            f"the adder op cannot be used, and its slow TensorFlow form stands in: {error}",
            TfkdWarning,
            stacklevel=4,
        )
        return None
    if choice := os.environ.get(_CHOICE):
        _choose(library.functions, choice)
    if tf.config.list_physical_devices("GPU"):
        load_gpu_kernels()
    return library


def load_gpu_kernels() -> bool:
    """Adds GPU kernels to the compiled ops; happens by itself where TensorFlow has a GPU.

    Without them the ops run on the CPU, even if everything else runs on a GPU.

    Returns:
        Whether it worked; if not, a warning tells why.
    """
    try:
        tf.load_library(str(building.build_for_gpu()))
    except (TfkdError, tf.errors.OpError) as error:
        warnings.warn(
            f"adder layers have no GPU kernels, and run on the CPU: {error}",
            TfkdWarning,
            stacklevel=5,
        )
        return False
    return True


def _functions(path: str) -> ctypes.CDLL:
    functions = ctypes.CDLL(path)
    functions.tfkd_adder_instructions.restype = ctypes.c_char_p
    functions.tfkd_adder_use_instructions.argtypes = (ctypes.c_char_p,)
    functions.tfkd_adder_use_instructions.restype = ctypes.c_bool
    return functions


def _choose(functions: ctypes.CDLL, name: str) -> None:
    if name not in INSTRUCTIONS:
        raise unknown("instruction set of the adder op", name, INSTRUCTIONS)
    if not functions.tfkd_adder_use_instructions(name.encode()):
        raise TfkdError(
            f"instruction set {name!r}: found a processor without it, wanted one of "
            f"{', '.join(INSTRUCTIONS)} that it has"
        )
