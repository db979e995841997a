"""What a distiller that trains the teacher as well builds on."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfkd
from tfkd.core.step.replicas import replica_count
from tfkd.distillers import KD

FIT = {"batch_size": 8, "shuffle": False, "verbose": 0}


class Joint(tfkd.Distiller):
    """Trains the teacher on the labels, by an optimizer of its own."""

    trainable_teacher = True
    teacher_factor = 1.0

    def test_views(self):
        return super().test_views() | {("teacher", "main")}

    def test_values(self, context):
        return [*super().test_values(context), self.teacher_loss(context)]

    def test_names(self):
        return [*super().test_names(), "teacher_loss"]

    def teacher_loss(self, context):
        return context.mean(
            self.task.label_loss(
                context.batch, {"logits": context.output("teacher", stop_gradient=False)}
            )
        )

    def train_step(self, data):
        teacher = self.teachers[0].trainable_variables
        with tf.GradientTape(persistent=True) as tape:
            context = self.forward(self.task.batch(data), training=True)
            outcome = self.combine(context)
            total = outcome.total / replica_count()
            own = self.teacher_factor * self.teacher_loss(context) / replica_count()
        self.leaked = tape.gradient(total, teacher)
        pairs = list(zip(tape.gradient(own, teacher), teacher))
        variables = self.trained_variables
        gradients = tape.gradient(total, variables)
        further = [(self.second_optimizer, pairs)]
        self.update(context, outcome, gradients, variables, further=further)
        return self.train_results()


class TrainsTeacher(KD):
    """KD whose teacher trains."""

    distiller_class = Joint


def joint(network):
    distiller = Joint(network(6, name="teacher"), network(), TrainsTeacher())
    distiller.second_optimizer = keras.optimizers.SGD(0.1)
    distiller.second_optimizer.build(distiller.teachers[0].trainable_variables)
    distiller.compile(keras.optimizers.SGD(0.1))
    return distiller


def test_objectives_have_no_gradient_to_a_teacher_that_trains(network, images, labels):
    distiller = joint(network)
    before = distiller.teachers[0].get_weights()
    distiller.fit(images, labels, **FIT)
    assert distiller.leaked and all(gradient is None for gradient in distiller.leaked)
    after = distiller.teachers[0].get_weights()
    assert all(np.any(now != then) for now, then in zip(after, before))


def test_the_user_s_own_teacher_is_the_one_that_trains(network):
    teacher = network(6, name="teacher")
    assert Joint(teacher, network(), TrainsTeacher()).teachers == [teacher]


def test_evaluation_may_run_further_networks(network, images, labels):
    distiller = Joint(
        network(6, name="teacher"), network(), TrainsTeacher(), evaluate_distillation=False
    )
    distiller.compile()
    found = distiller.evaluate(images, labels, verbose=0, return_dict=True)
    assert set(found) == {"student_loss", "accuracy", "teacher_loss"}
    logits = distiller.teachers[0](images, training=False)
    wanted = keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True)
    np.testing.assert_allclose(found["teacher_loss"], np.mean(wanted), rtol=1e-5)


def test_no_network_is_updated_after_a_gradient_that_is_not_finite(network, images, labels):
    distiller = joint(network)
    distiller.teacher_factor = np.nan
    watched = [*distiller.student.trainable_variables, *distiller.teachers[0].trainable_variables]
    before = [np.array(variable) for variable in watched]
    with pytest.raises(tfkd.NonFiniteLoss, match="the gradient is not finite at step 0"):
        distiller.fit(images, labels, **FIT)
    for variable, then in zip(watched, before):
        np.testing.assert_array_equal(variable, then)


def test_a_method_with_a_step_of_its_own_is_refused_elsewhere(network):
    wanted = "trains_teacher has a training step of its own: found Distiller, wanted Joint"
    with pytest.raises(tfkd.TfkdError, match=wanted):
        tfkd.Distiller(network(name="teacher"), network(), TrainsTeacher(name="trains_teacher"))


class LastConvolution(tfkd.Objective):
    """Compares whatever is the last convolution of either network."""

    requires = tfkd.Requires(taps={("teacher", "main"): ["logits"]})

    def choose_taps(self, student, teachers):
        def last(network):
            return [
                each.name for each in network.model.layers if isinstance(each, keras.layers.Conv2D)
            ][-1:]

        self.taps = {("student", "main"): last(student), ("teacher", "main"): last(teachers[0])}
        self.requires = dataclasses.replace(self.requires, taps=self.taps)

    def compute(self, context):
        return context.mean(tf.square(context.student("stage2") - context.teacher("stage2")))


def test_taps_may_be_chosen_from_the_graphs(network, images, labels):
    loss = LastConvolution()
    distiller = tfkd.Distiller(network(name="teacher"), network(), loss)
    assert loss.taps == {("student", "main"): ["stage2"], ("teacher", "main"): ["stage2"]}
    distiller.compile(keras.optimizers.SGD(0.1))
    history = distiller.fit(images, labels, **FIT).history
    assert np.all(np.asarray(history["last_convolution"]) > 0)


@pytest.mark.parametrize("dense", [False, True])
def test_the_task_says_which_outputs_are_correct(dense):
    labels = np.array([0, 2, 1])
    outputs = tf.constant([[3.0, 1, 2], [3, 1, 2], [0, 1, 0]])
    batch = {"label": np.eye(3)[labels] if dense else labels}
    found = tfkd.tasks.Classification().correct(batch, {"logits": outputs})
    np.testing.assert_array_equal(found, [1, 0, 1])
