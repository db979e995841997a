"""The published linear probe: a new linear layer on frozen features.

Yonglong Tian, Dilip Krishnan and Phillip Isola, "Contrastive Representation Distillation", ICLR
2020, section 4.2, and the recipe of public code for it: 120 epochs, batches of 64, SGD with
momentum 0.9 and weight decay 5e-4, learning rate 0.05, x0.1 after epochs 30, 60 and 90; weights
start normally with deviation 0.01, biases at 0. Scored after the last epoch.

Departure: that code crops and mirrors the images anew in each epoch, and runs the frozen network
every time; here the features are those of the un-augmented images, which are formed once.
"""

from __future__ import annotations

import numpy as np

from tfkd.evaluation.transfer.embedding import Embeddings

EPOCHS, BATCH_SIZE, MILESTONES = 120, 64, (30, 60, 90)
LEARNING_RATE, DECAY_FACTOR = 0.05, 0.1
MOMENTUM, WEIGHT_DECAY = 0.9, 5e-4
_DEVIATION = 0.01


def linear_probe(given: Embeddings, seed: int = 0) -> float:
    """Returns top-1 of a linear layer on the test images, in percent.

    Args:
        given: Features and labels.
        seed: Seed of first weights and order.
    """
    kernel, bias = trained_layer(given.train, given.train_labels, len(given.class_names), seed)
    found = np.argmax(given.test @ kernel + bias, axis=1)
    return 100.0 * float(np.mean(found == given.test_labels))


def trained_layer(
    features: np.ndarray, labels: np.ndarray, classes: int, seed: int = 0, epochs: int = EPOCHS
) -> tuple[np.ndarray, np.ndarray]:
    """Returns kernel ``(width, classes)`` and bias ``(classes,)`` of a trained linear layer.

    Args:
        features: Shape ``(images, width)``.
        labels: Numbers of classes, ``(images,)``.
        classes: How many there are.
        seed: Seed of first weights and order.
        epochs: Passes over the images.
    """
    draw = np.random.default_rng(seed)
    width = features.shape[1]
    # The bias is the weight of a feature that is always 1.
    images = np.column_stack([features, np.ones(len(features))]).astype(np.float32)
    weights = np.zeros((width + 1, classes), np.float32)
    weights[:width] = draw.normal(0.0, _DEVIATION, (width, classes))
    velocity = np.zeros_like(weights)
    wanted = np.eye(classes, dtype=np.float32)[labels]
    for epoch in range(epochs):
        rate = LEARNING_RATE * DECAY_FACTOR ** sum(epoch >= each for each in MILESTONES)
        order = draw.permutation(len(images))
        for start in range(0, len(order), BATCH_SIZE):
            rows = order[start : start + BATCH_SIZE]
            batch = images[rows]
            logits = batch @ weights
            powers = np.exp(logits - logits.max(axis=1, keepdims=True))
            errors = powers / powers.sum(axis=1, keepdims=True) - wanted[rows]
            velocity *= MOMENTUM
            velocity += batch.T @ errors / len(rows) + WEIGHT_DECAY * weights
            weights -= np.float32(rate) * velocity
    return weights[:width], weights[width]
