"""ResNets of other widths."""

import pytest

from tfkd import models
from tfkd.errors import TfkdError


def test_a_thinner_network_has_the_parameters_of_its_formula():
    def conv_bn(size, inputs, outputs):
        return size * size * inputs * outputs + 2 * outputs

    stem, one, two, three = 4, 4, 8, 12
    wanted = conv_bn(3, 1, stem)
    for before, width in ((stem, one), (one, two), (two, three)):
        wanted += conv_bn(3, before, width) + conv_bn(3, width, width)
        wanted += conv_bn(1, before, width) if before != width else 0
    wanted += three * 10 + 10
    model = models.create("resnet8", 10, (8, 8, 1), widths=[stem, one, two, three])
    assert models.cost(model).params == wanted


@pytest.mark.parametrize("widths", [(4, 8, 16), (4, 4, 0, 8), (4, 4, 8.5, 8)])
def test_wrong_widths_are_refused(widths):
    with pytest.raises(TfkdError, match="four channel counts"):
        models.create("resnet8", 10, (8, 8, 1), widths=widths)
