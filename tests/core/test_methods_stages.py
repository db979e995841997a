"""Methods to come, written small: stages, blocks in turn, a teacher that learns, a second batch."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfkd
from tfkd.core.step.updates import apply_if
from tfkd.distillers import KD

RATE = 0.1


def changed(variables, before):
    return [np.any(np.array(now) != then) for now, then in zip(variables, before)]


class Head(tfkd.Objective):
    """A head that learns first, and then holds (after the two stages of SSKD)."""

    requires = tfkd.Requires(
        taps={("student", "main"): ["pooled"], ("teacher", "main"): ["pooled"]}
    )
    terms = ("head", "hint")

    def setup(self, spec):
        width = spec.shapes[("teacher", "main")]["pooled"][-1]
        self.head = keras.layers.Dense(spec.num_classes)
        self.head.build((None, width))
        self.connect = keras.layers.Dense(width)
        self.connect.build(spec.shapes[("student", "main")]["pooled"])

    def compute(self, context):
        logits = self.head(context.teacher("pooled"))
        hint = self.connect(context.student("pooled")) - context.teacher("pooled")
        label = keras.losses.sparse_categorical_crossentropy(context.labels, logits, True)
        return {"head": context.mean(label), "hint": context.mean(tf.square(hint))}

    def stages(self):
        return [
            tfkd.Stage(
                "head",
                1,
                optimizer=lambda steps_per_epoch: keras.optimizers.Adam(0.01),
                trainable=lambda distiller: self.head.trainable_variables,
                objectives=(self.name,),
                student_loss_weight=0.0,
            ),
            tfkd.Stage(
                "student",
                1,
                trainable=lambda distiller: [
                    *distiller.student.trainable_variables,
                    *self.connect.trainable_variables,
                ],
            ),
        ]


@pytest.mark.parametrize("replicas", [1, 2])
def test_two_stages(replicas, distiller_on, network, images, labels, values_of):
    distiller = distiller_on(
        replicas, lambda: network(6, name="teacher"), network, lambda: [KD(), Head()]
    )
    head = distiller.objectives[1]
    parts = {
        "student": distiller.student.variables,
        "head": head.head.variables,
        "connect": head.connect.variables,
    }
    settings = {"batch_size": 8, "shuffle": False, "verbose": 0}
    logs = []
    for stage, moved in zip(head.stages(), (["head"], ["student", "connect"])):
        distiller.enter_stage(stage)
        with distiller.distribute_strategy.scope():
            made = stage.optimizer(2) if stage.optimizer else keras.optimizers.SGD(RATE)
            distiller.compile(made)
        before = {name: values_of(variables) for name, variables in parts.items()}
        logs.append(distiller.fit(images, labels, epochs=stage.epochs, **settings).history)
        for name, variables in parts.items():
            # What a stage does not train stays as it is, batch normalization's statistics included.
            assert all(changed(variables, before[name])) == (name in moved), name
            assert any(changed(variables, before[name])) == (name in moved), name
        assert all(layer.trainable for layer in distiller.student._flatten_layers())
    first, second = logs
    assert first["kd"] == [0.0]
    np.testing.assert_allclose(
        first["loss"], np.add(first["head/head"], first["head/hint"]), rtol=1e-5
    )
    assert second["kd"][0] > 0
    np.testing.assert_allclose(
        second["loss"], np.add(second["student_loss"], second["distillation_loss"]), rtol=1e-5
    )
    assert distiller.step == 4
    distiller.enter_stage(None)
    assert len(distiller.trained_variables) == len(distiller.student.trainable_variables) + 4


def blocks(name, width):
    """Two blocks that end in taps of equal size, with batch normalization, and a classifier."""
    inputs = keras.Input((8, 8, 3), name="image")
    hidden = inputs
    for number in (1, 2):
        conv = keras.layers.Conv2D(width, 3, padding="same", use_bias=False, name=f"conv{number}")
        hidden = conv(hidden)
        hidden = tfkd.models.BatchNormalization(name=f"bn{number}")(hidden)
        hidden = keras.layers.ReLU(name=f"relu{number}")(hidden)
        hidden = keras.layers.Conv2D(4, 1, name=f"block{number}")(hidden)
        hidden = keras.layers.AveragePooling2D(2, name=f"pool{number}")(hidden)
    hidden = keras.layers.Flatten(name="flat")(hidden)
    return keras.Model(inputs, keras.layers.Dense(4, name="logits")(hidden), name=name)


class Block(tfkd.Objective):
    """One block of the student learns within the teacher's other blocks (after PBKD)."""

    replaces_label_loss = True
    terms = ("local", "label")

    def __init__(self, number):
        super().__init__(name=f"block{number}")
        self.number = number
        before = f"pool{number - 1}" if number > 1 else None
        self.before = before
        taps = {("student", "main"): [f"block{number}", *([before] if before else [])]}
        self.requires = tfkd.Requires(taps={**taps, ("teacher", "main"): [f"block{number}"]})

    def setup(self, spec):
        teacher = spec.network("teacher").model
        self.rest = tfkd.models.head(teacher, f"block{self.number}")
        if self.before:
            after = tfkd.models.head(teacher, self.before)
            self.own = tfkd.models.tapped(after, [f"block{self.number}"])

    def compute(self, context):
        found = context.student(f"block{self.number}")
        if self.before:
            # The hybrid before this one: its earlier blocks are the student's already.
            target = self.own(context.student(self.before), training=False)[f"block{self.number}"]
        else:
            target = context.teacher(f"block{self.number}")
        local = tf.reduce_sum(tf.square(found - tf.stop_gradient(target)), axis=[1, 2, 3]) / 2
        logits = self.rest(found, training=False)
        label = keras.losses.sparse_categorical_crossentropy(context.labels, logits, True)
        return {"local": context.mean(local), "label": context.mean(label)}

    def stage(self):
        names = [f"{kind}{self.number}" for kind in ("conv", "bn", "block")]
        return tfkd.Stage(
            self.name,
            1,
            trainable=lambda distiller: [
                variable
                for name in names
                for variable in distiller.student.get_layer(name).trainable_variables
            ],
            objectives=(self.name,),
        )


