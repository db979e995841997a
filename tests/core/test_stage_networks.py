"""Stages that run another network in the student's place, and what a stage freezes."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfkd
from tfkd.distillers import KD

FIT = {"batch_size": 8, "shuffle": False, "verbose": 0}


def hybrid(distiller, training=False):
    """The teacher's features with the student's classifier."""
    student, teacher = (distiller.network(name).model for name in ("student", "teacher"))
    features = tfkd.models.segment(teacher, None, "pooled", name="features", training=training)
    classifier = tfkd.models.segment(student, "pooled", "logits", name="classifier")
    image = keras.Input(student.input_shape[1:])
    pooled = features(image)
    outputs = {"logits": classifier(pooled), "pooled_of_teacher": pooled}
    return tfkd.models.Network(keras.Model(image, outputs, name="hybrid"))


class Features(tfkd.Objective):
    """Reads a tap that only the hybrid has."""

    requires = tfkd.Requires(teacher=True)

    def compute(self, context):
        return context.mean(tf.square(context.student("pooled_of_teacher")))


def test_a_stage_runs_its_network_and_trains_through_it(network, images, labels):
    teacher, student = network(name="teacher"), network()
    distiller = tfkd.Distiller(teacher, student, Features(), 0.0)
    stage = tfkd.Stage("hybrid", 1, network=hybrid, taps=("pooled_of_teacher",))
    distiller.enter_stage(stage)
    distiller.compile(keras.optimizers.SGD(0.1))
    found = distiller.evaluate(images, labels, verbose=0, return_dict=True)
    pooled = tfkd.models.tapped(teacher, ["pooled"])(images)["pooled"]
    logits = tfkd.models.head(student, "pooled")(pooled)
    wanted = np.mean(np.argmax(logits, -1) == labels)
    np.testing.assert_allclose(found["accuracy"], wanted)
    before = {v.path: np.array(v) for v in student.variables}
    distiller.fit(images, labels, **FIT)
    moved = {
        path for path, value in before.items() if not np.array_equal(value, _of(student, path))
    }
    assert moved == {v.path for v in student.get_layer("logits").variables}
    # The student is what it was made as: saved, counted and checkpointed.
    assert distiller.clean_student().model is student
    distiller.enter_stage(tfkd.Stage("student alone", 1, objectives=()))
    distiller.compile(keras.optimizers.SGD(0.1))
    own = distiller.evaluate(images, labels, verbose=0, return_dict=True)
    np.testing.assert_allclose(
        own["accuracy"], np.mean(np.argmax(student(images, training=False), -1) == labels)
    )


def _of(model, path):
    return next(np.array(v) for v in model.variables if v.path == path)


def test_the_network_of_a_stage_has_to_go_with_the_student(network):
    distiller = tfkd.Distiller(network(name="teacher"), network(), KD())

    def other(classes, shape=(8, 8, 3)):
        return lambda distiller: tfkd.models.create("resnet8", classes, shape)

    with pytest.raises(
        tfkd.TfkdError, match="network of stage 's' gives 7 classes, but the student"
    ):
        distiller.enter_stage(tfkd.Stage("s", network=other(7)))
    with pytest.raises(tfkd.TfkdError, match="network of stage 's' takes images .16, 16, 3., but"):
        distiller.enter_stage(tfkd.Stage("s", network=other(4, (16, 16, 3))))
    with pytest.raises(tfkd.TfkdError, match="unknown tap of model 'hybrid' 'locl'"):
        distiller.enter_stage(tfkd.Stage("s", network=hybrid, taps=("locl",)))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"epochs": 2, "steps": 5}, "stage 's': found epochs=2 and steps=5, wanted one of them"),
        ({"epochs": 0}, "found epochs=0, wanted a whole number >= 1"),
        ({"steps": 2.5}, "found steps=2.5, wanted a whole number >= 1"),
        ({"taps": ("local",)}, r"found taps \['local'\] without a network"),
        (
            {"optimizer": lambda steps: None, "recipe": {"learning_rate": 1.0}},
            "found a recipe beside an optimizer",
        ),
        ({"trainable": 5}, "found trainable=5, wanted a function"),
        ({"network": "hybrid"}, "found network='hybrid', wanted a function"),
        ({"data": 5}, "found data=5, wanted a function"),
        ({"optimizer": "adam"}, "found optimizer='adam', wanted a function"),
        ({"objectives": "kd"}, "found objectives='kd', wanted a list of names"),
        ({"recipe": ["learning_rate"]}, "found recipe=.*, wanted a dict of fields"),
        ({"student_loss_weight": -1.0}, "student_loss_weight: found -1.0, wanted a number >= 0"),
        ({"evaluate": "no"}, "evaluate: found 'no', wanted True or False"),
        ({"cached": "local"}, "found cached='local', wanted a list of names"),
        ({"cache_bytes": -1}, "stage 's': cache_bytes: found -1, wanted a whole number >= 0"),
        ({"columns": ("hidden",)}, r"found columns \['hidden'\] without data"),
    ],
)
def test_stages_that_contradict_themselves_are_refused(fields, message):
    with pytest.raises(tfkd.TfkdError, match=message):
        tfkd.Stage("s", **fields)


class OfTeacher(tfkd.Objective):
    """Trains a layer on the teacher's features."""

    requires = tfkd.Requires(taps={("teacher", "main"): ["pooled"]})

    def setup(self, spec):
        self.layer = keras.layers.Dense(1)
        self.layer.build(spec.shapes["teacher", "main"]["pooled"])

    def compute(self, context):
        return context.mean(tf.square(self.layer(context.teacher("pooled")) - 1.0))


