"""Scores and agreement against sums written out row by row."""

import math

import numpy as np
import pytest
import tensorflow as tf
from sklearn.metrics import average_precision_score

from tfkd import TfkdError, tasks
from tfkd.core.tasks.class_scores import ClassEvaluator
from tfkd.evaluation import agreement, evaluate, scores


class Table:
    """A network whose logits are a table; the image of a row is the row's number."""

    def __init__(self, rows):
        self.rows = np.asarray(rows, np.float32)
        self.calls = 0

    def __call__(self, images):
        self.calls += 1
        return tf.gather(self.rows, tf.cast(images[:, 0, 0, 0], tf.int32))


def batches(labels, size, weights=None):
    """Row numbers as images, in batches; the last one is filled up with rows of weight 0."""
    labels = np.asarray(labels)
    weights = np.ones(len(labels)) if weights is None else np.asarray(weights)
    numbers = np.arange(len(labels))
    padding = -len(labels) % size
    numbers = np.pad(numbers, (0, padding)).astype(np.uint8)
    parts = {
        "image": numbers[:, None, None, None],
        "label": np.pad(labels, (0, padding)).astype(np.int32),
        "sample_weight": np.pad(weights, (0, padding)).astype(np.float32),
    }
    return tf.data.Dataset.from_tensor_slices(parts).batch(size)


def by_hand(rows, labels, weights, k):
    """Top-1 and top-k in percent and the loss, one row after another."""
    top1 = topk = loss = 0.0
    for row, label, weight in zip(rows.astype(np.float64).tolist(), labels, weights):
        order = sorted(range(len(row)), key=lambda each: (-row[each], each))
        top1 += weight * (order[0] == label)
        topk += weight * (label in order[:k])
        loss -= weight * math.log(math.exp(row[label]) / sum(math.exp(each) for each in row))
    total = sum(weights)
    return 100 * top1 / total, 100 * topk / total, loss / total


@pytest.fixture
def random():
    return np.random.default_rng(11)


@pytest.mark.parametrize("size", [1, 7, 32, 100])
def test_scores_are_those_counted_by_hand_whatever_the_batch(random, size):
    rows = random.normal(size=(50, 12)).astype(np.float32)
    labels = random.integers(0, 12, 50)
    found = scores(Table(rows), batches(labels, size))
    top1, top5, loss = by_hand(rows, labels, np.ones(50), 5)
    assert 0 < top1 < top5 < 100
    assert found == {
        "top1": pytest.approx(top1),
        "top5": pytest.approx(top5),
        "loss": pytest.approx(loss),
        "count": 50,
    }


def test_rows_count_by_their_weight(random):
    rows = random.normal(size=(20, 4)).astype(np.float32)
    labels = random.integers(0, 4, 20)
    weights = random.uniform(0.1, 2.0, 20) * (np.arange(20) % 3 > 0)
    evaluator = ClassEvaluator(["network"], topk=(1, 2))
    for batch in batches(labels, 8, weights).as_numpy_iterator():
        evaluator.add(batch, {"network": {"logits": Table(rows)(batch["image"])}})
    found = evaluator.result().by_network["network"]
    top1, top2, loss = by_hand(rows, labels, weights, 2)
    assert found["count"] == 13
    numbers = [found[key] for key in ("top1", "top2", "loss")]
    np.testing.assert_allclose(numbers, [top1, top2, loss], rtol=1e-6)


def test_batches_without_weights_count_every_row():
    rows = np.eye(3)
    data = [{"image": np.arange(3)[:, None, None, None], "label": np.array([0, 1, 0])}]
    assert scores(Table(rows), data)["top1"] == pytest.approx(200 / 3)


def test_top5_starts_at_ten_classes():
    for classes, wanted in ((9, False), (10, True)):
        found = scores(Table(np.eye(classes)), batches(np.arange(classes), 4))
        assert ("top5" in found) is wanted


def test_of_equal_logits_the_lower_class_comes_first():
    rows = np.zeros((10, 10))
    found = scores(Table(rows), batches(np.arange(10), 5))
    assert (found["top1"], found["top5"]) == (10.0, 50.0)


def test_a_row_that_is_not_a_number_is_wrong():
    rows = np.eye(4)
    rows[1, 2] = np.nan
    found = evaluate({"a": Table(rows), "b": Table(rows)}, batches(np.arange(4), 4))
    assert found.scores["a"]["top1"] == 75.0
    assert math.isnan(found.scores["a"]["loss"])
    assert found.agreement("a", "b") == 75.0


def test_agreement_is_counted_by_hand(random):
    first, second = random.normal(size=(2, 30, 5)).astype(np.float32)
    second[:12] = first[:12]
    equal = sum(int(a.argmax() == b.argmax()) for a, b in zip(first, second))
    found = agreement(Table(first), Table(second), batches(np.zeros(30, int), 8))
    assert 12 <= equal < 30
    assert found == pytest.approx(100 * equal / 30)


def test_one_pass_serves_all_networks(random):
    tables = {name: Table(random.normal(size=(30, 12))) for name in ("student", "teacher", "other")}
    labels = random.integers(0, 12, 30)
    found = evaluate(tables, batches(labels, 8))
    assert [table.calls for table in tables.values()] == [4, 4, 4]
    for name, table in tables.items():
        assert found.scores[name] == scores(table, batches(labels, 8))
    assert list(found.agreements) == [
        ("student", "teacher"),
        ("student", "other"),
        ("teacher", "other"),
    ]
    expected = agreement(tables["student"], tables["teacher"], batches(labels, 8))
    assert found.agreement("teacher", "student") == expected
    assert found.count == 30
    assert found.images_per_second > 0
    with pytest.raises(TfkdError, match="unknown pair of networks 'student and nobody'"):
        found.agreement("student", "nobody")


