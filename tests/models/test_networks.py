"""Every network against the table of the published PyTorch code: parameters, MACs, taps."""

import functools
import json
import pathlib

import pytest

from tfkd import models

_FILE = json.loads((pathlib.Path(__file__).parents[1] / "fixtures" / "networks.json").read_text())
SMALL, IMAGENET = _FILE["networks"], _FILE["imagenet"]
TABLE = {**SMALL, **IMAGENET}
# These have no ReLU after the sum or convolution that ends a stage.
WITHOUT_PRE_TAPS = ("mobilenetv2",)


@functools.cache
def built(name):
    """Costs, and shapes of all taps, of a network for the table's images and class count.

    It is built once, and not kept: the largest has half a gigabyte of weights.
    """
    model = models.create(name, *((1000, (224, 224, 3)) if name in IMAGENET else (100,)))
    return models.cost(model), models.tap_shapes(model, models.tap_names(model))


def tap_names(name):
    stages = len(TABLE[name]["taps"]) - 2
    return ["stem", *(f"stage{stage}" for stage in range(1, stages + 1)), "pooled"]


@pytest.mark.parametrize("name", TABLE)
def test_parameters_and_macs_are_the_published_ones(name):
    published = TABLE[name]
    cost, _ = built(name)
    linear = sum(row.macs for row in cost.layers if row.kind == "Dense")
    assert linear == published["macs_linear"]
    assert cost.macs - linear == published["macs_conv"]
    assert cost.unknown == ()
    if name in IMAGENET:
        assert cost.params == published["params"]
        digits = len(str(published["published_gmacs"]).partition(".")[2])
        assert round(cost.macs / 1e9, digits) == published["published_gmacs"]
    else:
        assert cost.params == published["params_100"]
        # Of the logits' kernel and bias alone the number depends on the classes.
        channels = published["taps"][-1][0]
        assert cost.params - 90 * (channels + 1) == published["params_10"]
        (logits,) = (row for row in cost.layers if row.name == "logits")
        assert logits.params == 100 * (channels + 1)


@pytest.mark.parametrize("name", TABLE)
def test_taps_have_the_published_shapes(name):
    _, shapes = built(name)
    assert [list(shapes[tap]) for tap in tap_names(name)] == TABLE[name]["taps"]


@pytest.mark.parametrize("name", TABLE)
def test_every_network_has_the_taps_of_the_contract(name):
    _, shapes = built(name)
    classes = 1000 if name in IMAGENET else 100
    assert len(shapes["pre_pool"]) == 3
    assert shapes["logits"] == (classes,)
    for tap in tap_names(name)[1:-1]:
        if name not in WITHOUT_PRE_TAPS:
            assert shapes[f"{tap}_pre"] == shapes[tap]
    if name in WITHOUT_PRE_TAPS:
        assert not any(tap.endswith("_pre") for tap in shapes)
