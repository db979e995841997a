"""The adder convolution as a differentiable function: the compiled op, or its fallback."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator, Sequence

import tensorflow as tf

from tfkd.adder import compiled_ops, fallback
from tfkd.adder.normalization import with_normalized_gradient

_plain = contextvars.ContextVar("tfkd_adder_plain", default=False)


def adder_convolution(
    inputs,
    filters,
    strides: Sequence[int] = (1, 1),
    padding: Sequence[int] = (0, 0, 0, 0),
    eta: float | None = None,
) -> tf.Tensor:
    """Compares every patch of the inputs with every filter by additions only.

    ``Y[p, f] = -sum_k |X[p, k] - F[k, f]|`` over the patches X of the zero-padded inputs. The
    gradients are the paper's, which are not those of the L1 distance::

        dX[p, k] = sum_f clip(F[k, f] - X[p, k], -1, 1) * G[p, f]
        dF[k, f] = sum_p (X[p, k] - F[k, f]) * G[p, f]

    Everything is computed in float32 (float64 for float64). Second derivatives exist, and
    Jacobian-vector products, by ``tf.autodiff.ForwardAccumulator`` or by double backward. But a
    gradient normalized by ``eta`` is no derivative, and refuses to be differentiated.

    Source: Chen et al., "AdderNet: Do We Really Need Multiplications in Deep Learning?", CVPR 2020,
    https://arxiv.org/abs/1912.13200, equations 2, 5, 6, 12 and 13, the gradients as in the authors'
    code.

    Args:
        inputs: (batch, height, width, channels), of any floating type.
        filters: (kernel height, kernel width, channels, filters).
        strides: Steps down and to the right.
        padding: Rows of zeros above and below, columns of zeros left and right. Zeros are not
            neutral: a padded cell adds ``-|filter|``.
        eta: Root mean square that the gradient of the filters is scaled to, over all replicas
            together (:mod:`tfkd.adder.normalization`); ``None`` leaves it as it is.

    Returns:
        (batch, output height, output width, filters), at most 0, of the type of the inputs. The
        compiled op and the stock operations differ by rounding, a few 1e-6 of a sum.
    """
    inputs, filters = tf.convert_to_tensor(inputs), tf.convert_to_tensor(filters)
    dtype = tf.float64 if tf.float64 in (inputs.dtype, filters.dtype) else tf.float32
    x, f = tf.cast(inputs, dtype), tf.cast(filters, dtype)
    if eta is not None:
        f = with_normalized_gradient(f, eta)
    strides, padding = tuple(map(int, strides)), tuple(map(int, padding))
    compiled = None if dtype == tf.float64 or _plain.get() else compiled_ops.operations()
    if compiled is not None:
        outputs = compiled.tfkd_adder_conv2d(x=x, filter=f, strides=strides, padding=padding)
    else:
        outputs = fallback.convolution(x, f, strides, padding)
        top, bottom, left, right = padding
        height = output_size(x.shape[1], f.shape[0], strides[0], top + bottom)
        width = output_size(x.shape[2], f.shape[1], strides[1], left + right)
        outputs.set_shape((x.shape[0], height, width, f.shape[-1]))
    return tf.cast(outputs, inputs.dtype)


@contextlib.contextmanager
def plain_operations() -> Iterator[None]:
    """Makes graphs of stock TensorFlow operations only, which load anywhere."""
    token = _plain.set(True)
    try:
        yield
    finally:
        _plain.reset(token)


def output_size(size: int | None, kernel: int, stride: int, padding: int) -> int | None:
    """The number of outputs along one axis, or ``None`` if the input's size is not known.

    Args:
        size: The size of the input without padding.
        kernel: The size of the kernel.
        stride: The step.
        padding: The zeros at both ends together.
    """
    return None if size is None else (size + padding - kernel) // stride + 1


@tf.RegisterGradient("TfkdAdderConv2D")
def _gradients(op: tf.Operation, upstream: tf.Tensor) -> list[tf.Tensor]:
    x, filters = op.inputs
    settings = {name: tuple(op.get_attr(name)) for name in ("strides", "padding")}
    for_x = compiled_ops.operations().tfkd_adder_conv2d_input_grad(
        x=x, filter=filters, gradient=upstream, **settings
    )
    return [for_x, fallback.filter_gradient(x, filters, upstream, **settings)]


@tf.RegisterGradient("TfkdAdderConv2DInputGrad")
def _second_gradients(op: tf.Operation, direction: tf.Tensor) -> tuple[tf.Tensor, ...]:
    settings = {name: tuple(op.get_attr(name)) for name in ("strides", "padding")}
    return fallback.input_gradient_gradients(*op.inputs, direction, **settings)
