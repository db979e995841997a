"""PS-KD: published numbers, and a memory that is read before it is written, and written once."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfkd
from tests.distillers import logit_oracles_b as oracles
from tfkd.core import registry
from tfkd.core.divergences import cross_entropy
from tfkd.distillers.ps_kd import PSKD, memory_weight, ps_kd_loss, refined_targets
from tfkd.errors import TfkdError

TRACE = oracles.ORACLES["state"]["ps_kd"]


@pytest.mark.parametrize("dtype", [tf.float64, tf.float32])
@pytest.mark.parametrize(
    "check",
    oracles.checks("ps_kd"),
    ids=lambda check: f"{check['case']}-{check['params']['alpha_t']}",
)
def test_published_numbers(check, dtype):
    weight = check["params"]["alpha_t"]

    def total(tensors):
        labels, past = tensors["labels"], tensors["past"]
        targets = refined_targets(labels, past, weight)
        tolerances = oracles.TOLERANCES[dtype]
        np.testing.assert_allclose(targets, check["expected"]["soft_targets"], **tolerances)
        return tf.reduce_mean(ps_kd_loss(tensors["student"], labels, past, weight))

    oracles.check_total(check, total, dtype=dtype)


def memory_of(distiller):
    """The memory and its flags as arrays."""
    [objective] = distiller.objectives
    return np.asarray(objective.memory), np.asarray(objective.seen)


def distiller_of_logits(images=TRACE["num_samples"], learning_rate=0.0):
    """A distiller whose student says what it is shown."""
    student = oracles.identity_student(TRACE["num_classes"])
    made = tfkd.Distiller(None, student, PSKD(TRACE["alpha_T"]), train_size=images)
    made.compile(keras.optimizers.SGD(learning_rate))
    made.set_epochs(TRACE["total_epochs"])
    return made


def show(distiller, logits, indices, labels, epoch=0, **batch):
    """One training step on a batch of logits; returns its loss."""
    distiller.set_epoch(epoch)
    distiller.reset_metrics()
    batch = {
        "image": np.asarray(logits, np.float32)[:, None, None, :],
        "label": np.asarray(labels, np.int32),
        "index": np.asarray(indices, np.int32),
        **batch,
    }
    return float(distiller.train_on_batch(batch, return_dict=True)["loss"])


def test_published_trace_of_two_epochs():
    distiller = distiller_of_logits()
    logits = {0: TRACE["student"], 1: TRACE["epoch1"]["student"]}
    for epoch in (0, 1):
        expected = TRACE[f"epoch{epoch}"]
        loss = show(distiller, logits[epoch], TRACE["indices"], TRACE["labels"], epoch)
        np.testing.assert_allclose(loss, expected["loss"], rtol=1e-5)
        weight = memory_weight(epoch, TRACE["total_epochs"], TRACE["alpha_T"])
        np.testing.assert_allclose(weight, expected["alpha_t"], rtol=1e-6)
        memory, seen = memory_of(distiller)
        np.testing.assert_allclose(
            memory[TRACE["indices"]], expected["memory_rows_after"], rtol=1e-5
        )
        others = [row for row in range(6) if row not in TRACE["indices"]]
        assert not memory[others].any()
        assert seen.tolist() == [row in TRACE["indices"] for row in range(6)]


def test_published_gradient_through_the_distiller():
    """The step of the student is the gradient of the file: read before write, memory at rest."""
    check = oracles.checks("ps_kd", alpha_t=0.8)[0]
    tensors = oracles.inputs(check["case"], tf.float32)
    distiller = distiller_of_logits(learning_rate=1.0)
    [objective] = distiller.objectives
    objective.memory.assign(tf.concat([tensors["past"], tf.zeros((4, 3))], axis=0))
    objective.seen.assign([True] * 6)
    before = np.asarray(distiller.student.weights[0])
    loss = show(distiller, tensors["student"], [0, 1], tensors["labels"], epoch=9)
    np.testing.assert_allclose(loss, check["expected"]["total"], rtol=1e-5)
    step = before - np.asarray(distiller.student.weights[0])
    wanted = np.asarray(tensors["student"]).T @ np.array(check["grad_student"])
    np.testing.assert_allclose(step, wanted, atol=1e-6)
    memory, _ = memory_of(distiller)
    wanted = tf.nn.softmax(tensors["student"])
    np.testing.assert_allclose(memory[:2], wanted, rtol=1e-5, err_msg="not the step's own logits")


@pytest.mark.parametrize("epoch", [0, 7])
def test_an_image_not_seen_before_stands_for_its_label(epoch):
    tensors = oracles.inputs("A", tf.float32)
    distiller = distiller_of_logits()
    show(distiller, tensors["teacher"], [0, 3], [1, 1], epoch=0)
    loss = show(distiller, tensors["student"], [5, 2], tensors["labels"], epoch=epoch)
    wanted = tf.reduce_mean(cross_entropy(tensors["labels"], tensors["student"]))
    np.testing.assert_allclose(loss, wanted, rtol=1e-5)


def test_the_first_epoch_is_plain_cross_entropy():
    def history(objective):
        distiller = oracles.distiller(objective, teacher=False)
        return distiller.fit(oracles.batches(), epochs=1, verbose=0).history["loss"]

    np.testing.assert_allclose(history(PSKD), history(tfkd.distillers.Plain), rtol=1e-5)


def test_the_weight_grows_to_its_final_value_and_stays():
    weights = [float(memory_weight(epoch, 10, 0.8)) for epoch in range(12)]
    np.testing.assert_allclose(weights, [0.08 * min(each, 10) for each in range(1, 13)], rtol=1e-6)


def test_the_memory_holds_what_the_student_said():
    distiller = oracles.distiller(PSKD, teacher=False, learning_rate=0.0)
    data = oracles.arrays()
    for key in data:
        data[key] = data[key][:24]
    batches = oracles.batches(("index",), data)
    distiller.fit(batches, epochs=1, verbose=0)
    memory, seen = memory_of(distiller)
    for batch in batches:
        said = tf.nn.softmax(distiller.student(batch["image"], training=True))
        np.testing.assert_allclose(memory[batch["index"].numpy()], said, rtol=1e-4, atol=1e-6)
    assert sorted(np.flatnonzero(seen)) == sorted(data["index"])
    assert not memory[~seen].any()


def test_a_continued_run_ends_as_an_uninterrupted_one():
    whole = oracles.distiller(PSKD, teacher=False)
    whole.fit(oracles.batches(), epochs=4, verbose=0)
    first = oracles.distiller(PSKD, teacher=False)
    first.set_epochs(4)
    first.fit(oracles.batches(), epochs=4, verbose=0, callbacks=[StopAfter(2)])
    saved = oracles.state(first)
    second = oracles.distiller(PSKD, teacher=False)
    for name, variable in second.state().items():
        variable.assign(saved[name])
    second.fit(oracles.batches(), epochs=4, initial_epoch=2, verbose=0)
    expected, found = oracles.state(whole), oracles.state(second)
    assert any(name.startswith("objective:0:ps_kd") for name in found)
    for name in expected:
        if not name.startswith("metrics"):
            np.testing.assert_array_equal(found[name], expected[name], err_msg=name)


class StopAfter(keras.callbacks.Callback):
    """Ends a run after some of its epochs."""

    def __init__(self, epochs):
        super().__init__()
        self.epochs = epochs

    def on_epoch_end(self, epoch, logs=None):
        self.model.stop_training = epoch + 1 == self.epochs


def test_one_and_two_replicas_agree_in_student_and_memory(two_replicas):
    oracles.check_replicas(PSKD, two_replicas, teacher=False)


def test_every_replica_holds_the_whole_memory(two_replicas):
    distiller = oracles.distiller(PSKD, teacher=False, scope=two_replicas)
    distiller.fit(oracles.batches(), epochs=1, verbose=0)
    [objective] = distiller.objectives
    copies = two_replicas.experimental_local_results(objective.memory.value)
    assert len(copies) == 2
    np.testing.assert_array_equal(copies[0].numpy(), copies[1].numpy())
    np.testing.assert_allclose(copies[0].numpy().sum(-1), np.ones(oracles.IMAGES), rtol=1e-5)


def test_trains_by_name_and_replaces_the_label_loss():
    distiller = oracles.distiller(
        lambda: registry.create("ps_kd", final_memory_weight=0.5), teacher=False
    )
    history = distiller.fit(oracles.batches(("index",)), epochs=4, verbose=0).history
    assert history["student_loss"] == [0.0] * 4
    np.testing.assert_allclose(history["loss"], history["ps_kd"], rtol=1e-6)
    assert history["loss"][-1] < history["loss"][0]


def test_no_gradient_reaches_the_memory():
    tensors = oracles.inputs("A")
    student, past = oracles.gradients(
        lambda t: tf.reduce_mean(ps_kd_loss(t["student"], t["labels"], t["past"], 0.5)),
        tensors,
        ["student", "past"],
    )
    assert past is None
    assert np.abs(student).max() > 1e-3
    distiller = oracles.distiller(PSKD, teacher=False)
    assert not distiller.objectives[0].trainable_variables


@pytest.mark.parametrize("form", [tf.uint8, tf.int32, tf.int64, "column"])
def test_labels_of_any_form_give_the_same_value(form):
    tensors = oracles.inputs("B")
    wanted = ps_kd_loss(tensors["student"], tensors["labels"], tensors["past"], 0.4)
    column = tensors["labels"][:, None]
    labels = column if form == "column" else tf.cast(tensors["labels"], form)
    found = ps_kd_loss(tensors["student"], labels, tensors["past"], 0.4)
    np.testing.assert_array_equal(found, wanted)


def test_shifts_and_permutations_change_nothing():
    tensors = oracles.inputs("B")
    student, past, labels = (tensors[name] for name in ("student", "past", "labels"))
    value = ps_kd_loss(student, labels, past, 0.4)
    np.testing.assert_allclose(ps_kd_loss(student + 4.0, labels, past, 0.4), value, rtol=1e-12)
    order = [3, 0, 4, 2, 1]
    named = tf.constant([order.index(label) for label in labels.numpy()])
    moved = [tf.gather(each, order, axis=1) for each in (student, past)]
    np.testing.assert_allclose(ps_kd_loss(moved[0], named, moved[1], 0.4), value, rtol=1e-12)


@pytest.mark.parametrize("dtype", [tf.bfloat16, tf.float16, tf.float32])
def test_finite_at_extreme_logits(dtype):
    tensors = oracles.extreme(dtype)
    past = tf.nn.softmax(tf.cast(tensors["teacher"], tf.float32))

    def loss(tensors):
        return ps_kd_loss(tensors["student"], tensors["labels"], past, 0.8)

    assert loss(tensors).dtype == tf.float32
    assert np.isfinite(loss(tensors)).all()
    [gradient] = oracles.gradients(lambda t: tf.reduce_sum(loss(t)), tensors, ["student"])
    assert np.isfinite(tf.cast(gradient, tf.float32)).all()


def test_sample_weights_scale_their_rows():
    tensors = oracles.inputs("A", tf.float32)
    distiller = distiller_of_logits()
    weight = np.array([0.0, 3.0], np.float32)
    loss = show(
        distiller, tensors["student"], [0, 1], tensors["labels"], sample_weight=weight
    )
    rows = cross_entropy(tensors["labels"], tensors["student"]).numpy()
    np.testing.assert_allclose(loss, 3 * rows[1] / 2, rtol=1e-5)


def test_what_it_needs_is_asked_for():
    with pytest.raises(TfkdError, match="ps_kd needs the size of the training set"):
        tfkd.Distiller(None, oracles.network(4, "student"), PSKD())
    distiller = oracles.distiller(PSKD, teacher=False)
    with pytest.raises(TfkdError, match="lacks index"):
        distiller.fit(oracles.batches(()), verbose=0)
    dense = oracles.arrays()
    dense["label"] = np.eye(oracles.CLASSES, dtype=np.float32)[dense["label"]]
    with pytest.raises(TfkdError, match="ps_kd works on class numbers"):
        distiller.fit(oracles.batches(("index",), dense), verbose=0)


@pytest.mark.parametrize("weight", [-0.1, 1.1, float("nan"), "most", None])
def test_a_wrong_weight_is_refused(weight):
    with pytest.raises(TfkdError, match="ps_kd: final_memory_weight"):
        PSKD(weight)
