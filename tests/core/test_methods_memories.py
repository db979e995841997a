"""Methods to come, written small: banks, queues and EMA copies need nothing of the core."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfkd
from tfkd.core import Companion

RATE = 0.1


class Bank(tfkd.Objective):
    """Targets of the last visit to each image, mixed with the label (after PS-KD)."""

    requires = tfkd.Requires(
        taps={("student", "main"): ["logits"]}, index=True, epochs=True, train_size=True
    )
    replaces_label_loss = True

    def setup(self, spec):
        shape = (spec.train_size, spec.num_classes)
        self.memory = self._state("memory", shape)
        self.seen = self._state("seen", (spec.train_size, 1))

    def _state(self, name, shape):
        return self.add_weight(
            shape=shape,
            initializer="zeros",
            trainable=False,
            name=name,
            aggregation="only_first_replica",
        )

    def compute(self, context):
        logits = context.student_logits
        hard = tf.one_hot(context.labels, logits.shape[-1])
        seen = tf.gather(self.seen, context.index)
        past = seen * tf.gather(self.memory, context.index) + (1 - seen) * hard
        share = 0.8 * (context.epoch + 1) / context.epochs
        target = tf.stop_gradient((1 - share) * hard + share * past)
        loss = context.mean(-tf.reduce_sum(target * tf.nn.log_softmax(logits), axis=1))
        return tfkd.Terms({self.name: loss}, {"found": tf.nn.softmax(logits)})

    def after_step(self, context, carry):
        rows = context.gather(context.index)[:, None]
        found = context.gather(carry["found"])
        self.memory.assign(tf.tensor_scatter_nd_update(self.memory, rows, found))
        ones = tf.ones_like(found[:, :1])
        self.seen.assign(tf.tensor_scatter_nd_update(self.seen, rows, ones))


class Queue(tfkd.Objective):
    """Contrast of the embedding with the teacher's and with a queue of earlier ones."""

    requires = tfkd.Requires(
        taps={("student", "main"): ["pooled"], ("teacher", "main"): ["pooled"]}
    )
    length = 12

    def setup(self, spec):
        width = spec.shapes[("teacher", "main")]["pooled"][-1]
        self.project = keras.layers.Dense(width, use_bias=False)
        self.project.build(spec.shapes[("student", "main")]["pooled"])
        settings = {"trainable": False, "aggregation": "only_first_replica"}
        first = np.random.default_rng(spec.seed).normal(size=(self.length, width))
        self.keys = self.add_weight(
            shape=first.shape,
            initializer=keras.initializers.Constant(first),
            name="keys",
            **settings,
        )
        self.pointer = self.add_weight(
            shape=(), dtype="int32", initializer="zeros", name="pointer", **settings
        )

    def compute(self, context):
        query = tf.math.l2_normalize(self.project(context.student("pooled")), axis=1)
        key = tf.math.l2_normalize(context.teacher("pooled"), axis=1)
        own = tf.reduce_sum(query * key, axis=1, keepdims=True)
        scores = tf.concat([own, tf.matmul(query, self.keys, transpose_b=True)], axis=1) / 0.1
        loss = -tf.nn.log_softmax(scores)[:, 0]
        return tfkd.Terms({self.name: context.mean(loss)}, {"key": key})

    def after_step(self, context, carry):
        keys = context.gather(carry["key"])
        places = (self.pointer + tf.range(tf.shape(keys)[0])) % self.length
        self.keys.assign(tf.tensor_scatter_nd_update(self.keys, places[:, None], keys))
        self.pointer.assign((self.pointer + tf.shape(keys)[0]) % self.length)


class Twin(tfkd.Objective):
    """The student follows the moving average of itself, which runs in training mode."""

    requires = tfkd.Requires(
        taps={("student", "main"): ["pooled"], ("twin", "main"): ["pooled", "logits"]}
    )
    terms = ("pooled", "logits")

    def setup(self, spec):
        student = spec.network("student").model
        self.twin = keras.models.clone_model(student)
        self.twin.set_weights(student.get_weights())
        self.pairs = list(zip(self.twin.trainable_variables, student.trainable_variables))
        self.companions["twin"] = Companion(self.twin)

    def before_step(self, context):
        for slow, fast in self.pairs:
            slow.assign(0.5 * slow + 0.5 * fast)

    def compute(self, context):
        pooled = context.student("pooled") - context.output("twin", "pooled")
        logits = context.student_logits - context.output("twin")
        return {
            "pooled": context.mean(tf.square(pooled)),
            "logits": context.mean(tf.square(logits)),
        }


