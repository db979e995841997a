"""The energy report against counts and energies worked out by hand."""

import keras
import pytest

import tfkd
from tfkd import models
from tfkd.adder import AdderConv2D
from tfkd.errors import TfkdError


def small():
    """A convolution of 1728 and an adder layer of 2304 terms, and a linear layer of 8 products."""
    image = keras.Input((4, 4, 3))
    features = keras.layers.Conv2D(4, 3, padding="same")(image)
    features = AdderConv2D(4, 3)(features)
    features = keras.layers.GlobalAveragePooling2D()(features)
    return keras.Model(image, keras.layers.Dense(2)(features), name="small")


@pytest.mark.parametrize(
    "number_format, multiplication, addition",
    [("float32", 3.7, 0.9), ("float16", 1.1, 0.4), ("int32", 3.1, 0.1), ("int8", 0.2, 0.03)],
)
def test_operations_and_their_energy(number_format, multiplication, addition):
    report = tfkd.adder.energy(small(), number_format)
    products, terms = 4 * 4 * 4 * 27 + 8, 4 * 4 * 4 * 36
    network, counterpart = report.network, report.conv_counterpart
    assert (network.multiplications, network.additions) == (products, products + 2 * terms)
    assert (counterpart.multiplications, counterpart.additions) == (
        products + terms,
        products + terms,
    )
    spent = products * (multiplication + addition) + 2 * terms * addition
    full = (products + terms) * (multiplication + addition)
    assert network.picojoules == pytest.approx(spent)
    assert counterpart.picojoules == pytest.approx(full)
    assert report.ratio == pytest.approx(spent / full)


def test_a_convolutional_network_is_its_own_counterpart():
    assert tfkd.adder.energy(models.create("resnet8", 3, (8, 8, 3))).ratio == 1


def test_the_table_has_both_networks_and_the_source():
    model = models.create("resnet20", 10, adder=True)
    first, _, network, counterpart, source = str(tfkd.adder.energy(model)).splitlines()
    assert first.split() == ["network", "multiplications", "additions", "microjoules", "ratio"]
    assert network.split()[:3] == ["resnet20", "443,008", "81,183,360"]
    assert network.split()[3:] == ["74.7", "0.40"]
    assert counterpart.split()[-4:] == ["40,813,184", "40,813,184", "187.7", "1.00"]
    assert "Horowitz, ISSCC 2014" in source


def test_an_unknown_format_is_refused():
    with pytest.raises(TfkdError, match="unknown number format 'float3'; did you mean 'float32'"):
        tfkd.adder.energy(small(), "float3")
