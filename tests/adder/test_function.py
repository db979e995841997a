"""The differentiable adder convolution: its gradients, their normalization and gradients."""

import numpy as np
import pytest
import tensorflow as tf

from tests.adder import adder_oracles as oracles
from tfkd.adder import adder_convolution, compiled_ops, plain_operations
from tfkd.adder import function as function_module
from tfkd.errors import TfkdError

SAME = (1, 1, 1, 1)


@pytest.fixture(params=["op", "fallback"], autouse=True)
def backend(request, monkeypatch):
    """Runs every test by the compiled op and by the fallback."""
    if request.param == "fallback":
        monkeypatch.setattr(compiled_ops, "operations", lambda: None)
    elif compiled_ops.operations() is None:
        pytest.skip("the op cannot be compiled here")
    return request.param


def gradients(x, filters, upstream=None, strides=(1, 1), padding=SAME, eta=None, dtype=tf.float32):
    """Outputs, and the gradients of their sum (weighted by `upstream`), as NumPy arrays."""
    x, filters = tf.constant(x, dtype), tf.constant(filters, dtype)
    with tf.GradientTape() as tape:
        tape.watch((x, filters))
        outputs = adder_convolution(x, filters, strides, padding, eta)
    if upstream is not None:
        upstream = tf.constant(upstream, dtype)
    found = tape.gradient(outputs, (x, filters), output_gradients=upstream)
    return tuple(each.numpy() for each in (outputs, *found))


def test_matrix_form():
    x, filters = oracles.as_images(oracles.MATRIX_X), oracles.as_filters(oracles.MATRIX_W)
    upstream = oracles.as_images(oracles.MATRIX_G)
    none = (0, 0, 0, 0)
    outputs, for_x, raw = gradients(x, filters, upstream, padding=none)
    np.testing.assert_allclose(outputs[:, 0, 0], oracles.MATRIX_Y, atol=1e-6)
    np.testing.assert_allclose(for_x[:, 0, 0], oracles.MATRIX_INPUT, atol=1e-6)
    np.testing.assert_allclose(raw[0, 0], oracles.MATRIX_RAW, atol=1e-6)
    assert np.linalg.norm(raw) == pytest.approx(4.611890, abs=1e-6)
    *_, normalized = gradients(x, filters, upstream, padding=none, eta=0.2)
    np.testing.assert_allclose(normalized[0, 0], oracles.MATRIX_NORMALIZED, atol=1e-6)
    assert np.sqrt(np.mean(normalized**2)) == pytest.approx(0.2, abs=1e-7)
    # The scale of the loss reaches the inputs, not the filters.
    _, seven_x, seven = gradients(x, filters, 7 * upstream, padding=none, eta=0.2)
    np.testing.assert_allclose(seven, normalized, atol=1e-7)
    np.testing.assert_allclose(seven_x, 7 * for_x, atol=1e-5)
    *_, zero = gradients(x, filters, 0 * upstream, padding=none, eta=0.2)
    np.testing.assert_array_equal(zero, np.zeros_like(raw))


@pytest.mark.parametrize("stride", oracles.CASES)
def test_image_form(stride):
    case = oracles.CASES[stride]
    arguments = {"x": oracles.IMAGE, "filters": oracles.KERNEL, "strides": (stride, stride)}
    outputs, for_x, normalized = gradients(**arguments, eta=0.2)
    np.testing.assert_allclose(outputs[0, ..., 0], case["outputs"], atol=1e-5)
    np.testing.assert_allclose(for_x[0, ..., 0], case["input"], atol=1e-5)
    np.testing.assert_allclose(normalized[0, :, 0, 0], case["first_row"], atol=1e-6)
    *_, raw = gradients(**arguments)
    np.testing.assert_allclose(raw[..., 0, 0], case["raw"], atol=1e-5)


