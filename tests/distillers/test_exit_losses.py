"""The losses of exits and of their pairs against numbers computed apart."""

import numpy as np
import pytest
import tensorflow as tf

from tests.distillers import runs
from tests.distillers.exits import CE, EXITS, KD, LABELS, tensors
from tfkd import Distiller, distillers
from tfkd.distillers.shared import exit_losses
from tfkd.errors import TfkdError

# Each exit's logits move by so much of (1, 0, -1), for both samples.
STEPS = (1.0, 0.5, 2.0)
SLOPES = (-0.2123948, -0.1162930, -0.1825582, -0.0171755, -0.1607369, -0.0717807)


@pytest.mark.parametrize("labels", [LABELS, np.eye(3)[LABELS]])
def test_losses_and_their_slopes_in_order(labels):
    logits = list(tensors().values())
    with tf.GradientTape() as tape:
        tape.watch(logits)
        found = tf.reduce_mean(exit_losses.exit_losses(labels, logits, 2.0), axis=1)
    np.testing.assert_allclose(found, [*CE, *KD], atol=5e-8)
    slopes = tape.jacobian(found, logits)
    moved = [
        tf.reduce_sum(slope * step * tf.constant([1.0, 0.0, -1.0], tf.float64), axis=(1, 2))
        for slope, step in zip(slopes, STEPS)
    ]
    np.testing.assert_allclose(tf.add_n(moved), SLOPES, atol=1e-7)
    # The deeper exit of a pair takes no gradient.
    np.testing.assert_array_equal(slopes[2][3:], np.zeros((3, 2, 3)))
    of_the_deepest = tf.gather(exit_losses.pair_losses(logits, 2.0), [1, 2])
    np.testing.assert_allclose(exit_losses.deepest_losses(logits, 2.0), of_the_deepest)


def test_names_are_in_the_order_of_the_losses():
    assert exit_losses.loss_names(EXITS) == (
        *("exit1_ce", "exit2_ce", "logits_ce"),
        *("exit1_from_exit2", "exit1_from_logits", "exit2_from_logits"),
    )
    assert exit_losses.pairs(4) == ((0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3))


@pytest.mark.parametrize("name", ["deep_supervision", "dbt", "dense_kd", "imta"])
def test_a_student_with_one_exit_is_refused(name):
    message = f"^{name}: found one exit in network 'student', wanted two or more, as an msdnet has"
    with pytest.raises(TfkdError, match=message):
        Distiller(None, runs.network("student"), distillers.create(name))