def test_blocks_in_turn(images, labels, values_of):
    teacher, student = blocks("teacher", 6), blocks("student", 3)
    teacher(images * 2 + 1, training=True)
    losses = [Block(1), Block(2)]
    distiller = tfkd.Distiller(teacher, student, losses)
    reference = values_of(teacher.variables)
    for objective in losses:
        distiller.enter_stage(objective.stage())
        distiller.compile(keras.optimizers.SGD(1e-3))
        before = {layer.name: values_of(layer.variables) for layer in student.layers}
        # The hybrid of this stage, by hand: student up to this block, teacher from there on.
        tap = f"block{objective.number}"
        expected = tfkd.models.tapped(student, [tap])
        rest = tfkd.models.head(teacher, tap)
        found = distiller.evaluate(images, labels, verbose=0, return_dict=True)
        logits = rest(expected(images)[tap])
        by_hand = np.mean(keras.losses.sparse_categorical_crossentropy(labels, logits, True))
        np.testing.assert_allclose(found[f"{objective.name}/label"], by_hand, rtol=1e-4)
        distiller.fit(images, labels, batch_size=8, verbose=0)
        for layer in student.layers:
            learns = layer.name in {f"{kind}{objective.number}" for kind in ("conv", "bn", "block")}
            for now, then in zip(layer.variables, before[layer.name]):
                assert np.any(np.array(now) != then) == learns, now.path
    for now, then in zip(teacher.variables, reference):
        np.testing.assert_array_equal(now, then)


class Mutual(tfkd.Distiller):
    """Teacher and student learn side by side, each by its own loss (after PKKD)."""

    trainable_teacher = True

    def loss_names(self):
        return [*super().loss_names(), "teacher_loss"]

    def compile(self, optimizer="sgd", teacher_optimizer="sgd", **settings):
        super().compile(optimizer, **settings)
        self.teacher_optimizer = keras.optimizers.get(teacher_optimizer)
        self.teacher_optimizer.build(self.teachers[0].trainable_variables)

    def state(self):
        own = self.teacher_optimizer.variables
        return {**super().state(), **{f"teacher_optimizer/{i}": v for i, v in enumerate(own)}}

    def combine(self, context):
        outcome = super().combine(context)
        loss = context.mean(
            self.task.label_loss(
                context.batch, {"logits": context.output("teacher", stop_gradient=False)}
            )
        )
        return dataclasses.replace(outcome, values=tf.concat([outcome.values, [loss]], axis=0))

    def train_step(self, data):
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        with tf.GradientTape(persistent=True) as tape:
            context = self.forward(self.task.batch(data), training=True)
            outcome = self.combine(context)
            student_loss, teacher_loss = outcome.total / replicas, outcome.values[-1] / replicas
        own, teachers = self.trained_variables, self.teachers[0].trainable_variables
        gradients = tape.gradient(student_loss, own), tape.gradient(teacher_loss, teachers)
        self.update(context, outcome, gradients[0], own)
        apply_if(self.watch.good(), self.teacher_optimizer, list(zip(gradients[1], teachers)))
        return self.train_results()


