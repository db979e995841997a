"""Logistic regression on frozen features, whose regularization is chosen for them."""

from __future__ import annotations

import dataclasses

import numpy as np

from tfkd.data.holdout import stratified
from tfkd.evaluation.transfer.embedding import Embeddings

STRENGTHS = (0.001, 0.01, 0.1, 1.0, 10.0)
"""Values of scikit-learn's ``C``, the inverse of the regularization, that are tried."""

_HELD_OUT = 0.1
_ITERATIONS = 1000


@dataclasses.dataclass(frozen=True)
class Logistic:
    """What logistic regression found.

    Attributes:
        top1: On the test images, in percent.
        strength: The ``C`` that was chosen, one of :data:`STRENGTHS`.
        converged: Whether the fit that was scored came to its end.
    """

    top1: float
    strength: float
    converged: bool

    @property
    def at_edge(self) -> bool:
        """Whether the largest or smallest ``C`` was chosen, so that another may be better."""
        return self.strength in (STRENGTHS[0], STRENGTHS[-1])


def logistic_probe(given: Embeddings) -> Logistic:
    """Returns what multinomial logistic regression finds.

    Features are brought to mean 0 and deviation 1. ``C`` is the one that is best on a tenth of the
    training images, alike in every class, and the smallest of equally good ones; each starts from
    what the one before found. All training images then train the classifier that is scored, anew.

    Args:
        given: Features and labels.
    """
    from sklearn.linear_model import LogisticRegression  # costs half a second, wanted here only
    from sklearn.preprocessing import StandardScaler

    count = max(1, round(_HELD_OUT * len(given.train)))
    kept, apart = stratified(given.train_labels, count)
    scaler = StandardScaler().fit(given.train[kept])
    seen, unseen = (scaler.transform(given.train[rows]) for rows in (kept, apart))
    regression = LogisticRegression(max_iter=_ITERATIONS, warm_start=True)
    scores = [
        regression.set_params(C=strength)
        .fit(seen, given.train_labels[kept])
        .score(unseen, given.train_labels[apart])
        for strength in STRENGTHS
    ]
    strength = STRENGTHS[int(np.argmax(scores))]
    scaler = StandardScaler().fit(given.train)
    best = LogisticRegression(C=strength, max_iter=_ITERATIONS)
    best.fit(scaler.transform(given.train), given.train_labels)
    top1 = 100.0 * float(best.score(scaler.transform(given.test), given.test_labels))
    return Logistic(top1, strength, bool(np.max(best.n_iter_) < _ITERATIONS))
