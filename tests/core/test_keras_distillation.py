"""Losses of keras.distillation inside the distiller, against Keras' own formulas."""

import warnings

import keras
import numpy as np
import pytest

import tfkd
from tfkd.distillers import KD

Logits, Feature = keras.distillation.LogitsDistillation, keras.distillation.FeatureDistillation


def evaluate(distiller, *data, **settings):
    distiller.compile(keras.optimizers.SGD(0.1))
    return distiller.evaluate(*data, verbose=0, return_dict=True, **settings)


def test_logits_distillation_is_keras_formula_and_kd(network, images, labels):
    teacher, student = network(name="teacher"), network()
    loss = Logits(temperature=3.0, loss=keras.losses.KLDivergence())
    found = evaluate(tfkd.Distiller(teacher, student, [loss, KD(3.0)]), images, labels)
    expected = float(loss.compute_loss(teacher(images), student(images)))
    np.testing.assert_allclose(found["logits_distillation"], expected, rtol=1e-5)
    np.testing.assert_allclose(found["kd"], expected, rtol=1e-4)


def test_weights_of_a_keras_call_carry_over(network, images, labels):
    teacher, student = network(name="teacher"), network()
    losses = [Logits(loss=keras.losses.KLDivergence()), Feature("mse", "stage1", "stage1")]
    ours = tfkd.Distiller(teacher, student, losses, [0.7 * 1.0, 0.7 * 3.0], 0.3)
    found = evaluate(ours, images, labels)
    hint = float(
        losses[1].compute_loss(
            *(
                tfkd.models.tapped(model, ["stage1"])(images)["stage1"]
                for model in (teacher, student)
            )
        )
    )
    np.testing.assert_allclose(found["feature_distillation"], 0.7 * 3.0 * hint, rtol=1e-4)
    theirs = keras.distillation.Distiller(teacher, student, losses[:1], [1.0], 0.3)
    theirs.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    expected = theirs.test_on_batch(images, labels, return_dict=True)
    np.testing.assert_allclose(found["student_loss"], expected["student_loss"], rtol=1e-5)
    np.testing.assert_allclose(
        found["total_loss"], expected["total_loss"] + 0.7 * 3.0 * hint, rtol=1e-5
    )


def test_feature_distillation_moves_statistics_once(network, images, labels):
    student, twin = network(), network()
    twin.set_weights(student.get_weights())
    loss = Feature("mse", "stage1", "stage1")
    distiller = tfkd.Distiller(network(name="teacher"), student, loss)
    distiller.compile(keras.optimizers.SGD(0.1))
    distiller.train_on_batch(images, labels)
    twin(images, training=True)
    norm, expected = student.get_layer("bn"), twin.get_layer("bn")
    np.testing.assert_allclose(norm.moving_variance, expected.moving_variance, rtol=1e-6)
    np.testing.assert_allclose(norm.moving_mean, expected.moving_mean, atol=1e-7)


def test_sample_weights_count(network, images, labels):
    teacher, student = network(name="teacher"), network()
    weights = np.linspace(0, 2, 16).astype("float32")
    loss = Logits(loss=keras.losses.KLDivergence())
    each = [
        float(loss.compute_loss(teacher(images[i : i + 1]), student(images[i : i + 1])))
        for i in range(16)
    ]
    distiller = tfkd.Distiller(teacher, student, loss)
    found = evaluate(distiller, images, labels, sample_weight=weights)
    np.testing.assert_allclose(found["logits_distillation"], np.dot(each, weights) / 16, rtol=1e-4)


def test_dense_labels_are_welcome(network, images, labels):
    distiller = tfkd.Distiller(
        network(name="teacher"), network(), Logits(loss=keras.losses.KLDivergence())
    )
    found = evaluate(distiller, images, np.eye(4, dtype="float32")[labels])
    assert found["student_loss"] > 0


def test_loss_by_name_warns(network):
    with pytest.warns(tfkd.TfkdWarning, match="compares raw logits .*use tfkd.distillers.KD"):
        tfkd.Distiller(network(name="teacher"), network(), Logits(loss="kl_divergence"))
    with warnings.catch_warnings():
        warnings.simplefilter("error", tfkd.TfkdWarning)
        tfkd.Distiller(
            network(name="teacher"),
            network(),
            [Logits(loss=keras.losses.KLDivergence()), Feature()],
        )


def test_loss_of_the_users_own_class(network, images, labels):
    class Absolute(keras.distillation.DistillationLoss):
        def compute_loss(self, teacher_outputs, student_outputs, **kwargs):
            return keras.ops.mean(keras.ops.abs(teacher_outputs - student_outputs))

    teacher, student = network(name="teacher"), network()
    found = evaluate(tfkd.Distiller(teacher, student, Absolute()), images, labels)
    expected = np.mean(np.abs(teacher(images).numpy() - student(images).numpy()))
    np.testing.assert_allclose(found["absolute"], expected, rtol=1e-4)


def test_two_losses_of_one_class_need_names(network):
    losses = [Feature("mse", "stage1", "stage1"), Feature("mse", "pre_pool", "pre_pool")]
    with pytest.raises(tfkd.TfkdError, match="named alike: feature_distillation"):
        tfkd.Distiller(network(name="teacher"), network(), losses)
