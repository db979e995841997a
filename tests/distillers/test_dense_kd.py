"""Dense KD: constant weights over all exits and pairs."""

import numpy as np
import pytest

from tests.distillers.exits import CE, KD, terms
from tfkd.distillers import DenseKD, dense_weights


@pytest.mark.parametrize(
    ("settings", "shares"),
    [
        ({}, (0.25, 0.25, 0.5)),
        ({"average": False}, (0.5, 0.5, 0.5)),
        ({"label_weight": 2.0, "kd_weight": 3.0}, (1.5, 1.5, 3.0)),
    ],
)
def test_every_exit_learns_from_all_deeper_ones(settings, shares):
    found = terms(DenseKD(temperature=2.0, **settings))
    first, second, third = shares * KD
    label = settings.get("label_weight", 0.5)
    wanted = {
        **dict(zip(("exit1_ce", "exit2_ce", "logits_ce"), label * CE)),
        **{"exit1_kd": first + second, "exit2_kd": third},
    }
    assert list(found) == list(wanted)
    np.testing.assert_allclose(list(found.values()), list(wanted.values()), atol=2e-7)


def test_weights_of_four_exits():
    labels, kd = dense_weights(4)
    np.testing.assert_allclose(labels, [0.5] * 4)
    np.testing.assert_allclose(kd, [1 / 6] * 3 + [1 / 4] * 2 + [1 / 2])
