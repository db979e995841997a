"""Adder networks as students: replicas, clipping, precision, and a warning of dead ones."""

import keras
import numpy as np
import pytest

import tfkd
from tfkd.adder import AdderConv2D
from tfkd.distillers import KD


def adder_student(normalized=True):
    image = keras.Input((8, 8, 3), name="image")
    features = AdderConv2D(4, 3, strides=2, name="adder")(image)
    if normalized:
        features = tfkd.models.BatchNormalization()(features)
    features = keras.layers.GlobalAveragePooling2D()(keras.layers.ReLU()(features))
    return keras.Model(image, keras.layers.Dense(4)(features), name="student")


def test_two_replicas_are_as_one_and_clipping_leaves_the_kernel_out(
    distiller_on, network, images, labels
):
    weights = []
    for replicas in (1, 2):
        distiller = distiller_on(
            replicas,
            lambda: network(8, name="teacher"),
            adder_student,
            lambda: KD(2.0),
            optimizer=lambda: keras.optimizers.SGD(0.5, global_clipnorm=0.01),
        )
        before = distiller.student.get_weights()
        distiller.fit(images, labels, batch_size=16, epochs=1, shuffle=False, verbose=0)
        weights.append(distiller.student.get_weights())
    for one, two in zip(*weights, strict=True):
        # Far from the moving mean of 0, which sums over replicas are centered on in the first step,
        # the variance of adder outputs loses digits.
        np.testing.assert_allclose(two, one, rtol=1e-4, atol=1e-5)
    kernel, *others = (after - then for after, then in zip(weights[0], before, strict=True))
    assert np.sqrt(np.mean(kernel**2)) == pytest.approx(0.5 * 0.2, rel=1e-4)
    trained = [each for each, v in zip(others, distiller.student.weights[1:]) if v.trainable]
    assert np.sqrt(sum(np.sum(each**2) for each in trained)) == pytest.approx(0.005, rel=1e-3)


def test_a_student_without_normalization_is_warned_of():
    with pytest.warns(tfkd.TfkdWarning, match="found no normalization after adder layers adder"):
        tfkd.Distiller(None, adder_student(normalized=False))


def test_loss_scaling_is_refused():
    distiller = tfkd.Distiller(None, adder_student())
    scaling = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1))
    with pytest.raises(tfkd.TfkdError, match="for adder layers: found loss scaling"):
        distiller.compile(scaling)
