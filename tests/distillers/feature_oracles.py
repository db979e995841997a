"""The numbers of the feature methods, computed apart from tfkd in float64."""

from __future__ import annotations

import json
from pathlib import Path

import keras
import numpy as np

_FILE = json.loads((Path(__file__).parents[1] / "fixtures" / "oracles_features.json").read_text())
TOLERANCE = {"rtol": 1e-4, "atol": 1e-4}
"""Of float32 results; the numbers are rounded to six places."""


def case(method: str, name: str) -> tuple[dict, dict]:
    """Returns inputs and expected values of a case."""
    found = _FILE[method][name]
    return found["inputs"], found["expected"]


def array(values, dtype: str = "float32") -> np.ndarray:
    """Returns nested lists as an array."""
    return np.asarray(values, dtype)


def set_normalization(layer: keras.layers.BatchNormalization, values: dict) -> None:
    """Sets scale, shift and moving statistics to those of a case."""
    assert layer.epsilon == values["eps"]
    for variable, name in (
        (layer.gamma, "gamma"),
        (layer.beta, "beta"),
        (layer.moving_mean, "mean"),
        (layer.moving_variance, "var"),
    ):
        variable.assign(values[name])
