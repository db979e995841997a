"""Mixup and cutmix: batches in which every image and label is a mixture of two.

Mixup: x = share * x_i + (1 - share) * x_j, and labels likewise. Hongyi Zhang, Moustapha Cisse, Yann
N. Dauphin and David Lopez-Paz, "mixup: Beyond empirical risk minimization", ICLR 2018, equation 2,
arXiv 1710.09412.

Cutmix: a rectangle of x_i is replaced by that of x_j, and labels are mixed by area. Sangdoo Yun et
al., "CutMix: Regularization strategy to train strong classifiers with localizable features", ICCV
2019, equations 1 and 2, arXiv 1905.04899.

In both the share (the papers' lambda) follows Beta(alpha, alpha) and is drawn once a step, as the
authors' codes do. Departure: the two images are neighbors in the batch, rows 2k and 2k + 1, each
mixed into the other, where the papers permute the batch. The order of the batch is random already,
and both images lie on one replica: one and two replicas see the same batch.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection

import tensorflow as tf

from tfkd.data import randomness
from tfkd.errors import TfkdError


@dataclasses.dataclass(frozen=True)
class Mixing:
    """The mixing of training batches.

    Attributes:
        mixup: The alpha of mixup, 0 for none.
        cutmix: The alpha of cutmix, 0 for none; with both, each step draws one of them evenly.

    Raises:
        TfkdError: An alpha is no number from 0 on.
    """

    mixup: float = 0.0
    cutmix: float = 0.0

    def __post_init__(self):
        for name in ("mixup", "cutmix"):
            value = getattr(self, name)
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not number or not 0 <= value < math.inf:
                raise TfkdError(
                    f"{name}: found {value!r}, wanted the alpha of Beta(alpha, alpha), above 0, or "
                    f"0 for none"
                )

    def __bool__(self) -> bool:
        return self.mixup > 0 or self.cutmix > 0

    def check(self, keys: Collection[str], columns: Collection[str], rows: int) -> None:
        """Raises TfkdError where batches of these entries cannot be mixed.

        Args:
            keys: The keys of the entries.
            columns: The names of columns, which belong to one image as well.
            rows: Rows of the batch of one replica.
        """
        others = sorted(key for key in keys if key.startswith("image_") or key in columns)
        if others:
            raise TfkdError(
                f"mixup and cutmix: mix image and label alone; found also {', '.join(others)}, "
                f"wanted data.mixup=0 and data.cutmix=0 with this method"
            )
        if rows % 2:
            raise TfkdError(
                f"mixup and cutmix: mix two rows with each other; found a batch of {rows} on each "
                f"replica, wanted an even number"
            )


def mix(
    batch: dict[str, tf.Tensor],
    mixing: Mixing,
    num_classes: int,
    seed: int,
    step: tf.Tensor,
) -> dict[str, tf.Tensor]:
    """Returns a batch with mixed images and dense labels.

    Args:
        batch: ``image`` uint8 (b, H, W, C) and ``label`` int32 (b,), b even; other entries stay.
        mixing: The alphas.
        num_classes: C of the labels.
        seed: Seed of the data set.
        step: Global step; everything drawn depends on (seed, step) alone.

    Returns:
        ``image`` uint8 as before (mixup rounds), ``label`` float32 (b, num_classes).
    """
    images, labels = batch["image"], tf.one_hot(batch["label"], num_classes)

    def by_mixup() -> tuple[tf.Tensor, tf.Tensor]:
        share = draw_share(mixing.mixup, seed, "mixup", step)
        return mixup(images, share), share

    def by_cutmix() -> tuple[tf.Tensor, tf.Tensor]:
        share = draw_share(mixing.cutmix, seed, "cutmix", step)
        # The name of a stream decides its bits: another spelling would draw other rectangles.
        center = randomness.bits(seed, "cutmix centre", step, [2])
        return cutmix(images, share, center)

    if not mixing.cutmix:
        mixed, share = by_mixup()
    elif not mixing.mixup:
        mixed, share = by_cutmix()
    else:
        heads = randomness.bits(seed, "mixup or cutmix", step, [1])[0] < 0
        mixed, share = tf.cond(heads, by_mixup, by_cutmix)
    mixed = tf.ensure_shape(mixed, images.shape)
    return batch | {"image": mixed, "label": share * labels + (1 - share) * partners(labels)}


def draw_share(alpha: float, seed: int, stream: str, step: tf.Tensor | int) -> tf.Tensor:
    """Draws from Beta(alpha, alpha), float32 scalar.

    X / (X + Y) for two draws of Gamma(alpha), each made as Gamma(alpha + 1) * U^(1 / alpha)
    (George Marsaglia and Wai Wan Tsang, ACM TOMS 26, 2000, section 6), in logarithms, because a
    small alpha underflows otherwise.

    Args:
        alpha: Above 0.
        seed: Seed of the data set.
        stream: Name of the draw.
        step: Global step.
    """
    one = tf.constant(1.0, tf.float64)
    gammas = tf.random.stateless_gamma(
        [2], randomness.key(seed, f"{stream} gamma", step), alpha=one + alpha, dtype=tf.float64
    )
    uniform = tf.random.stateless_uniform(
        [2],
        randomness.key(seed, f"{stream} uniform", step),
        minval=1e-300,
        dtype=tf.float64,
        alg="philox",
    )
    logarithms = tf.math.log(gammas) + tf.math.log(uniform) / alpha
    return tf.cast(tf.sigmoid(logarithms[0] - logarithms[1]), tf.float32)


def partners(rows: tf.Tensor) -> tf.Tensor:
    """Returns (b, ...) with the rows 2k and 2k + 1 exchanged."""
    pairs = tf.reshape(rows, [rows.shape[0] // 2, 2, *rows.shape[1:]])
    return tf.reshape(tf.reverse(pairs, [1]), rows.shape)


def mixup(images: tf.Tensor, share: tf.Tensor) -> tf.Tensor:
    """Returns share * own + (1 - share) * partner, rounded, for uint8 images (b, H, W, C)."""
    own, other = (tf.cast(each, tf.float32) for each in (images, partners(images)))
    return tf.cast(tf.round(share * own + (1 - share) * other), tf.uint8)


def cutmix(images: tf.Tensor, share: tf.Tensor, center: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Replaces one rectangle of all images by that of their partners.

    Args:
        images: uint8 (b, H, W, C).
        share: How much of the area stays, before the rectangle is cut at the border of the image.
        center: int32 (2,), random bits of the row and the column of its center.

    Returns:
        (uint8 (b, H, W, C), float32 scalar): the images, and the share of the area that stayed.
    """
    height, width = images.shape[1:3]
    side = tf.sqrt(1 - share)
    spans = []
    for size, bits in ((height, center[0]), (width, center[1])):
        half = tf.cast(side * size, tf.int32) // 2
        middle = tf.math.floormod(bits, size)
        position = tf.range(size)
        spans.append((position >= middle - half) & (position < middle + half))
    rectangle = spans[0][:, None] & spans[1][None, :]
    kept = 1 - tf.reduce_mean(tf.cast(rectangle, tf.float32))
    return tf.where(rectangle[:, :, None], partners(images), images), kept
