"""Exports that leave early: which rows each layer sees, where images leave, and what they are."""

import collections
import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.export.conftest import lively
from tests.fixtures import multi_exit
from tfkd import TfkdError, evaluation, export, models
from tfkd.export import early_exit, named_outputs
from tfkd.models.graph.exit_parts import exit_parts
from tfkd.models.graph.keras_layers import rebuild, stock_layer

PLAIN_TENSORFLOW = """
import sys
sys.modules["tfkd"] = sys.modules["keras"] = None  # an import of either now fails
import numpy as np
import tensorflow as tf

signatures = tf.saved_model.load(sys.argv[1]).signatures
given = np.load(sys.argv[2])
pixels, thresholds = given["pixels"], tf.constant(given["thresholds"])
found = {}
for size in (len(pixels), 3, 1):
    batches = [tf.constant(pixels[at : at + size]) for at in range(0, len(pixels), size)]
    parts = [signatures["early_exit"](image=each, thresholds=thresholds) for each in batches]
    for name in parts[0]:
        found[f"{name}{size}"] = np.concatenate([part[name] for part in parts])
np.savez(sys.argv[3], **found)
"""


@keras.saving.register_keras_serializable("tests")
class Rows(keras.layers.Layer):
    """Writes its name and the rows of its input into a file, whenever it runs."""

    def __init__(self, record, **settings):
        super().__init__(**settings)
        self.record = record

    def call(self, value):
        rows = tf.print(self.name, tf.shape(value)[0], output_stream=f"file://{self.record}")
        with tf.control_dependencies([rows]):
            return tf.identity(value)

    def compute_output_shape(self, shape):
        return shape

    def get_config(self):
        return {**super().get_config(), "record": self.record}


class Case:
    """An MSDNet of three exits that writes down what it runs, and its export."""

    def __init__(self, place):
        self.record = place / "rows"

        def watched(layer):
            made = stock_layer(layer)
            if not isinstance(layer, keras.layers.ReLU):
                return made
            return made, Rows(str(self.record), name=f"{layer.name}_rows")

        model = models.create("msdnet", 5, (8, 8, 3), blocks=(1, 1, 1), scales=2, channels=4)
        self.model = lively(rebuild(model, watched)[0])
        preprocess = models.Preprocess((110.0, 120.0, 130.0), (50.0, 60.0, 70.0))
        self.network = models.Network(self.model, preprocess, name="watched")
        self.pixels = np.random.default_rng(5).integers(0, 256, (12, 8, 8, 3), dtype=np.uint8)
        labels = np.arange(12) % 5
        self.data = [{"image": self.pixels, "label": labels}]
        predict = evaluation.predictor(self.network)
        self.logits = {name: np.asarray(each) for name, each in predict(self.pixels).items()}
        self.answers = evaluation.exit_answers({"it": predict}, self.data)["it"]
        self.macs = [each.macs for each in models.exit_costs(self.model).values()]
        self.found = evaluation.accuracy_over_cost(self.macs, self.answers, self.answers)
        points = [*self.found["anytime"], *self.found["budgeted"]]
        self.folder = export.save(self.network, place / "exported", verify=False, points=points)
        self.signatures = tf.saved_model.load(str(self.folder)).signatures

    def thresholds(self, *leaving):
        """Thresholds between two confidences at which these numbers of images leave, and where."""
        found, there = np.full(3, np.inf, np.float32), np.full(12, True)
        for exit, count in enumerate(leaving):
            ordered = np.sort(self.answers.confidence[exit][there])[::-1]
            if count:
                between = ordered[count - 1 : count + 1].mean()
                found[exit] = between if count < len(ordered) else -np.inf
            there &= self.answers.confidence[exit] < found[exit]
        taken = evaluation.exits_taken(self.answers.confidence, found)
        assert list(np.bincount(taken, minlength=4)[1:3]) == list(leaving)
        return found, taken

    def run(self, pixels, thresholds):
        """What the export gives, and the rows that every layer saw."""
        self.record.unlink(missing_ok=True)
        found = self.signatures["early_exit"](
            image=tf.constant(pixels), thresholds=tf.constant(thresholds)
        )
        found = {name: np.asarray(each) for name, each in found.items()}
        lines = [line.split() for line in self.record.read_text().splitlines()]
        rows = collections.defaultdict(list)
        for name, seen in lines:
            rows[name].append(int(seen))
        return found, dict(rows)


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    keras.utils.set_random_seed(1)
    return Case(tmp_path_factory.mktemp("early"))


