"""SSKD against the published numbers, its rows and choices against NumPy, and its two stages."""

import json
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.distillers import runs
from tests.distillers.contexts import context_of
from tfkd import data
from tfkd.core import Distiller
from tfkd.distillers import KD, SSKD, sskd_losses
from tfkd.distillers.sskd import chosen_rows, head_loss, ranks_of, similarities
from tfkd.errors import TfkdError

CASE = json.loads((Path(__file__).parents[1] / "fixtures" / "oracles_features.json").read_text())[
    "sskd"
]["losses"]
GIVEN, WANTED = CASE["inputs"], CASE["expected"]
NAMES = ("student_logits", "teacher_logits", "student_ss", "teacher_ss")


def given(dtype="float64"):
    """Logits and embeddings of the published case: three images in four rotations."""
    return [tf.constant(GIVEN[name], dtype) for name in NAMES]


def means(rows):
    """Each loss, of the rows that count."""
    return {
        name: np.mean(loss if chosen is None else tf.boolean_mask(loss, chosen))
        for name, (loss, chosen) in rows.items()
    }


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_published_numbers(dtype):
    close = {"rtol": 0, "atol": 1e-6 if dtype == "float64" else 5e-6}
    arguments = [*given(dtype), GIVEN["labels"]]
    temperatures = {
        "temperature": GIVEN["kd_T"],
        "similarity_temperature": GIVEN["ss_T"],
        "similarity_ratio": GIVEN["ratio_ss"],
    }
    rows = sskd_losses(*arguments, **temperatures)
    found = means(rows)
    half = sskd_losses(*arguments, **temperatures, transfer_ratio=0.5)
    weights = GIVEN["weights"]
    numbers = {
        "teacher_similarity": similarities(arguments[3]),
        "student_similarity": similarities(arguments[2]),
        "ce": found["label"],
        "kd": found["kd"],
        "tf_ratio_1": found["transfer"],
        "tf_ratio_0.5": means(half)["transfer"],
        "ss": found["similarity"],
        "stage1_loss": np.mean(head_loss(arguments[3])),
        "total_ratio_tf_1": weights["ce"] * found["label"]
        + weights["kd"] * found["kd"]
        + weights["tf"] * found["transfer"]
        + weights["ss"] * found["similarity"],
    }
    for name, value in numbers.items():
        np.testing.assert_allclose(value, WANTED[name], **close, err_msg=name)
    for name, chosen in (("kept_ss", rows), ("kept_tf_at_ratio_0.5", half)):
        term = "similarity" if name == "kept_ss" else "transfer"
        np.testing.assert_array_equal(np.flatnonzero(chosen[term][1]), WANTED[name])
    assert np.all(rows["transfer"][1])
    turned = np.arange(12) % 4 != 0
    labels = np.repeat(GIVEN["labels"], 3)
    np.testing.assert_array_equal(ranks_of(arguments[1][turned], labels), WANTED["rank_tf"])
    own = np.repeat(np.arange(3), 3)
    np.testing.assert_array_equal(ranks_of(similarities(arguments[3]), own), WANTED["rank_ss"])


def test_objective_weighs_the_published_losses():
    student, teacher, student_ss, teacher_ss = given("float32")
    objective = SSKD()
    # Heads that change nothing: the embeddings of the case are given as features.
    objective.student_head = objective.teacher_head = tf.identity
    outputs = {
        ("student", "rotations"): {"logits": student, "pooled": student_ss},
        ("teacher", "rotations"): {"logits": teacher, "pooled": teacher_ss},
    }
    found = objective.compute(context_of(outputs, GIVEN["labels"]))
    wanted = {
        "head": WANTED["stage1_loss"],
        "label": 0.1 * WANTED["ce"],
        "kd": 0.9 * WANTED["kd"],
        "transfer": 2.7 * WANTED["tf_ratio_1"],
        "similarity": 10.0 * WANTED["ss"],
    }
    assert set(found) == set(wanted)
    for name, value in wanted.items():
        np.testing.assert_allclose(found[name], value, rtol=2e-5, err_msg=name)


def chosen_by_numpy(ranks, ratio, counted):
    """The rows that count, one after the other."""
    order = sorted((rank, row) for row, rank in enumerate(ranks) if counted[row])
    wrong = sum(rank > 0 for rank, _ in order)
    kept = len(order) - wrong + int(wrong * ratio)
    return sorted(row for _, row in order[:kept])


@pytest.mark.parametrize("ratio", [0.0, 0.3, 0.75, 1.0])
@pytest.mark.parametrize("share", [0.0, 0.6, 1.0])
def test_rows_are_chosen_by_rank_in_their_order(ratio, share):
    draw = np.random.default_rng(0)
    for size in (1, 3, 12, 40):
        ranks = draw.integers(0, 4, size).astype("int32")
        counted = draw.uniform(size=size) < share
        found = np.flatnonzero(chosen_rows(tf.constant(ranks), ratio, tf.constant(counted)))
        np.testing.assert_array_equal(found, chosen_by_numpy(ranks, ratio, counted))
        if share == 1.0:
            np.testing.assert_array_equal(
                np.flatnonzero(chosen_rows(tf.constant(ranks), ratio)), found
            )