def test_gradients_are_the_slopes_of_half_the_squared_distance_near_the_filters():
    """Where every |x - f| < 1, both are the gradients of -1/2 sum (x - f)^2."""
    random = np.random.default_rng(0)
    x = random.uniform(-0.4, 0.4, size=(2, 4, 3, 2))
    filters = random.uniform(-0.4, 0.4, size=(3, 3, 2, 3))
    settings = (2, 1), SAME
    upstream = random.normal(size=(2, 2, 3, 3))

    def surrogate(x, filters):
        return sum(
            -0.5 * np.sum((patch[..., None] - filters) ** 2 * upstream[place][:, None, None, None])
            for place, _, patch in oracles.patches(x, (3, 3), *settings)
        )

    def slopes(of, step=1e-5):
        found = np.zeros_like(of)
        for index in np.ndindex(*of.shape):
            kept = of[index]
            of[index] = kept + step
            above = surrogate(x, filters)
            of[index] = kept - step
            found[index] = (above - surrogate(x, filters)) / (2 * step)
            of[index] = kept
        return found

    _, for_x, for_filters = gradients(x, filters, upstream, *settings)
    np.testing.assert_allclose(for_x, slopes(x), atol=2e-5)
    np.testing.assert_allclose(for_filters, slopes(filters), atol=2e-5)
    # The filters' gradient is that of the square at any distance, the inputs' is clipped.
    x += 3 * np.sign(x)
    _, far_x, far_filters = gradients(x, filters, upstream, *settings)
    np.testing.assert_allclose(far_filters, slopes(filters), atol=1e-4)
    assert np.abs(far_x - slopes(x)).max() > 0.1


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_computed_in_float32(dtype):
    random = np.random.default_rng(1)
    # 300 inputs: a running sum of that length in half precision would lose two digits.
    x = tf.cast(random.normal(size=(1, 3, 3, 300)), dtype)
    filters = tf.cast(random.normal(size=(3, 3, 300, 4)), dtype)
    outputs, for_x, for_filters = gradients(x, filters, dtype=dtype)
    wanted = gradients(np.float32(x), np.float32(filters))
    for found, each in zip((outputs, for_x, for_filters), wanted, strict=True):
        assert found.dtype == dtype
        np.testing.assert_array_equal(found, tf.cast(each, dtype))


def test_float64_stays_float64(backend):
    outputs, *_ = gradients(oracles.IMAGE + 1e-9, oracles.KERNEL, dtype=tf.float64)
    difference = outputs[0, ..., 0] - oracles.CASES[1]["outputs"]
    assert 1e-9 <= np.abs(difference).max() < 1e-8


def jvp(x, filters, x_tangent, filter_tangent, forward_mode):
    """The derivative of the outputs along two directions, by either kind of differentiation."""
    settings = (2, 1), SAME
    if forward_mode:
        tangents = (x_tangent, filter_tangent)
        with tf.autodiff.ForwardAccumulator((x, filters), tangents) as accumulator:
            outputs = adder_convolution(x, filters, *settings)
        return accumulator.jvp(outputs)
    with tf.GradientTape() as outer:
        with tf.GradientTape() as inner:
            inner.watch((x, filters))
            outputs = adder_convolution(x, filters, *settings)
        upstream = tf.zeros_like(outputs)
        outer.watch(upstream)
        found = inner.gradient(outputs, (x, filters), output_gradients=upstream)
        product = tf.reduce_sum(found[0] * x_tangent) + tf.reduce_sum(found[1] * filter_tangent)
    return outer.gradient(product, upstream)


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "graph"])
@pytest.mark.parametrize("forward_mode", [False, True], ids=["double backward", "accumulator"])
def test_jacobian_vector_products(forward_mode, compiled):
    random = np.random.default_rng(2)
    shapes = (2, 5, 4, 3), (3, 3, 3, 2), (2, 5, 4, 3), (3, 3, 3, 2)
    arrays = [random.normal(size=shape).astype("float32") for shape in shapes]
    run = tf.function(jvp) if compiled else jvp
    found = run(*map(tf.constant, arrays), forward_mode)
    x, filters, x_tangent, filter_tangent = arrays
    tangents = [patch for *_, patch in oracles.patches(x_tangent, (3, 3), (2, 1), SAME)]
    for (place, _, patch), tangent in zip(
        oracles.patches(x, (3, 3), (2, 1), SAME), tangents, strict=True
    ):
        difference = filters - patch[..., None]
        wanted = np.clip(difference, -1, 1) * tangent[..., None] - difference * filter_tangent
        np.testing.assert_allclose(found.numpy()[place], wanted.sum((1, 2, 3)), atol=1e-4)


