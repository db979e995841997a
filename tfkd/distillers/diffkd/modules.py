"""What DiffKD learns beside the student: denoiser, noise adapter, autoencoder and connectors.

As in the published code, but for the biases of convolutions before a normalization, which would
take them away again: there are none.

Maps are ``(batch, height, width, channels)`` of any float type; logits come as maps of one pixel.
Modules compute in the precision of the dtype policy; what is between them is float32.
"""

from __future__ import annotations

from collections.abc import Iterator

import keras
import tensorflow as tf

from tfkd.core.divergences import as_float
from tfkd.distillers.diffkd.diffusion import Predictor, mixed, refined
from tfkd.distillers.shared.layers import convolution, dense, normalization, sequence

KNOWN_TIMES = 1280
"""Rows of the table of times."""


class Bottleneck(keras.layers.Layer):
    """Maps plus what a 1x1, a 3x3 and a 1x1 convolution through fewer channels make of them.

    Args:
        channels: Channels of the maps.
        reduction: How many times fewer channels there are between.
        seeds: Where the seeds of the first weights come from.
        name: Name of the layer.
    """

    def __init__(self, channels: int, reduction: int, seeds: Iterator[int], *, name: str) -> None:
        super().__init__(name=name)
        inner = max(channels // reduction, 1)
        layers = [
            *_normalized(channels, inner, 1, seeds, f"{name}_reduce", relu=True),
            *_normalized(inner, inner, 3, seeds, f"{name}_middle", relu=True),
            *_normalized(inner, channels, 1, seeds, f"{name}_expand"),
        ]
        self.branch = sequence(layers, _maps(channels), name=f"{name}_branch")
        self.built = True

    def call(self, maps, training=None):
        return maps + self.branch(maps, training=training)


class Denoiser(keras.layers.Layer):
    """Predicts the noise in maps at a time.

    Args:
        channels: Channels of the maps.
        spatial: Whether it has 3x3 convolutions, for maps, or 1x1 alone, for logits.
        seeds: Where the seeds of the first weights come from.
        name: Name of the layer.
    """

    def __init__(self, channels: int, spatial: bool, seeds: Iterator[int], *, name: str) -> None:
        super().__init__(name=name)
        self.times = self.add_weight(
            shape=(KNOWN_TIMES, channels),
            initializer=keras.initializers.RandomNormal(stddev=1.0, seed=next(seeds)),
            name="times",
        )
        if spatial:
            layers = [
                Bottleneck(channels, 4, seeds, name=f"{name}_block1"),
                Bottleneck(channels, 4, seeds, name=f"{name}_block2"),
                *_normalized(channels, channels, 1, seeds, f"{name}_last"),
            ]
        else:
            wide = 4 * channels
            layers = [
                *_normalized(channels, wide, 1, seeds, f"{name}_expand1", relu=True),
                *_normalized(wide, channels, 1, seeds, f"{name}_reduce1"),
                *_normalized(channels, wide, 1, seeds, f"{name}_expand2", relu=True),
                convolution(wide, channels, 1, next(seeds), name=f"{name}_reduce2"),
            ]
        self.body = sequence(layers, _maps(channels), name=f"{name}_body")
        self.built = True

    def call(self, maps, times, training=None):
        """Returns the noise.

        Args:
            maps: The maps.
            times: One time for all of them, or ``(batch,)``.
            training: Whether batch normalization uses the batch.
        """
        vectors = tf.reshape(tf.gather(self.times, times), (-1, 1, 1, maps.shape[-1]))
        return self.body(maps + vectors, training=training)


def noise_adapter(
    channels: int, spatial: bool, seeds: Iterator[int], *, name: str
) -> keras.Sequential:
    """Returns layers from maps to two logits: how much of a map is kept, how much made noise.

    Arguments are those of :class:`Denoiser`.
    """
    if spatial:
        layers = [Bottleneck(channels, 8, seeds, name=f"{name}_block")]
    else:
        layers = [
            *_normalized(channels, 2 * channels, 1, seeds, f"{name}_expand", relu=True),
            *_normalized(2 * channels, channels, 1, seeds, f"{name}_reduce"),
        ]
    pool = keras.layers.GlobalAveragePooling2D(name=f"{name}_pool")
    layers += [pool, dense(channels, 2, next(seeds), name=f"{name}_share")]
    return sequence(layers, _maps(channels), name=name)


class Connector(keras.layers.Layer):
    """All that stands between a feature of the student and one of the teacher.

    Args:
        student_channels: Channels of the student's maps.
        teacher_channels: Channels of the teacher's.
        latent_width: Channels of the autoencoder's latent maps; ``None`` is for logits, which have
            no autoencoder and 1x1 convolutions alone.
        seeds: Where the seeds of the first weights come from.
        name: Name of the layer.
    """

    def __init__(
        self,
        student_channels: int,
        teacher_channels: int,
        latent_width: int | None,
        seeds: Iterator[int],
        *,
        name: str,
    ) -> None:
        super().__init__(name=name)
        spatial = latent_width is not None
        width = latent_width if spatial else teacher_channels
        self.encoder = self.decoder = None
        if spatial:
            encoder = _normalized(teacher_channels, width, 1, seeds, f"{name}_encoder")
            self.encoder = sequence(encoder, _maps(teacher_channels), name=f"{name}_encoder")
            self.decoder = convolution(
                width, teacher_channels, 1, next(seeds), name=f"{name}_decoder"
            )
        self.embed = convolution(student_channels, width, 1, next(seeds), name=f"{name}_embed")
        self.adapter = noise_adapter(width, spatial, seeds, name=f"{name}_adapter")
        self.denoiser = Denoiser(width, spatial, seeds, name=f"{name}_denoiser")
        project = _normalized(width, width, 1, seeds, f"{name}_project")
        self.project = sequence(project, _maps(width), name=f"{name}_project")
        self.built = True

    def encoded(self, teacher: tf.Tensor, training: bool) -> tuple[tf.Tensor, tf.Tensor | None]:
        """Returns the teacher's latent maps, without gradient, and their error, by element.

        Args:
            teacher: The teacher's maps, float32.
            training: Whether batch normalization uses the batch.

        Returns:
            The maps themselves and ``None`` where there is no autoencoder.
        """
        if self.encoder is None:
            return tf.stop_gradient(teacher), None
        latent = self.encoder(teacher, training=training)
        error = tf.square(as_float(self.decoder(latent)) - teacher)
        return tf.stop_gradient(as_float(latent)), error

    def predictor(self, training: bool) -> Predictor:
        """Returns the denoiser as a function of maps and times, float32."""
        return lambda maps, times: as_float(self.denoiser(maps, times=times, training=training))

    def denoised(
        self, student: tf.Tensor, noise: tf.Tensor, steps: int, training: bool
    ) -> tf.Tensor:
        """Returns the student's maps, refined and projected, float32.

        Args:
            student: The student's maps.
            noise: Noise of the shape of the latent maps.
            steps: Steps of the refinement.
            training: Whether batch normalization uses the batch.
        """
        embedded = self.embed(student)
        share = tf.nn.softmax(as_float(self.adapter(embedded, training=training)))[:, 0]
        start = mixed(as_float(embedded), noise, share)
        maps = refined(start, self.predictor(training), steps)
        return as_float(self.project(maps, training=training))


def _normalized(
    inputs: int, outputs: int, size: int, seeds: Iterator[int], name: str, relu: bool = False
) -> list[keras.layers.Layer]:
    """Returns a convolution, its normalization and, if asked for, a ReLU."""
    layers = [
        convolution(inputs, outputs, size, next(seeds), use_bias=False, name=f"{name}_conv"),
        normalization(_maps(outputs), name=f"{name}_bn"),
    ]
    return [*layers, keras.layers.ReLU(name=f"{name}_relu")] if relu else layers


def _maps(channels: int) -> tuple[None, None, None, int]:
    return (None, None, None, channels)