def test_of_equal_scores_the_first_comes_first():
    scores = tf.constant([[2.0, 3.0, 3.0, 3.0]] * 4)
    np.testing.assert_array_equal(ranks_of(scores, [0, 1, 2, 3]), [3, 0, 1, 2])


def test_an_image_of_weight_0_is_as_if_it_were_not_there():
    def losses(rows, labels, **batch):
        objective = SSKD()
        objective.student_head = objective.teacher_head = tf.identity
        outputs = {
            (network, "rotations"): {"logits": rows[2 * of], "pooled": rows[2 * of + 1]}
            for of, network in enumerate(("student", "teacher"))
        }
        return objective.compute(context_of(outputs, labels, **batch))

    student, teacher, student_ss, teacher_ss = given()
    whole = [student, student_ss, teacher, teacher_ss]
    labels = GIVEN["labels"]
    wanted = losses(whole, labels)
    # The image in the middle is like the others, and would change all that it takes part in.
    more = [tf.concat([each[:4], 1.5 * each[8:] - each[:4], each[4:]], axis=0) for each in whole]
    labels = [labels[0], 2, *labels[1:]]
    found = losses(more, labels, sample_weight=tf.constant([1.0, 0.0, 1.0, 1.0], tf.float64))
    of_all = losses(more, labels)
    for name in ("transfer", "similarity"):
        np.testing.assert_allclose(found[name], wanted[name], rtol=1e-12, err_msg=name)
        assert abs(of_all[name] - wanted[name]) > 1e-3, name
    for name in ("head", "label", "kd"):
        # Means over the batch, of which weights are no part.
        np.testing.assert_allclose(found[name], 0.75 * wanted[name], rtol=1e-12, err_msg=name)


def test_losses_of_the_student_give_the_teacher_no_gradient():
    student, teacher, student_ss, teacher_ss = (tf.Variable(each) for each in given())
    with tf.GradientTape() as tape:
        rows = sskd_losses(student, teacher, student_ss, teacher_ss, GIVEN["labels"])
        total = tf.add_n([tf.reduce_mean(loss) for loss, _ in rows.values()])
    found = tape.gradient(total, [student, student_ss, teacher, teacher_ss])
    assert np.all(np.any(found[0] != 0, axis=1)) and np.any(found[1] != 0)
    assert found[2:] == [None, None]


# Rows.


def test_rows_of_the_data_are_the_turns_of_each_image():
    images = np.random.default_rng(0).integers(0, 256, (12, 6, 6, 3)).astype("uint8")
    made = data.from_arrays(*[(images, np.arange(12) % 3)] * 2, batch_size=4, augment="none")
    batch = next(iter(made.train(batch_keys=["image_rotations", "index"])))
    found = similarities(tf.reshape(tf.cast(batch["image_rotations"], tf.float64), [16, -1]))
    chosen = images[batch["index"].numpy()].astype("float64")

    def cosine(first, second):
        return np.sum(first * second) / np.sqrt(np.sum(first**2) * np.sum(second**2))

    wanted = [
        [cosine(np.rot90(image, turn), other) for other in chosen]
        for image in chosen
        for turn in (1, 2, 3)
    ]
    np.testing.assert_allclose(found, wanted, rtol=1e-10)


@keras.saving.register_keras_serializable(package="sskd_tests")
class Counted(keras.layers.Layer):
    """Notes how often, in which mode and on how many rows its network runs."""

    calls: list = []

    def call(self, inputs, training=None):
        self.calls.append((self.name, bool(training), inputs.shape[0]))
        return inputs


def counted(name, width=4):
    """A network of :func:`runs.network` that notes its runs."""
    base = runs.network(name, width)
    image = keras.Input((8, 8, 3), name="image")
    hidden = Counted(name=f"{name}_rows")(image)
    for layer in base.layers[1:]:
        hidden = layer(hidden)
    return keras.Model(image, hidden, name=name)


def staged(**settings):
    """A distiller of KD and SSKD, its objective of SSKD, and a function that enters a stage."""
    keras.utils.set_random_seed(2)
    objective = SSKD(**settings)
    student, teacher = counted("student"), counted("teacher", 6)
    distiller = Distiller(teacher, student, [KD(), objective], student_loss_weight=0.5)

    def enter(name):
        stage = next(each for each in objective.stages() if each.name == name)
        distiller.enter_stage(stage)
        distiller.compile(keras.optimizers.SGD(0.05, momentum=0.9), run_eagerly=True)
        Counted.calls.clear()

    return distiller, objective, enter


def moved(variables, before):
    return [bool(np.any(np.array(now) != then)) for now, then in zip(variables, before)]


