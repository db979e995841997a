"""Reordering channels with stock Keras layers: shuffle and split."""

from __future__ import annotations

import keras

from tfkd.errors import TfkdError

# `keras.ops.split` makes this operation without a name, and the operation is in no public module.
_Split = keras.ops.split.__globals__["Split"]


def shuffle(inputs, groups: int, *, name: str):
    """Takes one channel of every group in turn: channel c of group g becomes channel c groups + g.

    Zhang, Zhou, Lin, Sun, "ShuffleNet", CVPR 2018, figure 1.

    Args:
        inputs: (batch, height, width, channels); one of height and width may vary.
        groups: The number of groups, a divisor of the channels.
        name: The name of the last of three layers.
    """
    height, width, channels = inputs.shape[1:]
    parts = keras.layers.Reshape((-1, groups, channels // groups), name=f"{name}_groups")(inputs)
    parts = keras.layers.Permute((1, 3, 2), name=f"{name}_permute")(parts)
    height, width = (-1 if side is None else side for side in (height, width))
    return keras.layers.Reshape((height, width, channels), name=name)(parts)


def check_one_side_is_fixed(name: str, input_shape: tuple[int | None, int | None, int]) -> None:
    """Raises a TfkdError if height and width both vary, which `shuffle` cannot follow."""
    if input_shape[:2] == (None, None):
        raise TfkdError(
            f"network {name!r}: found input_shape={input_shape!r}; wanted a fixed height or width, "
            "which the channel shuffle needs"
        )


def halves(inputs, *, name: str):
    """The first and the second half of the channels.

    Args:
        inputs: (batch, height, width, channels).
        name: The name of the operation.
    """
    return _Split(2, axis=-1, name=name)(inputs)
