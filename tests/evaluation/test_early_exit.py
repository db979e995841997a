"""Thresholds, the exits that images take, and accuracy over cost, against plain Python."""

import json
import math

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fixtures import multi_exit
from tfkd import TfkdError, TfkdWarning, data, evaluation, models, tasks
from tfkd.evaluation import reports
from tfkd.evaluation.early_exit import RATIOS
from tfkd.models.saving import load_network, save_network

# Ten images at three exits that cost 10, 20 and 40.
CONFIDENCE = np.float32(
    [
        [0.95, 0.90, 0.85, 0.80, 0.60, 0.55, 0.50, 0.45, 0.40, 0.30],
        [0.99, 0.97, 0.70, 0.92, 0.88, 0.65, 0.75, 0.52, 0.61, 0.35],
        [0.99, 0.98, 0.90, 0.97, 0.95, 0.80, 0.85, 0.70, 0.77, 0.50],
    ]
)
RIGHT = np.array([[int(c) for c in row] for row in ("1101010000", "1111101010", "1111111011")]) > 0
ANSWERS = evaluation.ExitAnswers(("exit1", "exit2", "logits"), CONFIDENCE, RIGHT)
MACS = (10, 20, 40)


def thresholds_by_walking(confidence, ratio):
    """The search as it is published: image by image, in descending order of confidence."""
    exits, images = len(confidence), len(confidence[0])
    total = sum(ratio**k for k in range(1, exits + 1))
    thresholds, gone = [math.inf] * (exits - 1) + [-math.inf], [False] * images
    for k in range(exits - 1):
        want = math.floor(images * ratio ** (k + 1) / total + 1e-9)
        ordered = sorted(range(images), key=lambda i: -confidence[k][i])
        count = 0
        for image in ordered:
            if want and not gone[image]:
                count += 1
                if count == want:
                    thresholds[k] = confidence[k][image]
                    break
        for image in range(images):
            gone[image] = gone[image] or confidence[k][image] >= thresholds[k]
    return thresholds


def exits_by_walking(confidence, thresholds):
    taken = []
    for image in range(len(confidence[0])):
        for k, threshold in enumerate(thresholds):
            if confidence[k][image] >= threshold:
                taken.append(k + 1)
                break
    return taken


@pytest.mark.parametrize(
    ("ratio", "thresholds", "top1", "macs"),
    [
        (0.25, (0.50, 0.61), 60, 17),
        (0.5, (0.60, 0.65), 60, 21),
        (1.0, (0.85, 0.75), 80, 25),
        (1.5, (0.90, 0.75), 90, 28),
    ],
)
def test_thresholds_and_curve_of_ten_images(ratio, thresholds, top1, macs):
    found = evaluation.find_thresholds(CONFIDENCE, ratio)
    np.testing.assert_array_equal(found, np.float32([*thresholds, -np.inf]))
    assert ANSWERS.outcome(found, MACS)[:2] == (pytest.approx(top1), pytest.approx(macs))
    if ratio == 1:
        exits = evaluation.exits_taken(CONFIDENCE, found)
        np.testing.assert_array_equal(exits, [1, 1, 1, 2, 2, 3, 2, 3, 3, 3])
    points = evaluation.accuracy_over_cost(MACS, ANSWERS, ANSWERS)["budgeted"]
    assert [each["ratio"] for each in points] == list(RATIOS) == [t / 20 for t in range(1, 40)]
    (point,) = (each for each in points if each["ratio"] == ratio)
    assert (point["test_top1"], point["validation_macs"]) == (
        pytest.approx(top1),
        pytest.approx(macs),
    )


@settings(max_examples=200, deadline=None)
@given(
    exits=st.integers(1, 5),
    # Few different values, so that many are equal.
    rows=st.lists(st.lists(st.integers(1, 8), min_size=5, max_size=5), min_size=1, max_size=30),
    ratio=st.sampled_from(RATIOS),
)
def test_the_search_is_that_of_plain_python_also_for_ties(exits, rows, ratio):
    confidence = np.float32(rows).T[:exits] / 8
    found = evaluation.find_thresholds(confidence, ratio)
    assert found.tolist() == thresholds_by_walking(confidence.tolist(), ratio)
    taken = evaluation.exits_taken(confidence, found)
    assert taken.tolist() == exits_by_walking(confidence.tolist(), found.tolist())


