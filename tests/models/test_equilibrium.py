"""Gradient equilibrium against gradients formed block by block."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfkd import TfkdError, models

DRAW = np.random.default_rng(0)
IMAGES = tf.constant(DRAW.normal(size=(4, 8, 8, 3)), tf.float32)
SLOPES = {
    exit: tf.constant(DRAW.normal(size=(4, 5)), tf.float32) for exit in ("exit1", "exit2", "logits")
}
"""The gradient of the loss at each exit."""


def msdnet():
    """Three blocks; what each hands on, the coarsest maps first."""
    model = models.create("msdnet", 5, (8, 8, 3), blocks=(1, 2, 1), scales=2, growth=2, channels=2)
    return model, [["stage1", "layer1_scale1"], ["stage2"]]


def resnet():
    model = models.create("resnet8", 5, (8, 8, 3), widths=(4, 4, 4, 4))
    return models.multi_exit(model, ["stage1", "stage2"], seed=1), [["stage1"], ["stage2"]]


def nested():
    """Heads that leave inside of a sub-model, and one behind it."""
    image = keras.Input((8, 8, 3))
    first = keras.layers.Conv2D(3, 3, name="conv1", activation="silu")(image)
    second = keras.layers.Conv2D(4, 3, name="conv2", activation="silu")(first)
    backbone = keras.Model(image, second, name="backbone")
    outer = keras.Input((8, 8, 3))
    mapped = backbone(keras.layers.Conv2D(3, 1, name="stem")(outer))
    pooled = keras.layers.GlobalAveragePooling2D(name="pooled")(mapped)
    model = keras.Model(outer, keras.layers.Dense(5, name="scores")(pooled), name="whole")
    return models.multi_exit(model, ["backbone/conv1", "backbone"], seed=1)


def gradients(model, exits=SLOPES):
    """The gradient of every weight that trains, and of each that has none 0."""
    with tf.GradientTape() as tape:
        outputs = model(IMAGES, training=True)
        total = tf.add_n([tf.reduce_sum(outputs[exit] * SLOPES[exit]) for exit in exits])
    variables = model.trainable_variables
    found = tape.gradient(total, [v.value for v in variables], unconnected_gradients="zero")
    return {id(v): np.array(each) for v, each in zip(variables, found, strict=True)}


def by_hand(model, handed_on):
    """The gradients of all weights, backward from block to block, by the published formula."""
    names, found = models.exits(model), {}
    steps, start, values = [], [model.input], [IMAGES]
    for exit, kept in zip(names, [*handed_on, None]):
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(values)
            body, made, ends = None, values, start
            if kept is not None:
                ends = [model.get_layer(each).output for each in kept]
                body = keras.Model(start, dict(zip(kept, ends)))
                outputs = body(values, training=True)
                made = [outputs[each] for each in kept]
            # What is left of the network behind the last block is the head of the deepest exit.
            read = 1 if body else len(ends)
            head = keras.Model(ends[:read], model.output[exit])
            logits = head(made[:read], training=True)
        steps.append((exit, body, head, tape, values, made, logits))
        start, values = ends, made
    later = None
    for number, (exit, body, head, tape, before, made, logits) in reversed(
        list(enumerate(steps, start=1))
    ):
        slopes = tape.gradient(logits, made, SLOPES[exit])
        found |= slopes_of(head, tape, logits, SLOPES[exit])
        if body is not None:
            left = len(names) - number
            slopes = [(slopes[0] + left * later[0]) / (left + 1), *later[1:]]
            found |= slopes_of(body, tape, made, slopes)
            slopes = tape.gradient(made, before, slopes)
        later = slopes
    return found


def slopes_of(part, tape, outputs, slopes):
    """The gradients of the weights of a part."""
    weights = part.trainable_variables
    found = tape.gradient(outputs, [v.value for v in weights], slopes)
    return {id(v): np.array(each) for v, each in zip(weights, found, strict=True)}


@pytest.mark.parametrize("make", [msdnet, resnet])
def test_the_gradient_of_every_weight_is_that_of_the_formula(make):
    model, handed_on = make()
    twin = models.equilibrium(model)
    assert {id(v) for v in twin.variables} == {id(v) for v in model.variables}
    for exit, logits in model(IMAGES).items():
        np.testing.assert_array_equal(twin(IMAGES)[exit], logits)
    found, wanted = gradients(twin), by_hand(model, handed_on)
    plain = gradients(model)
    assert set(found) == set(wanted)
    for key, slope in wanted.items():
        # A convolution before batch normalization has slopes that cancel but for rounding.
        scale = np.abs(slope).max() + 1e-3
        np.testing.assert_allclose(found[key] / scale, slope / scale, atol=2e-5)
    stem = id(model.get_layer("stem_conv").kernel)
    assert np.abs(found[stem] - plain[stem]).max() > 0.1 * np.abs(plain[stem]).max()


def test_heads_are_found_in_sub_models_too():
    model = nested()
    twin = models.equilibrium(model)
    shares = {exit: gradients(model, [exit]) for exit in SLOPES}
    found = gradients(twin)
    kernels = {
        v.path.split("/")[-2]: id(v) for v in model.trainable_variables if "kernel" in v.path
    }
    # What each exit adds to the gradient of a layer, by the heads that leave after it.
    for layer, factors in {
        "stem": (1 / 3, 2 / 3 * 1 / 2, 2 / 3 * 1 / 2),
        "conv1": (1 / 3, 2 / 3 * 1 / 2, 2 / 3 * 1 / 2),
        "conv2": (0, 1 / 2, 1 / 2),
        "exit1": (1, 0, 0),
        "exit2": (0, 1, 0),
        "scores": (0, 0, 1),
    }.items():
        kernel = kernels[layer]
        wanted = sum(f * shares[exit][kernel] for f, exit in zip(factors, SLOPES))
        np.testing.assert_allclose(found[kernel], wanted, rtol=1e-4, atol=1e-6, err_msg=layer)


def test_networks_without_heads_of_their_own_are_refused():
    with pytest.raises(TfkdError, match="model 'resnet8': found one exit, wanted two or more"):
        models.equilibrium(models.create("resnet8", 5, (8, 8, 3)))
    image = keras.Input((4,))
    first = keras.layers.Dense(3, name="exit1")(image)
    outputs = {"exit1": first, "logits": keras.layers.Dense(3)(first)}
    with pytest.raises(TfkdError, match="found no layers that lead to 'exit1' alone"):
        models.equilibrium(keras.Model(image, outputs, name="row"))