def test_derivatives_of_the_input_gradient_are_its_slopes():
    """With respect to inputs, filters and upstream gradient, off the corners of the clipping."""
    random = np.random.default_rng(3)
    x, filters = random.normal(size=(2, 3, 3, 2)), random.normal(size=(3, 3, 2, 2))
    upstream, direction = random.normal(size=(2, 3, 3, 2)), random.normal(size=(2, 3, 3, 2))

    def along(x, filters, upstream):
        _, for_x, _ = oracles.reference(x, filters, lambda _: upstream, (1, 1), SAME)
        return np.sum(for_x * direction)

    variables = [tf.constant(each, tf.float32) for each in (x, filters, upstream)]
    with tf.GradientTape() as outer:
        outer.watch(variables)
        with tf.GradientTape() as inner:
            inner.watch(variables[0])
            outputs = adder_convolution(*variables[:2], (1, 1), SAME)
        for_x = inner.gradient(outputs, variables[0], output_gradients=variables[2])
        product = tf.reduce_sum(for_x * tf.constant(direction, tf.float32))
    found = outer.gradient(product, variables)
    arrays = [x, filters, upstream]
    for number, array in enumerate(arrays):
        slopes = np.zeros_like(array)
        for index in np.ndindex(*array.shape):
            moved = [each.copy() for each in arrays]
            moved[number][index] += 1e-6
            slopes[index] = (along(*moved) - along(*arrays)) / 1e-6
        np.testing.assert_allclose(found[number], slopes, atol=1e-3)


def test_a_normalized_gradient_has_no_derivative():
    x, filters = tf.constant(oracles.IMAGE, tf.float32), tf.constant(oracles.KERNEL, tf.float32)
    with tf.GradientTape() as outer:
        outer.watch(x)
        with tf.GradientTape() as inner:
            inner.watch(filters)
            outputs = adder_convolution(x, filters, (1, 1), SAME, eta=0.2)
        norm = tf.reduce_sum(tf.square(inner.gradient(outputs, filters)))
    with pytest.raises(TfkdError, match="found eta, which normalizes it, wanted eta=None"):
        outer.gradient(norm, x)


def test_plain_operations_are_stock(backend):
    def kinds(context):
        @tf.function
        def traced(x, filters):
            return adder_convolution(x, filters, (1, 1), SAME)

        with context:
            shapes = [tf.TensorSpec(shape) for shape in ((None, None, None, 2), (3, 3, 2, 4))]
            graph = traced.get_concrete_function(*shapes).graph.as_graph_def()
        nodes = [*graph.node, *(node for each in graph.library.function for node in each.node_def)]
        return {node.op for node in nodes if node.op.startswith("Tfkd")}

    assert kinds(plain_operations()) == set()
    assert kinds(tf.name_scope("any")) == ({"TfkdAdderConv2D"} if backend == "op" else set())


def test_shapes_are_known_where_the_inputs_are():
    @tf.function
    def traced(x):
        return adder_convolution(x, tf.zeros((3, 3, 2, 4)), (2, 1), SAME)

    for shape, wanted in (((None, 7, 6, 2), (None, 4, 6, 4)), ((3, None, 6, 2), (3, None, 6, 4))):
        found = traced.get_concrete_function(tf.TensorSpec(shape)).output_shapes
        assert found.as_list() == list(wanted)


def test_output_size_counts_whole_windows():
    assert function_module.output_size(7, 3, 2, 2) == 4
    assert function_module.output_size(8, 3, 2, 2) == 4
    assert function_module.output_size(None, 3, 2, 2) is None
