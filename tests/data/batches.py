"""Helpers of the tests of batches."""

import numpy as np


def images_and_labels(dataset):
    """Returns all images and labels of batches in order, without the rows that fill up the last."""
    batches = list(dataset.as_numpy_iterator())
    weight = np.concatenate([batch["sample_weight"] for batch in batches]) > 0
    return tuple(
        np.concatenate([batch[key] for batch in batches])[weight] for key in ("image", "label")
    )
