"""The distiller as a Keras model: own models, forms of data, batches, callbacks, saving."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfkd
from tfkd.distillers import KD

FIT = {"batch_size": 8, "epochs": 2, "shuffle": False, "verbose": 0}


class Subclassed(keras.Model):
    """A model whose layers cannot be listed."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.flatten = keras.layers.Flatten()
        self.dense = keras.layers.Dense(4)

    def call(self, inputs, training=None):
        return self.dense(self.flatten(inputs))


def dense_network(kind, images):
    layers = [keras.layers.Flatten(), keras.layers.Dense(4)]
    if kind == "sequential":
        return keras.Sequential([keras.Input((8, 8, 3)), *layers])
    if kind == "sequential without input":
        model = keras.Sequential(layers)
        model(images[:1])
        return model
    if kind == "functional":
        inputs = keras.Input((8, 8, 3))
        return keras.Model(inputs, layers[1](layers[0](inputs)))
    model = Subclassed()
    if kind == "subclassed, called":
        model(images[:1])
    else:
        model.build((None, 8, 8, 3))
    return model


@pytest.mark.filterwarnings("ignore:.build... was called on layer")
@pytest.mark.parametrize(
    "kind",
    [
        "sequential",
        "sequential without input",
        "functional",
        "subclassed, called",
        "subclassed, built",
    ],
)
def test_ten_lines_with_models_of_the_user(kind, images, labels):
    teacher, student = dense_network(kind, images), dense_network(kind, images)
    before = teacher.get_weights()
    distiller = tfkd.Distiller(teacher, student, KD(temperature=4.0), 0.9, 0.1)
    distiller.compile(optimizer=keras.optimizers.SGD(0.05, momentum=0.9))
    history = distiller.fit(images, labels, batch_size=8, epochs=8, verbose=0).history
    assert history["loss"][-1] < history["loss"][0]
    np.testing.assert_allclose(
        distiller.predict(images, verbose=0), student(images), rtol=1e-5, atol=1e-5
    )
    for now, then in zip(teacher.get_weights(), before):
        np.testing.assert_array_equal(now, then)


def as_tuple(images, labels, weights):
    return {"x": images, "y": labels, "sample_weight": weights, "batch_size": 8}


def as_dict(images, labels, weights):
    return {"x": {"image": images, "label": labels, "sample_weight": weights}, "batch_size": 8}


def as_tuple_dataset(images, labels, weights):
    return {"x": tf.data.Dataset.from_tensor_slices((images, labels, weights)).batch(8)}


def as_dict_dataset(images, labels, weights):
    batch = {"image": images, "label": labels, "sample_weight": weights}
    return {"x": tf.data.Dataset.from_tensor_slices(batch).batch(8)}


def as_dataset_of_unknown_length(images, labels, weights):
    def batches():
        for first in range(0, len(images), 8):
            part = slice(first, first + 8)
            yield images[part], labels[part], weights[part]

    signature = (
        tf.TensorSpec((None, 8, 8, 3), tf.float32),
        tf.TensorSpec((None,), tf.int32),
        tf.TensorSpec((None,), tf.float32),
    )
    return {"x": tf.data.Dataset.from_generator(batches, output_signature=signature)}


@pytest.fixture(scope="module")
def trained(network, images, labels):
    """Weights, history and optimizer steps after training on arrays, for comparison."""
    return train(network, as_tuple, images, labels)


def train(network, form, images, labels, **compile_settings):
    keras.utils.set_random_seed(5)
    weights = np.linspace(0, 2, len(images)).astype("float32")
    distiller = tfkd.Distiller(network(name="teacher"), network(), KD())
    distiller.compile(keras.optimizers.SGD(0.1, momentum=0.9), **compile_settings)
    settings = form(images, labels, weights)
    validation = settings["x"] if "y" not in settings else (images, labels, weights)
    if isinstance(validation, dict):
        validation = tf.data.Dataset.from_tensor_slices(validation).batch(8)
    history = distiller.fit(
        **settings,
        epochs=2,
        shuffle=False,
        verbose=0,
        validation_data=validation,
        validation_batch_size=8,
    ).history
    counts = distiller.step, int(distiller.optimizer.iterations.numpy())
    return distiller.student.get_weights(), history, counts


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
@pytest.mark.parametrize(
    "form", [as_dict, as_tuple_dataset, as_dict_dataset, as_dataset_of_unknown_length]
)
def test_every_form_of_data_trains_alike(form, trained, network, images, labels):
    weights, history, counts = train(network, form, images, labels)
    assert counts == trained[2] == (4, 4)
    assert set(history) == set(trained[1])
    for name, values in trained[1].items():
        np.testing.assert_allclose(history[name], values, rtol=1e-5, err_msg=name)
    for found, expected in zip(weights, trained[0]):
        np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
