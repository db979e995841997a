"""What a student holds itself, regularizers and ``add_loss``, is part of its label loss."""

import contextlib

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfkd
from tfkd.distillers import KD

FIT = {"batch_size": 8, "epochs": 2, "shuffle": False, "verbose": 0}
LABEL_LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
RATE = 0.01


@keras.saving.register_keras_serializable(package="own_losses_tests")
class Narrow(keras.layers.Layer):
    """Adds a loss of its own: the mean square of what passes through."""

    def call(self, inputs):
        self.add_loss(0.5 * tf.reduce_mean(tf.square(inputs)))
        return inputs


def regularized(name="student", strength=0.1, *, adder=False, norm=False):
    """A network with every kind of loss that Keras knows."""
    image = keras.Input((8, 8, 3), name="image")
    kind = tfkd.adder.AdderConv2D if adder else keras.layers.Conv2D
    more = {} if adder else {"activity_regularizer": keras.regularizers.L1(0.02)}
    hidden = kind(
        4,
        3,
        padding="same",
        name="conv",
        kernel_regularizer=keras.regularizers.L2(strength),
        **more,
    )(image)
    if adder or norm:
        hidden = tfkd.models.BatchNormalization(
            name="bn", gamma_regularizer=keras.regularizers.L1(strength)
        )(hidden)
    hidden = Narrow(name="narrow")(keras.layers.Activation("silu", name="stage1")(hidden))
    hidden = keras.layers.GlobalAveragePooling2D(name="pooled")(hidden)
    dense = keras.layers.Dense(4, kernel_regularizer=keras.regularizers.L2(strength), name="logits")
    return keras.Model(image, dense(hidden), name=name)


def pair(**settings):
    """The same network twice."""
    both = regularized(**settings), regularized(**settings)
    both[1].set_weights(both[0].get_weights())
    return both


def by_keras(model):
    model.compile(keras.optimizers.SGD(RATE), LABEL_LOSS)
    return model


def compiled(distiller, rate=RATE):
    distiller.compile(keras.optimizers.SGD(rate))
    return distiller


def evaluated(distiller, images, labels):
    return distiller.evaluate(images, labels, batch_size=8, verbose=0, return_dict=True)


def label_loss(model, images, labels):
    return float(LABEL_LOSS(labels, model(images, training=False)))


@pytest.mark.parametrize("weighted", [False, True])
def test_fit_and_evaluate_are_those_of_keras(weighted, images, labels):
    student, twin = pair()
    distiller, alone = compiled(tfkd.Distiller(None, student)), by_keras(twin)
    weights = np.linspace(0, 3, 16).astype("float32") if weighted else None
    rows = (images[:13], labels[:13], *([weights[:13]] if weighted else []))
    data = dict(zip(("x", "y", "sample_weight"), rows))
    found = distiller.evaluate(**data, batch_size=8, verbose=0, return_dict=True)
    wanted = alone.evaluate(**data, batch_size=8, verbose=0)
    assert wanted > label_loss(twin, *rows[:2]) + 0.5
    np.testing.assert_allclose(found["loss"], wanted, rtol=1e-6)
    np.testing.assert_allclose(found["student_loss"], wanted, rtol=1e-6)
    histories = [
        each.fit(**data, validation_data=rows, **FIT).history for each in (distiller, alone)
    ]
    for name in ("loss", "val_loss"):
        np.testing.assert_allclose(histories[0][name], histories[1][name], rtol=1e-5)
    for ours, theirs in zip(student.get_weights(), twin.get_weights()):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_regularizer_of_the_example():
    """L2(0.1) of a kernel of ones: 2.31 without it, 3.51 by Keras."""
    image = keras.Input((2, 2, 1))
    dense = keras.layers.Dense(
        10, kernel_initializer="ones", kernel_regularizer=keras.regularizers.L2(0.03)
    )
    student = keras.Model(image, dense(keras.layers.Flatten()(image)))
    data = np.zeros((4, 2, 2, 1), "float32"), np.arange(4)
    found = compiled(tfkd.Distiller(None, student)).evaluate(*data, verbose=0, return_dict=True)
    np.testing.assert_allclose(found["loss"], np.log(10) + 0.03 * 40, rtol=1e-6)
    np.testing.assert_allclose(found["student_loss/own_losses"], 0.03 * 40, rtol=1e-6)
    by_keras(student)
    np.testing.assert_allclose(found["loss"], student.evaluate(*data, verbose=0), rtol=1e-6)