def mutual(network, two_replicas, replicas):
    keras.utils.set_random_seed(3)
    scope = two_replicas if replicas == 2 else tf.distribute.get_strategy()
    with scope.scope():
        teacher, student = network(6, name="teacher"), network()
        distiller = Mutual(teacher, student, KD(2.0))
        distiller.compile(keras.optimizers.SGD(RATE), keras.optimizers.SGD(0.05, momentum=0.9))
    return distiller, teacher, student


def test_teacher_that_learns(network, two_replicas, images, labels):
    distiller, teacher, student = mutual(network, two_replicas, 1)
    twins = network(6, name="teacher"), network()
    for twin, model in zip(twins, (teacher, student)):
        twin.set_weights(model.get_weights())
    found = distiller.train_on_batch(images, labels, return_dict=True)
    with tf.GradientTape(persistent=True) as tape:
        shown, logits = (twin(images, training=True) for twin in twins)
        label, own = (
            tf.reduce_mean(keras.losses.sparse_categorical_crossentropy(labels, each, True))
            for each in (shown, logits)
        )
        kd = tf.reduce_mean(tfkd.distillers.kd_loss(logits, tf.stop_gradient(shown), 2.0))
        total = own + kd
    steps = (twins[0], label, 0.05), (twins[1], total, RATE)
    gradients = [tape.gradient(loss, twin.trainable_variables) for twin, loss, _ in steps]
    for (twin, _, rate), found_gradients in zip(steps, gradients):
        for gradient, variable in zip(found_gradients, twin.trainable_variables):
            variable.assign_sub(rate * gradient)
    np.testing.assert_allclose(found["teacher_loss"], label, rtol=1e-5)
    np.testing.assert_allclose(found["loss"], total, rtol=1e-5)
    for model, twin in zip((teacher, student), twins):
        for now, expected in zip(model.variables, twin.variables):
            np.testing.assert_allclose(now, expected, atol=2e-6, err_msg=now.path)
    assert "teacher_loss" in distiller.evaluate(images, labels, verbose=0, return_dict=True)
    ids = {id(variable) for variable in distiller.state().values()}
    assert ids >= {id(v) for model in (teacher, student) for v in model.variables}
    assert ids >= {id(v) for v in distiller.teacher_optimizer.variables}


def test_teacher_that_learns_on_two_replicas(network, two_replicas, images, labels):
    weights = []
    for replicas in (1, 2):
        distiller, teacher, student = mutual(network, two_replicas, replicas)
        distiller.fit(images, labels, batch_size=8, shuffle=False, verbose=0)
        weights.append([np.array(v) for model in (teacher, student) for v in model.variables])
    for one, two in zip(*weights):
        np.testing.assert_allclose(two, one, atol=1e-5)


class SecondBatch(tfkd.Objective):
    """Learns its weight from images of a second batch (after HDKD)."""

    requires = tfkd.Requires(
        taps={("student", "main"): ["logits"]}, batch_keys=("other_image", "other_label")
    )

    def setup(self, spec):
        self.student = [spec.network("student").model]
        self.gain = self.add_weight(shape=(), initializer="ones", trainable=False, name="gain")

    def compute(self, context):
        logits = self.student[0](context.batch["other_image"], training=False)
        loss = keras.losses.sparse_categorical_crossentropy(
            context.batch["other_label"], logits, from_logits=True
        )
        return tfkd.Terms({self.name: self.gain * context.mean(loss)}, {"loss": context.mean(loss)})

    def after_step(self, context, carry):
        self.gain.assign(0.5 * self.gain + 0.5 * carry["loss"])


def test_second_batch(network, images, labels):
    student, objective = network(norm=False), SecondBatch()
    distiller = tfkd.Distiller(None, student, objective, 2.0)
    distiller.compile(keras.optimizers.SGD(RATE))
    logits = student(images[8:], training=False)
    expected = np.mean(keras.losses.sparse_categorical_crossentropy(labels[8:], logits, True))
    batch = {
        "image": images[:8], "label": labels[:8],
        "other_image": images[8:], "other_label": labels[8:],
    }  # fmt: skip
    found = distiller.train_on_batch(batch, return_dict=True)
    np.testing.assert_allclose(found["second_batch"], 2.0 * expected, rtol=1e-4)
    np.testing.assert_allclose(objective.gain, 0.5 + 0.5 * expected, rtol=1e-4)
    # Without the second batch there is nothing to evaluate but the student.
    evaluated = distiller.evaluate(images, labels, verbose=0, return_dict=True)
    assert set(evaluated) == {"student_loss", "accuracy"}