@pytest.mark.parametrize(
    ("fields", "rests"),
    [
        ({"student_loss_weight": 0.0, "evaluate": False}, True),
        ({"student_loss_weight": 0.0}, False),
        ({"student_loss_weight": 0.5, "evaluate": False}, False),
        (
            {"student_loss_weight": 0.0, "evaluate": False, "objectives": ("of_teacher", "kd")},
            False,
        ),
    ],
    ids=["nothing_comes_of_it", "is_evaluated", "learns_labels", "is_read"],
)
def test_a_stage_that_needs_no_student_does_not_run_it(fields, rests, network, images, labels):
    student = network()
    losses = [OfTeacher(), KD()]
    distiller = tfkd.Distiller(
        network(name="teacher"), student, losses, evaluate_distillation=False
    )
    trained = losses[0].layer.trainable_variables
    fields = {"objectives": ("of_teacher",), "trainable": lambda distiller: trained, **fields}
    distiller.enter_stage(tfkd.Stage("s", 1, **fields))
    distiller.compile(keras.optimizers.SGD(0.01))
    before = [np.array(each) for each in trained]
    history = distiller.fit(images, labels, **FIT).history
    assert (history["student_loss"] == [0.0]) == (history["accuracy"] == [0.0]) == rests
    assert history["of_teacher"][0] > 0
    assert all(np.any(now != then) for now, then in zip(trained, before, strict=True))
    # An evaluation that is asked for tells of the student all the same.
    found = distiller.evaluate(images, labels, verbose=0, return_dict=True)
    wanted = np.mean(np.argmax(student(images, training=False), axis=1) == labels)
    np.testing.assert_allclose(found["accuracy"], wanted)


def dropped():
    """Dropout within the features, and before the classifier."""
    image = keras.Input((8, 8, 3))
    hidden = keras.layers.Conv2D(6, 3, name="conv1")(image)
    hidden = keras.layers.Dropout(0.5, name="inner")(hidden)
    hidden = keras.layers.Conv2D(6, 3, name="conv2")(hidden)
    hidden = keras.layers.Flatten(name="flat")(keras.layers.ReLU(name="relu")(hidden))
    hidden = keras.layers.Dropout(0.5, name="outer")(hidden)
    return keras.Model(image, keras.layers.Dense(4, name="logits")(hidden), name="dropped")


class Seen(tfkd.Objective):
    """Counts how much of two taps is zero."""

    requires = tfkd.Requires(taps={("student", "main"): ["inner", "outer", "flat"]})
    terms = ("inner", "outer", "flat")

    def compute(self, context):
        zero = {tap: tf.equal(context.student(tap), 0.0) for tap in self.terms}
        means = {tap: tf.reduce_mean(tf.cast(each, tf.float32)) for tap, each in zero.items()}
        rows = tf.ones(tf.shape(context.labels)[0])
        return {tap: context.mean(mean * rows) for tap, mean in means.items()}


def zeros(trainable, images, labels):
    student = dropped()
    distiller = tfkd.Distiller(None, student, Seen())
    distiller.enter_stage(tfkd.Stage("s", trainable=trainable))
    distiller.compile(keras.optimizers.SGD(0.0))
    history = distiller.fit(images, labels, **FIT).history
    # What the stage did to the layers while it was traced is undone.
    assert all(layer.trainable for layer in student.layers)
    rows = np.asarray(student(np.ones((64, 8, 8, 3), "float32"), training=True))
    assert np.abs(rows - rows[0]).max() > 0
    return {tap: history[f"seen/{tap}"][0] for tap in Seen.terms}