def test_they_have_the_weight_of_the_label_loss(images, labels, network):
    student, twin = pair()
    distiller = compiled(tfkd.Distiller(network(name="teacher"), student, KD(2.0), 0.9, 0.3))
    found = evaluated(distiller, images, labels)
    wanted = by_keras(twin).evaluate(images, labels, batch_size=8, verbose=0)
    np.testing.assert_allclose(found["student_loss"], wanted, rtol=1e-5)
    np.testing.assert_allclose(found["total_loss"], 0.3 * wanted + found["kd"], rtol=1e-5)
    own = wanted - label_loss(twin, images, labels)
    np.testing.assert_allclose(found["student_loss/own_losses"], own, rtol=1e-4)
    off = compiled(tfkd.Distiller(network(name="teacher"), student, KD(2.0), 0.9, 0))
    found = evaluated(off, images, labels)
    np.testing.assert_allclose(found["loss"], found["kd"], rtol=1e-6)
    np.testing.assert_allclose(found["student_loss"], wanted, rtol=1e-5)


def test_those_of_teachers_and_companions_are_left_out(images, labels, network):
    class Follower(tfkd.Objective):
        """Runs a copy of the student."""

        requires = tfkd.Requires(
            taps={("student", "main"): ["logits"], ("twin", "main"): ["logits"]}
        )

        def setup(self, spec):
            self.companions["twin"] = tfkd.core.Companion(regularized("twin"))

        def compute(self, context):
            return context.mean(tf.square(context.student() - context.output("twin")))

    student = network()
    for fold in (True, False):
        teacher = regularized("teacher")
        losses = [KD(2.0), Follower()]
        distiller = compiled(tfkd.Distiller(teacher, student, losses, fold_teacher=fold))
        found = evaluated(distiller, images, labels)
        wanted = label_loss(student, images, labels)
        np.testing.assert_allclose(found["student_loss"], wanted, rtol=1e-5)
        assert "student_loss/own_losses" not in found


def test_where_a_method_brings_the_label_loss_they_have_its_weight(images, labels):
    student, twin = pair()
    method = tfkd.distillers.TeacherFree("label_smoothing")
    distiller = compiled(tfkd.Distiller(None, student, method, 0.7, 0.2))
    found = evaluated(distiller, images, labels)
    own = by_keras(twin).evaluate(images, labels, batch_size=8, verbose=0)
    own -= label_loss(twin, images, labels)
    np.testing.assert_allclose(found["loss"], found["teacher_free"] + 0.7 * own, rtol=1e-4)


def test_only_the_main_view_counts(images, labels):
    class Strong(tfkd.Objective):
        requires = tfkd.Requires(taps={("student", "strong"): ["logits"]})

        def compute(self, context):
            return context.mean(0.0 * context.student("logits", "strong"))

    student, twin = pair()
    batch = {"image": images, "image_strong": 5 * images, "label": labels}
    distiller = compiled(tfkd.Distiller(None, student, Strong()), rate=0.0)
    found = distiller.train_on_batch(batch, return_dict=True)
    wanted = by_keras(twin).evaluate(images, labels, batch_size=16, verbose=0)
    np.testing.assert_allclose(found["student_loss"], wanted, rtol=1e-5)


def hybrid(distiller):
    """The teacher's features with the student's classifier."""
    student = distiller.student
    teacher = distiller.network("teacher", as_given=True).model
    features = tfkd.models.segment(teacher, None, "pooled", name="features", training=False)
    classifier = tfkd.models.segment(student, "pooled", "logits", name="classifier")
    image = keras.Input((8, 8, 3))
    return tfkd.models.Network(keras.Model(image, classifier(features(image)), name="hybrid"))