@pytest.mark.parametrize("leaving", [(5, 3), (0, 7), (12, 0), (7, 5), (0, 0)])
def test_a_layer_sees_the_images_that_are_left_and_none_runs_after_the_last(case, leaving):
    thresholds, taken = case.thresholds(*leaving)
    found, rows = case.run(case.pixels, thresholds)
    np.testing.assert_array_equal(found["exit"], taken)
    wanted = {}
    for number, part in enumerate(exit_parts(case.model), start=1):
        left = int((taken >= number).sum())
        watched = [step.path for step in part.steps if step.path.endswith("_rows")]
        assert len(watched) > 3
        wanted |= {name: [left] for name in watched if left}
    assert rows == wanted
    assert rows["stem_relu_rows"] == [12]


def test_plain_tensorflow_gives_the_exits_of_the_offline_evaluation(case, tmp_path):
    thresholds, taken = case.thresholds(4, 5)
    np.savez(tmp_path / "given.npz", pixels=case.pixels, thresholds=thresholds)
    arguments = [case.folder, tmp_path / "given.npz", tmp_path / "found.npz"]
    subprocess.run(
        [sys.executable, "-c", PLAIN_TENSORFLOW, *map(str, arguments)],
        cwd=tmp_path,
        env={key: value for key, value in os.environ.items() if key != "PYTHONPATH"},
        check=True,
    )
    found = np.load(arguments[-1])
    near = np.abs(case.answers.confidence - thresholds[:, None])[:2].min(axis=0) < 1e-5
    assert near.sum() < 2
    logits = np.stack(list(case.logits.values()))[taken - 1, np.arange(12)].astype(np.float64)
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    # In the order of the batch, whatever its size.
    for size in (12, 3, 1):
        np.testing.assert_array_equal(found[f"exit{size}"][~near], taken[~near])
        np.testing.assert_array_equal(found[f"class{size}"][~near], logits.argmax(-1)[~near])
        np.testing.assert_allclose(
            found[f"probabilities{size}"][~near],
            (powers / powers.sum(axis=-1, keepdims=True))[~near],
            atol=1e-5,
        )


def test_a_budget_chooses_the_thresholds_that_the_validation_images_chose(case):
    known = export.describe(case.folder)
    points = known["early_exit"]["points"]
    assert len(points) == 3 + 39
    function = case.signatures["early_exit_budget"]

    def within(budget):
        given = tf.constant(budget, tf.float64)
        return function(image=tf.constant(case.pixels), budget=given)["exit"].numpy()

    for budget in (*case.macs, 1e12, np.mean(case.macs[:2])):
        point = evaluation.within_budget(points, budget)
        # The images that chose the thresholds are those that leave here.
        near = [
            np.abs(confidence - np.float32(threshold)) < 1e-5
            for confidence, threshold in zip(case.answers.confidence, point["thresholds"])
        ]
        wanted = evaluation.exits_taken(case.answers.confidence, point["thresholds"])
        clear = ~np.any(near, axis=0)
        found = within(budget)
        np.testing.assert_array_equal(found[clear], wanted[clear])
        if clear.all():
            assert np.mean(np.asarray(case.macs)[found - 1]) <= budget
    with pytest.raises(tf.errors.InvalidArgumentError, match="the cost of the first exit"):
        within(case.macs[0] - 1)


def test_thresholds_that_are_none_are_refused(case):
    early = case.signatures["early_exit"]
    image = tf.constant(case.pixels)
    with pytest.raises(tf.errors.InvalidArgumentError, match="found NaN, wanted numbers"):
        early(image=image, thresholds=tf.constant([0.5, np.nan, 0.0]))
    message = r"thresholds.*\[2\] is not compatible with expected shape \[3\]"
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        early(image=image, thresholds=tf.constant([0.5, 0.0]))


def test_no_image_gives_no_answer(case):
    found, _ = case.run(case.pixels[:0], np.zeros(3, np.float32))
    assert {name: each.shape for name, each in found.items()} == {
        "class": (0,),
        "exit": (0,),
        "probabilities": (0, 5),
    }


