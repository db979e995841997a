"""The adder convolution as a Keras layer."""

from __future__ import annotations

import keras
import tensorflow as tf

from tfkd.adder.function import adder_convolution, output_size
from tfkd.errors import TfkdError, unknown

_PADDINGS = ("same", "valid")


@keras.saving.register_keras_serializable(package="tfkd")
class AdderConv2D(keras.layers.Layer):
    """A convolution that sums absolute differences instead of products.

    ``output[p, f] = -sum |patch - filter|``: at most 0, and the lower the more inputs it sums, so
    each of these layers needs a batch normalization after it. The gradients are those of
    :func:`tfkd.adder.function.adder_convolution`.

    The gradient of the kernel is normalized to root mean square ``eta``, whatever the scale of the
    loss, and equally on any number of replicas. Three things follow. A layer that is called several
    times in one step gets the sum of as many normalized gradients. Loss scaling would divide them
    by a scale that they do not have, so training in float16 is refused; bfloat16 needs no scaling.
    Clipping by a norm over several layers would mix gradients of different scales;
    :class:`tfkd.Distiller` leaves these kernels out of it.

    Weights and sums are float32 under every precision policy.

    Source: Chen et al., "AdderNet: Do We Really Need Multiplications in Deep Learning?", CVPR 2020,
    https://arxiv.org/abs/1912.13200.

    Args:
        filters: The number of output channels.
        kernel_size: Height and width of the filters, or one number for both.
        strides: Steps down and to the right, or one number for both.
        padding: ``"valid"``, or ``"same"`` for ``size // 2`` zeros on every side of the image, at
            every stride (unlike Keras' ``"same"``); ``"same"`` needs odd sizes.
        use_bias: Whether to add a bias.
        eta: Root mean square of the kernel's gradient, 0.2 as published; ``None`` for the gradient
            as it is, which can be differentiated again.
        kernel_initializer: By default the normal distribution with deviation 1, as published.
        bias_initializer: By default zeros.
        kernel_regularizer: A Keras regularizer; its gradient is added to the normalized one.
        bias_regularizer: A Keras regularizer.
        **kwargs: ``name``, ``dtype`` and ``trainable``.

    Input shape: (batch, height, width, channels). Output shape: (batch, output height, output
    width, filters), where the output height is ``(height + zeros - kernel) // stride + 1``, and
    the output width likewise.

    Raises:
        TfkdError: A size, stride or padding is impossible, or training is in float16.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int | tuple[int, int],
        strides: int | tuple[int, int] = 1,
        padding: str = "same",
        use_bias: bool = False,
        eta: float | None = 0.2,
        kernel_initializer=None,
        bias_initializer="zeros",
        kernel_regularizer=None,
        bias_regularizer=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        # XLA does not know the op; with this, Keras does not try.
        self.supports_jit = False
        self.input_spec = keras.layers.InputSpec(ndim=4)
        self.filters = self._counts("filters", filters)[0]
        self.kernel_size = self._counts("kernel_size", kernel_size)
        self.strides = self._counts("strides", strides)
        self.padding = padding
        if padding not in _PADDINGS:
            raise unknown(f"padding of layer {self.name!r}", padding, _PADDINGS)
        if padding == "same" and not all(size % 2 for size in self.kernel_size):
            raise TfkdError(
                f"AdderConv2D {self.name!r}: found kernel_size={self.kernel_size} with padding "
                "'same', wanted odd sizes, or 'valid'"
            )
        if eta is not None and not eta > 0:
            raise TfkdError(f"AdderConv2D {self.name!r}: found eta={eta!r}, wanted > 0 or None")
        self.eta = None if eta is None else float(eta)
        self.use_bias = bool(use_bias)
        if kernel_initializer is None:
            kernel_initializer = keras.initializers.RandomNormal(stddev=1.0)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.bias_initializer = keras.initializers.get(bias_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        self.bias_regularizer = keras.regularizers.get(bias_regularizer)

    def _counts(self, argument: str, value) -> tuple[int, int]:
        pair = (value, value) if not isinstance(value, (tuple, list)) else tuple(value)
        if len(pair) != 2 or not all(isinstance(each, int) and each > 0 for each in pair):
            raise TfkdError(
                f"AdderConv2D {self.name!r}: found {argument}={value!r}, wanted whole numbers >= 1"
            )
        return pair

    def build(self, input_shape):
        """Makes the kernel, (height, width, channels, filters), and the bias."""
        channels = input_shape[-1]
        if channels is None:
            raise TfkdError(
                f"AdderConv2D {self.name!r}: found inputs {tuple(input_shape)}, wanted a fixed "
                "number of channels"
            )
        self.input_spec = keras.layers.InputSpec(ndim=4, axes={-1: channels})
        self.kernel = self.add_weight(
            name="kernel",
            shape=(*self.kernel_size, channels, self.filters),
            initializer=self.kernel_initializer,
            regularizer=self.kernel_regularizer,
            autocast=False,
        )
        self.bias = None
        if self.use_bias:
            self.bias = self.add_weight(
                name="bias",
                shape=(self.filters,),
                initializer=self.bias_initializer,
                regularizer=self.bias_regularizer,
            )
        # Tells optimizers not to rescale it: see the class.
        self.kernel.gradient_is_normalized = self.eta is not None

    def call(self, inputs, training=None):
        """The outputs for a batch of images."""
        if training and self.eta is not None and self.compute_dtype == "float16":
            raise TfkdError(
                f"AdderConv2D {self.name!r}: found training in float16, whose loss scaling does "
                "not fit normalized gradients, wanted float32 or mixed_bfloat16"
            )
        outputs = adder_convolution(inputs, self.kernel, self.strides, self._zeros(), self.eta)
        return outputs if self.bias is None else outputs + tf.cast(self.bias, outputs.dtype)

    def _zeros(self) -> tuple[int, int, int, int]:
        """The rows of zeros above and below and the columns left and right."""
        if self.padding == "valid":
            return 0, 0, 0, 0
        rows, columns = (size // 2 for size in self.kernel_size)
        return rows, rows, columns, columns

    def compute_output_shape(self, input_shape):
        """The shape of the outputs, None where the input's is None."""
        batch, height, width, _ = input_shape
        top, bottom, left, right = self._zeros()
        size = (
            output_size(height, self.kernel_size[0], self.strides[0], top + bottom),
            output_size(width, self.kernel_size[1], self.strides[1], left + right),
        )
        if any(each is not None and each < 1 for each in size):
            raise TfkdError(
                f"AdderConv2D {self.name!r}: found images {(height, width)}, wanted at least "
                f"{self.kernel_size}"
            )
        return (batch, *size, self.filters)

    def compute_output_spec(self, inputs, training=None):
        """Shape and type of the outputs, without running the op."""
        return keras.KerasTensor(self.compute_output_shape(inputs.shape), self.compute_dtype)

    def get_config(self):
        """The arguments of an equal layer."""
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "strides": self.strides,
            "padding": self.padding,
            "use_bias": self.use_bias,
            "eta": self.eta,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "bias_initializer": keras.initializers.serialize(self.bias_initializer),
            "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
            "bias_regularizer": keras.regularizers.serialize(self.bias_regularizer),
        }


def has_adder_layers(model: keras.Model) -> bool:
    """Whether a model has adder layers, in sub-models included."""
    return any(isinstance(layer, AdderConv2D) for layer in model._flatten_layers())
