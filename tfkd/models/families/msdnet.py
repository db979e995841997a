"""Multi-scale dense networks (MSDNet), whose exits all see coarse features.

Every layer holds feature maps of several scales, each of half the size of the one before. At scale
``s`` a layer appends to what it was given what a *normal* branch makes of the same scale and, but
at the finest scale, what a *down* branch of stride 2 makes of the next finer one; each adds half of
the scale's growth, a normal branch alone all of it. A branch is a 1x1 bottleneck and a 3x3
convolution. The network is cut into blocks; after each, an exit classifies the coarsest scale.
Finer scales are dropped on the way, as nothing that follows needs them: with ``prune="max"`` one
after each of as many equal parts as there are scales, which is followed by a 1x1 *transition* that
halves the channels of the scales that are left; with ``prune="min"`` as late as possible, with
transitions after a third and two thirds of the layers.

Source: Huang, Chen, Li, Wu, van der Maaten and Weinberger, "Multi-Scale Dense Networks for Resource
Efficient Image Classification", ICLR 2018, https://arxiv.org/abs/1703.09844, with the sizes and the
initialization (He-normal over the fan-out) of the authors' code. ``msdnet_cifar_dbt11`` is the
network of Phuong and Lampert, "Distillation-Based Training for Multi-Exit Architectures", ICCV
2019.

Departure: an exit averages whatever its two convolutions leave of the coarsest maps, which are 2x2
at the published image sizes.

Outputs are named `exit1`, `exit2`, ... and `logits`, the deepest. Taps: `stage1..N`, the coarsest
maps at the end of each block, `exit1_pooled`, ... and `pooled`, what the classifiers see.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

import keras

from tfkd.errors import TfkdError
from tfkd.models.layers.blocks import convolution, linear, normalization, relu, tap
from tfkd.models.registry import register
from tfkd.settings import Count, checked


@dataclasses.dataclass(frozen=True)
class Sizes:
    """The numbers that an MSDNet is made of.

    Attributes:
        blocks: Layers of each block; each ends in an exit.
        growth: Channels that a layer adds, as every number of channels in units of `factors`.
        channels: Channels after the stem.
        factors: The channels that a unit stands for at each scale, from the finest on.
        bottlenecks: For each scale the width of a bottleneck that reads it, in multiples of what
            its branch adds.
        prune: When finer scales are dropped.
        use_bias: Whether convolutions have a bias before their normalization.
        head_channels: Channels of the convolutions of an exit; those of the coarsest scale if None.
        large: Whether the stem halves the image twice, for ImageNet.
    """

    blocks: tuple[int, ...]
    growth: int = 6
    channels: int = 16
    factors: tuple[int, ...] = (1, 2, 4)
    bottlenecks: tuple[int, ...] = (1, 2, 4)
    prune: Literal["max", "min"] = "max"
    use_bias: bool = False
    head_channels: int | None = 128
    large: bool = False

    @property
    def layers(self) -> int:
        """The number of layers."""
        return sum(self.blocks)

    @property
    def scales(self) -> int:
        """The number of scales at the start."""
        return len(self.factors)

    def scales_after(self, layer: int) -> int:
        """Returns how many scales, the coarsest ones, a layer hands on; layers count from 1."""
        if self.prune == "min":
            return min(self.scales, self.layers - layer + 1)
        interval = math.ceil(self.layers / self.scales)
        return self.scales - max(0, layer - 1) // interval

    def halves_after(self, layer: int) -> bool:
        """Returns whether a transition follows a layer."""
        if self.prune == "min":
            return layer in (self.layers // 3, 2 * self.layers // 3)
        return self.scales_after(layer) < self.scales_after(layer - 1)


def even(exits: int, base: int, step: int) -> tuple[int, ...]:
    """Returns blocks of equal length after the first: ``base, step, step, ...``."""
    return (base, *([step] * (exits - 1)))


def lin_grow(exits: int, base: int, step: int) -> tuple[int, ...]:
    """Returns blocks that become longer: ``base, step + 1, 2 * step + 1, ...``."""
    return (base, *(step * block + 1 for block in range(1, exits)))


_LARGE = dict(
    growth=16,
    channels=32,
    factors=(1, 2, 4, 4),
    bottlenecks=(1, 2, 4, 4),
    head_channels=None,
    large=True,
)
NETWORKS = {
    "msdnet_cifar_even7": Sizes(even(7, 4, 2)),
    "msdnet_cifar_even11": Sizes(even(11, 4, 2)),
    "msdnet_cifar_lin5": Sizes(lin_grow(5, 1, 1)),
    "msdnet_cifar_lin7": Sizes(lin_grow(7, 1, 1)),
    "msdnet_cifar_dbt11": Sizes(
        even(11, 4, 2),
        growth=1,
        channels=1,
        factors=(6, 12, 24),
        bottlenecks=(4, 4, 4),
        prune="min",
        use_bias=True,
    ),
    "msdnet_imagenet_4": Sizes(even(5, 4, 4), **_LARGE),
    "msdnet_imagenet_6": Sizes(even(5, 6, 6), **_LARGE),
    "msdnet_imagenet_7": Sizes(even(5, 7, 7), **_LARGE),
}
"""The published networks."""


def _register(network: str, sizes: Sizes) -> None:
    shape, classes = ((224, 224, 3), 1000) if sizes.large else ((32, 32, 3), 100)

    @register(network, smallest=_smallest(sizes), default_shape=shape, default_classes=classes)
    def build(num_classes, input_shape, name):
        return msdnet(sizes, num_classes, input_shape, name)


def _smallest(sizes: Sizes) -> int:
    """The least height and width of an image, which leaves a pixel of the coarsest scale."""
    return 2 ** (sizes.scales - 1 + (2 if sizes.large else 0))


for _name, _sizes in NETWORKS.items():
    _register(_name, _sizes)


@register("msdnet")
def _of_any_size(
    num_classes,
    input_shape,
    name,
    blocks=(1, 2, 3, 4),
    growth=6,
    channels=16,
    scales=3,
    prune="max",
):
    sizes = _checked(blocks, growth, channels, scales, prune)
    least = _smallest(sizes)
    if None not in input_shape[:2] and min(input_shape[:2]) < least:
        raise TfkdError(
            f"network 'msdnet': found images of {input_shape[0]} x {input_shape[1]} pixels with "
            f"scales={scales}; wanted {least} or more"
        )
    return msdnet(sizes, num_classes, input_shape, name)


def _checked(blocks, growth, channels, scales, prune) -> Sizes:
    """The sizes of a network whose channels double from scale to scale, checked."""
    where = "network 'msdnet': "
    blocks = checked(f"{where}blocks", tuple[Count, ...], blocks)
    growth = checked(f"{where}growth", Count, growth)
    channels = checked(f"{where}channels", Count, channels)
    scales = checked(f"{where}scales", Count, scales)
    prune = checked(f"{where}prune", Literal["max", "min"], prune)
    if not blocks:
        raise TfkdError(f"{where}found no blocks; wanted the number of layers of each")
    if growth % 2:
        raise TfkdError(
            f"{where}found growth={growth}; wanted an even number, of which each of two branches "
            "adds half"
        )
    factors = tuple(2**scale for scale in range(scales))
    return Sizes(blocks, growth, channels, factors=factors, bottlenecks=factors, prune=prune)


def msdnet(
    sizes: Sizes,
    num_classes: int,
    input_shape: tuple[int | None, int | None, int],
    name: str,
) -> keras.Model:
    """Builds an MSDNet.

    Args:
        sizes: Its numbers.
        num_classes: The number of classes.
        input_shape: Height, width and channels of an image.
        name: The model's name.

    Returns:
        A functional model from images to a dict of logits, ``exit1 .. logits``.
    """
    image = keras.Input(input_shape, name="image")
    maps, channels = _stem(image, sizes), sizes.channels
    outputs, layer = {}, 0
    for block, length in enumerate(sizes.blocks, start=1):
        for _ in range(length):
            layer += 1
            maps = _layer(maps, channels, sizes, layer)
            channels += sizes.growth
            if sizes.halves_after(layer):
                channels //= 2
                maps = {
                    scale: _convolve(
                        each, channels * sizes.factors[scale], 1, sizes,
                        name=f"transition{layer}_scale{scale + 1}",
                    )
                    for scale, each in maps.items()
                }  # fmt: skip
        coarsest = sizes.scales - 1
        maps[coarsest] = tap(maps[coarsest], name=f"stage{block}")
        last = block == len(sizes.blocks)
        exit = "logits" if last else f"exit{block}"
        outputs[exit] = _exit(maps[coarsest], num_classes, sizes, exit)
    return keras.Model(image, outputs, name=name)


def _stem(image, sizes: Sizes) -> dict[int, keras.KerasTensor]:
    """The first maps of every scale, each made of the next finer one."""
    widths = [sizes.channels * factor for factor in sizes.factors]
    if sizes.large:
        features = convolution(image, widths[0], 7, 2, name="stem_conv", use_bias=True)
        features = relu(normalization(features, name="stem_bn"), name="stem_relu")
        features = keras.layers.ZeroPadding2D(1, name="stem_pool_pad")(features)
        features = keras.layers.MaxPooling2D(3, 2, name="stem")(features)
    else:
        features = _convolve(image, widths[0], 3, sizes, name="stem")
    maps = {0: features}
    for scale in range(1, sizes.scales):
        maps[scale] = _convolve(
            maps[scale - 1], widths[scale], 3, sizes, stride=2, name=f"stem_scale{scale + 1}"
        )
    return maps


def _layer(maps, channels: int, sizes: Sizes, layer: int) -> dict[int, keras.KerasTensor]:
    """One layer: for every scale that goes on its maps, and what the branches add to them."""
    first = sizes.scales - sizes.scales_after(layer)
    made = {}
    for scale in range(first, sizes.scales):
        prefix = f"layer{layer}_scale{scale + 1}"
        added = sizes.growth * sizes.factors[scale]
        finer = scale - 1 in maps
        parts = [maps[scale]]
        if finer:
            added //= 2
            parts.append(_branch(maps[scale - 1], added, scale - 1, sizes, 2, f"{prefix}_down"))
        parts.append(_branch(maps[scale], added, scale, sizes, 1, f"{prefix}_normal"))
        made[scale] = keras.layers.Concatenate(name=prefix)(parts)
    return made


def _branch(inputs, filters: int, scale: int, sizes: Sizes, stride: int, name: str):
    """A bottleneck, which never widens, and a 3x3 convolution of what a scale holds."""
    inner = min(inputs.shape[-1], sizes.bottlenecks[scale] * filters)
    features = _convolve(inputs, inner, 1, sizes, name=f"{name}_bottleneck")
    return _convolve(features, filters, 3, sizes, stride=stride, name=name)


def _convolve(inputs, filters: int, size: int, sizes: Sizes, *, stride: int = 1, name: str):
    """Convolution, normalization and ReLU."""
    features = convolution(
        inputs, filters, size, stride, name=f"{name}_conv", use_bias=sizes.use_bias
    )
    return relu(normalization(features, name=f"{name}_bn"), name=f"{name}_relu")


def _exit(coarsest, num_classes: int, sizes: Sizes, exit: str):
    """Two convolutions of stride 2, their mean over positions, and a linear classifier."""
    prefix = "" if exit == "logits" else f"{exit}_"
    width = sizes.head_channels or coarsest.shape[-1]
    features = _convolve(coarsest, width, 3, sizes, stride=2, name=f"{prefix}head1")
    features = _convolve(features, width, 3, sizes, stride=2, name=f"{prefix}head2")
    features = tap(features, name=f"{prefix}pre_pool")
    pooled = keras.layers.GlobalAveragePooling2D(name=f"{prefix}pooled")(features)
    return linear(pooled, num_classes, bias_initializer="zeros", name=exit)
