"""Logistic regression on frozen features, whose regularization is chosen for them."""

from __future__ import annotations

import numpy as np

from tfkd.data.holdout import stratified
from tfkd.evaluation.transfer.embedding import Embeddings

STRENGTHS = (0.001, 0.01, 0.1, 1.0, 10.0)
"""Values of scikit-learn's ``C``, the inverse of the regularization, that are tried."""

_HELD_OUT = 0.1
_ITERATIONS = 1000


def logistic_probe(given: Embeddings) -> tuple[float, float]:
    """Returns top-1 of multinomial logistic regression on the test images, in percent, and ``C``.

    Features are brought to mean 0 and deviation 1. ``C`` is the one that is best on a tenth of the
    training images, alike in every class, and the smallest of equally good ones; all of them then
    train the classifier that is scored.

    Args:
        given: Features and labels.
    """
    from sklearn.linear_model import LogisticRegression  # costs half a second, wanted here only
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    def fitted(strength: float, rows: np.ndarray):
        regression = LogisticRegression(C=strength, max_iter=_ITERATIONS)
        made = make_pipeline(StandardScaler(), regression)
        return made.fit(given.train[rows], given.train_labels[rows])

    count = max(1, round(_HELD_OUT * len(given.train)))
    kept, apart = stratified(given.train_labels, count)
    scores = [
        fitted(strength, kept).score(given.train[apart], given.train_labels[apart])
        for strength in STRENGTHS
    ]
    strength = STRENGTHS[int(np.argmax(scores))]
    best = fitted(strength, np.arange(len(given.train)))
    return 100.0 * float(best.score(given.test, given.test_labels)), strength
