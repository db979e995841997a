"""Frozen copies of teachers run with their weights as constants of the traced graph."""

import keras
import numpy as np
import tensorflow as tf

import tfkd
from tfkd.core.step import constant_weights, views
from tfkd.distillers import KD

FIT = {"batch_size": 8, "shuffle": False, "verbose": 0}


def traced(model, images):
    call = tf.function(lambda images: constant_weights.call_with_constants(model, images))
    return call.get_concrete_function(tf.TensorSpec((None, *images.shape[1:])))


def test_no_variable_is_read(network, images):
    model = network(6)
    model(images * 2 + 1, training=True)
    function = traced(model, images)
    assert not function.captured_inputs
    wanted = model(images, training=False)
    np.testing.assert_allclose(function(tf.constant(images)), wanted, rtol=1e-5, atol=1e-6)


def test_taps_are_read_alike(network, images):
    model = tfkd.models.tapped(network(6), ["conv", "logits"])
    found, wanted = traced(model, images)(tf.constant(images)), model(images, training=False)
    assert set(found) == {"conv", "logits"}
    for tap, value in wanted.items():
        np.testing.assert_allclose(found[tap], value, rtol=1e-5, atol=1e-6)


def test_copies_become_constants_while_there_is_room(network, monkeypatch):
    teachers = [network(width, name=f"teacher{width}") for width in (6, 7, 5)]
    sizes = [constant_weights.size_as_constants(teacher) for teacher in teachers]
    assert sizes == [sum(each.numpy().nbytes for each in net.weights) for net in teachers]

    def chosen(most):
        monkeypatch.setattr(views, "MOST_BYTES", most)
        distiller = tfkd.Distiller(teachers, network(), KD())
        folded = [constant_weights.size_as_constants(each) for each in distiller.teachers]
        return sorted(name for name, _ in distiller._plan._constant), folded

    names, folded = chosen(2**20)
    assert names == ["teacher:0", "teacher:1", "teacher:2"]
    assert chosen(sum(folded))[0] == names
    assert chosen(sum(folded) - 1)[0] == names[:2]
    assert chosen(folded[0] + folded[2])[0] == [names[0], names[2]]


def test_a_model_with_a_random_state_has_no_size(network):
    assert constant_weights.size_as_constants(network(dropout=0.5)) == np.inf


def test_eager_calls_follow_the_weights(network, images):
    model = network(6)
    for _ in range(2):
        found = constant_weights.call_with_constants(model, tf.constant(images))
        np.testing.assert_array_equal(found, model(images, training=False))
        model.set_weights([weight + 0.1 for weight in model.get_weights()])


def test_students_learn_the_same(network, images, labels, monkeypatch):
    teacher, initial, found = network(6, name="teacher"), network().get_weights(), []
    for most in (constant_weights.MOST_BYTES, 0):
        monkeypatch.setattr(views, "MOST_BYTES", most)
        student = network()
        student.set_weights(initial)
        distiller = tfkd.Distiller(teacher, student, KD(2.0), 10)
        distiller.compile(keras.optimizers.SGD(0.1))
        distiller.fit(images, labels, **FIT)
        found.append(student.get_weights())
    for first, second in zip(*found):
        np.testing.assert_allclose(first, second, rtol=1e-5, atol=1e-6)


def test_a_teacher_that_is_no_copy_is_followed(network, images, labels):
    teacher, student = network(6, name="teacher"), network()
    distiller = tfkd.Distiller(teacher, student, KD(2.0), fold_teacher=False)
    distiller.compile(keras.optimizers.SGD(0.0))
    distiller.fit(images, labels, **FIT)
    teacher.set_weights([0.0 * weight for weight in teacher.get_weights()])
    (found,) = distiller.fit(images, labels, **FIT).history["kd"]
    batches = [student(batch, training=True) for batch in np.split(images, 2)]
    logs = tf.nn.log_softmax(tf.concat(batches, 0) / 2)
    wanted = -4 * np.mean(np.log(logs.shape[-1]) + tf.reduce_mean(logs, -1))
    np.testing.assert_allclose(found, wanted, rtol=1e-4)
