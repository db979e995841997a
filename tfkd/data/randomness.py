"""Named streams of random bits that depend on (seed, stream, counter) alone.

Every draw of the data layer comes from here. No generator has a state that a checkpoint would have
to hold, and a batch can be made again from its global step.
"""

from __future__ import annotations

import zlib

import tensorflow as tf

from tfkd.errors import TfkdError

SEED_LIMIT = 2**31

_GOLDEN = 0x9E3779B97F4A7C15


def check_seed(seed: int) -> int:
    """Returns the seed; raises TfkdError unless it is an integer in 0 .. 2**31 - 1."""
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < SEED_LIMIT:
        raise TfkdError(f"data seed: found {seed!r}, wanted an integer from 0 to {SEED_LIMIT - 1}")
    return seed


def key(seed: int, stream: str, counter: tf.Tensor | int) -> tf.Tensor:
    """Returns the stateless seed of one draw.

    Args:
        seed: The seed of the data set, 0 .. 2**31 - 1.
        stream: Name of the draw ("order", "image", ...). Its checksum separates the streams: a new
            one changes no number of the others.
        counter: The epoch or the global step, an integer scalar.

    Returns:
        An int64 tensor of shape (2,) for the ``tf.random.stateless_*`` functions.
    """
    high = tf.constant((seed << 32) + zlib.crc32(stream.encode()), tf.int64)
    return tf.stack([high, tf.cast(counter, tf.int64)])


def bits(seed: int, stream: str, counter: tf.Tensor | int, shape: list[int]) -> tf.Tensor:
    """Returns uniform int32 bit patterns of the given shape for one draw (see ``key``)."""
    # The algorithm is given: "auto" may choose another one on another device.
    return tf.random.stateless_uniform(
        shape, key(seed, stream, counter), minval=None, maxval=None, dtype=tf.int32, alg="philox"
    )


def permutation(size: int | tf.Tensor, seed: int, stream: str, counter: tf.Tensor) -> tf.Tensor:
    """Returns a random order of 0 .. size - 1, int32 (size,), for one draw (see ``key``)."""
    return tf.random.experimental.stateless_shuffle(
        tf.range(size), key(seed, stream, counter), alg="philox"
    )


def example_bits(
    seed: int, stream: str, epoch: tf.Tensor | int, index: tf.Tensor, columns: int
) -> tf.Tensor:
    """Returns random bits of examples in an epoch, which do not depend on their batches.

    TensorFlow's stateless generators take one key for a whole tensor; here each row has its own.
    Every number of the key is added in turn and scrambled by the finalizer of SplitMix64 (Steele,
    Lea and Flood, "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014).

    Args:
        seed: The seed of the data set, 0 .. 2**31 - 1.
        stream: Name of the draw; streams of other names are independent.
        epoch: Integer scalar.
        index: int (b,), positions in the un-shuffled training set.
        columns: Draws for each example.

    Returns:
        Uniform int32 bit patterns (b, columns).
    """
    state = _scrambled(tf.constant((seed << 32) + zlib.crc32(stream.encode()), tf.uint64))
    state = _scrambled(state + tf.cast(epoch, tf.uint64) * _GOLDEN)
    state = _scrambled(state + tf.cast(index, tf.uint64) * _GOLDEN)
    steps = tf.range(1, columns + 1, dtype=tf.int64)
    states = _scrambled(state[:, None] + tf.cast(steps, tf.uint64) * _GOLDEN)
    return tf.bitcast(tf.cast(tf.bitwise.right_shift(states, _shift(32)), tf.uint32), tf.int32)


def _scrambled(state: tf.Tensor) -> tf.Tensor:
    """Returns uint64 values under a bijection in which every bit depends on all bits."""
    state = tf.bitwise.bitwise_xor(state, tf.bitwise.right_shift(state, _shift(30)))
    state *= 0xBF58476D1CE4E5B9
    state = tf.bitwise.bitwise_xor(state, tf.bitwise.right_shift(state, _shift(27)))
    state *= 0x94D049BB133111EB
    return tf.bitwise.bitwise_xor(state, tf.bitwise.right_shift(state, _shift(31)))


def _shift(places: int) -> tf.Tensor:
    return tf.constant(places, tf.uint64)
