"""The adder form of networks, and its convolutional counterpart, against the published counts."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfkd import models
from tfkd.adder import AdderConv2D

SMALL = (32, 32, 3)
LARGE = (224, 224, 3)


@functools.cache
def counted(name, classes, shape, **arguments):
    """The cost of a network, which is not kept."""
    return models.cost(models.create(name, classes, shape, **arguments))


@pytest.mark.parametrize("name, params", [("resnet20", 272_484), ("resnet32", 466_916)])
def test_parameters_are_the_published_ones(name, params):
    adder = counted(name, 10, SMALL, adder=True)
    assert adder.params == counted(name, 10, SMALL, logit_normalization=True).params == params
    # A bias of ten, for ten scales and ten offsets.
    assert counted(name, 10, SMALL).params == params - 10


# Multiplications and additions in millions as reported, and the tolerance of their rounding. Where
# a reported count stands apart from the network's arithmetic, `missing` is by how many MACs: 0.36
# million of ResNet-20 are explained nowhere.
@pytest.mark.parametrize(
    "name, shape, classes, multiplications, additions, missing, rounding",
    [
        ("resnet20", SMALL, 10, 0.45, 81.89, 0.355, 0.01),
        ("resnet32", SMALL, 10, 0.45, 137.79, 0.0, 0.02),
        ("resnet18", LARGE, 1000, 100, 3500, 0.0, 50),
    ],
)
def test_operations_are_the_reported_ones(
    name, shape, classes, multiplications, additions, missing, rounding
):
    cost = counted(name, classes, shape, adder=True)
    assert cost.multiplications / 1e6 == pytest.approx(multiplications, abs=rounding)
    assert cost.additions / 1e6 + 2 * missing == pytest.approx(additions, abs=rounding)
    assert cost.unknown == ()


@pytest.mark.parametrize("name, additions", [("resnet32", 138.24)])
def test_with_every_layer_an_adder_the_additions_are_those_of_the_first_paper(name, additions):
    macs = counted(name, 10, SMALL).macs
    assert 2 * macs / 1e6 == pytest.approx(additions, abs=0.02)


def test_every_multiply_accumulate_of_a_block_becomes_two_additions():
    rows = [
        {row.name: row for row in counted("resnet8", 10, SMALL, **form).layers}
        for form in ({"adder": True}, {"logit_normalization": True})
    ]
    # Layers that only pad in the convolutional form have no part in the other.
    shared = {name for name in rows[1] if not name.endswith("_pad")}
    assert shared == set(rows[0])
    adders = 0
    for name in shared:
        adder, convolution = rows[0][name], rows[1][name]
        assert (adder.output_shape, adder.params) == (convolution.output_shape, convolution.params)
        if adder.kind == "AdderConv2D":
            adders += 1
            assert convolution.kind == "Conv2D" and adder.macs == 0
            assert adder.adder_additions == 2 * convolution.macs
        else:
            assert adder.kind == convolution.kind and adder.macs == convolution.macs
    assert adders == 6 + 2


@pytest.mark.parametrize(
    "name, shape, arguments, adders, stay",
    [
        ("resnet20", SMALL, {}, 18 + 2, {"stem_conv", "linear"}),
        ("vgg_small", SMALL, {}, 5, {"stem_conv", "linear"}),
        ("resnet18", (32, 32, 3), {"width": 4}, 16 + 3, {"stem_conv", "linear"}),
        ("resnet50", (32, 32, 3), {"width": 4}, 48 + 4, {"stem_conv", "linear"}),
        ("resnet18_cifar", (8, 8, 3), {"width": 4}, 16 + 3, {"stem_conv", "linear"}),
    ],
)
def test_stem_and_classifier_alone_multiply(name, shape, arguments, adders, stay):
    model = models.create(name, 10, shape, adder=True, **arguments)
    kinds = {layer.name: layer for layer in model.layers}
    assert sum(isinstance(layer, AdderConv2D) for layer in kinds.values()) == adders
    multiplying = (keras.layers.Conv2D, keras.layers.Dense)
    assert {each for each, layer in kinds.items() if isinstance(layer, multiplying)} == stay
    assert isinstance(kinds["logits"], models.BatchNormalization)
    for layer in kinds.values():
        if isinstance(layer, AdderConv2D):
            assert layer.eta == 0.2 and not layer.use_bias
            (reader,) = [node.operation for node in layer._outbound_nodes]
            assert isinstance(reader, models.BatchNormalization)


def test_logits_are_normalized_or_not_as_asked():
    forms = {
        (False, None): "Dense",
        (False, True): "BatchNormalization",
        (True, None): "BatchNormalization",
        (True, False): "Dense",
    }
    for name, shape in (
        ("resnet8", (8, 8, 3)),
        ("vgg_small", (8, 8, 3)),
        ("resnet18", (32, 32, 3)),
    ):
        for (adder, normalization), kind in forms.items():
            arguments = {"adder": adder, "logit_normalization": normalization}
            model = models.create(name, 3, shape, **arguments)
            assert type(model.get_layer("logits")).__name__ == kind, (name, arguments)


def test_an_adder_network_learns():
    model = models.create("resnet8", 2, (8, 8, 1), adder=True, widths=(4, 4, 4, 4))
    images = np.random.default_rng(0).normal(size=(32, 8, 8, 1)).astype("float32")
    labels = (images.mean((1, 2, 3)) > 0).astype("int32")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), loss)
    losses = model.fit(images, labels, batch_size=32, epochs=25, verbose=0).history["loss"]
    assert losses[-1] < 0.5 * losses[0]


def test_folding_leaves_the_normalization_of_adder_layers():
    model = models.create("resnet8", 3, (8, 8, 1), adder=True, widths=(4, 4, 4, 4))
    images = tf.random.normal((16, 8, 8, 1))
    for _ in range(30):
        model(images, training=True)
    folded = models.fold(model)
    kinds = {layer.name: type(layer).__name__ for layer in folded.layers}
    assert kinds["stem_bn"] == kinds["logits"] == "Identity"
    assert kinds["stage1_block1_bn1"] == kinds["stage2_block1_shortcut_bn"] == "BatchNormalization"
    wanted = model(images, training=False).numpy()
    assert wanted.std() > 0.1
    np.testing.assert_allclose(folded(images), wanted, atol=1e-4)
    halved = models.fold(model, dtype="bfloat16")(images)
    assert np.abs(halved - wanted).max() < 0.2 * np.abs(wanted).max()
