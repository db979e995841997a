"""What objectives are told and may do: factors, untrained layers, labels, heads, a virtual step."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfkd
from tfkd.distillers import KD

FIT = {"batch_size": 8, "shuffle": False, "verbose": 0}


class Weighed(tfkd.Objective):
    """Two terms, one of them with a weight of its own, and a schedule."""

    requires = tfkd.Requires(taps={("student", "main"): ["logits"]})
    terms = ("one", "two")

    def setup(self, spec):
        self.gain = self.add_weight(shape=(), initializer="ones", name="gain")

    def compute(self, context):
        losses = {name: context.mean(tf.square(context.student_logits)) for name in self.terms}
        return tfkd.Terms(losses, factors={"two": 3.0 * self.gain})

    def schedule(self, epoch):
        return {"one": 0.5, "two": 1.0}


def test_logged_terms_add_up_to_the_distillation_loss(network, images, labels):
    teacher = network(name="teacher")
    distiller = tfkd.Distiller(teacher, network(), [KD(), Weighed()], [0.25, 2.0], 0.3)
    distiller.compile(keras.optimizers.SGD(0.0))
    found = distiller.evaluate(images, labels, verbose=0, return_dict=True)
    terms = [found["kd"], found["weighed/one"], found["weighed/two"]]
    np.testing.assert_allclose(found["distillation_loss"], np.sum(terms), rtol=1e-6)
    np.testing.assert_allclose(found["weighed/two"], 6.0 * found["weighed/one"], rtol=1e-6)
    total = 0.3 * found["student_loss"] + found["distillation_loss"]
    np.testing.assert_allclose(found["total_loss"], total, rtol=1e-6)


def test_a_factor_is_a_constant_of_the_gradient(network, images, labels):
    objective = Weighed()
    distiller = tfkd.Distiller(None, network(), objective)
    distiller.compile(keras.optimizers.SGD(0.1))
    distiller.fit(images, labels, **FIT)
    assert float(objective.gain) == 1.0


def test_a_factor_of_no_term_is_refused(network, images, labels):
    class Wrong(Weighed):
        def compute(self, context):
            terms = super().compute(context)
            return tfkd.Terms(terms.losses, factors={"three": 1.0})

    distiller = tfkd.Distiller(None, network(), Wrong())
    distiller.compile(run_eagerly=True)
    with pytest.raises(tfkd.TfkdError, match=r"factors of \['three'\], but its terms are"):
        distiller.fit(images, labels, **FIT)


class Averaged(tfkd.Objective):
    """A projector, and its moving average, which is no network of images."""

    requires = tfkd.Requires(taps={("student", "main"): ["pooled"]})

    def setup(self, spec):
        width = spec.shapes["student", "main"]["pooled"][-1]
        self.projector, self.average = keras.layers.Dense(3), keras.layers.Dense(3)
        for layer in (self.projector, self.average):
            layer.build((None, width))
        self.average.set_weights(self.projector.get_weights())
        self.untrained = [self.average]

    def compute(self, context):
        pooled = context.student("pooled")
        target = tf.stop_gradient(self.average(pooled))
        return context.mean(tf.square(self.projector(pooled) - target + 1.0))

    def after_step(self, context, carry):
        for slow, fast in zip(self.average.variables, self.projector.variables, strict=True):
            slow.assign(0.5 * slow + 0.5 * fast)


def test_untrained_layers_take_no_gradient_and_no_place_in_the_optimizer(network, images, labels):
    objective = Averaged()
    distiller = tfkd.Distiller(None, network(), objective)
    distiller.compile(keras.optimizers.SGD(0.1, momentum=0.9))
    trained = {id(v) for v in distiller.trained_variables}
    assert {id(v) for v in objective.projector.variables} <= trained
    assert not trained & {id(v) for v in objective.average.variables}
    # A momentum for each trained variable, the step and the rate.
    assert len(distiller.optimizer.variables) == len(trained) + 2
    before = objective.average.get_weights()
    distiller.fit(images[:8], labels[:8], **FIT)
    after = objective.projector.get_weights()
    for slow, old, new in zip(objective.average.get_weights(), before, after, strict=True):
        np.testing.assert_allclose(slow, 0.5 * old + 0.5 * new, rtol=1e-6)
    kept = {id(v) for v in distiller.state().values()}
    assert {id(v) for v in objective.average.variables} <= kept


class Told(tfkd.Objective):
    """Keeps what it was told."""

    requires = tfkd.Requires(taps={("student", "main"): ["logits"]}, train_labels=True)

    def setup(self, spec):
        self.told = [spec]

    def compute(self, context):
        return context.mean(tf.square(context.student_logits))


def test_labels_of_the_whole_training_set_are_told_where_asked_for(network, labels):
    message = (
        "told needs the labels of the training set: found None, wanted Distiller(..., train_labels"
    )
    with pytest.raises(tfkd.TfkdError) as caught:
        tfkd.Distiller(None, network(), Told())
    assert str(caught.value).startswith(message)
    objective = Told()
    tfkd.Distiller(None, network(), objective, train_labels=labels)
    np.testing.assert_array_equal(objective.told[0].train_labels, labels)


def test_networks_and_heads_are_told_with_their_names_for_taps(network, labels, images):
    student = tfkd.models.Network(
        network(), tfkd.models.Preprocess((1.0,) * 3, (2.0,) * 3), taps={"mine": "stage1"}
    )
    objective = Told()
    teachers = [network(name="one"), network(name="two")]
    distiller = tfkd.Distiller(teachers, student, [objective, KD()], train_labels=labels)
    spec = objective.told[0]
    assert spec.network("student").taps == {"mine": "stage1"}
    assert spec.network("student").preprocess == student.preprocess
    assert spec.network("teacher:1").name == "two"
    assert spec.network("teacher:1").model is not teachers[1]
    assert spec.network("teacher:1", as_given=True).model is teachers[1]
    head = spec.head("student", "mine")
    feature = tfkd.models.tapped(student.model, ["stage1"])(images)["stage1"]
    np.testing.assert_allclose(head(feature), student.model(images), rtol=1e-4, atol=1e-5)
    for call in (spec.network, spec.head, distiller.network):
        with pytest.raises(
            tfkd.TfkdError, match="unknown network 'teacher'; did you mean 'teacher:"
        ):
            call("teacher")


def test_the_student_at_other_weights_is_a_virtual_step(network, images, labels):
    student = tfkd.models.Network(network(), tfkd.models.Preprocess((3.0,) * 3, (2.0,) * 3))
    distiller = tfkd.Distiller(None, student)
    variables = student.model.trainable_variables
    before = [np.array(v) for v in student.model.variables]
    rate = tf.Variable(0.1)

    @tf.function
    def virtual():
        with tf.GradientTape() as outer:
            with tf.GradientTape() as tape:
                logits = student.model(student.preprocess(images), training=True)
                loss = tf.reduce_mean(tf.square(logits))
            gradients = tape.gradient(loss, [v.value for v in variables])
            moved = [v - rate * g for v, g in zip(variables, gradients, strict=True)]
            found = distiller.student_at(moved, images, ["logits", "pooled"], training=False)
            value = tf.reduce_mean(tf.square(found["logits"]))
        return found, moved, outer.gradient(value, rate)

    # The first pass is a training one and moves the statistics, as it should; the virtual does not.
    found, moved, slope = virtual()
    for variable, value in zip(variables, moved, strict=True):
        variable.assign(value)
    wanted = tfkd.models.tapped(student.model, ["logits", "pooled"])(
        student.preprocess(images), training=False
    )
    for tap in ("logits", "pooled"):
        np.testing.assert_allclose(found[tap], wanted[tap], rtol=1e-4, atol=1e-5)
    assert float(slope) != 0.0
    for variable, value in zip(student.model.variables, before, strict=True):
        variable.assign(value)
    distiller.student_at([tf.convert_to_tensor(v) for v in variables], images, training=True)
    for variable, value in zip(student.model.variables, before, strict=True):
        np.testing.assert_array_equal(variable, value)


def test_values_of_a_virtual_step_are_counted(network, images):
    distiller = tfkd.Distiller(None, network())
    values = [tf.convert_to_tensor(v) for v in distiller.student.trainable_variables]
    for wrong in (values[:-1], [*values, values[0]]):
        with pytest.raises(
            tfkd.TfkdError, match=f"found {len(wrong)} tensors, wanted {len(values)}"
        ):
            distiller.student_at(wrong, images, training=False)
    with pytest.raises(tfkd.TfkdError, match="found the string 'logits'; wanted a list"):
        distiller.student_at(values, images, "logits", training=False)


class Learning(tfkd.Objective):
    """Updates a weight of its own by an optimizer of its own."""

    requires = tfkd.Requires(taps={("student", "main"): ["logits"]})

    def setup(self, spec):
        self.gain = self.add_weight(shape=(), initializer="ones", trainable=False, name="gain")
        self.own = keras.optimizers.Adam(0.1)
        self.own.build([self.gain])
        self.optimizers = [self.own]

    def compute(self, context):
        return tfkd.Terms({self.name: context.mean(tf.square(context.student_logits))})

    def after_step(self, context, carry):
        self.own.apply_gradients([(tf.ones(()), self.gain)])


def test_optimizers_of_an_objective_are_in_the_state(network, images, labels):
    objective = Learning()
    distiller = tfkd.Distiller(None, network(), objective)
    distiller.compile(keras.optimizers.SGD(0.1))
    distiller.fit(images, labels, **FIT)
    np.testing.assert_allclose(objective.gain, 0.8, rtol=1e-4)
    kept = {id(v) for v in distiller.state().values()}
    assert {id(v) for v in objective.own.variables} <= kept


@pytest.mark.parametrize(
    ("variants", "message"),
    [
        ({"last": None}, "variant 'last' of the student: found that the word is taken"),
        ({"best": None}, "variant 'best' of the student: found that the word is taken"),
        ({"teacher": None}, "variant 'teacher' of the student: found that the word is taken"),
        ({"../x": None}, "variant '../x' of the student: wanted a word of small letters"),
        ({"": None}, "variant '' of the student: wanted a word of small letters"),
        ({"cool": 5}, "variant 'cool' of the student: found int, wanted a tfkd Network"),
    ],
)
def test_variants_that_cannot_be_kept_are_refused(variants, message, network):
    class Wrong(Told):
        requires = tfkd.Requires()

        def variants(self, student, finish):
            return variants

    distiller = tfkd.Distiller(None, network(), Wrong())
    with pytest.raises(tfkd.TfkdError, match=message):
        distiller.variants(distiller.clean_student())
