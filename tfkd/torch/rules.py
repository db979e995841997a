"""What the published PyTorch code calls the layers of tfkd's networks.

A layer here has one name; the modules there stand in each other, `layer2.0.downsample.1`. One set
of rules tells the one from the other for a whole family, whatever its depth and width.

Source: the state dicts of the networks of the CRD comparison (Tian, Krishnan, Isola, "Contrastive
Representation Distillation", ICLR 2020) and, for ImageNet, those of torchvision and, for
MobileNetV1, of the DKD comparison (Zhao et al., CVPR 2022).
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from tfkd.errors import unknown

_BLOCK = re.compile(r"stage(\d+)_block(\d+)_(.+)")


@dataclass(frozen=True)
class Rules:
    """The names of a family.

    Attributes:
        networks: Name -> the number of its tensors; None where that depends on its arguments.
        signature: Tensors that tell the family from others.
        stem: The layer that sees the image.
        layers: Layer outside of blocks -> its module; several where published codes differ.
        place: (stage, block), both from 1 -> the module of that block, with a dot behind it.
        parts: The rest of the name of a layer in a block -> its module inside of it, likewise.
        maps: Linear layer -> the (channels, height, width) that it sees in a row.
    """

    networks: Mapping[str, int | None]
    signature: tuple[str, ...]
    layers: Mapping[str, tuple[str, ...]]
    stem: str = "stem_conv"
    place: Callable[[int, int], str] | None = None
    parts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    maps: Mapping[str, tuple[int, int, int]] = field(default_factory=dict)

    def modules(self, layer: str) -> tuple[str, ...]:
        """The modules that a layer may be called, () for one that the published code lacks."""
        block = _BLOCK.fullmatch(layer)
        if block is None:
            return self.layers.get(layer, ())
        place = self.place(int(block[1]), int(block[2])) if self.place else ""
        return tuple(place + part for part in self.parts.get(block[3], ()))


def rules_of(network: str) -> Rules:
    """The rules of a network.

    Raises:
        TfkdError: If there are none.
    """
    for rules in _FAMILIES:
        if network in rules.networks:
            return rules
    raise unknown("network with published PyTorch weights", network, networks())


def networks() -> tuple[str, ...]:
    """The networks whose weights can be ported."""
    return tuple(itertools.chain.from_iterable(rules.networks for rules in _FAMILIES))


def nearest(names: Iterable[str]) -> str | None:
    """The network whose tensors are named most alike, or None.

    Args:
        names: The names of tensors.
    """
    names = set(names)
    differences = {
        network: abs(count - len(names))
        for rules in _FAMILIES
        if names.issuperset(rules.signature)
        for network, count in rules.networks.items()
        if count is not None
    }
    return min(differences, key=differences.get, default=None)


def _numbered(count: int) -> dict[str, tuple[str, ...]]:
    """The convolutions and normalizations of a block, which bear the same names."""
    names = [f"{kind}{number + 1}" for number in range(count) for kind in ("conv", "bn")]
    return {name: (name,) for name in names}


def _in_layers(stage: int, block: int) -> str:
    return f"layer{stage}.{block - 1}."


def _residual(networks: Mapping[str, int], *signature: str) -> Rules:
    return Rules(
        networks,
        signature,
        layers={"stem_conv": ("conv1",), "stem_bn": ("bn1",), "logits": ("fc", "linear")},
        place=_in_layers,
        parts={
            **_numbered(3),
            "shortcut_conv": ("downsample.0", "shortcut.0"),
            "shortcut_bn": ("downsample.1", "shortcut.1"),
        },
    )


def _shuffle(network: str, count: int, *signature: str) -> Rules:
    return Rules(
        {network: count},
        signature,
        layers={
            "stem_conv": ("conv1",),
            "stem_bn": ("bn1",),
            "final_conv": ("conv2",),
            "final_bn": ("bn2",),
            "logits": ("linear", "fc"),
        },
        place=_in_layers,
        parts=_numbered(5),
    )


def _small_vgg() -> Rules:
    layers = {"logits": ("classifier",)}
    for block, tap in enumerate(("stem", "stage1", "stage2", "stage3", "stage4")):
        # A convolution, its normalization and a ReLU take three places each; at most four of them.
        for number in range(4):
            layers[f"{tap}_conv{number + 1}"] = (f"block{block}.{3 * number}",)
            layers[f"{tap}_bn{number + 1}"] = (f"block{block}.{3 * number + 1}",)
    counts = {"vgg8": 32, "vgg11": 50, "vgg13": 62, "vgg16_cifar": 80, "vgg19": 98}
    return Rules(counts, ("block4.0.weight",), layers, stem="stem_conv1")


def _imagenet_vgg(network: str, normalized: bool, count: int, *signature: str) -> Rules:
    layers = {"fc1": ("classifier.0",), "fc2": ("classifier.3",), "logits": ("classifier.6",)}
    place = 0
    blocks = {"stem": 2, "stage1": 2, "stage2": 3, "stage3": 3, "stage4": 3}
    for tap, convolutions in blocks.items():
        for number in range(1, convolutions + 1):
            layers[f"{tap}_conv{number}"] = (f"features.{place}",)
            layers[f"{tap}_bn{number}"] = (f"features.{place + 1}",)
            place += 3 if normalized else 2
        place += 1  # The pooling.
    maps = {"fc1": (512, 7, 7)}
    return Rules({network: count}, signature, layers, stem="stem_conv1", maps=maps)


_GROUPS_OF_STAGES = ((1, 2), (3,), (4, 3), (3, 1))
"""The blocks of each group of MobileNetV2, by our stages."""


def _in_groups(stage: int, block: int) -> str:
    """MobileNetV2's blocks, which are counted in their group there and in their stage here."""
    group = sum(map(len, _GROUPS_OF_STAGES[: stage - 1]))
    for size in _GROUPS_OF_STAGES[stage - 1]:
        if block <= size:
            break
        block -= size
        group += 1
    return f"blocks.{group}.{block - 1}.conv."


