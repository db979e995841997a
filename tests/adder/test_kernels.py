"""The compiled adder ops, with every instruction set, and the fallback, beside NumPy."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as some

from tests.adder import adder_oracles as oracles
from tfkd.adder import compiled_ops, fallback
from tfkd.errors import TfkdError

ROOT = Path(__file__).resolve().parents[2]

if compiled_ops.operations() is None:
    pytest.skip("the op cannot be compiled here", allow_module_level=True)

BEST = compiled_ops.instructions()


def usable():
    """The instruction sets that this processor has."""
    found = []
    for name in compiled_ops.INSTRUCTIONS:
        try:
            compiled_ops.use_instructions(name)
        except TfkdError:
            continue
        found.append(name)
    compiled_ops.use_instructions(BEST)
    return found


USABLE = usable()


@pytest.fixture(autouse=True)
def best_again():
    """Leaves the other tests what they started with."""
    yield
    compiled_ops.use_instructions(BEST)


@pytest.fixture(params=compiled_ops.INSTRUCTIONS)
def instructions(request):
    """Runs a test by every instruction set."""
    if request.param not in USABLE:
        pytest.skip(f"this processor has no {request.param}")
    compiled_ops.use_instructions(request.param)
    return request.param


def forward(x, filters, strides=(1, 1), padding=(0, 0, 0, 0)):
    found = compiled_ops.operations().tfkd_adder_conv2d(
        x=np.float32(x), filter=np.float32(filters), strides=strides, padding=padding
    )
    return found.numpy()


def input_gradient(x, filters, gradient, strides=(1, 1), padding=(0, 0, 0, 0)):
    found = compiled_ops.operations().tfkd_adder_conv2d_input_grad(
        x=np.float32(x),
        filter=np.float32(filters),
        gradient=np.float32(gradient),
        strides=strides,
        padding=padding,
    )
    return found.numpy()


def normal(*shape, seed=0, mean=0.0):
    return np.random.default_rng(seed).normal(mean, size=shape).astype(np.float32)


def test_vectors_are_in_use_where_the_processor_has_them():
    assert "portable" in USABLE
    assert BEST in (USABLE[1:] or USABLE)


@pytest.mark.parametrize("stride", oracles.CASES)
def test_published_form(stride, instructions):
    case = oracles.CASES[stride]
    arguments = {"strides": (stride, stride), "padding": (1, 1, 1, 1)}
    outputs = forward(oracles.IMAGE, oracles.KERNEL, **arguments)
    np.testing.assert_array_equal(outputs[0, ..., 0], case["outputs"])
    found = input_gradient(oracles.IMAGE, oracles.KERNEL, np.ones_like(outputs), **arguments)
    np.testing.assert_array_equal(found[0, ..., 0], case["input"])


@some.composite
def layers(draw):
    """Sizes of a layer whose kernel fits into its padded input."""
    padding = draw(some.tuples(*[some.integers(0, 3)] * 4))
    kernel = draw(some.tuples(*[some.integers(1, 5)] * 2))
    least = (max(1, kernel[0] - sum(padding[:2])), max(1, kernel[1] - sum(padding[2:])))
    return {
        "x": (
            draw(some.integers(0, 3)),
            draw(some.integers(least[0], least[0] + 8)),
            draw(some.integers(least[1], least[1] + 14)),
            draw(some.one_of(some.integers(1, 9), some.integers(10, 50))),
        ),
        "kernel": kernel,
        "filters": draw(some.one_of(some.integers(1, 9), some.integers(10, 70))),
        "strides": draw(some.tuples(*[some.integers(1, 3)] * 2)),
        "padding": padding,
        "mean": draw(some.sampled_from([0.0, -3.0, 50.0])),
        "seed": draw(some.integers(0, 99)),
    }


@settings(max_examples=30, deadline=None)
@given(layers())
def test_any_layer(layer):
    """The ops and the fallback agree with float64."""
    x = normal(*layer["x"], seed=layer["seed"], mean=layer["mean"])
    filters = normal(
        *layer["kernel"], x.shape[-1], layer["filters"], seed=layer["seed"] + 1, mean=layer["mean"]
    )
    gradients = []

    def gradient_of(shape):
        gradients.append(normal(*shape, seed=layer["seed"] + 2))
        return gradients[0]

    where = layer["strides"], layer["padding"]
    outputs, for_x, _ = oracles.reference(x, filters, gradient_of, *where)
    # A sum of clipped differences is as exact as the sum of the gradients' magnitudes allows.
    scale = 1e-6 * np.abs(gradients[0]).sum((1, 2, 3)).max(initial=1.0)

    def check(found_outputs, found_for_x):
        np.testing.assert_allclose(found_outputs, outputs, rtol=3e-6, atol=1e-5)
        np.testing.assert_allclose(found_for_x, for_x, rtol=1e-5, atol=scale)

    check(
        fallback.convolution(x, filters, *where),
        fallback.input_gradient(x, filters, gradients[0], *where),
    )
    for instructions in USABLE:
        compiled_ops.use_instructions(instructions)
        check(forward(x, filters, *where), input_gradient(x, filters, gradients[0], *where))


@pytest.mark.parametrize("terms", [576, 4608])
@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_as_exact_as_the_sum_of_absolute_differences(terms, offset, instructions):
    channels = terms // 9
    x = normal(4, 6, 6, channels, mean=offset)
    filters = normal(3, 3, channels, 24, seed=1, mean=offset)
    # Patches over filters, the sum running over the last axis as a plain loop in float32 would.
    patches = np.stack([patch for *_, patch in oracles.patches(x, (3, 3), (1, 1), (0,) * 4)], 1)
    patches = patches.reshape(4, 16, 1, terms)
    columns = filters.reshape(terms, 24).T
    wanted = -np.abs(np.float64(patches) - columns).sum(-1)
    direct = -np.cumsum(np.abs(patches - columns), axis=-1, dtype=np.float32)[..., -1]

    def error(found):
        return np.abs(found.reshape(wanted.shape) / wanted - 1).max()

    assert error(forward(x, filters)) <= min(error(direct), 1e-6)


@pytest.mark.parametrize("noise", [0.0, 1e-3, 0.05])
@pytest.mark.parametrize(
    ("channels", "kernel", "offset", "pad"),
    [(16, 3, 0.0, 1), (64, 3, 0.0, 0), (64, 3, 50.0, 0), (7, 1, 0.0, 0), (300, 3, -5.0, 2)],
)
def test_patches_that_are_nearly_filters(channels, kernel, offset, pad, noise):
    """Sums of maxima would cancel there: outputs above 0, and digits lost."""
    x = normal(2, 6, 6, channels, mean=offset)
    patches = [each for *_, each in oracles.patches(x, (kernel, kernel), (1, 1), (pad,) * 4)]
    filters = np.stack([patches[3 * n % len(patches)][n % 2] for n in range(19)], axis=-1)
    filters += noise * normal(*filters.shape, seed=1)
    where = (1, 1), (pad,) * 4
    wanted, *_ = oracles.reference(x, filters, np.zeros, *where)
    near = np.abs(wanted) < 0.2 * np.abs(wanted).max()
    assert near.sum() >= 19
    found = []
    for instructions in USABLE:
        compiled_ops.use_instructions(instructions)
        outputs = forward(x, filters, *where)
        assert outputs.max() <= 0.0
        error = np.abs(outputs - wanted)[near].max()
        assert error <= 4e-6 * np.abs(wanted[near]).max()
        assert np.all(outputs[wanted == 0.0] == 0.0)
        np.testing.assert_array_equal(forward(x[1:], filters, *where), outputs[1:])
        found.append(outputs)
    for outputs in found[1:]:
        np.testing.assert_array_equal(outputs, found[0])


def test_the_offset_may_differ_from_channel_to_channel(instructions):
    offsets = np.float32([0, -1000, 30, 1e4, 0.1, 7])
    x = normal(2, 5, 5, 6) + offsets
    filters = normal(3, 3, 6, 9, seed=1) + offsets[:, None]
    wanted, *_ = oracles.reference(x, filters, np.zeros, (1, 1), (0,) * 4)
    np.testing.assert_allclose(forward(x, filters), wanted, rtol=1e-6)


@pytest.mark.parametrize("channels", [7, 48, 53])
def test_all_instructions_agree(channels):
    """To the last bit, so that a run goes on as it began whichever was the fastest."""
    x, filters = normal(2, 9, 9, channels, mean=3.0), normal(3, 3, channels, 40, seed=1, mean=3.0)
    gradient = normal(2, 5, 5, 40, seed=2)
    where = (2, 2), (1, 1, 1, 1)
    found = []
    for instructions in USABLE:
        compiled_ops.use_instructions(instructions)
        found.append((forward(x, filters, *where), input_gradient(x, filters, gradient, *where)))
    for outputs, for_x in found[1:]:
        np.testing.assert_array_equal(outputs, found[0][0])
        np.testing.assert_array_equal(for_x, found[1][1])  # All but the portable ones are fused.
        np.testing.assert_allclose(for_x, found[0][1], atol=2e-5)


@pytest.mark.parametrize("place", ["input", "filter", "gradient"])
def test_nan_reaches_what_sees_it_and_nothing_else(place, instructions):
    x, filters, gradient = normal(1, 6, 6, 5), normal(3, 3, 5, 19, seed=1), normal(1, 4, 4, 19)
    values = {"input": x, "filter": filters, "gradient": gradient}[place]
    values[(0, 1, 1, 2)[: values.ndim]] = np.nan
    outputs = np.isnan(forward(x, filters))
    for_x = np.isnan(input_gradient(x, filters, gradient))
    if place == "input":
        np.testing.assert_array_equal(outputs.all(-1), outputs.any(-1))
        assert outputs[0, :2, :2].all() and outputs.sum() == 4 * 19
        assert for_x[0, 1, 1, 2] and for_x.sum() == 1
    elif place == "filter":
        assert outputs[..., 2].all() and outputs.sum() == 16
        assert for_x[0, :4, 1:5, 1].all()
    else:
        assert not outputs.any()
        np.testing.assert_array_equal(for_x[0, 1:4, 1:4], True)
        assert for_x.sum() == 9 * 5


def test_an_upper_tap_that_is_nan_reaches_all_outputs_and_the_inputs_that_see_it(instructions):
    x, filters, gradient = normal(1, 8, 8, 5), normal(3, 3, 5, 19, seed=1), normal(1, 8, 8, 19)
    filters[0, 1, 1, 2] = np.nan
    where = {"padding": (1, 1, 1, 1)}
    outputs = np.isnan(forward(x, filters, **where))
    assert outputs[..., 2].all() and outputs.sum() == 64
    for_x = np.isnan(input_gradient(x, filters, gradient, **where))
    # Of the last row, the outputs whose upper taps see it lie outside.
    assert for_x[0, :-1, :, 1].all() and for_x.sum() == 7 * 8


def test_infinite_values_never_look_like_results(instructions):
    filters = normal(1, 1, 3, 4)
    for value in (np.inf, -np.inf):
        x = normal(1, 1, 2, 3)
        x[0, 0, 1, 0] = value
        outputs = forward(x, filters)[0, 0]
        assert np.isfinite(outputs[0]).all()
        assert not np.isfinite(outputs[1]).any()
        found = input_gradient(x, filters, np.ones((1, 1, 2, 4)))[0, 0]
        assert found[1, 0] == -np.sign(value) * 4
        assert np.isfinite(found).all()


def check_against_float64(x, filters, gradient_of, *where):
    gradients = []

    def kept(shape):
        gradients.append(gradient_of(shape))
        return gradients[0]

    outputs, for_x, _ = oracles.reference(x, filters, kept, *where)
    np.testing.assert_allclose(forward(x, filters, *where), outputs, rtol=3e-6)
    found = input_gradient(x, filters, gradients[0], *where)
    np.testing.assert_allclose(found, for_x, atol=2e-4)


def test_images_so_wide_that_a_band_is_one_row(instructions):
    x, filters = normal(2, 12, 300, 40, mean=3.0), normal(3, 3, 40, 40, seed=1, mean=3.0)
    check_against_float64(x, filters, lambda shape: normal(*shape, seed=2), (1, 1), (1, 1, 1, 1))


@pytest.mark.parametrize(("kernel", "stride", "pad"), [(3, 2, 0), (5, 2, 2), (5, 3, 1), (7, 1, 3)])
def test_borders_of_many_rows(kernel, stride, pad, instructions):
    """Of so many that each phase of the gradient has columns whose taps lie outside in part."""
    x, filters = normal(2, 27, 23, 5, mean=3.0), normal(kernel, kernel, 5, 7, seed=1, mean=3.0)
    where = (stride, stride), (pad,) * 4
    check_against_float64(x, filters, lambda shape: normal(*shape, seed=2), *where)


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "padding"),
    [
        ((1, 1), (1, 1), (1, 1), (0, 0, 0, 0)),
        ((1, 4), (3, 3), (2, 1), (9, 40, 1, 1)),
        ((2, 3), (5, 1), (3, 2), (4, 4, 0, 2)),
        ((8, 8), (3, 3), (1, 1), (1, 1, 1, 1)),
        ((6, 5), (2, 4), (1, 1), (7, 0, 30, 30)),
    ],
)
def test_many_small_images(size, kernel, stride, padding, instructions):
    """Several make a band then; padding may be larger than kernel and image."""
    x, filters = normal(70, *size, 5, mean=3.0), normal(*kernel, 5, 19, seed=1, mean=3.0)
    check_against_float64(x, filters, lambda shape: normal(*shape, seed=2), stride, padding)


def test_an_image_alone_is_bitwise_what_it_is_in_a_batch(instructions):
    """Work is cut differently then, over images and rows."""
    x, filters = normal(7, 16, 11, 20), normal(3, 3, 20, 36, seed=1)
    gradient = normal(7, 8, 6, 36, seed=2)
    where = (2, 2), (1, 1, 1, 1)
    outputs = forward(x, filters, *where)
    for_x = input_gradient(x, filters, gradient, *where)
    for i in range(len(x)):
        np.testing.assert_array_equal(forward(x[i : i + 1], filters, *where)[0], outputs[i])
        one = input_gradient(x[i : i + 1], filters, gradient[i : i + 1], *where)
        np.testing.assert_array_equal(one[0], for_x[i])


_ON_ONE_THREAD = """
import sys
import numpy as np
import tensorflow as tf
tf.config.threading.set_intra_op_parallelism_threads(1)
from tfkd.adder import compiled_ops
given = np.load(sys.argv[1])
where = {"strides": (1, 1), "padding": (1, 1, 1, 1)}
ops = compiled_ops.operations()
outputs = ops.tfkd_adder_conv2d(x=given["x"], filter=given["filters"], **where)
for_x = ops.tfkd_adder_conv2d_input_grad(
    x=given["x"], filter=given["filters"], gradient=given["gradient"], **where)
