"""The total, the update and the evaluation of a distiller against steps written by hand."""

from typing import ClassVar

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfkd
from tfkd.distillers import KD

RATE = 0.1


class Hint(tfkd.Objective):
    """Mean squared difference of two equally large features."""

    def __init__(self, tap="stage1", view="main", name="hint"):
        super().__init__(name=name)
        self.tap, self.view = tap, view
        self.requires = tfkd.Requires(taps={("student", view): [tap], ("teacher", view): [tap]})

    def compute(self, context):
        student, teacher = (
            context.output(network, self.tap, self.view) for network in ("student", "teacher")
        )
        return context.mean(tf.square(student - teacher))


class Two(tfkd.Objective):
    """Two terms with a factor each."""

    requires = tfkd.Requires(taps={("student", "main"): ["logits"]})
    terms = ("size", "spread")

    def compute(self, context):
        logits = context.student()
        return {
            "size": context.mean(tf.square(logits)),
            "spread": context.mean(tf.math.reduce_variance(logits, axis=1)),
        }

    def schedule(self, epoch):
        return {"size": 0.5, "spread": tf.where(epoch < 1, 0.0, 2.0)}


def kl(teacher, student, temperature):
    teacher, student = teacher / temperature, student / temperature
    q = tf.nn.softmax(teacher)
    difference = tf.nn.log_softmax(teacher) - tf.nn.log_softmax(student)
    return temperature**2 * tf.reduce_sum(q * difference, axis=1)


def by_hand(teacher, student, images, labels, weights, epoch=0):
    """One step of SGD on the sum of all losses; returns the losses by name."""
    student_taps = tfkd.models.tapped(student, ["stage1", "logits"])
    teacher_taps = tfkd.models.tapped(teacher, ["stage1", "logits"])
    target = teacher_taps(images, training=False)
    with tf.GradientTape() as tape:
        output = student_taps(images, training=True)
        logits = output["logits"]
        label_loss = keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True)
        hint = tf.reduce_mean(tf.square(output["stage1"] - target["stage1"]), axis=[1, 2, 3])
        losses = {
            "student_loss": label_loss,
            "kd": kl(target["logits"], logits, 2.0),
            "hint": hint,
            "two/size": tf.reduce_mean(tf.square(logits), axis=1),
            "two/spread": tf.math.reduce_variance(logits, axis=1),
        }
        losses = {
            name: tf.reduce_sum(weights * each) / len(images) for name, each in losses.items()
        }
        # A term is logged as it enters the total.
        factors = {"kd": 0.9, "hint": 5.0, "two/size": 0.5 * 2.0}
        factors["two/spread"] = (2.0 if epoch else 0) * 2.0
        losses |= {name: factor * losses[name] for name, factor in factors.items()}
        total = 0.3 * losses["student_loss"] + tf.add_n([losses[name] for name in factors])
    gradients = tape.gradient(total, student.trainable_variables)
    for gradient, variable in zip(gradients, student.trainable_variables):
        variable.assign_sub(RATE * gradient)
    return {**{name: float(each) for name, each in losses.items()}, "total_loss": float(total)}


@pytest.mark.parametrize("epoch", [0, 1])
@pytest.mark.parametrize("weighted", [True, False])
def test_one_step_by_hand(network, images, labels, weighted, epoch):
    teacher, student, twin = network(name="teacher"), network(), network()
    twin.set_weights(student.get_weights())
    weights = np.random.default_rng(1).uniform(0, 3, 16).astype("float32")
    weights[3] = 0
    distiller = tfkd.Distiller(teacher, student, [KD(2.0), Hint(), Two()], [0.9, 5, 2.0], 0.3)
    distiller.compile(keras.optimizers.SGD(RATE))
    distiller.set_epoch(epoch)
    found = distiller.train_on_batch(
        images, labels, sample_weight=weights if weighted else None, return_dict=True
    )
    if not weighted:
        weights = np.ones(16, "float32")
    expected = by_hand(teacher, twin, images, labels, weights, epoch)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5, err_msg=name)
    assert found["loss"] == found["total_loss"]
    distillation = expected["total_loss"] - 0.3 * expected["student_loss"]
    np.testing.assert_allclose(found["distillation_loss"], distillation, rtol=1e-5)
    for variable, wanted in zip(student.variables, twin.variables):
        np.testing.assert_allclose(variable, wanted, atol=2e-6, err_msg=variable.path)


def test_rows_of_weight_zero_do_not_matter(network, images, labels, values_of):
    weights = np.ones(16, "float32")
    weights[8:] = 0
    teacher = network(name="teacher", norm=False)
    initial = network(norm=False).get_weights()
    results = []
    for spoilt in (False, True):
        student = network(norm=False)
        student.set_weights(initial)
        batch, classes = images.copy(), labels.copy()
        if spoilt:
            batch[8:], classes[8:] = 7.0, 0
        distiller = tfkd.Distiller(teacher, student, [KD(2.0), Hint()])
        distiller.compile(keras.optimizers.SGD(RATE))
        distiller.train_on_batch(batch, classes, sample_weight=weights)
        results.append(values_of(student.variables))
    for clean, other in zip(*results):
        np.testing.assert_allclose(clean, other, atol=1e-7)
    assert any(np.any(now != before) for now, before in zip(results[0], initial))