class Exits(Table):
    """A network with several exits, each a table of its own."""

    def __init__(self, **tables):
        self.tables = {name: Table(rows) for name, rows in tables.items()}

    def __call__(self, images):
        return {name: table(images) for name, table in self.tables.items()}


def calibration_error(rows, labels, weights):
    """The expected calibration error in percent, one bin after another."""
    bins = [[0.0, 0.0] for _ in range(15)]
    for row, label, weight in zip(rows.astype(np.float64).tolist(), labels, weights):
        confidence = max(math.exp(each) for each in row) / sum(math.exp(each) for each in row)
        own = bins[math.ceil(15 * confidence) - 1]
        own[0] += weight * (row.index(max(row)) == label)
        own[1] += weight * confidence
    return 100 * sum(abs(right - sure) for right, sure in bins) / sum(weights)


def test_every_exit_is_scored_shallow_to_deep(random):
    labels = random.integers(0, 12, 40)
    weights = random.uniform(0.1, 2.0, 40)
    rows = {
        name: 3 * random.normal(size=(40, 12)).astype(np.float32)
        for name in ("exit10", "logits", "exit2")
    }
    task = tasks.MultiExitClassification()
    found = scores(Exits(**rows), batches(labels, 16, weights), task)
    exits = {each["name"]: each for each in found["exits"]}
    assert list(exits) == ["exit2", "exit10", "logits"]
    for name, each in exits.items():
        top1, top5, loss = by_hand(rows[name], labels, weights, 5)
        ece = calibration_error(rows[name], labels, weights)
        wanted = {"top1": top1, "top5": top5, "loss": loss, "ece": ece}
        assert each == {"name": name, **{k: pytest.approx(v) for k, v in wanted.items()}}
    assert found["mean_top1"] == pytest.approx(np.mean([each["top1"] for each in exits.values()]))
    for key in ("top1", "top5", "loss"):
        assert found[key] == exits["logits"][key]
    assert task.summary(found) == f"mean top-1 {found['mean_top1']:.2f} %"


def test_of_several_exits_the_deepest_agrees(random):
    first, second, other = random.normal(size=(3, 30, 5)).astype(np.float32)
    networks = {"several": Exits(exit1=other, logits=first), "one": Table(second)}
    found = evaluate(networks, batches(np.zeros(30, int), 8), tasks.MultiExitClassification())
    expected = agreement(Table(first), Table(second), batches(np.zeros(30, int), 8))
    assert found.agreement("several", "one") == expected


def test_classification_reads_the_logits_alone(random):
    rows = random.normal(size=(2, 20, 4)).astype(np.float32)
    labels = random.integers(0, 4, 20)
    found = scores(Exits(exit1=rows[0], logits=rows[1]), batches(labels, 8))
    assert found == scores(Table(rows[1]), batches(labels, 8))


def test_a_task_of_ones_own_has_its_own_scores(random):
    labels = random.integers(0, 10, 30)
    rows = random.normal(size=(30, 4)).astype(np.float32)
    task = tasks.find("tests/fixtures/multi_label.py:MultiLabel")()
    networks = {"student": Table(rows), "teacher": Table(-rows)}
    found = evaluate(networks, batches(labels, 8), task)
    digits = [[n in (0, 2, 4, 6, 8), n in (2, 3, 5, 7), n in (0, 6, 8, 9), n >= 5] for n in labels]
    expected = 100 * average_precision_score(np.array(digits), rows)
    assert found.scores["student"] == {"map": pytest.approx(expected), "count": 30}
    assert found.scores["teacher"]["map"] != pytest.approx(expected)
    assert (found.agreements, found.count) == ({}, 30)
    with pytest.raises(TfkdError, match="unknown pair of networks"):
        agreement(*networks.values(), batches(labels, 8), task)


def test_a_plain_function_runs_as_a_graph():
    eager = []

    def predict(images):
        eager.append(tf.executing_eagerly())
        return tf.one_hot(tf.cast(images[:, 0, 0, 0], tf.int32), 4)

    assert scores(predict, batches(np.arange(4), 2))["top1"] == 100.0
    assert eager == [False]


def test_mismatched_batches_and_outputs_are_named():
    data = batches([0, 1, 5], 2)
    with pytest.raises(TfkdError, match="'network' with: found 5 to 5, wanted 0 to 2"):
        scores(Table(np.eye(3)), data)
    with pytest.raises(TfkdError, match="found 6 and 7 classes"):
        agreement(Table(np.eye(6)), Table(np.eye(7)), data)
    with pytest.raises(TfkdError, match=r"found shape \(2, 1, 6\), wanted \(2, classes\)"):
        scores(Table(np.zeros((3, 1, 6))), data)
    with pytest.raises(TfkdError, match="found no images"):
        scores(Table(np.eye(6)), batches([0, 1], 2, [0, 0]))
    with pytest.raises(TfkdError, match="found no images"):
        scores(Table(np.eye(6)), [])
    with pytest.raises(TfkdError, match="found none, wanted one or more by name"):
        evaluate({}, data)
    with pytest.raises(TfkdError, match="found exit1, wanted 'logits'"):
        scores(Exits(exit1=np.eye(6)), data)
    with pytest.raises(TfkdError, match="'network' to evaluate: found outputs without a name each"):
        scores(lambda images: [images, images], data)
    with pytest.raises(TfkdError, match="batch without label: found .*image"):
        scores(Table(np.eye(6)), [{"image": np.zeros((2, 1, 1, 1))}])
    with pytest.raises(TfkdError, match=r"found label float32 \(2, 6\)"):
        scores(
            Table(np.eye(6)),
            [{"image": np.zeros((2, 1, 1, 1)), "label": np.eye(6, dtype=np.float32)[:2]}],
        )