def fit(distiller, images, labels, epochs=2):
    batch = {"image": images, "label": labels, "index": np.arange(16, dtype="int32")[::-1].copy()}
    data = tf.data.Dataset.from_tensor_slices(batch).batch(8)
    return distiller.fit(data, epochs=epochs, verbose=0).history


def sgd():
    return keras.optimizers.SGD(RATE)


@pytest.mark.parametrize("kind", [Bank, Queue, Twin])
def test_state_is_written_once_from_the_whole_batch(kind, distiller_on, network, images, labels):
    made = []
    for replicas in (1, 2):
        distiller = distiller_on(
            replicas,
            (lambda: network(6, name="teacher")) if kind is Queue else None,
            network,
            kind,
            sgd,
            train_size=16,
        )
        history = fit(distiller, images, labels)
        made.append((distiller.state(), history))
    (one, history), (two, other) = made
    assert one.keys() == two.keys()
    for name, variable in one.items():
        if not name.startswith("metrics"):
            np.testing.assert_allclose(two[name], variable, atol=2e-5, err_msg=name)
    for name, values in history.items():
        np.testing.assert_allclose(other[name], values, rtol=1e-4, atol=1e-5, err_msg=name)
    # All copies of a bank are equal, not only the one that is read here.
    for name, variable in two.items():
        if name.startswith("objective"):
            copies = [np.array(each) for each in getattr(variable.value, "values", [variable])]
            for copy in copies:
                np.testing.assert_array_equal(copy, copies[0], err_msg=name)


def test_bank_holds_what_the_steps_saw(network, images, labels):
    student = network(norm=False)
    bank = Bank()
    distiller = tfkd.Distiller(None, student, bank, train_size=20)
    distiller.compile(sgd())
    first = tf.nn.softmax(student(images[:8]))
    expected_loss = float(
        tf.reduce_mean(
            keras.losses.sparse_categorical_crossentropy(labels[:8], first, from_logits=False)
        )
    )
    distiller.set_epochs(4)
    batch = {"image": images[:8], "label": labels[:8], "index": np.arange(12, 20, dtype="int32")}
    found = distiller.train_on_batch(batch, return_dict=True)
    np.testing.assert_allclose(found["bank"], expected_loss, rtol=1e-5)
    # The label loss is logged, and adds nothing.
    np.testing.assert_allclose(found["student_loss"], expected_loss, rtol=1e-5)
    assert found["loss"] == found["bank"]
    np.testing.assert_allclose(bank.memory[12:], first, atol=1e-6)
    np.testing.assert_array_equal(bank.memory[:12], 0)
    np.testing.assert_array_equal(np.squeeze(bank.seen), np.arange(20) >= 12)
    # The second visit, in the second of four epochs: 0.4 of the target is what was kept.
    distiller.set_epoch(1)
    now = tf.nn.log_softmax(student(images[:8]))
    target = 0.6 * np.eye(4)[labels[:8]] + 0.4 * first.numpy()
    found = distiller.train_on_batch(batch, return_dict=True)
    np.testing.assert_allclose(found["bank"], -np.mean(np.sum(target * now, axis=1)), rtol=1e-5)


def test_queue_wraps_around(network, images, labels):
    queue, teacher = Queue(), network(6, name="teacher", norm=False)
    distiller = tfkd.Distiller(teacher, network(norm=False), queue)
    distiller.compile(sgd())
    first = np.array(queue.keys)
    fit(distiller, images, labels, epochs=1)
    keys = tfkd.models.tapped(teacher, ["pooled"])(images)["pooled"]
    keys = tf.math.l2_normalize(keys, axis=1).numpy()
    expected = first.copy()
    expected[np.arange(8)] = keys[:8]
    expected[np.arange(8, 16) % 12] = keys[8:]
    np.testing.assert_allclose(queue.keys, expected, atol=1e-5)
    assert int(queue.pointer.numpy()) == 4


def test_twin_follows_the_student_and_is_not_trained(network, images, labels, values_of):
    student, objective = network(), Twin()
    distiller = tfkd.Distiller(None, student, objective)
    distiller.compile(sgd())
    slow = values_of(objective.twin.trainable_variables)
    for _ in range(3):
        fast = values_of(student.trainable_variables)
        slow = [0.5 * a + 0.5 * b for a, b in zip(slow, fast)]
        distiller.train_on_batch(images, labels)
        for variable, expected in zip(objective.twin.trainable_variables, slow):
            np.testing.assert_allclose(variable, expected, atol=1e-6)
    own = {id(variable) for variable in objective.twin.variables}
    assert not own.intersection(id(variable) for variable in distiller.trained_variables)
    state = {id(variable) for variable in distiller.state().values()}
    assert own <= state
    # Its batch normalization ran in training mode.
    assert not np.allclose(objective.twin.get_layer("bn").moving_mean, 0)