def test_weight_zero_of_the_label_loss_and_of_a_term(network, images, labels):
    teacher, student = network(name="teacher"), network()
    distiller = tfkd.Distiller(teacher, student, [KD(), Hint()], [2.0, 0], 0)
    distiller.compile(keras.optimizers.SGD(RATE))
    found = distiller.evaluate(images, labels, verbose=0, return_dict=True)
    assert found["student_loss"] > 0
    assert found["hint"] == 0
    np.testing.assert_allclose(found["loss"], found["kd"], rtol=1e-6)
    np.testing.assert_allclose(found["distillation_loss"], found["kd"], rtol=1e-6)


def test_several_teachers_teach_the_mean_of_their_probabilities(network, images, labels):
    teachers = [network(width, name=f"teacher{width}") for width in (3, 5)]
    student = network()
    probabilities = [tf.nn.softmax(teacher(images)) for teacher in teachers]
    mean = tf.math.log((probabilities[0] + probabilities[1]) / 2)
    distiller = tfkd.Distiller(teachers, student, KD(3.0))
    distiller.compile()
    found = distiller.evaluate(images, labels, verbose=0, return_dict=True)
    np.testing.assert_allclose(
        found["kd"], tf.reduce_mean(kl(mean, student(images), 3.0)), rtol=1e-4
    )
    agree = np.mean(np.argmax(mean, axis=1) == np.argmax(student(images), axis=1))
    assert found["agreement"] == agree


def test_features_of_one_of_several_teachers(network, images, labels):
    teachers = [network(name="first"), network(name="second")]
    student = network()

    class HintOfSecond(Hint):
        def __init__(self):
            super().__init__()
            self.requires = tfkd.Requires(
                taps={("student", "main"): ["stage1"], ("teacher:1", "main"): ["stage1"]}
            )

        def compute(self, context):
            difference = context.student("stage1") - context.output("teacher:1", "stage1")
            return context.mean(tf.square(difference))

    distiller = tfkd.Distiller(teachers, student, [KD(), HintOfSecond()])
    distiller.compile()
    found = distiller.evaluate(images, labels, verbose=0, return_dict=True)
    taps = [
        tfkd.models.tapped(model, ["stage1"])(images)["stage1"] for model in (*teachers, student)
    ]
    np.testing.assert_allclose(
        found["hint"], tf.reduce_mean(tf.square(taps[1] - taps[2])), rtol=1e-4
    )


@keras.saving.register_keras_serializable(package="core_tests")
class Logged(keras.layers.Layer):
    """Notes each of its runs in Python."""

    runs: ClassVar[list] = []

    def call(self, inputs, training=None):
        Logged.runs.append((self.name, bool(training), inputs.shape[0]))
        return inputs


def with_log(network, name):
    model = network(name=name)
    inputs = keras.Input((8, 8, 3))
    return keras.Model(inputs, model(Logged(name=f"{name}_log")(inputs)), name=f"logged_{name}")


def test_every_network_runs_once_for_each_view_and_step(network, images, labels):
    teacher, student = with_log(network, "teacher"), with_log(network, "student")
    losses = [
        KD(name="soft"),
        KD(name="softer"),
        Hint("teacher/stage1", name="of_teacher"),
        Hint("teacher/pooled", name="of_pooled"),
        Hint("logits", "strong", name="strong"),
    ]
    for each in losses[2:4]:
        tap = each.tap.split("/")[1]
        each.requires = tfkd.Requires(
            taps={("student", "main"): [f"student/{tap}"], ("teacher", "main"): [each.tap]}
        )
        each.compute = lambda context, each=each, tap=tap: context.mean(
            tf.square(context.student(f"student/{tap}") - context.teacher(each.tap))
        )
    distiller = tfkd.Distiller(teacher, student, losses)
    distiller.compile(keras.optimizers.SGD(RATE), run_eagerly=True)
    Logged.runs.clear()
    distiller.train_on_batch({"image": images, "image_strong": -images, "label": labels})
    expected = [("student_log", True, 16)] * 2 + [("teacher_log", False, 16)] * 2
    assert sorted(Logged.runs) == expected
    Logged.runs.clear()
    distiller.test_on_batch(images, labels)
    # The strong view is not there in evaluation, so the teacher has nothing to be compared with.
    assert Logged.runs == [("student_log", False, 16)]
    Logged.runs.clear()
    both = tfkd.Distiller(teacher, student, losses[:4])
    both.compile(run_eagerly=True)
    Logged.runs.clear()
    both.test_on_batch(images, labels)
    assert sorted(Logged.runs) == [("student_log", False, 16), ("teacher_log", False, 16)]


def test_pixels_are_normalized_for_each_network(network, labels):
    pixels = np.random.default_rng(0).integers(0, 256, (16, 8, 8, 3)).astype("uint8")
    teacher, student = network(name="teacher"), network()
    preprocess = [
        tfkd.models.Preprocess((120.0,) * 3, (60.0,) * 3),
        tfkd.models.Preprocess((5.0,), (2.0,)),
    ]
    distiller = tfkd.Distiller(
        tfkd.models.Network(teacher, preprocess[0]),
        tfkd.models.Network(student, preprocess[1]),
        KD(2.0),
    )
    distiller.compile()
    found = distiller.evaluate(pixels, labels, verbose=0, return_dict=True)
    shown = teacher((pixels - np.float32(120)) / 60), student((pixels - np.float32(5)) / 2)
    np.testing.assert_allclose(found["kd"], tf.reduce_mean(kl(*shown, 2.0)), rtol=1e-4)
    np.testing.assert_allclose(distiller.predict(pixels, verbose=0), shown[1], rtol=1e-5, atol=1e-5)