def test_a_stage_counts_what_it_trains_of_the_student(images, labels):
    student, teacher = regularized(), regularized("teacher")
    distiller = tfkd.Distiller(teacher, student, KD(), fold_teacher=False)
    kernel = student.get_layer("logits").kernel
    stages = [
        tfkd.Stage("hybrid", objectives=(), network=hybrid),
        tfkd.Stage("classifier", objectives=(), trainable=lambda distiller: [kernel]),
    ]
    for stage in stages:
        distiller.enter_stage(stage)
        compiled(distiller, rate=0.0)
        of_weights = 0.1 * np.sum(np.square(kernel))
        logged = distiller.fit(images, labels, **{**FIT, "epochs": 1}).history
        found = evaluated(distiller, images, labels)
        own = found["student_loss/own_losses"]
        np.testing.assert_allclose(logged["student_loss/own_losses"], own, rtol=1e-5)
        if stage.network is not None:  # Its other layers are the teacher's.
            np.testing.assert_allclose(own, of_weights, rtol=1e-5)
        else:  # What its layers add is a function of the images.
            assert own > of_weights + 1e-3
            whole = compiled(tfkd.Distiller(None, student))
            kept = 0.1 * np.sum(np.square(student.get_layer("conv").kernel))
            rest = evaluated(whole, images, labels)["student_loss/own_losses"] - kept
            np.testing.assert_allclose(own, rest, rtol=1e-4)


def test_the_parts_of_the_label_loss_add_up(images, labels):
    model = regularized()
    early = keras.layers.Dense(4, name="early")(model.get_layer("pooled").output)
    student = keras.Model(model.input, {"exit1": early, "logits": model.output})
    found = evaluated(compiled(tfkd.Distiller(None, student)), images, labels)
    parts = [found[f"student_loss/{part}"] for part in ("exit1", "logits", "own_losses")]
    assert min(parts) > 0.1
    np.testing.assert_allclose(found["student_loss"], sum(parts), rtol=1e-6)


def test_adder_layers(images, labels):
    student = regularized(adder=True)
    kernel = student.get_layer("conv").kernel
    distiller = compiled(tfkd.Distiller(None, student))
    before = np.array(kernel)
    distiller.fit(images, labels, **{**FIT, "batch_size": 16, "epochs": 1})
    # The gradient of the layer has a root mean square of its own; that of L2 is added as it is.
    step = (before - np.array(kernel)) / RATE - 2 * 0.1 * before
    np.testing.assert_allclose(np.sqrt(np.mean(np.square(step))), 0.2, rtol=1e-3)


def test_a_teacher_that_trains_has_its_own(images, labels):
    teacher, alone = pair(name="teacher", norm=True)
    student = regularized(adder=True)
    method = tfkd.distillers.PKKD(positions=("conv",), rho=False)
    distiller = compiled(tfkd.distillers.PKKDDistiller(teacher, student, method))
    found = evaluated(distiller, images, labels)
    by_keras(alone)
    wanted = alone.evaluate(images, labels, batch_size=8, verbose=0)
    np.testing.assert_allclose(found["teacher_loss"], wanted, rtol=1e-5)
    distiller.fit(images, labels, **FIT)
    alone.fit(images, labels, **FIT)
    for ours, theirs in zip(teacher.get_weights(), alone.get_weights()):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_a_regularizer_of_a_method_is_told(network):
    class Connected(tfkd.Objective):
        def setup(self, spec):
            self.connector = keras.layers.Dense(3, kernel_regularizer="l2", name="connector")
            self.connector.build((None, 4))

    told = "connected: found a regularizer of connector/kernel, which adds nothing by itself"
    with pytest.warns(tfkd.TfkdWarning, match=told):
        tfkd.Distiller(None, network(), Connected())


def test_replicas_do_not_change_them(two_replicas):
    draw = np.random.default_rng(0)
    images = draw.normal(size=(27, 8, 8, 3)).astype("float32")
    images[::3] *= 3.0  # The parts of the replicas differ.
    labels = draw.integers(0, 4, 27)
    found = []
    for scope in (contextlib.nullcontext(), two_replicas.scope()):
        keras.utils.set_random_seed(1)
        with scope:
            distiller = tfkd.Distiller(None, regularized(norm=True), student_loss_weight=0.5)
            distiller.compile(keras.optimizers.SGD(0.05, momentum=0.9))
        # The last batch has three images.
        data = {"batch_size": 12, "shuffle": False, "verbose": 0}
        history = distiller.fit(images, labels, epochs=3, validation_data=(images, labels), **data)
        weights = {f"{n}": each for n, each in enumerate(distiller.student.get_weights())}
        found.append({**history.history, **weights})
    one, two = found
    assert min(one["student_loss/own_losses"]) > 0.5
    assert set(two) == set(one)
    for name, value in one.items():
        np.testing.assert_allclose(two[name], value, rtol=1e-5, atol=2e-6, err_msg=name)
