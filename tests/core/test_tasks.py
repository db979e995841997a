"""Tasks: what labels, losses, metrics and scores are."""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfkd
from tfkd import tasks
from tfkd.distillers import KD

KL = keras.losses.KLDivergence()
FIT = {"batch_size": 8, "shuffle": False, "verbose": 0}


def several_exits(network, count=2, classes=4, name="student"):
    """The test network with exits on its pooled feature."""
    model = network(name=name)
    outputs = {
        f"exit{n}": keras.layers.Dense(classes, name=f"head{n}")(model.get_layer("pooled").output)
        for n in range(1, count + 1)
    }
    return keras.Model(model.input, {**outputs, "logits": model.output}, name=name)


def cross_entropy(labels, logits):
    loss = keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True)
    return float(np.mean(loss))


def test_the_label_loss_of_every_exit_is_added_and_logged(network, images, labels, capsys):
    student = several_exits(network, 11)
    distiller = tfkd.Distiller(None, student)
    assert distiller.task.name == "multi_exit"
    distiller.compile(keras.optimizers.SGD(0.0))
    found = distiller.evaluate(images, labels, verbose=0, return_dict=True)
    outputs = student(images, training=False)
    exits = tfkd.models.exits(student)
    assert len(exits) == 12
    losses = {name: cross_entropy(labels, outputs[name]) for name in exits}
    np.testing.assert_allclose(found["student_loss"], sum(losses.values()), rtol=1e-5)
    right = {name: np.mean(np.argmax(outputs[name], -1) == labels) for name in exits}
    np.testing.assert_allclose(found["accuracy"], right["logits"], rtol=1e-6)
    np.testing.assert_allclose(found["exit10_accuracy"], right["exit10"], rtol=1e-6)
    np.testing.assert_allclose(found["mean_accuracy"], np.mean(list(right.values())), rtol=1e-5)
    capsys.readouterr()
    settings = {**FIT, "verbose": 2, "validation_data": (images, labels)}
    logged = distiller.fit(images, labels, **settings).history
    parts = [logged[f"student_loss/{name}"][0] for name in exits]
    np.testing.assert_allclose(logged["student_loss"][0], np.sum(parts), rtol=1e-5)
    # What is logged of each exit would fill several lines of a terminal.
    brief = ["accuracy", "loss", "mean_accuracy"]
    shown = re.findall(r"(\w+): ", capsys.readouterr().out)
    assert shown == [*brief, *(f"val_{name}" for name in brief)]
    distiller.evaluate(images, labels, verbose=2)
    assert re.findall(r"(\w+): ", capsys.readouterr().out) == brief


def test_methods_of_one_output_distil_into_the_deepest_exit(network, images, labels):
    student, teacher = several_exits(network), network(6, name="teacher")
    distiller = tfkd.Distiller(teacher, student, KD(2.0))
    distiller.compile(keras.optimizers.SGD(0.0))
    found = distiller.evaluate(images, labels, verbose=0, return_dict=True)
    logits = student(images, training=False)["logits"]
    wanted = tf.reduce_mean(tfkd.distillers.kd_loss(logits, teacher(images, training=False), 2.0))
    np.testing.assert_allclose(found["kd"], wanted, rtol=1e-4)
    same = np.mean(np.argmax(logits, -1) == np.argmax(teacher(images, training=False), -1))
    np.testing.assert_allclose(found["agreement"], same, rtol=1e-6)


def test_exits_of_a_teacher_that_a_method_does_not_know_are_refused(network):
    class OfAll(tfkd.Objective):
        taps = ["exit1", "exit2", "logits"]
        requires = tfkd.Requires(taps={("teacher", "main"): taps, ("student", "main"): ["logits"]})

    teacher = several_exits(network, name="taught")
    for student in (network(), several_exits(network)):
        tfkd.Distiller(teacher, student, OfAll())
        for losses in (KD(), [OfAll(), KD()], keras.distillation.LogitsDistillation(loss=KL)):
            message = "^teacher 'taught': found the exits exit1, exit2, logits, of which a distil.*"
            with pytest.raises(tfkd.TfkdError, match=message + "wanted a network with one output"):
                tfkd.Distiller(teacher, student, losses)
    deepest = keras.Model(teacher.input, teacher.output["logits"])
    tfkd.Distiller(deepest, several_exits(network), KD())
    with pytest.raises(tfkd.TfkdError, match="^teacher:1 'taught': found the exits"):
        tfkd.Distiller([deepest, teacher], network(), KD())


