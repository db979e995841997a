"""Named outputs and exits, and taps of them."""

import keras
import numpy as np
import pytest

from tfkd import TfkdError, models


def many_exits(count=10, last="logits"):
    """A model with numbered exits; one of its layers bears the name of an exit."""
    image = keras.Input((4,), name="image")
    outputs = {
        f"exit{n}": keras.layers.Dense(3, name=f"head{n}")(image) for n in range(1, count + 1)
    }
    outputs[last] = keras.layers.Dense(3, name="exit2")(image)
    return keras.Model(image, outputs, name="many")


IMAGES = np.random.default_rng(0).normal(size=(2, 4)).astype("float32")


def test_a_single_output_is_called_logits():
    model = models.create("resnet8", 7, (8, 8, 3))
    assert list(models.outputs(model)) == ["logits"]
    assert models.outputs(model)["logits"].shape == (None, 7)
    assert models.exits(model) == ("logits",)


def test_exits_are_in_natural_order_and_the_deepest_is_called_logits():
    names = [f"exit{n}" for n in range(1, 11)]
    assert models.exits(many_exits()) == (*names, "logits")
    # Keras sorts what the model returns as text.
    assert sorted(names)[1] == "exit10"


def test_output_names_are_taps_and_win_over_layer_names():
    model = many_exits()
    assert set(models.outputs(model)) < set(models.tap_names(model))
    found = models.tapped(model, ["exit2", "exit10", "logits", "head3"])(IMAGES)
    wanted = model(IMAGES)
    for name in ("exit2", "exit10", "logits"):
        np.testing.assert_array_equal(found[name], wanted[name])
    np.testing.assert_array_equal(found["head3"], wanted["exit3"])
    assert models.tap_shapes(model, ["exit2", "head1"]) == {"exit2": (3,), "head1": (3,)}


def test_outputs_beside_logits_are_no_exits():
    image = keras.Input((4,))
    both = {"logits": keras.layers.Dense(3)(image), "embedding": keras.layers.Dense(5)(image)}
    model = keras.Model(image, both)
    assert set(models.outputs(model)) == {"logits", "embedding"}
    assert models.exits(model) == ("logits",)


def test_a_head_ends_in_the_output_asked_for():
    model = models.create("resnet8", 7, (8, 8, 3))
    several = keras.Model(
        model.input,
        {"logits": model.output, "exit1": keras.layers.Dense(7, name="early")(model.output)},
    )
    images = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype("float32")
    pooled = models.tapped(several, ["pre_pool"])(images)["pre_pool"]
    for end in ("logits", "exit1"):
        head = models.head(several, "pre_pool", end)
        np.testing.assert_allclose(head(pooled), several(images)[end], rtol=1e-5, atol=1e-5)
    with pytest.raises(TfkdError, match="found the outputs .*; wanted 'exit2' among them"):
        models.head(several, "pre_pool", "exit2")


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        (
            lambda a, b: [a, b],
            "outputs without a name each .a list of 2., wanted one tensor or a dict",
        ),
        (
            lambda a, b: {"one": a, "more": [a, b]},
            "outputs without a name each .a dict of one, more.",
        ),
    ],
)
def test_outputs_without_names_are_refused(outputs, message):
    image = keras.Input((4,))
    first, second = keras.layers.Dense(3)(image), keras.layers.Dense(3)(image)
    with pytest.raises(TfkdError, match=message):
        models.outputs(keras.Model(image, outputs(first, second)))


def test_exits_without_a_deepest_are_refused():
    with pytest.raises(
        TfkdError, match="exits exit1, exit2, wanted the deepest one called 'logits'"
    ):
        models.exits(many_exits(2, last="other"))


def test_exits_with_a_gap_in_their_numbers_are_refused():
    image = keras.Input((4,))
    names = ("exit1", "exit3", "logits")
    model = keras.Model(image, {name: keras.layers.Dense(3)(image) for name in names}, name="gap")
    message = "'gap': found the exits exit1, exit3, logits, wanted exit1, exit2, logits"
    with pytest.raises(TfkdError, match=message):
        models.exits(model)


def test_a_subclassed_model_names_its_outputs_once_it_was_called():
    class Two(keras.Model):
        def __init__(self):
            super().__init__()
            self.first, self.second = keras.layers.Dense(3), keras.layers.Dense(5)

        def call(self, inputs, training=None):
            return {"logits": self.first(inputs), "exit1": self.second(inputs)}

    model = Two()
    model(IMAGES)
    assert set(models.outputs(model)) == {"logits", "exit1"}
    found = models.tapped(model, ["exit1"])(IMAGES)
    np.testing.assert_array_equal(found["exit1"], model(IMAGES)["exit1"])
    assert models.tap_shapes(model, ["exit1"]) == {"exit1": (5,)}


def test_exits_are_counted_from_one_without_leading_zeros():
    image = keras.Input((4,))
    names = ("exit0", "exit01", "exit1", "logits")
    model = keras.Model(image, {name: keras.layers.Dense(3)(image) for name in names})
    assert models.exits(model) == ("exit1", "logits")
