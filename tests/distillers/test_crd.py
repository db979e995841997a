"""CRD: published numbers, the dense score against the literal one, banks, constants and queues."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.distillers import runs
from tests.distillers.contexts import context_of
from tests.distillers.contrast import features, spec_of, step, use_oracle
from tests.distillers.feature_oracles import TOLERANCE, case
from tests.distillers.logit_oracles import gradients
from tfkd import TfkdError
from tfkd.distillers.crd import CRD, crd_loss
from tfkd.distillers.shared.contrast import NETWORKS, Scores

GIVEN, EXPECTED = case("crd", "two_steps")
LABELS = np.array([0, 1, 2, 3] * 6)


def objective_of(labels=LABELS, seed=1, **settings):
    """An objective with small heads and banks."""
    objective = CRD(**{"width": 6, **settings})
    objective.setup(spec_of((4,), (5,), labels, seed))
    return objective


def banks_of(objective):
    return [np.array(each) for each in (objective.kept.student, objective.kept.teacher)]


def unit(values):
    return values / np.linalg.norm(values, axis=-1, keepdims=True)


def test_published_numbers_of_two_steps():
    objective = CRD(width=3)
    assert objective.temperature == GIVEN["temperature"]
    assert objective.bank_momentum == GIVEN["memory_momentum"]
    objective.setup(spec_of((4,), (5,), LABELS))
    negatives = use_oracle(objective, GIVEN)
    for side, head in (("s", objective.student_head), ("t", objective.teacher_head)):
        head.set_weights([np.array(GIVEN[f"embed_{side}"][name]) for name in ("kernel", "bias")])
    for name in ("step1", "step2"):
        given, expected = GIVEN[name], EXPECTED[name]
        negatives.rows = {row[0]: row[1:] for row in given["contrast_index"]}
        losses, carry = step(
            objective,
            given["student_embedding"],
            given["teacher_embedding"],
            index=given["index"],
        )
        np.testing.assert_allclose(losses["crd"], expected["loss"], **TOLERANCE)
        np.testing.assert_allclose(carry["vectors"]["student"], expected["v_s"], **TOLERANCE)
        np.testing.assert_allclose(carry["vectors"]["teacher"], expected["v_t"], **TOLERANCE)
        constants = [expected["Z_s"], expected["Z_t"]]
        np.testing.assert_allclose(objective.partition.values, constants, rtol=1e-4)
        for found, side in zip(banks_of(objective), "st"):
            np.testing.assert_allclose(found, expected[f"memory_{side}"], **TOLERANCE)


# The loss, as a function.

COUNT, TOTAL, TEMPERATURE = 7, 30, 0.07
DRAW = np.random.default_rng(2)
BANKS = [tf.constant(unit(DRAW.normal(size=(TOTAL, 5)))) for _ in "st"]
VECTORS = [tf.constant(unit(DRAW.normal(size=(4, 5)))) for _ in "st"]
POSITIVE = np.array([3, 9, 9, 20])
NEGATIVE = DRAW.integers(0, TOTAL, (4, COUNT))  # Some rows more than once.
PARTITIONS = tf.constant([700.0, 3.0], tf.float64)


def dense(student, teacher):
    """The loss of whole banks, weighed by how often each row was drawn."""
    counts = tf.math.bincount(NEGATIVE, minlength=TOTAL, axis=-1, dtype=tf.float64)
    sides = [
        Scores(
            tf.reduce_sum(vectors * tf.gather(bank, POSITIVE), axis=1) / TEMPERATURE,
            tf.matmul(vectors, bank, transpose_b=True) / TEMPERATURE,
            counts,
        )
        for vectors, bank in zip((student, teacher), BANKS)
    ]
    return crd_loss(*sides, PARTITIONS, COUNT, TOTAL)


def literal(student, teacher):
    """The loss of gathered rows, in the words of the paper."""
    total = tf.zeros([4], tf.float64)
    share = COUNT / TOTAL
    rows = np.concatenate([POSITIVE[:, None], NEGATIVE], axis=1)
    for vectors, bank, constant in zip((student, teacher), BANKS, tf.unstack(PARTITIONS)):
        chosen = tf.gather(bank, rows)
        scores = tf.exp(tf.einsum("bd,bkd->bk", vectors, chosen) / TEMPERATURE) / constant
        total -= tf.math.log(scores[:, 0] / (scores[:, 0] + share + 1e-7))
        total -= tf.reduce_sum(tf.math.log(share / (scores[:, 1:] + share + 1e-7)), axis=1)
    return total


def test_dense_scores_give_the_literal_loss_and_gradient():
    np.testing.assert_allclose(dense(*VECTORS), literal(*VECTORS), rtol=1e-11)
    for found, wanted in zip(gradients(dense, *VECTORS), gradients(literal, *VECTORS), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-9)


def test_gradient_is_that_of_finite_differences():
    student, teacher = VECTORS
    direction = DRAW.normal(size=student.shape)
    above, below = (
        tf.reduce_sum(dense(student + size * direction, teacher)) for size in (1e-5, -1e-5)
    )
    found = tf.reduce_sum(gradients(dense, *VECTORS)[0] * direction)
    np.testing.assert_allclose(found, (above - below) / 2e-5, rtol=1e-8)


def test_scores_of_any_size_are_finite():
    scores = Scores(tf.constant([1e4, -1e4, 0.0]), tf.constant([[-1e4, 1e4]] * 3), tf.ones((3, 2)))
    loss = crd_loss(scores, scores, tf.constant([1e10, 1e-10]), 2, 5)
    assert np.all(np.isfinite(loss))


# Steps.


def test_step_reads_the_banks_and_then_writes_them():
    objective = objective_of(negatives=9)
    before = banks_of(objective)
    bound = np.sqrt(3 / 6)
    for bank in before:
        assert bank.shape == (24, 6) and np.abs(bank).max() <= bound
        assert np.abs(bank).max() > 0.9 * bound
    assert np.any(before[0] != before[1])
    index = np.array([5, 17, 0])
    _, carry = step(objective, *features(3), index=index)
    for bank, after, network in zip(before, banks_of(objective), ("student", "teacher")):
        wanted = bank.copy()
        wanted[index] = unit(0.5 * bank[index] + 0.5 * np.array(carry["vectors"][network]))
        np.testing.assert_allclose(after, wanted, atol=1e-6)


def literal_step(objective, student, teacher, index, kinds):
    """The loss of a step whose draw was one of other classes, from banks and heads as arrays."""
    banks = banks_of(objective)[::-1]
    heads = objective.student_head, objective.teacher_head
    found = 0.0
    for given, head, bank in zip((student, teacher), heads, banks):
        kernel, bias = head.get_weights()
        scores = np.exp(unit(given @ kernel + bias) @ bank.T / objective.temperature)
        rows = np.arange(len(index))
        chosen = [scores[row, np.flatnonzero(kinds[row])] for row in rows]
        constant = len(bank) * np.mean([[s, *c] for s, c in zip(scores[rows, index], chosen)])
        share = kinds.sum(axis=1)[0] / len(bank)
        values = scores / constant
        for row in rows:
            own, others = values[row, index[row]], values[row, np.flatnonzero(kinds[row])]
            found -= np.log(own / (own + share + 1e-7)) / len(index)
            found -= np.sum(np.log(share / (others + share + 1e-7))) / len(index)
    return found


@pytest.mark.parametrize("shared", [True, False])
def test_loss_of_a_step_is_the_literal_one_over_all_images_of_other_classes(shared):
    # With as many negatives as there are images of other classes, the draw does not matter.
    objective = objective_of(negatives=18, shared_negatives=shared)
    index = np.array([5, 17, 0])
    kinds = LABELS[index][:, None] != LABELS[None, :]
    wanted = literal_step(objective, *features(3), index, kinds)
    losses, _ = step(objective, *features(3), index=index)
    np.testing.assert_allclose(losses["crd"], wanted, rtol=1e-5)


def test_constants_are_those_of_the_first_batch_for_ever():
    objective = objective_of()
    assert not np.any(objective.partition.values)
    step(objective, *features(3), index=[0, 1, 2])
    first = np.array(objective.partition.values)
    assert np.all(first > 0)
    step(objective, *features(3, seed=1), index=[3, 4, 5])
    np.testing.assert_array_equal(objective.partition.values, first)


def test_last_of_several_rows_of_an_image_is_kept():
    twice, once = objective_of(seed=3), objective_of(seed=3)
    student, teacher = features(4)
    step(twice, student, teacher, index=[5, 2, 5, 7])
    step(once, student[1:], teacher[1:], index=[2, 5, 7])
    for found, wanted in zip(banks_of(twice), banks_of(once)):
        np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_rows_of_weight_0_add_nothing_and_are_not_written():
    padded, alone = objective_of(seed=3), objective_of(seed=3)
    student, teacher = features(4)
    weights = np.array([1.0, 1.0, 0.0, 0.0], np.float32)
    losses, _ = step(
        padded, student, teacher, index=[5, 2, 0, 5], sample_weight=weights, training=True
    )
    wanted, _ = step(alone, student[:2], teacher[:2], index=[5, 2])
    np.testing.assert_allclose(2 * losses["crd"], wanted["crd"], rtol=1e-5)
    # Exponentials of similarities over 0.07, each of which is rounded, and summed in another order.
    np.testing.assert_allclose(padded.partition.values, alone.partition.values, rtol=1e-5)
    for found, wanted in zip(banks_of(padded), banks_of(alone)):
        np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_relaxed_positive_is_of_the_class():
    objective = objective_of(mode="relax", negatives=18)
    index = np.array([5, 17, 0])
    kinds = LABELS[index][:, None] != LABELS[None, :]
    # Of six images of each class, each may be the positive: 216 losses at most.
    held, possible = banks_of(objective), set()
    for number in range(216):
        shifts = np.array([number % 6, number // 6 % 6, number // 36])
        positives = (index % 4) + 4 * shifts
        possible.add(round(literal_step(objective, *features(3), positives, kinds), 3))
    found = set()
    for seed in range(8):
        objective.partition.values.assign([0.0, 0.0])
        losses, _ = step(objective, *features(3), index=index, number=seed)
        objective.kept.student.assign(held[0])
        objective.kept.teacher.assign(held[1])
        found.add(round(losses["crd"], 3))
    assert len(found) > 4
    assert all(min(abs(each - other) for other in possible) < 2e-3 for each in found)


# Runs.


def state_of(distiller):
    return {name: value for name, value in runs.state(distiller).items() if "metrics" not in name}


def test_evaluation_leaves_the_state_alone():
    distiller = runs.distiller_of(CRD(width=6), eager=True)
    distiller.fit(runs.batches("index").take(1), verbose=0)
    before = state_of(distiller)
    results = distiller.evaluate(runs.batches().take(1), verbose=0, return_dict=True)
    assert "crd" not in results
    for name, value in state_of(distiller).items():
        np.testing.assert_array_equal(value, before[name], err_msg=name)


def test_last_batch_may_be_smaller():
    data = runs.arrays()
    whole = {key: data[key] for key in ("image", "label", "index")}
    batches = tf.data.Dataset.from_tensor_slices(whole).batch(10)
    distiller = runs.distiller_of(CRD(width=6), eager=True)
    [objective] = distiller.objectives
    before = banks_of(objective)
    history = distiller.fit(batches, epochs=1, verbose=0).history
    assert np.isfinite(history["crd"][0])
    for bank, after in zip(before, banks_of(objective)):
        assert np.all(np.any(bank != after, axis=1))


def test_half_precision_changes_the_networks_alone():
    found = []
    for policy in ("float32", "mixed_bfloat16"):
        keras.config.set_dtype_policy(policy)
        try:
            distiller = runs.distiller_of(CRD(width=6), eager=True, learning_rate=0.0)
        finally:
            keras.config.set_dtype_policy("float32")
        assert all(v.dtype == "float32" for v in distiller.objectives[0].variables)
        history = distiller.fit(runs.batches("index").take(1), verbose=0).history
        found.append(history["crd"][0])
    np.testing.assert_allclose(found[1], found[0], rtol=0.02)
    assert found[1] != found[0]


def test_negatives_keep_their_share_of_a_small_set():
    objective = CRD()
    objective.setup(spec_of((4,), (5,), np.arange(5000) % 4))
    outputs = {name: {"pooled": tf.ones((2, width))} for name, width in zip(NETWORKS, (4, 5))}
    context = context_of(outputs, [0, 1], index=[0, 1])
    contrast = objective.kept.contrast(context, {})
    assert contrast.count == 1638
    np.testing.assert_array_equal(tf.reduce_sum(contrast.weights, axis=1), 1638)


def test_a_map_is_refused_with_its_shape():
    with pytest.raises(TfkdError, match=r"^crd: found student tap 'stage2' of shape 4 x 4 x 4"):
        runs.distiller_of(CRD(student_tap="stage2"))


def test_training_images_of_one_class_are_refused():
    with pytest.raises(TfkdError, match="^crd: found 24 training images of one class"):
        runs.distiller_of(CRD(), train_labels=np.zeros(24, int))


@pytest.mark.parametrize("settings", [{"mode": "relax"}, {"shared_negatives": False}])
def test_a_queue_holds_no_other_images_of_a_class(settings):
    with pytest.raises(TfkdError, match="^crd: found memory='queue' with mode="):
        CRD(memory="queue", **settings)


# Queues.


def queue_of(size, **settings):
    objective = CRD(width=6, memory="queue", negatives=size, **settings)
    objective.setup(spec_of((4,), (5,), LABELS))
    return objective


def test_a_queue_needs_neither_positions_nor_labels_of_the_training_set():
    requires = CRD(memory="queue").requires
    assert not requires.index and not requires.train_labels
    # The share of the training set that is looked for is the default number of negatives.
    assert requires.train_size and not CRD(memory="queue", negatives=9).requires.train_size
    distiller = runs.distiller_of(CRD(memory="queue"), train_labels=None, eager=True)
    history = distiller.fit(runs.batches().take(2), verbose=0).history
    assert np.isfinite(history["crd"][0]) and history["crd"][0] > 0


def test_queue_holds_the_last_embeddings_and_wraps_around():
    objective = queue_of(5)
    vectors, labels = [], []
    for seed, given in enumerate(([3, 1, 2], [2, 2, 0], [1, 3, 3])):
        _, carry = step(objective, *features(3, seed=seed), given)
        vectors.append(np.array(carry["vectors"]["teacher"]))
        labels += given
    assert int(objective.kept.next.numpy()) == 9 % 5
    places = np.arange(4, 9) % 5
    np.testing.assert_array_equal(np.array(objective.kept.numbers)[places], labels[4:])
    np.testing.assert_array_equal(
        np.array(objective.kept.rows["teacher"])[places], np.concatenate(vectors)[4:]
    )


def test_batch_may_be_larger_than_the_queue():
    objective = queue_of(2)
    _, carry = step(objective, *features(5), [0, 1, 2, 3, 1])
    vectors = np.array(carry["vectors"]["student"])
    np.testing.assert_array_equal(objective.kept.numbers, [1, 3])
    np.testing.assert_array_equal(objective.kept.rows["student"], vectors[[4, 3]])


def test_queue_gives_only_what_was_written_and_is_of_other_classes():
    objective = queue_of(8)
    weights = np.array([1.0, 1.0, 0.0], np.float32)
    losses, _ = step(objective, *features(3), [0, 1, 2], sample_weight=weights)
    # Nothing to compare with as yet, and so no constant either.
    assert losses["crd"] == 0 and not np.any(objective.partition.values)
    student, teacher = features(3, seed=1)
    index_of = {0: [1], 1: [0], 3: [0, 1]}
    kept = [
        np.array(each)[:2]
        for each in (objective.kept.rows["teacher"], objective.kept.rows["student"])
    ]
    heads = objective.student_head, objective.teacher_head
    vectors = [
        unit(given @ head.get_weights()[0] + head.get_weights()[1])
        for given, head in zip((student, teacher), heads)
    ]
    wanted = 0.0
    for side in (0, 1):
        own = np.exp(np.sum(vectors[0] * vectors[1], axis=1) / 0.07)
        others = [
            np.exp(vectors[side][row] @ kept[side][index_of[label]].T / 0.07)
            for row, label in enumerate([0, 1, 3])
        ]
        means = [(a + 8 * b.mean()) / 9 for a, b in zip(own, others)]
        constant = 8 * np.mean(means)
        for a, b in zip(own / constant, others):
            wanted -= np.log(a / (a + 1 + 1e-7)) / 3
            wanted -= 8 * np.mean(np.log(1 / (b / constant + 1 + 1e-7))) / 3
    losses, _ = step(objective, student, teacher, [0, 1, 3])
    np.testing.assert_allclose(losses["crd"], wanted, rtol=1e-5)
