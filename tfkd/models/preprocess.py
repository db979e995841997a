"""How pixels become what a network was trained on."""

from __future__ import annotations

from dataclasses import dataclass

import tensorflow as tf

from tfkd.errors import TfkdError, unknown


@dataclass(frozen=True)
class Preprocess:
    """Normalizes pixels: (pixel - mean) / std for each channel, in float32.

    Attributes:
        mean: The mean of each channel, in pixel units 0..255; a single value serves all channels,
            an empty tuple leaves the pixels as they are.
        std: The standard deviation of each channel, in the same units.
        bgr: Whether the network takes its channels blue, green, red, as those from Caffe do; mean
            and deviation are then in that order too.

    Raises:
        TfkdError: If the lengths differ, or a deviation is not positive.
    """

    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    bgr: bool = False

    def __post_init__(self):
        for field in ("mean", "std"):
            object.__setattr__(self, field, tuple(float(each) for each in getattr(self, field)))
        if len(self.mean) != len(self.std):
            raise TfkdError(
                f"preprocess: found {len(self.mean)} means and {len(self.std)} deviations; wanted "
                "one of each per channel"
            )
        if not all(each > 0 for each in self.std):
            raise TfkdError(f"preprocess: found deviations {self.std}; wanted all above 0")

    @classmethod
    def none(cls) -> Preprocess:
        """Only casts to float32: for a network that normalizes inside, or not at all."""
        return cls()

    def __call__(self, pixels) -> tf.Tensor:
        """Returns float32 images for pixels (batch, height, width, channels) of any dtype.

        Raises:
            TfkdError: If the pixels have another number of channels.
        """
        images = tf.cast(pixels, tf.float32)
        if self.bgr:
            if images.shape[-1] not in (3, None):
                raise TfkdError(
                    f"preprocess: found images of {images.shape[-1]} channels; wanted 3, which "
                    "become blue, green and red"
                )
            images = images[..., ::-1]
        if not self.mean:
            return images
        channels = images.shape[-1]
        if channels is not None and len(self.mean) not in (1, channels):
            raise TfkdError(
                f"preprocess: found images of {channels} channels; wanted {len(self.mean)}, one "
                "per mean"
            )
        mean, std = tf.constant(self.mean), tf.constant(self.std)
        if images.shape[1:].is_fully_defined():
            # One constant for a whole image: twice as fast as three numbers spread over it.
            mean, std = (tf.broadcast_to(each, images.shape[1:]) for each in (mean, std))
        return (images - mean) / std

    def to_config(self) -> dict[str, list[float] | bool]:
        """A dict for JSON, from which `from_config` makes an equal object."""
        return {"mean": list(self.mean), "std": list(self.std), "bgr": self.bgr}

    @classmethod
    def from_config(cls, config: dict[str, list[float] | bool]) -> Preprocess:
        """The object whose `to_config` gave `config`; without `bgr`, channels stay as they are."""
        return cls(tuple(config["mean"]), tuple(config["std"]), config.get("bgr", False))

    @classmethod
    def published(cls, mode: str) -> Preprocess:
        """One of the three conventions of published ImageNet weights, by its name in Keras.

        `keras.applications` documents for each network which of them its weights were trained with.

        Args:
            mode: "tf" (from -1 to 1), "torch" (mean and deviation of ImageNet) or "caffe" (blue,
                green, red, less the mean of ImageNet).

        Raises:
            TfkdError: For another name.
        """
        if mode not in PUBLISHED:
            raise unknown("preprocess", mode, PUBLISHED)
        return PUBLISHED[mode]

    @classmethod
    def of(cls, kind: str, info) -> Preprocess:
        """What a config calls by a word.

        Args:
            kind: "dataset" (its mean and deviation), "none", or a mode of `published`.
            info: The `tfkd.data.DataInfo`.

        Raises:
            TfkdError: For another word, or images of other channels than a published one has.
        """
        if kind == "dataset":
            return cls(info.mean, info.std)
        if kind == "none":
            return cls.none()
        published = cls.published(kind)
        if info.image_shape[-1] != 3:
            raise TfkdError(
                f"preprocess {kind!r}: found images {info.image_shape} of {info.name}, wanted 3 "
                "channels"
            )
        return published

    def __str__(self) -> str:
        if not self.mean:
            return "blue, green, red" if self.bgr else "as they are"
        mean, std = (
            ", ".join(f"{each:.4g}" for each in values) for values in (self.mean, self.std)
        )
        return f"less {mean}, divided by {std}{', blue, green, red' if self.bgr else ''}"


PUBLISHED = {
    "tf": Preprocess((127.5,), (127.5,)),
    "torch": Preprocess(
        (0.485 * 255, 0.456 * 255, 0.406 * 255), (0.229 * 255, 0.224 * 255, 0.225 * 255)
    ),
    "caffe": Preprocess((103.939, 116.779, 123.68), (1.0, 1.0, 1.0), bgr=True),
}
"""What `Preprocess.published` gives, by mode."""
