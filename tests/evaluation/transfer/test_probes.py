"""Linear layer, nearest neighbors, logistic regression: against other ways to their numbers."""

import dataclasses

import keras
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from tfkd import TfkdError
from tfkd.evaluation.transfer import (
    Embeddings,
    linear,
    linear_probe,
    logistic_probe,
    neighbor_probe,
)
from tfkd.training import optimizers

CLASSES = 4


def blobs(train=150, test=80, spread=1.0, seed=0):
    """Clouds around a point for each class."""
    draw = np.random.default_rng(seed)
    centers = draw.normal(size=(CLASSES, 6))

    def part(count):
        labels = (np.arange(count) % CLASSES).astype(np.int32)
        points = centers[labels] + spread * draw.normal(size=(count, 6))
        return points.astype(np.float32), labels

    return Embeddings(*part(train), *part(test), tuple("abcd"))


def test_linear_layer_takes_the_steps_of_the_published_recipe(monkeypatch):
    monkeypatch.setattr(linear, "MILESTONES", (1,))
    given, epochs = blobs(), 3
    draw = np.random.default_rng(5)
    layer = keras.layers.Dense(CLASSES)
    layer.build((None, 6))
    layer.set_weights([draw.normal(0.0, 0.01, (6, CLASSES)), np.zeros(CLASSES)])
    model = keras.Sequential([keras.Input((6,)), layer])
    optimizer = optimizers.SGD(0.05, momentum=0.9, weight_decay=5e-4)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, run_eagerly=True)
    for epoch in range(epochs):
        optimizer.learning_rate = 0.05 if epoch < 1 else 0.005
        order = draw.permutation(len(given.train))
        for start in range(0, len(order), 64):
            rows = order[start : start + 64]
            model.train_on_batch(given.train[rows], given.train_labels[rows])
    found = linear.trained_layer(given.train, given.train_labels, CLASSES, 5, epochs)
    for values, wanted in zip(found, layer.get_weights()):
        np.testing.assert_allclose(values, wanted, rtol=1e-4, atol=1e-6)


def test_recipe_is_the_published_one():
    assert (linear.EPOCHS, linear.BATCH_SIZE, linear.MILESTONES) == (120, 64, (30, 60, 90))
    rates = (linear.LEARNING_RATE, linear.DECAY_FACTOR, linear.MOMENTUM, linear.WEIGHT_DECAY)
    assert rates == (0.05, 0.1, 0.9, 5e-4)


def test_neighbors_vote():
    given = blobs()
    cosines = given.test @ given.train.T
    cosines /= np.linalg.norm(given.test, axis=1)[:, None] * np.linalg.norm(given.train, axis=1)
    found = neighbor_probe(given, (1, 20))
    for count, score in found.items():
        near = np.argsort(-cosines, axis=1)[:, :count]
        votes = [np.bincount(given.train_labels[each]).argmax() for each in near]
        assert score == pytest.approx(100 * np.mean(votes == given.test_labels))
    with pytest.raises(TfkdError, match="found 12 training images, wanted 20 or more"):
        neighbor_probe(blobs(train=12))


def test_logistic_regression_is_the_one_whose_strength_was_chosen():
    given = blobs(spread=1.5, seed=5)
    found = logistic_probe(given)
    score, strength = found.top1, found.strength
    mean, deviation = given.train.mean(axis=0), given.train.std(axis=0)
    regression = LogisticRegression(C=strength, max_iter=1000)
    regression.fit((given.train - mean) / deviation, given.train_labels)
    wanted = regression.score((given.test - mean) / deviation, given.test_labels)
    assert score == pytest.approx(100 * wanted) and 30 < score < 100
    assert found.converged and not found.at_edge
    # The test images have no part in the choice: neither seen ones, nor labels that are all wrong.
    for features, labels in (
        (given.train, given.train_labels),
        (given.train, (given.train_labels + 1) % CLASSES),
    ):
        other = dataclasses.replace(given, test=features, test_labels=labels)
        assert logistic_probe(other).strength == strength


def test_what_is_easy_is_found_by_every_probe_and_the_strongest_regularization_will_do():
    given = blobs(spread=0.01)
    assert linear_probe(given) == 100.0
    assert neighbor_probe(given) == {1: 100.0, 20: 100.0}
    found = logistic_probe(given)
    assert (found.top1, found.strength, found.at_edge) == (100.0, 0.001, True)