def test_other_outputs_than_exits_stay_out_of_the_loss(network, images, labels):
    model = network()
    student = keras.Model(
        model.input, {"logits": model.output, "embedding": model.get_layer("pooled").output}
    )
    distiller = tfkd.Distiller(None, student)
    assert distiller.task.name == "classification"
    distiller.compile()
    found = distiller.evaluate(images, labels, verbose=0, return_dict=True)
    wanted = cross_entropy(labels, model(images, training=False))
    np.testing.assert_allclose(found["student_loss"], wanted, rtol=1e-5)


def test_exits_of_different_class_counts_are_refused(network):
    student = several_exits(network, 1, classes=5)
    message = "exits of network 'student': found different class counts .exit1 5, logits 4."
    with pytest.raises(tfkd.TfkdError, match=message):
        tfkd.Distiller(None, student)


def test_the_calibration_error_is_that_of_fifteen_bins():
    rng = np.random.default_rng(0)
    logits, label = 2 * rng.normal(size=(200, 3)), rng.integers(0, 3, 200)
    evaluator = tasks.MultiExitClassification().evaluator(["net"])
    outputs = {"exit1": logits[::-1].copy(), "logits": logits}
    for start in (0, 80):
        rows = slice(start, 80 if start == 0 else 200)
        evaluator.add(
            {"label": label[rows]}, {"net": {name: each[rows] for name, each in outputs.items()}}
        )
    scores = evaluator.result().by_network["net"]
    probabilities = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    confidence, right = probabilities.max(-1), probabilities.argmax(-1) == label
    wanted = 0.0
    for low in np.arange(15) / 15:
        inside = (confidence > low) & (confidence <= low + 1 / 15)
        if inside.any():
            wanted += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    assert [each["name"] for each in scores["exits"]] == ["exit1", "logits"]
    np.testing.assert_allclose(scores["exits"][1]["ece"], 100 * wanted, rtol=1e-9)
    np.testing.assert_allclose(scores["top1"], 100 * right.mean())
    both = [each["top1"] for each in scores["exits"]]
    np.testing.assert_allclose(scores["mean_top1"], np.mean(both))


class Regression(tasks.Task):
    """A task without classes or logits: a number for each image."""

    name = "regression"
    score = tasks.Score("closeness", key="closeness", label="closeness", scale=1.0)

    def __init__(self, power=2.0):
        self.power = power

    def label_loss(self, batch, outputs):
        gap = tf.abs(outputs["number"][:, 0] - tf.cast(batch["label"], tf.float32))
        return gap**self.power

    def metrics(self, student):
        return [tasks.SampleMean(lambda b, o: -self.label_loss(b, o), "closeness")]

    def evaluator(self, names):
        raise NotImplementedError

    def with_loss(self, loss):
        return Regression(loss)


def numbers(network):
    model = network()
    return keras.Model(
        model.input,
        {"number": keras.layers.Dense(1, name="number")(model.get_layer("pooled").output)},
    )


def test_a_task_without_logits_trains(network, images, labels):
    student = numbers(network)
    distiller = tfkd.Distiller(None, student, task=Regression())
    distiller.compile(keras.optimizers.SGD(0.01))
    weights = np.linspace(0, 2, 16).astype("float32")
    found = distiller.evaluate(images, labels, sample_weight=weights, verbose=0, return_dict=True)
    gap = (student(images, training=False)["number"][:, 0] - labels) ** 2
    np.testing.assert_allclose(found["student_loss"], np.mean(weights * gap), rtol=1e-5)
    np.testing.assert_allclose(found["closeness"], -np.average(gap, weights=weights), rtol=1e-5)
    history = distiller.fit(images, labels, **{**FIT, "epochs": 3}).history
    assert history["loss"][-1] < history["loss"][0]


