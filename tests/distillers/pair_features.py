"""Features of the networks that papers compare, by their published shapes, without the networks."""

from __future__ import annotations

import json
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from configs.cifar100 import PAIRS
from tests.distillers.contexts import Shapes, context_of, spec_of
from tfkd import models
from tfkd.core import Objective

FIXTURES = Path(__file__).parents[1] / "fixtures"
ORACLES = json.loads((FIXTURES / "oracles_features.json").read_text())
NETWORKS = json.loads((FIXTURES / "networks.json").read_text())["networks"]
ROWS = 2


def shapes_of(network: str) -> dict[str, tuple[int | None, ...]]:
    """The shape of each tap of a network for images of 32x32, batch axis first."""
    *maps, pooled = NETWORKS[network]["taps"]
    named = {f"stage{number}" if number else "stem": each for number, each in enumerate(maps)}
    return {name: (None, *each) for name, each in {**named, "pooled": pooled}.items()}


def network_with(*taps: str) -> models.Network:
    """A network whose layers bear these names, and little else."""
    hidden = image = keras.Input((4, 4, 2), name="image")
    for tap in taps:
        hidden = keras.layers.Conv2D(2, 1, name=tap)(hidden)
    pooled = keras.layers.GlobalAveragePooling2D(name="pooled")(hidden)
    return models.Network(keras.Model(image, keras.layers.Dense(5, name="logits")(pooled)))


def set_up(objective: Objective, student: Shapes, teacher: Shapes) -> Objective:
    """The objective, with what it makes of features of these shapes."""
    networks = [network_with(*(each for each in shapes if each != "pooled"))
                for shapes in (student, teacher)]  # fmt: skip
    objective.choose_taps(networks[0], networks[1:])
    objective.setup(spec_of(student, teacher))
    return objective


def random_features(shapes: Shapes, seed: int, dtype: str = "float32") -> dict[str, tf.Tensor]:
    """A value for each tap."""
    draw = np.random.default_rng(seed)
    return {
        name: tf.constant(draw.normal(size=(ROWS, *shape[1:])), dtype)
        for name, shape in shapes.items()
    }


def check_every_pair(make) -> None:
    """Checks on the features of all pairs that a loss is finite and moves what it should.

    Args:
        make: Makes the objective.
    """
    assert len(PAIRS) == 13
    for names in PAIRS:
        teacher, student = map(shapes_of, names)
        objective = set_up(make(), student, teacher)
        own, theirs = random_features(student, 1), random_features(teacher, 2)
        read = objective.requires.taps["student", "main"]
        with tf.GradientTape() as tape:
            tape.watch([own[tap] for tap in read])
            context = context_of({"student": own, "teacher": theirs}, np.arange(ROWS))
            [loss] = objective.to_terms(objective.compute(context)).losses.values()
        assert np.isfinite(loss) and loss.shape == (), names
        sources = [*(own[tap] for tap in read), *objective.trainable_variables]
        for gradient in tape.gradient(loss, sources):
            assert np.all(np.isfinite(gradient)) and np.any(gradient != 0), names
