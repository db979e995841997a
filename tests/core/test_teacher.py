"""The teacher: a frozen, folded copy beside the user's own model, which stays as it is."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfkd
from tfkd.core.frozen_copy import folding_error
from tfkd.distillers import KD

FIT = {"batch_size": 8, "shuffle": False, "verbose": 0}


def trained_statistics(model, images):
    """Gives batch normalization statistics that are not those it starts with."""
    for _ in range(3):
        model(images * 2 + 1, training=True)
    return model


def count(model, kind):
    return sum(isinstance(layer, kind) for layer in model._flatten_layers())


def test_the_users_teacher_is_not_changed(network, images, labels, values_of):
    teacher = trained_statistics(network(8, name="teacher", dropout=0.5), images)
    teacher.get_layer("stage2").trainable = False
    before = values_of(teacher.variables)
    flags = [(layer.name, layer.trainable) for layer in teacher._flatten_layers()]
    student = network()
    distiller = tfkd.Distiller(teacher, student, KD())
    distiller.compile(keras.optimizers.SGD(0.1))
    distiller.fit(images, labels, validation_data=(images, labels), **FIT)
    for now, then in zip(teacher.variables, before):
        np.testing.assert_array_equal(now, then)
    assert [(layer.name, layer.trainable) for layer in teacher._flatten_layers()] == flags
    assert student.trainable
    own = {id(variable) for variable in teacher.variables}
    assert not own.intersection(id(variable) for variable in distiller.state().values())


def test_frozen_copy_is_folded_and_equal(images):
    teacher = trained_statistics(tfkd.models.create("resnet8", 4, (8, 8, 3)), images)
    student = tfkd.models.create("resnet8", 4, (8, 8, 3))
    (frozen,) = tfkd.Distiller(teacher, student, KD()).teachers
    assert count(teacher, keras.layers.BatchNormalization) > 0
    assert count(frozen, keras.layers.BatchNormalization) == 0
    assert not frozen.trainable_variables
    assert folding_error(teacher, frozen) <= 1e-5
    np.testing.assert_allclose(frozen(images), teacher(images), atol=1e-4)


def test_folded_and_unfolded_teach_alike(network, images, labels):
    teacher = trained_statistics(network(6, name="teacher"), images)
    initial, found = network().get_weights(), []
    for fold in (True, False):
        student = network()
        student.set_weights(initial)
        distiller = tfkd.Distiller(teacher, student, KD(2.0), 10, fold_teacher=fold)
        distiller.compile(keras.optimizers.SGD(0.1))
        distiller.fit(images, labels, **FIT)
        found.append(student.get_weights())
        assert (distiller.teachers[0] is teacher) is not fold
    for folded, unfolded in zip(*found):
        np.testing.assert_allclose(folded, unfolded, atol=1e-5)


def test_taps_of_a_folded_teacher_are_those_of_the_original(network, images, labels):
    teacher = trained_statistics(network(4, name="teacher"), images)
    student = network()

    class Hint(tfkd.Objective):
        requires = tfkd.Requires(
            taps={("student", "main"): ["conv"], ("teacher", "main"): ["conv", "bn"]}
        )
        terms = ("conv", "bn")

        def compute(self, context):
            return {
                tap: context.mean(tf.square(context.teacher(tap) - context.student("conv")))
                for tap in ("conv", "bn")
            }

    distiller = tfkd.Distiller(teacher, student, Hint())
    distiller.compile()
    found = distiller.evaluate(images, labels, verbose=0, return_dict=True)
    wanted = tfkd.models.tapped(teacher, ["conv", "bn"])(images)
    own = tfkd.models.tapped(student, ["conv"])(images)["conv"]
    for tap in ("conv", "bn"):
        expected = np.mean((wanted[tap] - own).numpy() ** 2)
        np.testing.assert_allclose(found[f"hint/{tap}"], expected, rtol=1e-4)


def test_teacher_in_bfloat16(network, images, labels):
    teacher = trained_statistics(network(6, name="teacher"), images)
    student = network()
    results = []
    for dtype in (None, "bfloat16"):
        distiller = tfkd.Distiller(teacher, student, KD(2.0), teacher_dtype=dtype)
        distiller.compile()
        results.append(distiller.evaluate(images, labels, verbose=0, return_dict=True))
    (frozen,) = distiller.teachers
    assert frozen.get_layer("conv").compute_dtype == "bfloat16"
    assert frozen(images).dtype == tf.float32
    assert 0 < abs(results[0]["kd"] - results[1]["kd"]) < 0.05 * results[0]["kd"] + 1e-3
    assert results[0]["student_loss"] == results[1]["student_loss"]


def test_teacher_in_half_precision_is_folded_too(network, images):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        teacher = trained_statistics(network(6, name="teacher"), images)
    finally:
        keras.config.set_dtype_policy("float32")
    with warnings.catch_warnings():
        warnings.simplefilter("error", tfkd.TfkdWarning)
        distiller = tfkd.Distiller(teacher, network(), KD())
    assert count(distiller.teachers[0], keras.layers.BatchNormalization) == 0


class Scale(keras.layers.Layer):
    """A layer that no copy can be made of, because its settings are not in its config."""

    def __init__(self, factor, **kwargs):
        super().__init__(**kwargs)
        self.factor = factor

    def call(self, inputs):
        return self.factor * inputs

    def get_config(self):
        return super().get_config()


def test_teacher_that_cannot_be_copied_runs_as_it_is(network, images, labels):
    inputs = keras.Input((8, 8, 3))
    teacher = keras.Model(inputs, network(name="inner")(Scale(2.0)(inputs)), name="special")
    student = network()
    with pytest.warns(tfkd.TfkdWarning, match="teacher 'special' runs as it is, without folding"):
        distiller = tfkd.Distiller(teacher, student, KD(2.0))
    assert distiller.teachers == [teacher]
    distiller.compile(keras.optimizers.SGD(0.1))
    before = teacher.get_weights()
    distiller.fit(images, labels, **FIT)
    for now, then in zip(teacher.get_weights(), before):
        np.testing.assert_array_equal(now, then)


def test_precision_that_cannot_be_given_is_said(network, images):
    class Own(keras.Model):
        def __init__(self):
            super().__init__(name="own")
            self.inner = network(name="inner")

        def call(self, inputs, training=None):
            return self.inner(inputs, training=training)

    teacher = Own()
    teacher(images)
    with pytest.warns(tfkd.TfkdWarning, match="'own' runs in its own precision, not bfloat16"):
        tfkd.Distiller(teacher, network(), KD(), teacher_dtype="bfloat16")


def test_evaluation_changes_nothing(network, images, labels, values_of):
    class Connected(tfkd.Objective):
        """A connector with batch normalization, which evaluation also runs."""

        requires = tfkd.Requires(
            taps={("student", "main"): ["pooled"], ("teacher", "main"): ["pooled"]}
        )

        def setup(self, spec):
            wide = spec.shapes[("teacher", "main")]["pooled"][-1]
            self.connect = keras.Sequential(
                [keras.layers.Dense(wide), keras.layers.BatchNormalization()]
            )
            self.connect.build(spec.shapes[("student", "main")]["pooled"])

        def compute(self, context):
            found = self.connect(context.student("pooled"), training=context.training)
            return context.mean(tf.square(found - context.teacher("pooled")))

    teacher, student = network(8, name="teacher"), network(dropout=0.5)
    distiller = tfkd.Distiller(teacher, student, [KD(), Connected()])
    distiller.compile(keras.optimizers.SGD(0.1, momentum=0.9))
    distiller.fit(images, labels, **FIT)
    watched = {
        name: variable
        for name, variable in distiller.state().items()
        if not name.startswith("metrics")
    }
    watched |= {f"frozen/{i}": each for i, each in enumerate(distiller.teachers[0].variables)}
    before = values_of(watched.values())
    first = distiller.evaluate(images, labels, verbose=0, return_dict=True)
    second = distiller.evaluate(images, labels, verbose=0, return_dict=True)
    assert first == second
    for (name, variable), then in zip(watched.items(), before):
        np.testing.assert_array_equal(variable, then, err_msg=name)


def test_evaluation_without_the_teacher(network, images, labels):
    student = network()
    full = tfkd.Distiller(network(name="teacher"), student, KD(), 2, 0.5)
    full.compile()
    lean = tfkd.Distiller(
        network(name="teacher"), student, KD(), 2, 0.5, evaluate_distillation=False
    )
    lean.compile()
    expected = full.evaluate(images, labels, verbose=0, return_dict=True)
    found = lean.evaluate(images, labels, verbose=0, return_dict=True)
    assert set(found) == {"student_loss", "accuracy"}
    np.testing.assert_allclose(found["student_loss"], expected["student_loss"], rtol=1e-6)
    assert found["accuracy"] == expected["accuracy"]
