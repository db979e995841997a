"""Nearest neighbors: what the features tell without any training."""

from __future__ import annotations

import numpy as np

from tfkd.errors import TfkdError
from tfkd.evaluation.transfer.embedding import Embeddings

NEIGHBORS = (1, 20)


def check_images(images: int, counts: tuple[int, ...] = NEIGHBORS) -> None:
    """Raises TfkdError when there are fewer training images than neighbors are asked for."""
    if images < max(counts):
        raise TfkdError(
            f"nearest neighbors: found {images} training images, wanted {max(counts)} or more"
        )


def neighbor_probe(given: Embeddings, counts: tuple[int, ...] = NEIGHBORS) -> dict[int, float]:
    """Returns top-1 on the test images by the majority of the nearest training images, in percent.

    Near are those of the largest cosine, each with one vote; of classes with equally many votes the
    first wins.

    Args:
        given: Features and labels.
        counts: Numbers of neighbors.

    Returns:
        Top-1 by the number of neighbors.

    Raises:
        TfkdError: As :func:`check_images`.
    """
    from sklearn.neighbors import NearestNeighbors  # costs half a second, wanted here only

    most = max(counts)
    check_images(len(given.train), counts)
    index = NearestNeighbors(n_neighbors=most, metric="cosine", algorithm="brute").fit(given.train)
    near = given.train_labels[index.kneighbors(given.test, return_distance=False)]
    classes = np.arange(len(given.class_names))
    found = {}
    for count in counts:
        votes = (near[:, :count, None] == classes).sum(axis=1)
        found[count] = 100.0 * float(np.mean(votes.argmax(axis=1) == given.test_labels))
    return found
