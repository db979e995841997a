"""The published numbers of the logit methods, and how a method is compared with them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import tensorflow as tf

FILE = json.loads((Path(__file__).parents[1] / "fixtures" / "oracles_logits.json").read_text())
TOLERANCES = {"float64": {"rtol": 0, "atol": 1e-9}, "float32": {"rtol": 1e-5, "atol": 1e-5}}
NUM_CLASSES = 4


def inputs(case: str, dtype="float64") -> dict[str, tf.Tensor]:
    """The logits of a case by name, and its labels."""
    values = {name: np.asarray(value) for name, value in FILE["cases"][case].items()}
    return {
        name: tf.constant(value, "int32" if name == "labels" else dtype)
        for name, value in values.items()
    }


def checks(method: str, **params) -> list[dict]:
    """The published checks of a method whose parameters include the given ones."""
    found = [
        each
        for each in FILE["methods"][method]["checks"]
        if all(each["params"][name] == value for name, value in params.items())
    ]
    assert found
    return found


def label(check: dict) -> str:
    """A short name of a check for pytest."""
    return "-".join([check["case"], *(str(value) for value in check["params"].values())])


def verify(check: dict, compute, dtype: str) -> None:
    """Compares all values and gradients of a check.

    Args:
        check: One of :func:`checks`.
        compute: ``compute(inputs, params)`` returns the numbers by the file's names, ``total``
            among them.
        dtype: ``float64`` or ``float32``.
    """
    given = inputs(check["case"], dtype)
    wanted = [name for name in check if name.startswith("grad_")]
    assert wanted and "total" in check["expected"]
    sources = [given[name.removeprefix("grad_")] for name in wanted]
    with tf.GradientTape() as tape:
        tape.watch(sources)
        found = compute(given, check["params"])
    assert set(found) == set(check["expected"])
    for name, value in check["expected"].items():
        np.testing.assert_allclose(found[name], value, **TOLERANCES[dtype], err_msg=name)
    for name, gradient in zip(wanted, tape.gradient(found["total"], sources), strict=True):
        np.testing.assert_allclose(gradient, check[name], **TOLERANCES[dtype], err_msg=name)


def gradients(function, *tensors) -> list[tf.Tensor | None]:
    """The gradients of the sum of a function to each of its arguments."""
    tensors = [tf.convert_to_tensor(each) for each in tensors]
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        value = tf.reduce_sum(function(*tensors))
    return tape.gradient(value, tensors)


def random_logits(rows: int = 6, classes: int = 5, scale: float = 2.0, seed: int = 0) -> tf.Tensor:
    """Logits in float64."""
    return tf.constant(np.random.default_rng(seed).normal(0, scale, (rows, classes)))


def extreme_logits(dtype: str, seed: int = 0) -> tf.Tensor:
    """Logits of +-1e4, with rows that are all equal and rows that name one class."""
    values = np.random.default_rng(seed).choice([-1e4, 1e4], (8, 5))
    values[0], values[1], values[2], values[3] = 1e4, -1e4, 0.0, [1e4, -1e4, -1e4, -1e4, -1e4]
    return tf.constant(values, dtype)
