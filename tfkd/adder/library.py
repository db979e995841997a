"""The compiled ops of the adder layer, loaded once in a process.

``operations()`` returns a module with two functions, named by TensorFlow after the ops:

* ``tfkd_adder_conv2d(x=, filter=, strides=, padding=)``, the op ``TfkdAdderConv2D``: the output of
  the layer, ``-sum |patch - filter|``;
* ``tfkd_adder_conv2d_input_grad(x=, filter=, gradient=, strides=, padding=)``, the op
  ``TfkdAdderConv2DInputGrad``: ``sum clip(filter - x, -1, 1) * gradient``.

``x`` is NHWC, ``filter`` HWIO, both float32; ``strides`` is (height, width) and ``padding`` the
zeros on (top, bottom, left, right).
"""

from __future__ import annotations

import os
import threading
import types
import warnings

import tensorflow as tf

from tfkd.adder import building
from tfkd.errors import TfkdError, TfkdWarning

_SWITCH = "TFKD_ADDER_OP"
_lock = threading.Lock()
_loaded: list[types.ModuleType | None] = []


def operations() -> types.ModuleType | None:
    """Returns the module of compiled ops, or None where they cannot be had or are not wanted.

    The first call compiles them unless that has been done before (see
    :mod:`tfkd.adder.building`). Where that fails, one warning tells why, and this call and all that
    follow return None. So they do, without a warning, where the environment says
    ``TFKD_ADDER_OP=off``.

    Raises:
        TfkdError: ``TFKD_ADDER_OP`` is neither ``on`` nor ``off``.
    """
    if not _wanted():
        return None
    with _lock:
        if not _loaded:
            _loaded.append(_load())
        return _loaded[0]


def _wanted() -> bool:
    switch = os.environ.get(_SWITCH) or "on"
    if switch not in ("on", "off"):
        raise TfkdError(f"environment variable {_SWITCH}: found {switch!r}, wanted 'on' or 'off'")
    return switch == "on"


def _load() -> types.ModuleType | None:
    try:
        return tf.load_op_library(str(building.build()))
    except (TfkdError, tf.errors.OpError) as error:
        warnings.warn(
            f"the adder op cannot be used, and its slow TensorFlow form stands in: {error}",
            TfkdWarning,
            stacklevel=3,
        )
        return None