_BLOCKS_BEFORE = (0, 3, 5, 11)
"""The blocks of MobileNetV1 before each stage."""


def _in_a_row(stage: int, block: int) -> str:
    return f"model.{_BLOCKS_BEFORE[stage - 1] + block}."


_FAMILIES = (
    _residual(
        {
            **{f"resnet{6 * n + 2}": 17 + 30 * n for n in (1, 2, 3, 5, 7, 9, 18)},
            **{f"resnet{6 * n + 2}x4": 22 + 30 * n for n in (1, 5)},
        },
        "layer3.0.downsample.0.weight",
    ),
    _residual({"resnet18_cifar": 102, "resnet50_cifar": 267}, "layer4.0.shortcut.0.weight"),
    _residual(
        {"resnet18": 102, "resnet34": 182, "resnet50": 267, "resnet101": 522},
        "layer4.0.downsample.0.weight",
    ),
    Rules(
        {"wrn_16_1": 69, "wrn_16_2": 70, "wrn_40_1": 189, "wrn_40_2": 190, "wrn": None},
        ("block1.layer.0.conv1.weight",),
        layers={"stem_conv": ("conv1",), "final_bn": ("bn1",), "logits": ("fc",)},
        place=lambda stage, block: f"block{stage}.layer.{block - 1}.",
        parts={**_numbered(2), "shortcut_conv": ("convShortcut",)},
    ),
    _small_vgg(),
    _imagenet_vgg("vgg16_imagenet", False, 32, "features.2.weight", "classifier.6.weight"),
    _imagenet_vgg("vgg16_bn_imagenet", True, 84, "features.1.weight", "classifier.6.weight"),
    Rules(
        {"mobilenetv1": 137},
        ("model.1.3.weight",),
        layers={"stem_conv": ("model.0.0",), "stem_bn": ("model.0.1",), "logits": ("fc",)},
        place=_in_a_row,
        parts={
            "depthwise_conv": ("0",),
            "depthwise_bn": ("1",),
            "pointwise_conv": ("3",),
            "pointwise_bn": ("4",),
        },
    ),
    Rules(
        {"mobilenetv2": 267},
        ("blocks.0.0.conv.0.weight",),
        layers={
            "stem_conv": ("conv1.0",),
            "stem_bn": ("conv1.1",),
            "final_conv": ("conv2.0",),
            "final_bn": ("conv2.1",),
            "logits": ("classifier.0", "classifier"),
        },
        place=_in_groups,
        parts={
            "expand_conv": ("0",),
            "expand_bn": ("1",),
            "depthwise_conv": ("3",),
            "depthwise_bn": ("4",),
            "project_conv": ("6",),
            "project_bn": ("7",),
        },
    ),
    _shuffle("shufflev1", 247, "layer1.0.conv3.weight", "linear.weight"),
    _shuffle("shufflev2", 282, "layer1.0.conv5.weight"),
)
