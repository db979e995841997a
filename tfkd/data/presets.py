"""Well-known data sets: their published normalization, usual augmentation and archives."""

from __future__ import annotations

import dataclasses

from tfkd.data.histogram import MeanAndStd

Values = tuple[float, float, float]


@dataclasses.dataclass(frozen=True)
class Preset:
    """The defaults of a set.

    Attributes:
        mean: Mean of each channel as a fraction of 255, as in published recipes; None to measure it
            on the training images.
        std: Standard deviation likewise.
        augment: Name of the augmentation.
        archives: Names of the official files that ``tools/prepare_data.py`` takes.
        unlabeled_test: Whether the official test images have no public labels; the set is then
            tested on its validation split.
        manual: Whether the set cannot be downloaded, only prepared from its archives.
    """

    mean: Values | None = None
    std: Values | None = None
    augment: str = "crop_flip"
    archives: tuple[str, ...] = ()
    unlabeled_test: bool = False
    manual: bool = False

    @property
    def statistics(self) -> MeanAndStd | None:
        """Published mean and deviation in pixel units 0..255, or None."""
        if self.mean is None or self.std is None:
            return None
        return tuple(255 * each for each in self.mean), tuple(255 * each for each in self.std)


# A mirrored digit or letter is another sign: no mirroring.
_SIGNS = Preset(augment="crop")

# CIFAR: the values of the CIFAR-100 comparisons. STL-10 and Tiny-ImageNet: deviation over all
# pixels of the labeled training images. ImageNet: the values that torch's networks share; the
# deviations are smaller than those over all pixels.
PRESETS: dict[str, Preset] = {
    "digits": Preset(augment="shift"),
    "cifar10": Preset(
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2470, 0.2435, 0.2616),
        archives=("cifar-10-binary.tar.gz",),
    ),
    "cifar100": Preset(
        mean=(0.5071, 0.4867, 0.4408),
        std=(0.2675, 0.2565, 0.2761),
        archives=("cifar-100-binary.tar.gz",),
    ),
    "stl10": Preset(
        mean=(0.4467, 0.4398, 0.4066),
        std=(0.2603, 0.2566, 0.2713),
        archives=("stl10_binary.tar.gz",),
    ),
    "tiny_imagenet": Preset(
        mean=(0.4802, 0.4481, 0.3975),
        std=(0.2770, 0.2691, 0.2821),
        archives=("tiny-imagenet-200.zip",),
        manual=True,
    ),
    "imagenet2012": Preset(
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        augment="imagenet",
        archives=("ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"),
        unlabeled_test=True,
        manual=True,
    ),
    **dict.fromkeys(("emnist", "kmnist", "mnist", "omniglot", "svhn_cropped"), _SIGNS),
}


def preset(name: str) -> Preset:
    """Returns the preset of a set; the default one for a set that is not in the table.

    Args:
        name: Name of the set, perhaps with a configuration or a version ("emnist/letters").
    """
    return PRESETS.get(name.split("/")[0].split(":")[0], Preset())