@pytest.mark.parametrize(
    "settings",
    [
        {"run_eagerly": True},
        {"jit_compile": True},
        {"steps_per_execution": 2},
        {"steps_per_execution": 3},
    ],
    ids=str,
)
def test_every_way_of_running_trains_alike(settings, trained, network, images, labels):
    weights, history, counts = train(
        network, as_dataset_of_unknown_length, images, labels, **settings
    )
    assert counts == (4, 4)
    for name, values in trained[1].items():
        np.testing.assert_allclose(history[name], values, rtol=1e-4, err_msg=name)
    for found, expected in zip(weights, trained[0]):
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_names_of_metrics_are_those_of_keras(network, images, labels):
    losses = keras.distillation.LogitsDistillation(loss=keras.losses.KLDivergence())
    label_loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    histories = []
    for kind in (keras.distillation.Distiller, tfkd.Distiller):
        distiller = kind(network(name="teacher"), network(), losses)
        distiller.compile("sgd", label_loss, metrics=["accuracy"])
        histories.append(distiller.fit(images, labels, validation_data=(images, labels), **FIT))
    theirs, ours = (set(each.history) for each in histories)
    assert {"total_loss", "student_loss", "distillation_loss", "val_total_loss"} <= theirs
    assert theirs <= ours


def test_arguments_are_in_the_order_of_keras(network):
    teacher, student = network(name="teacher"), network()
    distiller = tfkd.Distiller(teacher, student, [KD(), KD(name="more")], [0.5, 2], 0.25, "mine")
    assert distiller.student is student
    assert distiller.loss_weights == [0.5, 2.0]
    assert distiller.student_loss_weight == 0.25
    assert distiller.name == "mine"
    assert tfkd.Distiller(teacher, student, KD()).student_loss_weight == 1.0


def test_batches_by_hand(network, images, labels):
    distiller = tfkd.Distiller(network(name="teacher"), network(), KD())
    distiller.compile(keras.optimizers.SGD(0.1))
    found = distiller.test_on_batch(images, labels, return_dict=True)
    expected = distiller.evaluate(images, labels, verbose=0, return_dict=True)
    assert set(found) == set(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5)
    assert distiller.step == 0
    distiller.train_on_batch({"image": images, "label": labels})
    assert distiller.step == 1
    np.testing.assert_allclose(
        distiller.predict_on_batch(images), distiller.student(images), atol=1e-6
    )
    dataset = tf.data.Dataset.from_tensor_slices({"image": images, "label": labels}).batch(5)
    np.testing.assert_allclose(
        distiller.predict(dataset, verbose=0), distiller.student(images), atol=1e-6
    )


def test_a_list_of_results_begins_with_the_loss(network, images, labels):
    distiller = tfkd.Distiller(network(name="teacher"), network(), KD())
    distiller.compile()
    named = distiller.evaluate(images, labels, verbose=0, return_dict=True)
    listed = distiller.evaluate(images, labels, verbose=0)
    assert distiller.metrics_names[:2] == ["loss", "accuracy"]
    assert listed == [named[name] for name in distiller.metrics_names]


def test_dense_labels(network, images, labels):
    results = []
    for given in (labels, np.eye(4, dtype="float32")[labels]):
        keras.utils.set_random_seed(2)
        distiller = tfkd.Distiller(network(name="teacher"), network(), KD())
        distiller.compile(keras.optimizers.SGD(0.1))
        results.append(distiller.train_on_batch(images, given, return_dict=True))
    for name, value in results[0].items():
        np.testing.assert_allclose(value, results[1][name], rtol=1e-5)


@pytest.mark.parametrize(
    "loss",
    [
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        lambda labels, logits: keras.losses.sparse_categorical_crossentropy(labels, logits, True),
    ],
    ids=["object", "function"],
)
def test_label_loss_of_the_user(loss, network, images, labels):
    distiller = tfkd.Distiller(None, network())
    distiller.compile(loss=loss)
    found = distiller.evaluate(images, labels, verbose=0, return_dict=True)
    plain = tfkd.Distiller(None, distiller.student)
    plain.compile()
    expected = plain.evaluate(images, labels, verbose=0, return_dict=True)
    np.testing.assert_allclose(found["loss"], expected["loss"], rtol=1e-6)


def test_label_loss_of_several_values_for_a_sample_is_averaged(network, images, labels):
    def squares(labels, logits):
        return tf.square(tf.one_hot(labels, 4) - logits)

    student = network()
    distiller = tfkd.Distiller(None, student)
    distiller.compile(loss=squares)
    found = distiller.evaluate(images, labels, verbose=0, return_dict=True)
    expected = np.mean((np.eye(4)[labels] - student(images).numpy()) ** 2)
    np.testing.assert_allclose(found["loss"], expected, rtol=1e-5)


