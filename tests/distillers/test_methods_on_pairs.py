"""Every feature method makes a step on networks that papers compare; the script has all pairs."""

import pytest

from tests.fixtures import methods_on_pairs


@pytest.mark.slow
@pytest.mark.parametrize(
    ("teacher", "student"),
    [("resnet56", "resnet20"), ("vgg13", "mobilenetv2"), ("wrn_40_2", "wrn_16_2")],
)
def test_all_methods_make_a_step_on_a_pair(teacher, student):
    found = methods_on_pairs.methods_on(teacher, student)
    assert set(found) == set(methods_on_pairs.METHODS) and len(found) == 14
    for name, each in found.items():
        assert each.good and each.loss != 0, (name, str(each))
        assert each.moved == each.variables, (name, str(each))
