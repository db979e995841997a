"""Numbers that stand side by side mean the same; what would be ignored is refused."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfkd
from tfkd.distillers import DKD, KD

WEIGHTS = np.r_[0.0, np.linspace(0, 5, 14), 0.0].astype("float32")
STILL = {"batch_size": 6, "shuffle": False, "verbose": 0}
"""The last of three batches is smaller."""


class Strong(tfkd.Objective):
    """Reads a view that no evaluation has."""

    requires = tfkd.Requires(taps={("student", view): ["logits"] for view in ("main", "strong")})

    def compute(self, context):
        return context.mean(tf.square(context.student() - context.student("logits", "strong")))


def compiled(distiller, rate=0.0, **settings):
    distiller.compile(keras.optimizers.SGD(rate), **settings)
    return distiller


def refused(match):
    return pytest.raises(tfkd.TfkdError, match=match)


# One definition of every number.


@pytest.mark.parametrize("weights", [WEIGHTS, None], ids=["weighted", "even"])
@pytest.mark.parametrize("method", [KD(2.0), DKD(2.0, warmup_epochs=4.0)], ids=["kd", "dkd"])
def test_what_training_and_evaluation_log_is_equal(method, weights, network, images, labels):
    student = network(norm=False)
    distiller = tfkd.Distiller(network(name="teacher"), student, method, 0.9, 0.1)
    rows = (images, labels) if weights is None else (images, labels, weights)
    history = compiled(distiller).fit(*rows[:2], sample_weight=weights, validation_data=rows,
                                      epochs=2, **STILL).history  # fmt: skip
    logged = {name for name in history if f"val_{name}" in history}
    assert logged >= {"loss", "total_loss", "student_loss", "distillation_loss", "accuracy"}
    for name in logged:
        np.testing.assert_allclose(history[f"val_{name}"], history[name], rtol=1e-5, err_msg=name)
    terms = [name for name in logged if name.split("/")[0] == method.name]
    for prefix in ("", "val_"):
        total = np.sum([history[prefix + term] for term in terms], axis=0)
        np.testing.assert_allclose(history[f"{prefix}distillation_loss"], total, rtol=1e-5)
        total += 0.1 * np.array(history[f"{prefix}student_loss"])
        np.testing.assert_allclose(history[f"{prefix}loss"], total, rtol=1e-5)
    if method.name == "dkd":
        np.testing.assert_allclose(history["loss"][1] - 0.1 * history["student_loss"][1],
                                   2 * history["distillation_loss"][0], rtol=1e-4)  # fmt: skip


def test_weighted_samples_count_as_keras_counts_them(network, images, labels):
    student = network(norm=False)
    data = {"x": images, "y": labels, "sample_weight": WEIGHTS}
    ours = compiled(tfkd.Distiller(None, student))
    found = [
        ours.fit(**data, **STILL).history["loss"][0],
        ours.evaluate(**data, batch_size=6, verbose=0, return_dict=True)["loss"],
    ]
    student.compile(
        keras.optimizers.SGD(0.0), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    theirs = [
        student.fit(**data, **STILL).history["loss"][0],
        student.evaluate(**data, batch_size=6, verbose=0),
    ]
    np.testing.assert_allclose(found, theirs, rtol=1e-5)
    each = keras.losses.sparse_categorical_crossentropy(labels, student(images), from_logits=True)
    np.testing.assert_allclose(found, [np.mean(WEIGHTS * each)] * 2, rtol=1e-5)


def test_agreement_and_accuracies_are_weighted_means(network, images, labels):
    teacher, student = network(8, name="teacher"), network()
    distiller = compiled(tfkd.Distiller(teacher, student, KD()))
    found = distiller.evaluate(
        images, labels, sample_weight=WEIGHTS, batch_size=6, verbose=0, return_dict=True
    )
    said = [np.argmax(model(images, training=False), -1) for model in (teacher, student)]
    wanted = np.average(said[0] == said[1], weights=WEIGHTS)
    np.testing.assert_allclose(found["agreement"], wanted, rtol=1e-6)
    wanted = np.average(said[1] == labels, weights=WEIGHTS)
    np.testing.assert_allclose(found["accuracy"], wanted, rtol=1e-6)


def test_rows_that_fill_the_last_batch_do_not_count(network, labels):
    pixels = np.random.default_rng(0).integers(0, 256, (13, 8, 8, 3), dtype=np.uint8)
    labels = labels[:13]
    dataset = tfkd.data.from_arrays((pixels, labels), (pixels, labels), batch_size=8)
    seen = tfkd.models.Preprocess((128.0,), (64.0,))
    student = tfkd.models.Network(network(norm=False), seen)
    distiller = compiled(tfkd.Distiller(network(norm=False, name="teacher"), student, KD()))
    found = distiller.evaluate(dataset.test(), verbose=0, return_dict=True)
    wanted = distiller.evaluate(pixels, labels, batch_size=13, verbose=0, return_dict=True)
    for name, value in wanted.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5, err_msg=name)


def test_without_every_term_an_evaluation_has_no_total(network, images, labels):
    student = network()
    distiller = compiled(tfkd.Distiller(None, student, Strong(), 0.5, 0.2))
    found = distiller.evaluate(images, labels, verbose=0, return_dict=True)
    assert set(found) == {"student_loss", "accuracy"}
    loss = keras.losses.sparse_categorical_crossentropy(labels, student(images), from_logits=True)
    np.testing.assert_allclose(found["student_loss"], np.mean(loss), rtol=1e-5)
    assert distiller.metrics_names == ["student_loss", "accuracy"]
    listed = distiller.evaluate(images, labels, verbose=0)
    np.testing.assert_allclose(listed, [found["student_loss"], found["accuracy"]])
    complete = compiled(tfkd.Distiller(None, student))
    assert complete.metrics_names[0] == "loss"


def test_a_callback_that_waits_for_a_missing_total_is_refused(network, images, labels):
    batch = {"image": images, "image_strong": images, "label": labels}
    data = tf.data.Dataset.from_tensor_slices(batch).batch(8)
    distiller = compiled(tfkd.Distiller(None, network(norm=False), Strong()))
    for callback in (keras.callbacks.EarlyStopping(), keras.callbacks.ReduceLROnPlateau()):
        message = (
            f"callback {type(callback).__name__}: found monitor='val_loss', .*wanted "
            "'val_accuracy', or 'val_student_loss' with mode='min'"
        )
        with refused(message):
            distiller.fit(data, validation_data=data, callbacks=callback, verbose=0)
    for monitor, mode in (("val_student_loss", "min"), ("val_accuracy", "auto")):
        stop = keras.callbacks.EarlyStopping(monitor, patience=0, mode=mode)
        distiller.fit(data, validation_data=data, callbacks=stop, epochs=4, verbose=0)
        assert stop.stopped_epoch == 1
    full = compiled(tfkd.Distiller(network(name="teacher"), network(norm=False), KD()))
    stop = keras.callbacks.EarlyStopping(patience=0)
    full.fit(images, labels, validation_data=(images, labels), callbacks=stop, epochs=4, verbose=0)
    assert stop.stopped_epoch == 1


def test_every_stage_has_its_own_numbers(network, images, labels):
    class Phased(Strong):
        def requires_in(self, stage):
            return self.requires if stage == "both" else tfkd.Requires()

        def compute(self, context):
            if context.stage == "both":
                return super().compute(context)
            return context.mean(tf.square(context.student()))

    distiller = tfkd.Distiller(None, network(), Phased())
    for stage, objectives, has_total in (("both", None, False), ("one", None, True),
                                         ("none", (), True)):  # fmt: skip
        distiller.enter_stage(tfkd.Stage(stage, 1, objectives=objectives))
        compiled(distiller)
        found = distiller.evaluate(images, labels, verbose=0, return_dict=True)
        assert ("loss" in found) is has_total
        if has_total:
            total = found["student_loss"] + found["distillation_loss"]
            np.testing.assert_allclose(found["loss"], total, rtol=1e-6)
        assert not any("test_losses" in v.path for v in distiller.state().values())


# What is given after the distiller was made, or would be ignored.


def other_weights(model):
    model.set_weights([2.0 * each + 1.0 for each in model.get_weights()])


@pytest.mark.parametrize("which", ["given", "copy"])
def test_weights_of_a_teacher_that_come_too_late_are_refused(which, network, images, labels):
    message = (
        "teacher 'teacher': found other weights than those that Distiller.* made a folded copy "
        "of, wanted them loaded before, or fold_teacher=False"
    )

    def made():
        teacher = network(6, name="teacher")
        distiller = compiled(tfkd.Distiller(teacher, network(), KD()))
        return distiller, teacher if which == "given" else distiller.teachers[0]

    distiller, changed = made()
    other_weights(changed)
    for use in (distiller.fit, distiller.evaluate):
        with refused(message):
            use(images, labels, verbose=0)
    for use in (distiller.train_on_batch, distiller.test_on_batch):
        compiled(distiller)
        with refused(message):
            use(images, labels)
    # While it trains: at the next epoch.
    distiller, changed = made()
    later = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: other_weights(changed)
    )
    with refused(message):
        distiller.fit(images, labels, epochs=3, callbacks=[later], **STILL)
    assert distiller.step == 3


def test_a_teacher_that_is_not_copied_is_followed(network, images, labels):
    teacher, student = network(6, name="teacher"), network()
    distiller = compiled(tfkd.Distiller(teacher, student, KD(), fold_teacher=False))
    for _ in range(2):
        found = distiller.evaluate(images, labels, verbose=0, return_dict=True)
        said = [np.argmax(model(images, training=False), -1) for model in (teacher, student)]
        np.testing.assert_allclose(found["agreement"], np.mean(said[0] == said[1]))
        teacher.set_weights([-each for each in teacher.get_weights()])


def test_loss_weights_of_compile_are_refused(network):
    distiller = tfkd.Distiller(network(name="teacher"), network(), KD())
    with refused(r"compile: found loss_weights=\[0.5\], .*wanted student_loss_weight and dist"):
        compiled(distiller, loss_weights=[0.5])


# Labels and logits.


def test_labels_that_begin_with_one_are_told(network, images):
    labels = np.arange(16) % 3 + 1
    with pytest.warns(tfkd.TfkdWarning, match="labels: found 1 to 3 and no 0"):
        compiled(tfkd.Distiller(None, network())).fit(images, tf.constant(labels), **STILL)
    for wrong in (labels + 1, labels - 2):
        distiller = compiled(tfkd.Distiller(None, network()))
        for use in (distiller.fit, distiller.evaluate):
            with refused(f"labels: found {wrong.min()} to {wrong.max()}, wanted 0 to 3"):
                use(images, wrong, verbose=0)
            with refused("labels: found"):
                use({"image": images, "label": wrong}, verbose=0)
            with refused("labels: found"):
                use(images, tf.constant(wrong), verbose=0)
    batches = tf.data.Dataset.from_tensor_slices((images, labels + 1)).batch(8)
    with refused("labels: found 4, wanted 0 to 3, classes of the student"):
        compiled(tfkd.Distiller(None, network())).fit(batches, verbose=0)


def test_a_single_logit_is_refused(network):
    message = "'student' gives one number at 'logits', wanted a logit for each of two classes"
    with refused(f"student {message}"):
        tfkd.Distiller(None, network(classes=1))
    with refused(f"teacher {message}"):
        tfkd.Distiller(network(classes=1), network(), KD())


# Mistakes of methods.


def broken(message="mine: found a, wanted b", inside=False):
    """A method that fails while its step is traced, perhaps within a layer."""

    class Failing(keras.layers.Layer):
        def call(self, inputs):
            raise tfkd.TfkdError(message)

    class Mine(tfkd.Objective):
        requires = tfkd.Requires(taps={("student", "main"): ["logits"]})

        def compute(self, context):
            if inside:
                return Failing()(context.student())
            raise tfkd.TfkdError(message)

    return Mine()


@pytest.mark.parametrize("inside", [False, True], ids=["compute", "layer"])
@pytest.mark.parametrize("steps", [1, 2])
def test_mistakes_inside_a_compiled_step_are_one_line(steps, inside, network, images, labels):
    distiller = tfkd.Distiller(None, network(), broken(inside=inside))
    compiled(distiller, steps_per_execution=steps)
    for use in (distiller.fit, distiller.train_on_batch, distiller.evaluate):
        with pytest.raises(tfkd.TfkdError) as told:
            use(images, labels)
        assert str(told.value) == "mine: found a, wanted b"
        assert type(told.value) is tfkd.TfkdError


def test_mistakes_on_replicas_are_one_line(network, images, labels, distiller_on):
    distiller = distiller_on(2, None, lambda: network(norm=False), broken)
    with pytest.raises(tfkd.TfkdError) as told:
        distiller.fit(images, labels, **STILL)
    assert str(told.value) == "mine: found a, wanted b"


def test_other_errors_keep_their_own_words(network, images, labels):
    class Other(tfkd.Objective):
        def compute(self, context):
            return {}["missing"]

    distiller = compiled(tfkd.Distiller(None, network(), Other()))
    with pytest.raises(KeyError, match="missing"):
        distiller.fit(images, labels, **STILL)
