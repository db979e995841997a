"""RandAugment: random operations of a fixed list for each image, all of one magnitude.

Ekin D. Cubuk, Barret Zoph, Jonathon Shlens and Quoc V. Le, "RandAugment: Practical automated data
augmentation with a reduced search space", CVPR Workshops 2020, arXiv 1909.13719.

RandAugment(N, M): N operations, each drawn uniformly with replacement from the fourteen of
``pixel_operations``, are applied one after the other at bin M of 31; an operation that has two
directions takes one of them with probability 1/2. MLD asks for RandAugment(2, 10).

Departure: the class of that name in forks of MLD's code ignores the 10. It draws a magnitude for
each image uniformly from a range, only lowers brightness, color, contrast and sharpness, and at the
end covers a square of up to half the width with a fixed gray. Here it is as in the paper.

The operations of an image depend on (seed, epoch, index) alone. The images of a batch are grouped
by operation: each operation runs once a round, only on the images that drew it.
"""

from __future__ import annotations

import tensorflow as tf

from tfkd.data import randomness
from tfkd.data.pixel_operations import OPERATIONS, SIGNED
from tfkd.errors import TfkdError

ROUNDS = 2
MAGNITUDE = 10


def check_shape(image_shape: tuple[int, int, int]) -> None:
    """Raises TfkdError unless images (height, width, channels) are gray or RGB."""
    if image_shape[2] not in (1, 3):
        raise TfkdError(
            f"image_strong: found images of {image_shape[2]} channels, wanted 1 or 3, on which "
            f"the color operations of RandAugment are defined"
        )


def draw(
    seed: int,
    stream: str,
    epoch: tf.Tensor | int,
    index: tf.Tensor,
    rounds: int = ROUNDS,
    magnitude: int = MAGNITUDE,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Draws the operations of some examples in one epoch.

    Args:
        seed: Seed of the data set.
        stream: Name of the view.
        epoch: Integer scalar.
        index: int (b,), positions in the un-shuffled training set.
        rounds: The paper's N.
        magnitude: The paper's M, a bin, 0 .. 30.

    Returns:
        (operations, levels), both int32 (b, rounds): places in ``OPERATIONS``, and signed bins.
    """
    drawn = randomness.example_bits(seed, stream, epoch, index, 2 * rounds)
    operations = tf.math.floormod(drawn[:, :rounds], len(OPERATIONS))
    two_sided = tf.gather([operation in SIGNED for operation in OPERATIONS], operations)
    turned = two_sided & (drawn[:, rounds:] < 0)
    return operations, tf.where(turned, -magnitude, magnitude)


@tf.autograph.experimental.do_not_convert  # AutoGraph is slower than tracing, and not needed.
def apply(images: tf.Tensor, operations: tf.Tensor, levels: tf.Tensor) -> tf.Tensor:
    """Applies the operations of each image, in their order.

    Args:
        images: uint8 (b, H, W, C), b known, C 1 or 3.
        operations: int32 (b, rounds), places in ``OPERATIONS``.
        levels: int32 (b, rounds), bins, with a sign where the operation has two directions.

    Returns:
        uint8 (b, H, W, C).
    """
    for operation, level in zip(tf.unstack(operations, axis=1), tf.unstack(levels, axis=1)):
        groups = tf.dynamic_partition(tf.range(images.shape[0]), operation, len(OPERATIONS))
        made = [
            function(tf.gather(images, group), tf.gather(level, group))
            for function, group in zip(OPERATIONS, groups)
        ]
        images = tf.ensure_shape(tf.dynamic_stitch(groups, made), images.shape)
    return images