def test_dropout_between_frozen_layers_is_off_and_before_a_trained_one_on(images, labels):
    head = zeros(lambda d: d.student.get_layer("logits").trainable_variables, images, labels)
    assert head["inner"] < 0.05
    assert head["outer"] > head["flat"] + 0.1
    whole = zeros(lambda d: d.student.trainable_variables, images, labels)
    assert whole["inner"] > 0.3
    first = zeros(lambda d: d.student.get_layer("conv1").trainable_variables, images, labels)
    assert first["inner"] > 0.3
    np.testing.assert_allclose(first["outer"], first["flat"])


def test_a_stage_that_names_no_variables_is_refused(network):
    distiller = tfkd.Distiller(None, network())
    for found in (None, [], ["kernel"], 5):
        with pytest.raises(tfkd.TfkdError, match="wanted a list of variables"):
            distiller.enter_stage(tfkd.Stage("s", trainable=lambda distiller, f=found: f))


def test_a_hybrid_leaves_the_teacher_as_it_was_given(network, images, labels):
    teacher = network(name="teacher")
    before = [np.array(v) for v in teacher.variables]
    distiller = tfkd.Distiller(teacher, network(), Features())

    def live(distiller):
        teacher = distiller.network("teacher", as_given=True).model
        features = tfkd.models.segment(teacher, None, "pooled", name="features")
        student = distiller.student
        classifier = tfkd.models.segment(student, "pooled", "logits", name="classifier")
        image = keras.Input(student.input_shape[1:])
        pooled = features(image)
        outputs = {"logits": classifier(pooled), "pooled_of_teacher": pooled}
        return tfkd.models.Network(keras.Model(image, outputs, name="hybrid"))

    distiller.enter_stage(tfkd.Stage("s", 1, network=live, taps=("pooled_of_teacher",)))
    distiller.compile(keras.optimizers.SGD(0.1))
    distiller.fit(images, labels, **FIT)
    for variable, value in zip(teacher.variables, before, strict=True):
        np.testing.assert_array_equal(variable, value)
    assert all(layer.trainable for layer in teacher.layers)


def test_the_network_of_a_stage_has_the_exits_of_the_student(network):
    model = network()
    early = keras.layers.Dense(4, name="early")(model.get_layer("pooled").output)
    student = keras.Model(model.input, {"exit1": early, "logits": model.output})
    distiller = tfkd.Distiller(None, student)
    message = "network of stage 's' has the outputs logits, wanted exit1, logits as the student has"
    with pytest.raises(tfkd.TfkdError, match=message):
        distiller.enter_stage(tfkd.Stage("s", network=lambda distiller: network(name="one")))


def test_variables_of_a_stage_network_are_in_the_state(network):
    distiller = tfkd.Distiller(None, network())
    own = network(name="own")
    distiller.enter_stage(tfkd.Stage("s", network=lambda distiller: own))
    kept = {id(v) for v in distiller.state().values()}
    assert {id(v) for v in own.variables} <= kept
    distiller.enter_stage(None)
    assert not any(name.startswith("stage/") for name in distiller.state())


class TwoPhases(tfkd.Objective):
    """Reads another view, and has another term, in each of its stages."""

    terms = ("first", "second")

    def requires_in(self, stage):
        view = "second" if stage == "later" else "main"
        return tfkd.Requires(taps={("student", view): ["logits"]})

    def terms_in(self, stage):
        return ("second",) if stage == "later" else ("first",)

    def compute(self, context):
        view = "second" if context.stage == "later" else "main"
        loss = context.mean(tf.square(context.student("logits", view)))
        return {self.terms_in(context.stage)[0]: loss}


def test_views_and_terms_of_a_method_may_differ_between_its_stages(network, images, labels):
    distiller = tfkd.Distiller(None, network(), TwoPhases())
    batch = {"image": images, "label": labels, "image_second": images[::-1]}
    logged = {}
    for name in ("sooner", "later"):
        distiller.enter_stage(tfkd.Stage(name, 1))
        distiller.compile(keras.optimizers.SGD(0.0))
        logged[name] = distiller.train_on_batch(batch, return_dict=True)
    for name, term, other in (("sooner", "first", "second"), ("later", "second", "first")):
        assert logged[name][f"two_phases/{term}"] > 0
        assert logged[name][f"two_phases/{other}"] == 0
    with pytest.raises(tfkd.TfkdError, match="the batch lacks image_second"):
        distiller.train_on_batch(images, labels)
