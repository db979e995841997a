"""DBT: the loss of the authors' code, and the temperature that grows with confidence."""

import numpy as np
import pytest

from tests.distillers.contexts import context_of, spec_of
from tests.distillers.exits import CE, LABELS, LOGITS, network, tensors, terms
from tfkd.distillers import DBT
from tfkd.errors import TfkdError


def softmax(logits):
    shifted = np.exp(logits - logits.max(-1, keepdims=True))
    return shifted / shifted.sum(-1, keepdims=True)


@pytest.mark.parametrize("share", [0.5, 0.2])
def test_the_loss_is_that_of_the_authors_but_for_a_constant(share):
    temperature, count = 4.0, 3
    teacher = softmax(LOGITS["logits"] / temperature)
    soft = sum(
        -np.mean(np.sum(teacher * np.log(softmax(LOGITS[exit] / temperature)), -1))
        for exit in ("exit1", "exit2")
    )
    entropy = -np.mean(np.sum(teacher * np.log(teacher), -1))
    published = (1 - share) * CE.sum() + share * temperature**2 * soft
    constant = (count - 1) * share * temperature**2 * entropy
    found = terms(DBT("constant", kd_share=share, variant="clean"))
    np.testing.assert_allclose(sum(found.values()), published - constant, atol=5e-7)
    scaled = terms(DBT("constant", kd_share=share))
    for name, value in found.items():
        np.testing.assert_allclose(scaled[name], 10 / count * value, rtol=1e-6)
    np.testing.assert_allclose(found["exit2_ce"], (1 - share) * CE[1], atol=5e-8)


def test_the_temperature_grows_after_each_confident_batch():
    objective = DBT(confidence=0.6)
    objective.choose_taps(network(), [])
    objective.setup(spec_of("pooled", (None, 4)))
    weights = {"sample_weight": np.array([1.0, 3.0])}
    context = context_of({"student": tensors()}, LABELS, **weights)
    temperature, met = 1.0, []
    for _ in range(25):
        found = objective.compute(context)
        met.append((temperature, float(found.losses["exit1_kd"])))
        if softmax(LOGITS["logits"] / temperature).max(-1) @ [0.25, 0.75] > 0.6:
            temperature *= 1.05
        objective.after_step(context, found.carry)
        np.testing.assert_allclose(objective.current, temperature, rtol=1e-5)
    # It stops where the deepest exit is no longer confident.
    assert 2.0 < temperature < 1.05**25
    np.testing.assert_allclose(objective.records()["temperature"], temperature, rtol=1e-5)
    for at, learned in (met[0], met[-1]):
        constant = terms(DBT("constant", temperature=at), **weights)
        np.testing.assert_allclose(learned, constant["exit1_kd"], rtol=1e-5)


def test_a_constant_temperature_does_not_grow():
    with pytest.raises(TfkdError, match="growth=1.05 with form='constant', whose temperature stay"):
        DBT("constant", growth=1.05)
    assert (DBT("constant").temperature, DBT().temperature, DBT().growth) == (4.0, 1.0, 1.05)