def test_a_confidence_that_is_no_number_leaves_at_the_last_exit():
    confidence = CONFIDENCE.copy()
    confidence[:, 4] = np.nan
    for ratio in (0.05, 1.0):
        found = evaluation.find_thresholds(confidence, ratio)
        assert not np.isnan(found).any()
        assert evaluation.exits_taken(confidence, found)[4] == 3


def test_logits_that_are_no_numbers_are_wrong_as_in_the_scores():
    nan = math.nan
    logits = {
        "exit1": [[nan, 0.0, 0.0], [0.0, nan, 1.0], [1.0, 0.0, 0.0]],
        "logits": [[1.0, 0.0, 0.0], [nan, nan, nan], [0.0, 1.0, 0.0]],
    }
    images = [{"image": np.zeros((3, 1, 1, 1)), "label": np.zeros(3, int)}]

    def predict(_):
        return {name: tf.constant(rows) for name, rows in logits.items()}

    found = evaluation.exit_answers({"it": predict}, images)["it"]
    np.testing.assert_array_equal(found.right, [[0, 0, 1], [1, 0, 0]])
    scores = evaluation.scores(predict, images, tasks.MultiExitClassification())
    top1 = [each["top1"] for each in scores["exits"]]
    np.testing.assert_allclose(100 * found.right.mean(axis=1), top1)


def test_a_budget_takes_the_most_accurate_point_that_it_affords():
    found = evaluation.accuracy_over_cost(MACS, ANSWERS, ANSWERS)
    points = [*found["anytime"], *found["budgeted"]]
    assert [each["thresholds"] for each in found["anytime"]] == [
        ["-inf", "-inf", "-inf"],
        ["inf", "-inf", "-inf"],
        ["inf", "inf", "-inf"],
    ]
    for budget in (10, 11, 17, 20, 24.9, 25, 28, 1e9):
        point = evaluation.within_budget(points, budget)
        assert point["validation_macs"] <= budget
        affordable = [each for each in points if each["validation_macs"] <= budget]
        assert point["validation_top1"] == max(each["validation_top1"] for each in affordable)
    assert evaluation.within_budget(points, 10)["exit"] == "exit1"
    for budget in (9.99, math.nan):
        message = f"budget: found {budget:g} MACs an image, wanted at least 10, the cost of the"
        with pytest.raises(TfkdError, match=message):
            evaluation.within_budget(points, budget)
    # Of points of one accuracy the cheapest is taken, whatever more could be spent.
    same = [{"validation_top1": 50.0, "validation_macs": macs} for macs in (20, 10)]
    assert evaluation.within_budget(same, 30) == same[1]
    # At 28 MACs 90 of 100 images are right as at the last exit; 80 of them at 25 and less.
    assert evaluation.cheapest(points, 0.5)["validation_macs"] == 28
    assert evaluation.cheapest(points, 10)["validation_macs"] < 28


@pytest.mark.parametrize(
    ("thresholds", "message"),
    [
        ([0.5, 0.5], "thresholds: found 2 of them, wanted 3, one an exit"),
        ([0.5, math.nan, 0], "thresholds: found NaN at exit 2"),
        (["high", 0, 0], "thresholds: found .'high', 0, 0., wanted 3 numbers"),
        (0.5, r"thresholds: found the shape \(\), wanted 3"),
    ],
)
def test_thresholds_that_are_none_are_refused(thresholds, message):
    with pytest.raises(TfkdError, match=message) as caught:
        evaluation.exits_taken(CONFIDENCE, thresholds)
    assert "\n" not in str(caught.value)