def two_exits():
    """A network whose second exit reads the image and what the first one has left alone."""
    image = keras.Input((8, 8, 1))
    scaled = keras.layers.Rescaling(1 / 100, -1)(image)
    block = keras.Sequential(
        [keras.Input((8, 8, 2)), keras.layers.Conv2D(2, 3, padding="same"), keras.layers.ReLU()]
    )
    first = keras.layers.Conv2D(2, 3, padding="same", name="first")(scaled)
    second = block(block(first))
    exit1 = keras.layers.Dense(3, name="classify1")(keras.layers.GlobalMaxPooling2D()(second))
    both = keras.layers.Concatenate()([scaled, first, block(second)])
    logits = keras.layers.Dense(3)(keras.layers.GlobalMaxPooling2D()(both))
    features = keras.layers.Flatten()(both)
    return keras.Model(image, {"exit1": exit1, "logits": logits, "features": features})


def test_weights_that_lie_beside_the_graph_and_further_outputs(tmp_path, monkeypatch):
    monkeypatch.setattr(named_outputs, "LARGEST_CONSTANTS", 0)
    model = multi_exit.lively(two_exits())
    # Its check compares where images leave with all exits at once.
    folder = export.save(model, tmp_path / "exported")
    loaded = tf.saved_model.load(str(folder))
    signatures = loaded.signatures
    assert signatures["early_exit"].variables
    assert sorted(signatures["early_exit"].structured_outputs) == ["class", "exit", "probabilities"]
    assert "features" in signatures["serving_default"].structured_outputs
    assert "early_exit_budget" not in signatures
    assert export.describe(folder)["early_exit"] == {"points": None}


def test_a_confidence_that_is_no_number_reaches_no_threshold(tmp_path):
    model = two_exits()
    kernel = next(each for each in model.weights if each.path.endswith("classify1/kernel"))
    kernel.assign(np.full(kernel.shape, np.nan))
    folder = export.save(model, tmp_path / "exported", verify=False)
    loaded = tf.saved_model.load(str(folder))
    found = loaded.signatures["early_exit"](
        image=tf.zeros((2, 8, 8, 1), tf.uint8), thresholds=tf.constant([0.0, 0.0])
    )
    assert found["exit"].numpy().tolist() == [2, 2]


def test_the_points_of_a_run_are_those_of_the_student_asked_for(tmp_path):
    path = tmp_path / early_exit.FILE_NAME
    assert early_exit.points_of_run(tmp_path, "last") is None
    point = {"thresholds": [0.5, "-inf"], "test_macs": 3.0}
    others = {which: {**point, "exit": which} for which in ("last", "best")}
    found = {
        which: {"anytime": [other], "budgeted": [point] * 2} for which, other in others.items()
    }
    path.write_text(json.dumps({**found, "unsure": {"anytime": [point], "budgeted": None}}))
    assert early_exit.points_of_run(tmp_path, "best") == [others["best"], point, point]
    assert early_exit.points_of_run(tmp_path, "last") == [others["last"], point, point]
    assert early_exit.points_of_run(tmp_path, "unsure") is None
    assert early_exit.points_of_run(tmp_path, "other") is None
    for damaged in ('{"last": ', '{"last": {}}', "[]"):
        path.write_text(damaged)
        message = r"early_exit.json': .*; wanted the file that a run writes"
        with pytest.raises(TfkdError, match=message):
            early_exit.points_of_run(tmp_path, "last")


def test_images_that_leave_elsewhere_are_noticed(tmp_path, monkeypatch):
    joined = early_exit._joined

    def late(answered):
        found = joined(answered)
        return {**found, "exit": tf.minimum(found["exit"] + 1, 2)}

    model = multi_exit.lively(two_exits())
    with monkeypatch.context() as patch:
        patch.setattr(early_exit, "_joined", late)
        with pytest.raises(TfkdError, match="early_exit: found another exit for 8 of 16 images"):
            export.save(model, tmp_path / "exported")
    assert list(tmp_path.iterdir()) == []
    one = models.tapped(model, ["logits"])
    with pytest.raises(TfkdError, match="points of .* found 2 for one exit, wanted none"):
        export.save(one, tmp_path / "exported", points=[{}, {}])
    folder = export.save(one, tmp_path / "one", verify=False)
    with pytest.raises(TfkdError, match="one': found no signature early_exit, wanted the export"):
        export.early_exit_speed(folder, np.zeros((1, 8, 8, 1), np.uint8), [0.5])