np.savez(sys.argv[2], outputs=outputs, for_x=for_x)
"""


@pytest.mark.slow
def test_the_number_of_threads_changes_no_bit(tmp_path):
    x, filters = normal(3, 32, 32, 16), normal(3, 3, 16, 16, seed=1)
    gradient = normal(3, 32, 32, 16, seed=2)
    np.savez(tmp_path / "given.npz", x=x, filters=filters, gradient=gradient)
    subprocess.run(
        [sys.executable, "-c", _ON_ONE_THREAD, tmp_path / "given.npz", tmp_path / "found.npz"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    found = np.load(tmp_path / "found.npz")
    where = (1, 1), (1, 1, 1, 1)
    np.testing.assert_array_equal(found["outputs"], forward(x, filters, *where))
    np.testing.assert_array_equal(found["for_x"], input_gradient(x, filters, gradient, *where))


@pytest.mark.parametrize(
    "x, kernel",
    [
        ((0, 4, 4, 3), (3, 3, 3, 5)),
        ((2, 4, 4, 3), (3, 3, 3, 0)),
        ((2, 4, 4, 0), (3, 3, 0, 5)),
    ],
)
def test_nothing_to_sum_is_no_error(x, kernel, instructions):
    outputs = forward(np.ones(x), np.ones(kernel))
    assert outputs.shape == (x[0], 2, 2, kernel[3])
    np.testing.assert_array_equal(outputs, np.zeros_like(outputs))
    found = input_gradient(np.ones(x), np.ones(kernel), np.ones(outputs.shape))
    assert found.shape == x
    np.testing.assert_array_equal(found, np.zeros(x))


@pytest.mark.parametrize(
    "change, message",
    [
        ({"strides": (0, 1)}, "strides: wanted two of at least 1"),
        ({"strides": (1,)}, "strides: wanted two of at least 1"),
        ({"padding": (1, 1)}, r"padding: wanted \(top, bottom, left, right\)"),
        ({"padding": (0, 0, -1, 0)}, "padding: found -1, wanted at least 0"),
        ({"x": np.ones((1, 4, 4, 2))}, r"x of shape \[1,4,4,2\] and filter of shape \[3,3,3,5\]"),
        ({"x": np.ones((4, 4, 3))}, "wanted NHWC and HWIO"),
        ({"x": np.ones((1, 2, 4, 3))}, r"on padded images of size 2x4: wanted one that fits"),
    ],
)
def test_wrong_arguments_are_named(change, message):
    arguments = {"x": np.ones((1, 4, 4, 3)), "filters": np.ones((3, 3, 3, 5)), **change}
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        forward(**arguments)
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        input_gradient(**arguments, gradient=np.ones((1, 2, 2, 5)))


def test_a_gradient_of_another_shape_is_named():
    with pytest.raises(
        tf.errors.InvalidArgumentError,
        match=r"gradient: found shape \[1,3,2,5\], wanted .* \[1,2,2,5\]",
    ):
        input_gradient(np.ones((1, 4, 4, 3)), np.ones((3, 3, 3, 5)), np.ones((1, 3, 2, 5)))


@pytest.mark.parametrize(
    "x, kernel, wanted",
    [
        ((None, 7, 8, 3), (3, 3, 3, 5), (None, 4, 3, 5)),
        ((2, None, 8, 3), (3, 3, 3, None), (2, None, 3, None)),
        ((None, None, None, None), (3, 3, 3, 5), (None, None, None, 5)),
        (None, None, (None, None, None, None)),
    ],
)
def test_shapes_are_known_in_a_graph(x, kernel, wanted):
    operations, where = compiled_ops.operations(), {"strides": (2, 3), "padding": (1, 1, 0, 1)}

    @tf.function(input_signature=[tf.TensorSpec(x), tf.TensorSpec(kernel)])
    def layer(x, filters):
        outputs = operations.tfkd_adder_conv2d(x=x, filter=filters, **where)
        found = operations.tfkd_adder_conv2d_input_grad(
            x=x, filter=filters, gradient=outputs, **where
        )
        return outputs, found

    outputs, found = layer.get_concrete_function().outputs
    assert tuple(outputs.shape) == wanted
    if x is not None:
        assert tuple(found.shape) == x


def test_a_kernel_that_cannot_fit_is_told_when_the_graph_is_made():
    @tf.function(input_signature=[tf.TensorSpec((None, 2, 9, 3)), tf.TensorSpec((3, 3, 3, 5))])
    def layer(x, filters):
        return compiled_ops.operations().tfkd_adder_conv2d(
            x=x, filter=filters, strides=(1, 1), padding=(0, 0, 0, 0)
        )

    with pytest.raises(ValueError, match="kernel of size 3 on a padded input of size 2"):
        layer.get_concrete_function()


def test_unknown_instructions_are_named():
    with pytest.raises(TfkdError, match="did you mean 'avx512'"):
        compiled_ops.use_instructions("avx51")
    if "avx512" not in USABLE:
        with pytest.raises(TfkdError, match="'avx512': found a processor without it"):
            compiled_ops.use_instructions("avx512")
    assert compiled_ops.instructions() == BEST
