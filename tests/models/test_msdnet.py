"""MSDNet: the published costs and parameters of every exit, and the form of the network."""

import re

import keras
import numpy as np
import pytest

from tfkd import TfkdError, models
from tfkd.models.summary.cost import operations

# Cumulative costs in millions and the parameters at the last exit, counted by the authors' code.
PUBLISHED = {
    "msdnet_cifar_even7": ((15.14, 25.51, 37.10, 46.33, 57.34, 66.96, 75.94), 3_067_960),
    "msdnet_cifar_lin5": ((6.86, 14.35, 27.54, 41.71, 58.48), 2_078_924),
    "msdnet_cifar_lin7": ((6.86, 14.35, 27.29, 48.45, 76.43, 108.85, 137.28), 3_966_664),
    "msdnet_cifar_even11": (
        (15.14, 25.51, 37.79, 52.06, 62.18, 74.07, 87.73, 100.04, 110.12, 121.68, 134.71),
        5_597_760,
    ),
    "msdnet_cifar_dbt11": (
        (15.57, 31.23, 51.95, 65.99, 83.28, 103.80, 132.95, 150.23, 170.76, 194.53, 211.57),
        5_067_588,
    ),
    "msdnet_imagenet_4": ((339.9, 685.5, 1008.2, 1254.5, 1360.5), 23_958_440),
    "msdnet_imagenet_6": ((514.7, 1171.2, 1844.5, 2501.4, 2742.1), 56_529_304),
    "msdnet_imagenet_7": ((615.7, 1436.4, 2283.2, 2967.4, 3253.8), 62_314_472),
}
CHANNELS = {
    "msdnet_cifar_even7": (160, 208, 140, 188, 236, 152, 200),
    "msdnet_cifar_lin5": (88, 136, 104, 200, 208),
    "msdnet_cifar_lin7": (88, 136, 208, 304, 260, 200, 368),
    "msdnet_imagenet_4": (384, 384, 352, 304, 560),
    "msdnet_imagenet_6": (512, 544, 496, 880, 792),
    "msdnet_imagenet_7": (576, 640, 608, 528, 976),
}


def built(name):
    large = "imagenet" in name
    return models.create(name, 1000 if large else 100, (224, 224, 3) if large else (32, 32, 3))


def convolutions(model):
    return [each for each in model.layers if isinstance(each, keras.layers.Conv2D)]


def exit_of(layer, lengths):
    """The number of the exit at which a layer has run, by the name of the layer."""
    ends = np.cumsum(lengths)
    if match := re.match(r"(?:layer|transition)(\d+)_", layer):
        return int(np.searchsorted(ends, int(match[1]))) + 1
    if match := re.match(r"exit(\d+)", layer):
        return int(match[1])
    return 1 if layer.startswith(("stem", "image")) else len(lengths)


def counted(model, lengths):
    """Operations up to each exit, in millions, as the authors' code counts them.

    Multiply-adds, the biases of classifiers, one for each value of a ReLU, and what pooling reads.
    """
    macs = {row.name: row.macs for row in models.cost(model).layers}
    found = np.zeros(len(lengths))
    for name, layer, inputs, outputs in operations(model):
        count = macs[name]
        if isinstance(layer, (keras.layers.ReLU, keras.layers.Dense)):
            count += np.prod(outputs[0])
        if isinstance(layer, keras.layers.MaxPooling2D):
            count += np.prod(layer.pool_size) * np.prod(outputs[0])
        if isinstance(layer, keras.layers.GlobalAveragePooling2D):
            count += np.prod(inputs[0])
        found[exit_of(name, lengths) - 1] += count
    return np.cumsum(found) / 1e6


def counted_by_others(model, lengths):
    """The same as the authors of msdnet_cifar_dbt11 count: with every bias, without ReLUs."""
    found = np.zeros(len(lengths))
    for name, layer, _, outputs in operations(model):
        if isinstance(layer, keras.layers.ReLU):
            found[exit_of(name, lengths) - 1] -= np.prod(outputs[0])
        elif isinstance(layer, keras.layers.Conv2D) and layer.use_bias:
            found[exit_of(name, lengths) - 1] += np.prod(outputs[0])
    return counted(model, lengths) + np.cumsum(found) / 1e6


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
def test_costs_and_parameters_of_every_exit_are_the_published_ones(name):
    from tfkd.models.families.msdnet import NETWORKS

    wanted, params = PUBLISHED[name]
    model = built(name)
    lengths = NETWORKS[name].blocks
    exits = models.exits(model)
    assert exits == (*(f"exit{n}" for n in range(1, len(wanted))), "logits")
    count = counted_by_others if name == "msdnet_cifar_dbt11" else counted
    found = count(model, lengths)
    digits = 1 if "imagenet" in name else 2
    np.testing.assert_allclose(found, wanted, atol=0.51 * 10**-digits)
    assert models.cost(model).params == params
    widths = [model.get_layer(f"stage{n}").output.shape[-1] for n in range(1, len(exits) + 1)]
    if name in CHANNELS:
        assert tuple(widths) == CHANNELS[name]


def test_the_last_exit_of_even7_costs_what_the_authors_count():
    found = counted(built("msdnet_cifar_even7"), (4, *[2] * 6))
    assert round(1e6 * found[-1]) == 75_937_724


def test_a_small_network_of_ones_own_runs():
    model = models.create("msdnet", 10, (16, 16, 3), blocks=(1, 2, 3, 4), scales=2)
    images = np.random.default_rng(0).normal(size=(2, 16, 16, 3)).astype("float32")
    outputs = model(images)
    assert list(outputs) == ["exit1", "exit2", "exit3", "logits"]
    assert all(each.shape == (2, 10) and np.isfinite(each).all() for each in outputs.values())
    # The coarsest of two scales of 16 pixels has 8.
    assert model.get_layer("stage1").output.shape[1:3] == (8, 8)
    assert model.get_layer("exit1_pooled").output.shape == (None, 128)


def test_convolutions_start_he_normal():
    model = built("msdnet_cifar_lin5")
    kernels = [np.array(each.kernel) for each in convolutions(model)]
    assert len(kernels) > 50
    # The variance is 2 over the fan-out; of n numbers it is off by some sqrt(2 / n).
    ratios = np.array([np.var(each) * each[..., 0, :].size / 2 for each in kernels])
    sizes = np.array([each.size for each in kernels])
    np.testing.assert_array_less(np.abs(ratios - 1), 4 * np.sqrt(2 / sizes))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"blocks": ()}, "found no blocks; wanted the number of layers of each"),
        ({"blocks": (1, 0)}, "blocks: found \\(1, 0\\), wanted a list of whole numbers >= 1"),
        ({"growth": 5}, "found growth=5; wanted an even number"),
        ({"scales": 0}, "scales: found 0, wanted a whole number >= 1"),
        ({"prune": "none"}, "unknown prune of network 'msdnet' 'none'"),
        ({"scales": 6}, "found images of 16 x 16 pixels with scales=6; wanted 32 or more"),
    ],
)
def test_sizes_that_make_no_network_are_refused(fields, message):
    with pytest.raises(TfkdError, match=message):
        models.create("msdnet", 10, (16, 16, 3), **fields)


def test_a_network_with_exits_is_listed_and_shown():
    from tfkd.models.summary import overview, plan

    (row,) = overview.rows(["msdnet_cifar_lin5"])
    assert (row.num_classes, row.params) == (100, 2_078_924)
    found = overview.description(plan.plan(built("msdnet_cifar_lin5")))
    assert "32x32x3 to 100 classes, 2.08 M parameters" in found
    assert re.search(r"stage5 +8x8x208", found)