def test_stages_run_and_train_what_they_should():
    distiller, objective, enter = staged()
    parts = {
        "student": distiller.student.variables,
        "student_head": objective.student_head.variables,
        "teacher_head": objective.teacher_head.variables,
        "teacher": distiller.teachers[0].variables,
    }
    batch = next(iter(runs.batches("image_rotations")))
    for stage, trained, runs_made in (
        ("teacher_head", {"teacher_head"}, [("teacher_rows", False, 32)]),
        (
            "student",
            {"student", "student_head"},
            [("student_rows", True, 32), ("teacher_rows", False, 32)],
        ),
    ):
        enter(stage)
        before = {part: [np.array(each) for each in parts[part]] for part in parts}
        found = distiller.train_on_batch(batch, return_dict=True)
        assert sorted(Counted.calls) == runs_made
        for part, variables in parts.items():
            assert set(moved(variables, before[part])) <= {part in trained}, (stage, part)
        formed = {name for name in objective.terms if found[f"sskd/{name}"] != 0}
        assert formed == set(objective.terms_in(stage))
        terms = sum(found[f"sskd/{name}"] for name in objective.terms)
        np.testing.assert_allclose(found["loss"], found["kd"] + terms, rtol=1e-5)
        assert (found["kd"] > 0) == (found["student_loss"] > 0) == (stage == "student")


def test_an_evaluation_sees_the_plain_images_alone():
    distiller, _, enter = staged()
    enter("student")
    arrays = runs.arrays()
    found = distiller.evaluate(arrays["image"], arrays["label"], verbose=0, return_dict=True)
    assert {(name, mode) for name, mode, _ in Counted.calls} == {("student_rows", False)}
    logits = distiller.student(arrays["image"], training=False).numpy()
    wanted = np.mean(logits.argmax(axis=1) == arrays["label"])
    np.testing.assert_allclose(found["accuracy"], wanted, rtol=1e-6)


def test_the_head_learns_to_know_turned_images():
    distiller, objective, enter = staged()
    enter("teacher_head")
    distiller.compile(keras.optimizers.Adam(0.03))
    # Images whose colors tell them apart, also when they are turned.
    images = np.random.default_rng(1).normal(0.0, 5.0, (runs.IMAGES, 1, 1, 3))
    images = (images + runs.arrays()["image"]).astype("float32")
    turned = np.stack([np.rot90(images, turn, axes=(1, 2)) for turn in range(4)], axis=1)
    batches = runs.batches("image_rotations", data={**runs.arrays(), "image_rotations": turned})
    history = distiller.fit(batches, epochs=20, verbose=0).history
    # Of eight images, chance would name the right one at log 8.
    assert history["sskd/head"][-1] < 0.7 * np.log(8)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_mixed_precision(dtype):
    keras.config.set_dtype_policy(f"mixed_{dtype}")
    try:
        distiller = runs.distiller_of(SSKD(), learning_rate=0.05)
    finally:
        keras.config.set_dtype_policy("float32")
    context = distiller.forward(next(iter(runs.batches("image_rotations"))), training=True)
    pooled = context.student("pooled", "rotations")
    assert pooled.dtype == dtype
    assert distiller.objectives[0].student_head(pooled).dtype == "float32"
    before = [np.array(each) for each in distiller.trained_variables]
    history = distiller.fit(runs.batches("image_rotations"), verbose=0).history
    assert all(np.isfinite(logged).all() for logged in history.values())
    assert all(moved(distiller.trained_variables, before))


@pytest.mark.parametrize(("given", "epochs"), [(60.0, 60), (10.4, 10), (0.25, 1)])
def test_the_first_stage_drops_its_rate_at_the_published_shares(given, epochs):
    head, student = SSKD(head_epochs=given, head_learning_rate=0.02).stages()
    assert (head.epochs, student.epochs) == (epochs, None)
    assert head.recipe["learning_rate"] == 0.02
    assert head.recipe["schedule.milestones"] == (epochs / 2, 0.75 * epochs)
    assert head.recipe["schedule.decay_factor"] == 0.1
    assert not head.evaluate and student.evaluate


# What does not fit.


def test_images_that_are_not_square_are_refused():
    def network(name):
        image = keras.Input((8, 6, 3), name="image")
        pooled = keras.layers.GlobalAveragePooling2D(name="pooled")(image)
        return keras.Model(image, keras.layers.Dense(4, name="logits")(pooled), name=name)

    with pytest.raises(TfkdError, match="sskd: found images of 8 x 6 pixels, wanted square ones"):
        Distiller(network("teacher"), network("student"), SSKD())


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"teacher_tap": "stage2"}, "found teacher tap 'stage2' of shape 4 x 4 x 4, wanted a vec"),
        ({"student_tap": "poold"}, "found no tap 'poold' in network 'student'; did you mean 'pool"),
    ],
)
def test_features_that_are_no_vectors_are_refused(settings, told):
    with pytest.raises(TfkdError, match=f"^sskd: {told}"):
        Distiller(runs.network("teacher"), runs.network("student"), SSKD(**settings))