@pytest.mark.parametrize(
    "loss",
    [
        "sparse_categorical_crossentropy",
        keras.losses.categorical_crossentropy,
        keras.losses.CategoricalCrossentropy(),
    ],
    ids=["name", "function", "object"],
)
def test_label_loss_of_probabilities_is_refused(loss, network):
    distiller = tfkd.Distiller(None, network())
    with pytest.raises(tfkd.TfkdError, match="a loss of probabilities, wanted one of logits"):
        distiller.compile(loss=loss)


def test_metrics_of_the_user_and_sample_weights(network, images, labels):
    weights = np.linspace(0, 2, 16).astype("float32")
    student = network()
    distiller = tfkd.Distiller(None, student)
    correct = np.argmax(student(images), axis=1) == labels
    distiller.compile()
    found = distiller.evaluate(images, labels, sample_weight=weights, verbose=0, return_dict=True)
    np.testing.assert_allclose(found["accuracy"], (correct * weights).sum() / weights.sum())
    top2 = keras.metrics.SparseTopKCategoricalAccuracy(2, name="top2")
    distiller.compile(metrics=["accuracy", top2])
    found = distiller.evaluate(images, labels, sample_weight=weights, verbose=0, return_dict=True)
    np.testing.assert_allclose(found["accuracy"], correct.mean())
    assert found["top2"] >= found["accuracy"]


def test_early_stopping_restores_weights_but_not_the_clock(network, images, labels):
    class Worse(keras.callbacks.Callback):
        """Makes every epoch look worse than the one before."""

        def on_epoch_end(self, epoch, logs=None):
            logs["val_accuracy"] = -epoch
            weights.append(distiller.student.get_weights())

    weights = []
    distiller = tfkd.Distiller(network(name="teacher"), network(), KD())
    distiller.compile(keras.optimizers.SGD(0.1))
    stop = keras.callbacks.EarlyStopping("val_accuracy", patience=1, restore_best_weights=True)
    settings = {**FIT, "epochs": 5}
    distiller.fit(
        images, labels, callbacks=[Worse(), stop], validation_data=(images, labels), **settings
    )
    assert len(weights) == 2
    for found, first in zip(distiller.student.get_weights(), weights[0]):
        np.testing.assert_array_equal(found, first)
    assert distiller.step == 4


def test_fit_tells_epochs_and_stops_at_a_limit(network, images, labels):
    class Notes(tfkd.Objective):
        """Shows the clock in its terms."""

        terms = ("epoch", "epochs", "step")

        def compute(self, context):
            step = tf.cast(context.step, tf.float32)
            return {"epoch": context.epoch, "epochs": context.epochs, "step": step}

    distiller = tfkd.Distiller(None, network(), Notes())
    distiller.compile(keras.optimizers.SGD(0.1), steps_per_execution=2)
    settings = {**FIT, "epochs": 3}
    history = distiller.fit(images, labels, initial_epoch=1, **settings).history
    assert history["notes/epoch"] == [1.0, 2.0]
    assert history["notes/epochs"] == [3.0, 3.0]
    np.testing.assert_allclose(history["notes/step"], [0.5, 2.5])
    distiller.limit_steps(5)
    distiller.fit(images, labels, **FIT)
    assert distiller.step == int(distiller.optimizer.iterations.numpy()) == 5
    distiller.limit_steps(None)
    distiller.fit(images, labels, **FIT)
    assert distiller.step == 9


def test_only_the_student_is_saved(network, images, labels, tmp_path):
    student = network()
    seen = tfkd.models.Preprocess.published("tf")
    named = tfkd.models.Network(student, seen, class_names="abcd")
    distiller = tfkd.Distiller(network(8, name="teacher"), named, KD())
    distiller.compile(keras.optimizers.SGD(0.1))
    path = tmp_path / "best.keras"
    best = keras.callbacks.ModelCheckpoint(path, monitor="loss", save_best_only=True)
    distiller.fit(images, labels, callbacks=[best], **FIT)
    loaded = keras.models.load_model(path)
    assert loaded.count_params() == student.count_params() == network().count_params()
    assert [layer.name for layer in loaded.layers] == [layer.name for layer in student.layers]
    np.testing.assert_allclose(loaded(images), student(images), atol=1e-6)
    found = tfkd.models.load_network_file(path)
    assert (found.preprocess, found.class_names) == (seen, tuple("abcd"))
    np.testing.assert_allclose(found(images), distiller.predict(images, verbose=0), atol=1e-5)
    with pytest.warns(tfkd.TfkdWarning, match="nothing in it says how pixels reach 'student'"):
        distiller.save(tmp_path / "student.h5")
    with pytest.warns(tfkd.TfkdWarning, match="what is done to pixels before it is left out"):
        distiller.export(tmp_path / "exported", verbose=False)
    exported = tf.saved_model.load(tmp_path / "exported")
    np.testing.assert_allclose(exported.serve(images), student(images), atol=1e-5)
    assert distiller.count_params() == student.count_params()
