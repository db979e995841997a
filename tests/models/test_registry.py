"""Making networks by name, and what is refused."""

import keras
import numpy as np
import pytest

from tfkd import models
from tfkd.errors import TfkdError
from tfkd.models import registry


@pytest.fixture
def own_registry(monkeypatch):
    """A registry of the test's own, so that nothing leaks into others."""
    monkeypatch.setattr(registry, "_networks", {})


def flat(num_classes, input_shape, name, units=3):
    image = keras.Input(input_shape)
    features = keras.layers.Flatten()(image)
    features = keras.layers.Dense(units, name="pooled")(features)
    return keras.Model(image, keras.layers.Dense(num_classes, name="logits")(features), name=name)


def test_a_registered_builder_is_created_by_name_with_its_own_arguments(own_registry):
    models.register("flat", smallest=2)(flat)
    model = models.create("flat", 5, (2, 3, 1), units=4)
    assert models.names() == ("flat",)
    assert model.name == "flat"
    assert model.output_shape == (None, 5)
    assert model.get_layer("pooled").units == 4


def test_a_name_is_registered_once(own_registry):
    def other(num_classes, input_shape, name):
        return flat(num_classes, input_shape, name)

    models.register("flat")(flat)
    models.register("flat")(flat)  # The same definition again, as a config read twice makes it.
    with pytest.raises(TfkdError, match="'flat'.*already"):
        models.register("flat")(other)


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(TfkdError, match="'resnet23'; did you mean 'resnet[0-9]+'"):
        models.create("resnet23", 10)


@pytest.mark.parametrize("count", [0, 1, -3, 2.5, "10", True, None])
def test_a_wrong_class_count_is_named(count):
    with pytest.raises(TfkdError, match=r"resnet8.*num_classes=.*2 or more"):
        models.create("resnet8", count)


@pytest.mark.parametrize("shape", [(3, 32, 3), (32, 3, 3), (0, 0, 3)])
def test_too_small_an_image_is_named_with_the_least_size(shape):
    with pytest.raises(TfkdError, match=r"resnet20.*found input_shape=.*wanted .*4x4 pixels"):
        models.create("resnet20", 10, shape)


@pytest.mark.parametrize("shape", [(32, 32), 32, (32, 32, 0), (32, 32, None), "32"])
def test_a_shape_that_is_no_image_is_named(shape):
    with pytest.raises(TfkdError, match="resnet20.*found input_shape=.*wanted"):
        models.create("resnet20", 10, shape)


def test_an_unknown_argument_is_answered_with_the_nearest(own_registry):
    models.register("flat")(flat)
    with pytest.raises(TfkdError, match="'unit'; did you mean 'units'"):
        models.create("flat", 5, (2, 3, 1), unit=4)


def test_an_argument_that_a_network_does_not_have_is_refused():
    with pytest.raises(TfkdError, match="argument of network 'resnet8' 'width'; did you mean 'wid"):
        models.create("resnet8", 10, width=2)


def test_equal_seeds_give_equal_weights_and_every_layer_its_own():
    networks = []
    for _ in range(2):
        keras.utils.set_random_seed(7)
        networks.append(models.create("resnet8", 10))
    first, second = networks
    for one, other in zip(first.weights, second.weights, strict=True):
        np.testing.assert_array_equal(one, other)
    kernels = [first.get_layer(f"stage1_block1_conv{number}").kernel for number in (1, 2)]
    assert np.abs(kernels[0] - kernels[1]).max() > 0


def test_an_entry_says_what_a_network_was_published_for(own_registry):
    models.register("flat")(flat)
    models.register("large", default_shape=(224, 224, 3), default_classes=1000)(flat)
    assert (registry.entry("flat").default_shape, registry.entry("flat").default_classes) == (
        (32, 32, 3),
        100,
    )
    large = registry.entry("large")
    assert (large.default_shape, large.default_classes) == ((224, 224, 3), 1000)
    with pytest.raises(TfkdError, match="unknown network 'larg'; did you mean 'large'"):
        registry.entry("larg")


def test_a_name_is_checked_before_anything_is_built():
    registry.check_name("resnet8")
    registry.check_name("keras.applications:MobileNetV2")
    with pytest.raises(TfkdError, match="unknown network of the student 'resnet9'; did you mean"):
        registry.check_name("resnet9", "network of the student")
    with pytest.raises(TfkdError, match="no module 'no_such'"):
        registry.check_name("no_such:net")
