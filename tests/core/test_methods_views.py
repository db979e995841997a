"""Methods to come, written small: further views, replaced logits, connectors, schedules."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfkd
from tfkd.distillers import KD

RATE = 0.1
TRACES: list = []


@keras.saving.register_keras_serializable(package="core_tests")
class Rows(keras.layers.Layer):
    """Notes how often, in which mode and on how many images a network runs."""

    def call(self, inputs, training=None):
        TRACES.append((self.name, bool(training), inputs.shape[0]))
        return inputs


def noted(network, name, **settings):
    inputs = keras.Input((8, 8, 3), name="image")
    base = network(name=name, **settings)
    hidden = Rows(name=f"{name}_rows")(inputs)
    for layer in base.layers[1:]:
        hidden = layer(hidden)
    return keras.Model(inputs, hidden, name=name)


class Merged(tfkd.Objective):
    """A residual branch before the pooling, merged into the classifier at the end (after NORM)."""

    requires = tfkd.Requires(
        taps={("student", "main"): ["pre_pool"], ("teacher", "main"): ["pre_pool"]}
    )
    replaces_label_loss = True
    terms = ("label", "feature")

    def setup(self, spec):
        narrow = spec.shapes[("student", "main")]["pre_pool"][-1]
        self.wide = spec.shapes[("teacher", "main")]["pre_pool"][-1]
        self.expand = keras.layers.Dense(2 * self.wide, use_bias=False)
        self.expand.build((None, narrow))
        self.norm = tfkd.models.BatchNormalization()
        self.norm.build((None, None, None, 2 * self.wide))
        self.reduce = keras.layers.Dense(narrow, use_bias=False)
        self.reduce.build((None, 2 * self.wide))
        self.head = spec.head("student")

    def student_logits(self, context):
        features = context.output("student", "pre_pool")
        expanded = self.norm(self.expand(features), training=context.training)
        context.scratch[self.name] = expanded
        return self.head(features + self.reduce(expanded), training=context.training)

    def compute(self, context):
        target = tf.tile(context.teacher("pre_pool"), [1, 1, 1, 2])
        labels = tf.one_hot(context.labels, 4)
        log = tf.nn.log_softmax(context.student_logits)
        return {
            "label": 0.25 * context.mean(-tf.reduce_sum(labels * log, axis=1)),
            "feature": 2 * context.mean(tf.square(context.scratch[self.name] - target)),
        }

    def schedule(self, epoch):
        return {"label": 1.0, "feature": tf.where(epoch < 1, 0.1, 0.5)}

    def finalize(self, student, finish):
        norm = self.norm
        scale = np.array(norm.gamma) / np.sqrt(np.array(norm.moving_variance) + norm.epsilon)
        shift = np.array(norm.beta) - scale * np.array(norm.moving_mean)
        kernel = np.array(self.expand.kernel) * scale
        reduce = np.array(self.reduce.kernel)
        clean = keras.models.clone_model(student.model)
        clean.set_weights(student.model.get_weights())
        last = clean.get_layer("logits")
        weights = np.array(last.kernel)
        last.bias.assign(np.array(last.bias) + shift @ reduce @ weights)
        last.kernel.assign((np.eye(len(weights)) + kernel @ reduce) @ weights)
        return student.with_model(clean)


def test_replaced_logits_and_a_clean_student(network, images, labels, tmp_path):
    student, objective = noted(network, "student"), Merged()
    distiller = tfkd.Distiller(network(6, name="teacher"), student, objective)
    distiller.compile(keras.optimizers.SGD(RATE), run_eagerly=True)
    settings = {"batch_size": 8, "shuffle": False, "verbose": 0}
    TRACES.clear()
    history = distiller.fit(images, labels, **settings).history
    # One forward pass a step, of which the head is run again on the replaced features.
    assert TRACES == [("student_rows", True, 8)] * 2
    # The label loss is logged beside the objective's own, and adds nothing.
    assert history["student_loss"][0] > 0
    weighted = history["merged/label"][0] + history["merged/feature"][0]
    np.testing.assert_allclose(history["loss"], weighted, rtol=1e-5)
    found = distiller.evaluate(images, labels, verbose=0, return_dict=True)
    clean = distiller.clean_student().model
    assert clean.count_params() == student.count_params()
    logits = clean(images).numpy()
    assert not np.allclose(logits, student(images), atol=1e-3)
    # What evaluation measures is the student that comes out.
    assert found["accuracy"] == np.mean(logits.argmax(axis=1) == labels)
    loss = keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True)
    np.testing.assert_allclose(found["merged/label"], 0.25 * np.mean(loss), rtol=1e-4)
    distiller.save(tmp_path / "clean.keras")
    loaded = keras.models.load_model(
        tmp_path / "clean.keras", custom_objects={"core_tests>Rows": Rows}
    )
    np.testing.assert_allclose(loaded(images), logits, atol=1e-6)


def test_replaced_logits_on_two_replicas(distiller_on, network, images, labels):
    weights = []
    for replicas in (1, 2):
        distiller = distiller_on(
            replicas, lambda: network(6, name="teacher"), network, lambda: Merged()
        )
        distiller.fit(images, labels, batch_size=8, shuffle=False, verbose=0)
        weights.append([np.array(each) for each in distiller.trained_variables])
    for one, two in zip(*weights):
        np.testing.assert_allclose(two, one, atol=1e-5)


class Rotated(tfkd.Objective):
    """Four rotations of each image, the upright one of which is classified (after SSKD)."""

    requires = tfkd.Requires(
        taps={
            ("student", "rotations"): ["logits", "pooled"],
            ("teacher", "rotations"): ["logits", "pooled"],
        },
        main_rows_of="rotations",
    )
    replaces_label_loss = True
    terms = ("label", "kd", "transfer", "similarity")

    def setup(self, spec):
        self.heads = []
        for network in ("student", "teacher"):
            width = spec.shapes[(network, "rotations")]["pooled"][-1]
            head = keras.layers.Dense(width)
            head.build((None, width))
            self.heads.append(head)

    def compute(self, context):
        student, teacher = (
            getattr(context, network)("logits", "rotations") for network in ("student", "teacher")
        )
        upright = tf.cast(tf.range(tf.shape(student)[0]) % 4 == 0, tf.float32)
        labels = tf.repeat(context.labels, 4)
        correct = tf.equal(tf.argmax(teacher, axis=1), tf.cast(labels, tf.int64))
        kl = tfkd.distillers.kd_loss(student, teacher, 4.0)
        entropy = -tf.reduce_sum(tf.one_hot(labels, 4) * tf.nn.log_softmax(student), axis=1)
        return {
            "label": 0.1 * context.mean(entropy, upright),
            "kd": 0.9 * context.mean(kl, upright),
            "transfer": 2.7 * context.mean(kl, (1 - upright) * tf.cast(correct, tf.float32)),
            "similarity": 10 * self._similarity(context),
        }

    def _similarity(self, context):
        scores = []
        for network, head in zip(("student", "teacher"), self.heads):
            embedded = head(context.gather(getattr(context, network)("pooled", "rotations")))
            embedded = tf.math.l2_normalize(tf.reshape(embedded, [-1, 4, embedded.shape[-1]]), -1)
            scores.append(tf.einsum("iad,jd->iaj", embedded[:, 1:], embedded[:, 0]))
        per_image = tf.reduce_sum(tf.square(scores[0] - tf.stop_gradient(scores[1])), axis=2)
        return context.mean(per_image, gathered=True)


def rotated(images):
    turned = [np.rot90(images, turns, axes=(1, 2)) for turns in range(4)]
    return np.stack(turned, axis=1).reshape((-1, *images.shape[1:]))


def test_rotations_replace_the_main_view(network, images, labels):
    student, teacher = noted(network, "student"), noted(network, "teacher")
    distiller = tfkd.Distiller(teacher, student, Rotated())
    distiller.compile(keras.optimizers.SGD(RATE), run_eagerly=True)
    batch = {"image": images, "image_rotations": rotated(images), "label": labels}
    TRACES.clear()
    found = distiller.train_on_batch(batch, return_dict=True)
    # Batch normalization sees the four rotations and nothing else.
    assert sorted(TRACES) == [("student_rows", True, 64), ("teacher_rows", False, 64)]
    assert found["student_loss"] > 0
    total = sum(found[f"rotated/{term}"] for term in Rotated.terms)
    np.testing.assert_allclose(found["loss"], total, rtol=1e-5)
    TRACES.clear()
    found = distiller.evaluate(images, labels, verbose=0, return_dict=True)
    assert set(TRACES) == {("student_rows", False, 16)}
    assert found["accuracy"] == np.mean(student(images).numpy().argmax(axis=1) == labels)


class Copied(tfkd.Objective):
    """Pooled features of student, teacher and a copy of the student, on the main view."""

    requires = tfkd.Requires(
        taps={(network, "main"): ["pooled"] for network in ("student", "teacher", "copy")}
    )
    terms = ("teacher", "copy", "pixels")

    def setup(self, spec):
        copy = keras.models.clone_model(spec.network("student").model)
        self.companions = {"copy": tfkd.core.Companion(copy, training=False)}

    def compute(self, context):
        pooled = context.student("pooled")
        return {
            "teacher": context.mean(tf.square(pooled - context.teacher("pooled"))),
            "copy": context.mean(tf.square(pooled - context.output("copy", "pooled"))),
            "pixels": context.mean(context.batch["image"]),
        }


def test_rows_of_the_rotations_are_the_main_view_of_every_objective(network, images, labels):
    student, teacher = noted(network, "student"), noted(network, "teacher")
    twin = network()
    twin.set_weights(student.get_weights())
    losses = [Rotated(), KD(2.0), Copied()]
    distiller = tfkd.Distiller(teacher, student, losses, student_loss_weight=0.5)
    copy = losses[2].companions["copy"].model
    distiller.compile(keras.optimizers.SGD(RATE), run_eagerly=True)
    # Nothing of a training step comes from the main view itself.
    batch = {"image": 0 * images, "image_rotations": rotated(images), "label": labels}
    TRACES.clear()
    found = distiller.train_on_batch(batch, return_dict=True)
    # The copy is not read on the rotations, so that it sees the upright ones alone.
    assert sorted(TRACES) == [
        ("student_rows", False, 16), ("student_rows", True, 64), ("teacher_rows", False, 64),
    ]  # fmt: skip
    taps = ["pooled", "logits"]
    own = tfkd.models.tapped(twin, taps)(rotated(images), training=True)
    own = {tap: value[::4] for tap, value in own.items()}
    taught = tfkd.models.tapped(teacher, taps)(images, training=False)
    copied = tfkd.models.tapped(copy, ["pooled"])(images, training=False)["pooled"]
    label = keras.losses.sparse_categorical_crossentropy(labels, own["logits"], from_logits=True)
    wanted = {
        "student_loss": np.mean(label),
        "accuracy": np.mean(np.argmax(own["logits"], axis=1) == labels),
        "kd": np.mean(tfkd.distillers.kd_loss(own["logits"], taught["logits"], 2.0)),
        "copied/teacher": np.mean(np.square(own["pooled"] - taught["pooled"])),
        "copied/copy": np.mean(np.square(own["pooled"] - copied)),
        "copied/pixels": np.mean(images),
    }
    for name, value in wanted.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-4, err_msg=name)
    for moved, expected in zip(
        student.get_layer("bn").variables[2:], twin.get_layer("bn").variables[2:]
    ):
        np.testing.assert_allclose(moved, expected, atol=1e-6)


class Turned(tfkd.Objective):
    """What two teachers say together of the rotations."""

    requires = tfkd.Requires(
        taps={(network, "rotations"): ["logits"] for network in ("student", "teacher")},
        main_rows_of="rotations",
    )

    def compute(self, context):
        both = (context.student("logits", "rotations"), context.teacher("logits", "rotations"))
        return context.mean(tfkd.distillers.kd_loss(*both, 2.0))


def test_several_teachers_are_read_by_rows(network, images, labels):
    teachers = [noted(network, "one"), noted(network, "two")]
    distiller = tfkd.Distiller(teachers, network(), [Turned(), KD(2.0)])
    distiller.compile(keras.optimizers.SGD(0.0), run_eagerly=True)
    batch = {"image": images, "image_rotations": rotated(images), "label": labels}
    TRACES.clear()
    first = distiller.train_on_batch(batch, return_dict=True)
    assert sorted(TRACES) == [("one_rows", False, 64), ("two_rows", False, 64)]
    # Four equal rows instead of four rotations: both losses are means over the same pairs.
    batch = {**batch, "image_rotations": np.repeat(images, 4, axis=0)}
    distiller.reset_metrics()
    second = distiller.train_on_batch(batch, return_dict=True)
    np.testing.assert_allclose(second["turned"], second["kd"], rtol=1e-4)
    assert abs(first["turned"] - first["kd"]) > 1e-3 * first["kd"]


def test_rotations_on_two_replicas(distiller_on, network, images, labels):
    weights, logs = [], []
    images = images[:, :4, :4]
    sample_weight = np.linspace(0, 2, 16).astype("float32")

    def small(name="student", width=4):
        inputs = keras.Input((4, 4, 3))
        hidden = keras.layers.Dense(width, activation="tanh", name="pooled")(
            keras.layers.Flatten()(inputs)
        )
        return keras.Model(inputs, keras.layers.Dense(4, name="logits")(hidden), name=name)

    for replicas in (1, 2):
        distiller = distiller_on(replicas, lambda: small("teacher", 6), small, Rotated)
        split = [
            {
                "image": images[part],
                "image_rotations": rotated(images[part]),
                "label": labels[part],
                "sample_weight": sample_weight[part],
            }
            for part in np.split(np.arange(16), replicas)
        ]
        if replicas == 1:
            data = tf.data.Dataset.from_tensors(split[0])
        else:
            # Every replica gets its own images with all of their rotations.
            data = distiller.distribute_strategy.distribute_datasets_from_function(
                lambda context, split=split: tf.data.Dataset.from_generator(
                    lambda: iter(split), output_signature=spec_of(split[0])
                )
            )
        logs.append(distiller.fit(data, steps_per_epoch=1, verbose=0, shuffle=False).history)
        weights.append([np.array(each) for each in distiller.trained_variables])
    for one, two in zip(*weights):
        np.testing.assert_allclose(two, one, atol=1e-5)
    for name, values in logs[0].items():
        np.testing.assert_allclose(logs[1][name], values, rtol=1e-4, atol=1e-6, err_msg=name)


def spec_of(batch):
    return {name: tf.TensorSpec(value.shape, value.dtype) for name, value in batch.items()}


class Strong(tfkd.Objective):
    """A second, stronger view, with a second pass of both networks (after MLD)."""

    requires = tfkd.Requires(
        taps={
            (network, view): ["logits"]
            for network in ("student", "teacher")
            for view in ("main", "strong")
        }
    )
    terms = ("label_strong", "kd")

    def compute(self, context):
        strong = context.student("logits", "strong")
        label = tf.nn.log_softmax(strong) * tf.one_hot(context.labels, 4)
        kd = sum(
            tfkd.distillers.kd_loss(
                context.student("logits", view), context.teacher("logits", view)
            )
            for view in ("main", "strong")
        )
        return {
            "label_strong": context.mean(-tf.reduce_sum(label, axis=1)),
            "kd": context.mean(kd),
        }


def test_strong_view(network, images, labels):
    student, teacher = noted(network, "student"), noted(network, "teacher")
    twin = network()
    twin.set_weights(student.get_weights())
    distiller = tfkd.Distiller(teacher, student, Strong())
    distiller.compile(keras.optimizers.SGD(RATE), run_eagerly=True)
    batch = {"image": images, "image_strong": 3 * images + 1, "label": labels}
    TRACES.clear()
    found = distiller.train_on_batch(batch, return_dict=True)
    assert sorted(TRACES) == [("student_rows", True, 16)] * 2 + [("teacher_rows", False, 16)] * 2
    shown = twin(images, training=True), twin(3 * images + 1, training=True)
    losses = [
        np.mean(keras.losses.sparse_categorical_crossentropy(labels, each, from_logits=True))
        for each in shown
    ]
    np.testing.assert_allclose(found["student_loss"], losses[0], rtol=1e-4)
    np.testing.assert_allclose(found["strong/label_strong"], losses[1], rtol=1e-4)
    # Two separate passes: the statistics have moved twice.
    np.testing.assert_allclose(
        student.get_layer("bn").moving_mean, twin.get_layer("bn").moving_mean, atol=1e-6
    )


class Connected(tfkd.Objective):
    """A connector of a size and number of channels found in ``setup``."""

    requires = tfkd.Requires(
        taps={("student", "main"): ["stage1"], ("teacher", "main"): ["stage2"]}
    )

    def setup(self, spec):
        source = spec.shapes[("student", "main")]["stage1"]
        target = spec.shapes[("teacher", "main")]["stage2"]
        self.connect = keras.layers.Conv2D(target[-1], 1 + source[1] - target[1])
        self.connect.build(source)

    def compute(self, context):
        difference = self.connect(context.student("stage1")) - context.teacher("stage2")
        return context.mean(tf.square(difference))


def test_connector_is_made_from_shapes_and_trained(network, images, labels, values_of):
    inputs = keras.Input((8, 8, 3))
    small = keras.layers.Conv2D(6, 3, 4, name="stage2")(inputs)
    flat = keras.layers.Flatten()(small)
    teacher = keras.Model(inputs, keras.layers.Dense(4)(flat), name="teacher")
    student, objective = network(), Connected()
    distiller = tfkd.Distiller(teacher, student, objective)
    assert objective.connect.kernel.shape == (3, 3, 4, 6)
    distiller.compile(keras.optimizers.SGD(RATE))
    before = values_of(objective.trainable_variables)
    first = distiller.train_on_batch(images, labels, return_dict=True)["connected"]
    for now, then in zip(objective.trainable_variables, before):
        assert np.any(np.array(now) != then)
    for _ in range(5):
        last = distiller.train_on_batch(images, labels, return_dict=True)["connected"]
    assert last < first
    assert student.count_params() == network().count_params()


@pytest.mark.parametrize("steps", [1, 2])
def test_schedule_does_not_trace_again(steps, network, images, labels):
    class Warmed(tfkd.Objective):
        """A loss that grows over three epochs."""

        requires = tfkd.Requires(taps={("student", "main"): ["logits"]})

        def compute(self, context):
            TRACES.append("compute")
            return context.mean(tf.ones_like(context.labels, tf.float32))

        def schedule(self, epoch):
            return tf.minimum(1.0, epoch / 2)

    distiller = tfkd.Distiller(None, network(), Warmed(), 3.0)
    distiller.compile(keras.optimizers.SGD(RATE), steps_per_execution=steps)
    TRACES.clear()
    history = distiller.fit(images, labels, batch_size=8, epochs=4, verbose=0).history
    np.testing.assert_allclose(history["distillation_loss"], [0, 1.5, 3, 3])
    np.testing.assert_allclose(history["warmed"], history["distillation_loss"])
    assert TRACES == ["compute"]