def test_another_loss_keeps_the_settings_of_a_task(network):
    distiller = tfkd.Distiller(None, numbers(network), task=Regression())
    distiller.compile(loss=1.0)
    assert distiller.task.power == 1.0
    with pytest.raises(tfkd.TfkdError, match="found a student without an output 'logits'"):
        distiller.compile(metrics=["accuracy"])
        distiller.fit(np.zeros((4, 8, 8, 3)), np.zeros(4), verbose=0)


def test_methods_refuse_tasks_that_they_do_not_know(network):
    message = "kd works on classification and multi_exit: found task 'regression'"
    with pytest.raises(tfkd.TfkdError, match=message):
        tfkd.Distiller(network(name="teacher"), numbers(network), KD(), task=Regression())


def test_tasks_are_found_by_name_and_by_reference(tmp_path, monkeypatch):
    assert tasks.find("classification") is tasks.Classification
    with pytest.raises(tfkd.TfkdError, match="unknown task 'clasification'; did you mean"):
        tasks.find("clasification")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.py").write_text(
        "from tfkd import tasks\nclass No: pass\nclass Own(tasks.Classification): pass\n"
    )
    assert tasks.find("own.py:Own").__name__ == "Own"
    with pytest.raises(tfkd.TfkdError, match="wanted a subclass of tfkd.tasks.Task"):
        tasks.find("own.py:No")


def test_another_loss_keeps_the_settings_of_a_classification(network):
    class Smoothed(tasks.Classification):
        def __init__(self, smoothing):
            super().__init__()
            self.smoothing = smoothing

    distiller = tfkd.Distiller(None, network(), task=Smoothed(0.3))
    distiller.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    assert distiller.task.smoothing == 0.3
    with pytest.raises(tfkd.TfkdError, match="found a loss of probabilities"):
        distiller.compile(loss="sparse_categorical_crossentropy")


def test_the_task_of_a_network_is_that_of_its_distiller(network):
    tasks.register("test_regression")(Regression)
    student = tfkd.models.Network(numbers(network), task="test_regression")
    assert isinstance(tfkd.Distiller(None, student).task, Regression)


def test_a_task_whose_score_no_metric_measures_is_refused(network):
    class Unmeasured(Regression):
        score = tasks.Score("clseness", key="closeness", label="closeness")

    distiller = tfkd.Distiller(None, numbers(network), task=Unmeasured())
    with pytest.raises(tfkd.TfkdError, match="found the metrics closeness, wanted 'clseness'"):
        distiller.compile()


def test_label_losses_are_those_of_the_label_terms(network, images, labels):
    class Undeclared(Regression):
        def label_terms(self, student):
            return ("near", "far")

        def label_loss(self, batch, outputs):
            return {"near": super().label_loss(batch, outputs)}

        def metrics(self, student):
            return [tasks.SampleMean(lambda b, o: tf.zeros(16), "closeness")]

    distiller = tfkd.Distiller(None, numbers(network), task=Undeclared())
    distiller.compile(run_eagerly=True)
    message = r"found the label losses \['near'\], wanted \['far', 'near'\]"
    with pytest.raises(tfkd.TfkdError, match=message):
        distiller.train_on_batch(images, labels)


def test_an_output_called_probabilities_is_not_written_over():
    outputs = {"logits": tf.zeros((1, 3)), "probabilities": tf.zeros((1, 3))}
    with pytest.raises(tfkd.TfkdError, match="found one called 'probabilities'"):
        tasks.Classification().served(outputs)


def test_a_teacher_of_another_task_is_refused(network):
    tasks.register("another_regression")(Regression)

    class Attributes(tasks.Classification):
        name = "attributes_of_tests"

    tasks.register("attributes_of_tests")(Attributes)
    teacher = tfkd.models.Network(network(name="teacher"), task="another_regression")
    message = (
        "teacher 'teacher' is of task 'another_regression', but the student of 'classification'"
    )
    with pytest.raises(tfkd.TfkdError, match=message):
        tfkd.Distiller(teacher, network(), KD())
    # A task built on the student's, or the exits of a classifier, mean the same.
    for kind in ("attributes_of_tests", "multi_exit"):
        tfkd.Distiller(tfkd.models.Network(network(name="t"), task=kind), network(), KD())