@pytest.fixture
def exits_folder(tmp_path):
    """A run on the digits whose student has eleven exits, all of them sure of something else."""
    preprocess = models.Preprocess((80.0,), (90.0,))
    network = models.Network(multi_exit.lively(multi_exit.build()), preprocess, name="exits")
    save_network(network, tmp_path / "exits")
    settings = {"name": "digits", "validation_size": 300}
    (tmp_path / "exits" / "config.json").write_text(json.dumps({"data": settings}))
    return tmp_path / "exits"


def test_a_report_within_a_budget_leaves_early_by_the_validation_images(exits_folder):
    network = load_network(exits_folder)
    costs = [each.macs for each in models.exit_costs(network.model).values()]
    budget = 0.6 * costs[-1]
    # They are no longer those that the run held out.
    parts = data.load("digits", validation_size=300).identity()
    parts["validation"] = {"digest": "others"}
    (exits_folder / "result.json").write_text(json.dumps({"inputs": {"data": {"parts": parts}}}))
    with pytest.warns(TfkdWarning, match="the images of 'validation' are others than in the run"):
        report = reports.report(run=exits_folder, budget=budget)
    found = report["early_exit"]
    assert costs[0] < found["validation_macs"] <= budget
    assert found["validation_macs"] != found["macs"]
    assert sum(each["leave"] for each in report["exits"]) == pytest.approx(100)
    shares = [each["leave"] / 100 for each in report["exits"]]
    assert found["macs"] == pytest.approx(np.dot(shares, costs))
    *lines, line = reports.table(report).splitlines()
    heading, *rows = lines[-13:-1]
    assert heading.endswith("threshold  leave %")
    assert rows[0].split()[-1] == f"{report['exits'][0]['leave']:.2f}"
    assert rows[-1].split()[-2] == "-inf"
    assert line.startswith(f"leaving early within {budget:,.10g} MACs an image: top-1 ")
    assert f"{found['top1']:.2f} % at {found['macs']:,.0f} MACs" in line
    message = (
        f"budget: found {costs[0] - 1:,} MACs an image, wanted at least {costs[0]:,}, the cost"
    )
    (exits_folder / "result.json").unlink()
    with pytest.raises(TfkdError, match=message):
        reports.report(run=exits_folder, budget=costs[0] - 1)


def test_the_thresholds_of_a_run_are_those_that_it_chose_itself(exits_folder):
    """What other data, or the run's own as they are now, hold out may have been trained on."""
    network = load_network(exits_folder)
    save_network(network, exits_folder, "best")
    macs = models.exit_costs(network.model)["exit2"].macs
    thresholds = {"last": [0.3, *[0.5] * 9, "-inf"], "best": ["inf", 0.2, *[0.5] * 8, "-inf"]}
    known = {"validation_top1": 30.0, "validation_macs": macs}
    points = {which: [{**known, "thresholds": each}] for which, each in thresholds.items()}
    found = {which: {"anytime": each, "budgeted": each} for which, each in points.items()}
    (exits_folder / "early_exit.json").write_text(json.dumps(found))
    for which, data_name in (("last", "digits"), ("best", None)):
        report = reports.report(run=exits_folder, which=which, data_name=data_name, budget=macs)
        assert [each["threshold"] for each in report["exits"]] == thresholds[which]
        assert report["early_exit"]["validation_top1"] == 30


def test_a_budget_without_validation_images_or_exits_is_refused(exits_folder, run_folder):
    with pytest.raises(TfkdError, match="found 900 MACs for a network with one exit"):
        reports.report(run=run_folder, budget=900)
    message = "budget: found no thresholds and no validation images of the run to choose them"
    # Of the images that a named data set holds out it is not known whether the run had them.
    with pytest.raises(TfkdError, match=message):
        reports.report(run=exits_folder, data_name="digits", budget=1e9)
    settings = {"name": "digits", "validation_size": 0}
    (exits_folder / "config.json").write_text(json.dumps({"data": settings}))
    with pytest.raises(TfkdError, match=message):
        reports.report(run=exits_folder, budget=1e9)
