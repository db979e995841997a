"""PS-KD: published numbers, and a memory that is read before it is written, and written once."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.distillers import logit_oracles as oracles
from tests.distillers import runs
from tests.distillers.contexts import moved
from tfkd.core import Distiller
from tfkd.core.divergences import cross_entropy
from tfkd.distillers.plain import Plain
from tfkd.distillers.ps_kd import PSKD, memory_weight, ps_kd_loss, refined_targets

TRACE = oracles.FILE["state"]["ps_kd"]


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("check", oracles.checks("ps_kd"), ids=oracles.label)
def test_published_numbers(check, dtype):
    def compute(given, params):
        targets = given["labels"], given["past"], params["alpha_t"]
        return {
            "soft_targets": refined_targets(*targets),
            "total": tf.reduce_mean(ps_kd_loss(given["student"], *targets)),
        }

    oracles.verify(check, compute, dtype)


def memory_of(distiller):
    """The memory and its flags as arrays."""
    [objective] = distiller.objectives
    return np.asarray(objective.memory), np.asarray(objective.seen)


def distiller_of_logits(learning_rate=0.0):
    """A distiller whose student says what it is shown."""
    image = keras.Input((1, 1, TRACE["num_classes"]))
    dense = keras.layers.Dense(
        TRACE["num_classes"], use_bias=False, kernel_initializer="identity", name="logits"
    )
    student = keras.Model(image, dense(keras.layers.Flatten()(image)))
    made = Distiller(None, student, PSKD(TRACE["alpha_T"]), train_size=TRACE["num_samples"])
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
        "index": np.asarray(indices),
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
    tensors = oracles.inputs(check["case"], "float32")
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
def test_image_not_seen_before_stands_for_its_label(epoch):
    tensors = oracles.inputs("A", "float32")
    distiller = distiller_of_logits()
    show(distiller, tensors["teacher"], [0, 3], [1, 1], epoch=0)
    loss = show(distiller, tensors["student"], [5, 2], tensors["labels"], epoch=epoch)
    wanted = tf.reduce_mean(cross_entropy(tensors["labels"], tensors["student"]))
    np.testing.assert_allclose(loss, wanted, rtol=1e-5)


def test_first_epoch_is_plain_cross_entropy():
    def loss(objective):
        distiller = runs.distiller_of(objective, eager=True)
        return distiller.fit(runs.batches("index"), epochs=1, verbose=0).history["loss"]

    np.testing.assert_allclose(loss(PSKD()), loss(Plain()), rtol=1e-5)


def test_memory_weight_grows_to_its_final_value_and_stays():
    weights = [float(memory_weight(epoch, 10, 0.8)) for epoch in range(12)]
    np.testing.assert_allclose(weights, [0.08 * min(each, 10) for each in range(1, 13)], rtol=1e-6)


def test_memory_holds_what_the_student_said():
    distiller = runs.distiller_of(PSKD(), learning_rate=0.0, eager=True)
    data = {key: rows[:16] for key, rows in runs.arrays().items()}
    batches = runs.batches("index", data=data)
    distiller.fit(batches, epochs=1, verbose=0)
    memory, seen = memory_of(distiller)
    for batch in batches:
        said = tf.nn.softmax(distiller.student(batch["image"], training=True))
        np.testing.assert_allclose(memory[batch["index"].numpy()], said, rtol=1e-4, atol=1e-6)
    assert sorted(np.flatnonzero(seen)) == sorted(data["index"])
    assert not memory[~seen].any()


def test_index_of_int64_names_the_same_rows():
    found = []
    for dtype in (np.int32, np.int64):
        distiller = distiller_of_logits()
        show(distiller, TRACE["student"], np.array([4, 1], dtype), TRACE["labels"])
        found.append(memory_of(distiller))
    np.testing.assert_array_equal(found[0][0], found[1][0])
    assert found[0][1].tolist() == found[1][1].tolist() == [False, True, False, False, True, False]


def test_no_gradient_reaches_the_memory():
    given = oracles.inputs("A")
    student, past = oracles.gradients(
        lambda student, past: ps_kd_loss(student, given["labels"], past, 0.5),
        given["student"],
        given["past"],
    )
    assert past is None
    assert np.abs(student).max() > 1e-3
    [objective] = runs.distiller_of(PSKD()).objectives
    assert len(objective.variables) == 2 and not objective.trainable_variables


def test_shifts_and_permutations_beside_a_memory_change_nothing():
    given = oracles.inputs("B")

    def loss(given):
        return ps_kd_loss(given["student"], given["labels"], given["past"], 0.4)

    rows = [2, 0, 3, 1]
    for change, wanted in (
        ({**given, "student": given["student"] + 4.0}, loss(given)),
        (moved(given, classes=[3, 0, 4, 2, 1]), loss(given)),
        (moved(given, rows=rows), tf.gather(loss(given), rows)),
    ):
        np.testing.assert_allclose(loss(change), wanted, rtol=1e-12)


def test_sample_weights_scale_their_rows():
    tensors = oracles.inputs("A", "float32")
    distiller = distiller_of_logits()
    weight = np.array([0.0, 3.0], np.float32)
    loss = show(distiller, tensors["student"], [0, 1], tensors["labels"], sample_weight=weight)
    rows = cross_entropy(tensors["labels"], tensors["student"]).numpy()
    np.testing.assert_allclose(loss, 3 * rows[1] / 2, rtol=1e-5)
