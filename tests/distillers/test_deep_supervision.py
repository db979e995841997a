"""Deep supervision: the label loss of every exit, with weights."""

import numpy as np
import pytest

from tests.distillers import runs
from tests.distillers.exits import CE, EXITS, network, terms
from tfkd import Distiller
from tfkd.distillers import DeepSupervision
from tfkd.errors import TfkdError


@pytest.mark.parametrize("weights", [None, (0.5, 1.0, 2.0)])
def test_every_exit_learns_the_labels_by_its_weight(weights):
    found = terms(DeepSupervision(weights))
    assert list(found) == [f"{exit}_ce" for exit in EXITS]
    wanted = CE if weights is None else CE * weights
    np.testing.assert_allclose(list(found.values()), wanted, atol=1e-7)


def test_without_weights_it_is_the_label_loss():
    distiller = Distiller(None, network(), DeepSupervision(), student_loss_weight=0.5)
    distiller.compile(run_eagerly=True)
    found = distiller.evaluate(runs.batches("sample_weight"), verbose=0, return_dict=True)
    np.testing.assert_allclose(found["loss"], found["student_loss"], rtol=1e-6)
    for exit in EXITS:
        mine, task = found[f"deep_supervision/{exit}_ce"], found[f"student_loss/{exit}"]
        np.testing.assert_allclose(mine, task, rtol=1e-6)


def test_another_number_of_weights_than_exits_is_refused():
    message = "found 2 exit_weights, wanted 3, one for each of the exits exit1, exit2, logits"
    with pytest.raises(TfkdError, match=message):
        Distiller(None, network(), DeepSupervision((1.0, 1.0)))
