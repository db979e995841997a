"""CoCoRD: numbers computed apart, what is averaged when, which views are compared, the queue."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.distillers import runs
from tests.distillers.contexts import context_of
from tests.distillers.pair_features import ORACLES
from tfkd import models
from tfkd.core import Distiller
from tfkd.distillers.cocord import (
    CoCoRD,
    MovingAverage,
    contrast_logits,
    contrast_loss,
    perceptron,
    prediction_loss,
)
from tfkd.distillers.shared.queue import EMPTY
from tfkd.errors import TfkdError

ORACLE = ORACLES["cocord"]
SMALL = {"queue_size": 12, "projection_width": 8, "predictor_width": 4}
TOLERANCES = {"float64": {"rtol": 0, "atol": 1e-6}, "float32": {"rtol": 1e-5, "atol": 1e-5}}
VIEWS = ("image", "image_second", "image_third")


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_published_losses(dtype):
    given, expected = ORACLE["losses"]["inputs"], ORACLE["losses"]["expected"]
    tensors = {
        name: tf.constant(value, dtype) for name, value in given.items() if isinstance(value, list)
    }
    contrast = tensors["query"], tensors["teacher_key"], tensors["queue"], given["temperature"]
    predictions = [
        prediction_loss(tensors[f"prediction_{number}"], tensors[f"slow_target_{number}"])
        for number in (1, 2)
    ]
    found = {
        "logits": contrast_logits(*contrast),
        "loss_contrast": tf.reduce_mean(contrast_loss(*contrast)),
        "loss_predict": tf.reduce_mean(sum(predictions)),
    }
    defaults = CoCoRD()
    found["weighted_without_ce"] = (
        defaults.contrast_weight * found["loss_contrast"]
        + defaults.prediction_weight * found["loss_predict"]
    )
    for name, value in found.items():
        np.testing.assert_allclose(value, expected[name], **TOLERANCES[dtype], err_msg=name)


def test_published_moving_averages():
    given, expected = ORACLE["ema"]["inputs"], ORACLE["ema"]["expected"]
    defaults = CoCoRD()
    assert defaults.teacher_momentum == given["m_teacher_head"]
    assert defaults.slow_momentum == given["m_slow_student"]
    for name, momentum in (
        ("teacher_head", defaults.teacher_momentum),
        ("slow_student", defaults.slow_momentum),
    ):
        average, followed = keras.Variable(given["old"]), keras.Variable(given["query"])
        MovingAverage([(average, followed)], momentum).update()
        np.testing.assert_allclose(average, expected[name], rtol=1e-6)
        np.testing.assert_array_equal(followed, given["query"])


def objective_with(**settings) -> CoCoRD:
    """An objective with its modules and queue."""
    [objective] = runs.distiller_of(CoCoRD(**{**SMALL, **settings})).objectives
    return objective


def write(objective: CoCoRD, keys) -> None:
    """Writes keys as a training step does after its update."""
    objective.after_step(context_of({}, range(len(keys))), {"key": tf.constant(keys, tf.float32)})


def test_published_queue_wraps_around():
    given, expected = ORACLE["losses"]["inputs"], ORACLE["losses"]["expected"]
    objective = objective_with(queue_size=5, projection_width=3)
    objective.queue.rows["key"].assign(given["queue"])
    objective.queue.next.assign(given["pointer"])
    write(objective, tf.math.l2_normalize(given["teacher_key"], axis=-1))
    np.testing.assert_allclose(objective.queue.rows["key"], expected["queue_after"], atol=1e-6)
    assert int(objective.queue.next) == expected["pointer_after"]


@pytest.mark.parametrize("rows", [1, 5, 8, 13])
def test_batch_larger_than_the_queue_leaves_its_last_keys(rows):
    objective = objective_with(queue_size=5, projection_width=3)
    objective.queue.next.assign(3)
    wanted, pointer = np.array(objective.queue.rows["key"]), 3
    keys = np.random.default_rng(0).normal(size=(rows, 3)).astype("float32")
    for key in keys:
        wanted[pointer], pointer = key, (pointer + 1) % 5
    write(objective, keys)
    np.testing.assert_array_equal(objective.queue.rows["key"], wanted)
    assert int(objective.queue.next) == pointer


def test_queue_starts_with_random_directions_of_the_seed():
    first, again = (np.array(objective_with().queue.rows["key"]) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    np.testing.assert_allclose(np.linalg.norm(first, axis=1), 1.0, rtol=1e-6)
    assert np.abs(first @ first.T - np.eye(len(first))).max() < 0.99


def batches() -> list[dict]:
    """Three batches with the views that the method reads, weighted."""
    return list(runs.batches("image_second", "image_third", "sample_weight"))


def values(*owners) -> list[np.ndarray]:
    """Values of the trainable variables of layers."""
    return [np.array(each) for owner in owners for each in owner.trainable_variables]


def twin_of(objective: CoCoRD) -> keras.Model:
    """The student's slow twin."""
    return objective.companions["cocord_slow"].model


@pytest.mark.parametrize("width", [4, 6])
def test_averages_follow_before_each_step_and_are_not_trained(width):
    settings = {**SMALL, "teacher_momentum": 0.7}
    distiller = runs.distiller_of(CoCoRD(**settings), widths=(4, width), eager=True)
    [objective] = distiller.objectives
    twin, equal = twin_of(objective), width == 4
    slow = values(twin, objective.slow_projector)
    np.testing.assert_equal(slow, values(distiller.student, objective.projector))
    head, first = values(objective.teacher_projector), values(objective.projector)
    if not equal:
        assert head[0].shape == (6, 8)
    np.testing.assert_equal(head[0 if equal else 1 :], first[0 if equal else 1 :])
    for batch in batches():
        fast = values(distiller.student, objective.projector)
        slow = [0.9 * old + 0.1 * new for old, new in zip(slow, fast, strict=True)]
        followed = values(objective.projector)
        averaged = [0.7 * old + 0.3 * new for old, new in zip(head[1:], followed[1:])]
        # Of embeddings of different widths, no first layer is like the other.
        head = [0.7 * head[0] + 0.3 * followed[0] if equal else head[0], *averaged]
        distiller.train_on_batch(batch)
        for found, wanted in (
            (values(twin, objective.slow_projector), slow),
            (values(objective.teacher_projector), head),
        ):
            for one, other in zip(found, wanted, strict=True):
                np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7)
    owned = [twin, objective.slow_projector, objective.teacher_projector]
    own = {id(each) for layer in owned for each in layer.variables}
    assert own.isdisjoint(id(each) for each in distiller.trained_variables)
    assert own <= {id(each) for each in distiller.state().values()}
    # Statistics are those of the batches that each saw itself, and not averaged ones.
    for layer in (twin.get_layer("stage2_pre"), objective.teacher_projector.layers[1]):
        assert not np.allclose(layer.moving_mean, 0.0)


def copy_of(layer, make):
    """A network or projector of the same weights, made anew."""
    copy = make()
    copy.set_weights(layer.get_weights())
    return copy


def cosines(one, other) -> np.ndarray:
    one, other = np.asarray(one, "float64"), np.asarray(other, "float64")
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    return np.sum(one * other, axis=1) / lengths


def test_losses_of_a_step_are_those_of_the_three_views():
    distiller = runs.distiller_of(CoCoRD(**SMALL), eager=True, fold_teacher=False)
    [objective] = distiller.objectives
    first, batch, _ = batches()
    distiller.train_on_batch(first)
    student = copy_of(distiller.student, lambda: runs.network("student", 4))
    projector = copy_of(objective.projector, lambda: perceptron(4, 8, 8, 0, "p"))
    predictor = copy_of(objective.predictor, lambda: perceptron(8, 4, 8, 0, "q"))
    queue = np.array(objective.queue.rows["key"])
    distiller.reset_metrics()
    logged = distiller.train_on_batch(batch, return_dict=True)
    # The averages of the step are those that it left.
    slow = copy_of(twin_of(objective), lambda: runs.network("student", 4))
    slow_projector = copy_of(objective.slow_projector, lambda: perceptron(4, 8, 8, 0, "s"))
    head = copy_of(objective.teacher_projector, lambda: perceptron(6, 8, 8, 0, "t"))

    def projected(network, project, view, training=True):
        pooled = models.tapped(network, ["pooled"])(batch[view], training=training)["pooled"]
        return project(pooled, training=True)

    q, of_second = (projected(student, projector, view) for view in VIEWS[:2])
    u2, u1 = (projected(slow, slow_projector, view) for view in VIEWS[:2])
    key = projected(distiller.teachers[0], head, "image_third", training=False)
    own = cosines(q, key)
    scores = np.concatenate(
        [own[:, None], np.stack([cosines(q, [row] * 8) for row in queue], axis=1)], axis=1
    )
    contrast = np.log(np.sum(np.exp(10 * scores), axis=1)) - 10 * own
    prediction = 4.0 - 2.0 * cosines(predictor(q, training=True), u1)
    prediction -= 2.0 * cosines(predictor(of_second, training=True), u2)
    weight = np.asarray(batch["sample_weight"])
    np.testing.assert_allclose(logged["cocord/contrast"], np.mean(weight * contrast), rtol=1e-4)
    wanted = 4.0 * np.mean(weight * prediction)
    np.testing.assert_allclose(logged["cocord/prediction"], wanted, rtol=1e-4)
    # The keys of this step were written where the first step ended, after they were used.
    key = key / np.linalg.norm(key, axis=1, keepdims=True)
    queue[np.arange(8, 16) % 12] = key
    np.testing.assert_allclose(objective.queue.rows["key"], queue, atol=1e-5)


def test_keys_of_weight_0_are_compared_with_nothing():
    distiller = runs.distiller_of(CoCoRD(**SMALL), eager=True)
    [objective] = distiller.objectives
    first, second, _ = batches()
    first["sample_weight"] = tf.constant([1.0] * 4 + [0.0] * 4)
    distiller.train_on_batch(first)
    assert np.flatnonzero(np.array(objective.queue.numbers) == EMPTY).tolist() == [4, 5, 6, 7]

    context = distiller.forward(second, training=True)

    def contrast():
        return float(objective.compute(context).losses["contrast"])

    kept, wanted = np.array(objective.queue.rows["key"]), contrast()
    objective.queue.rows["key"].assign(np.concatenate([kept[:4], -kept[4:8], kept[8:]]))
    np.testing.assert_allclose(contrast(), wanted, rtol=1e-6)
    objective.queue.rows["key"].assign(np.concatenate([-kept[:4], kept[4:]]))
    assert abs(contrast() / wanted - 1) > 1e-3


PASSES: list[tuple[str, bool]] = []


@keras.saving.register_keras_serializable("tests")
class Counted(keras.layers.Layer):
    """Notes each pass through a network."""

    def call(self, inputs, training=None):
        PASSES.append((self.name, bool(training)))
        return inputs


def counted(name: str) -> keras.Model:
    image = keras.Input((8, 8, 3))
    hidden = Counted(name=f"{name}_pass")(image)
    hidden = keras.layers.Conv2D(4, 3, 4)(hidden)
    pooled = keras.layers.GlobalAveragePooling2D(name="pooled")(hidden)
    return keras.Model(image, keras.layers.Dense(4, name="logits")(pooled), name=name)


def test_no_network_sees_a_view_twice():
    distiller = Distiller(counted("teacher"), counted("student"), CoCoRD(**SMALL))
    distiller.compile(keras.optimizers.SGD(0.1), run_eagerly=True)
    batch = {key: value[:8] for key, value in runs.arrays().items()}
    PASSES.clear()
    distiller.train_on_batch({key: batch[key] for key in ("label", *VIEWS)})
    # The student and its slow twin, which has its layers' names, on two views each.
    assert sorted(PASSES) == [("student_pass", True)] * 4 + [("teacher_pass", False)]


def test_keys_and_targets_carry_no_gradient():
    distiller = runs.distiller_of(CoCoRD(**SMALL), eager=True)
    [objective] = distiller.objectives
    layers = [twin_of(objective), objective.slow_projector, objective.teacher_projector]
    frozen = [each.value for layer in layers for each in layer.trainable_variables]
    with tf.GradientTape() as tape:
        context = distiller.forward(batches()[0], training=True)
        losses = objective.to_terms(objective.compute(context)).losses
        total = tf.add_n(list(losses.values()))
    trained = [*objective.projector.trainable_variables, *objective.predictor.trainable_variables]
    found = tape.gradient(total, [frozen, [each.value for each in trained]])
    assert found[0] == [None] * len(frozen)
    assert all(np.any(gradient != 0) for gradient in found[1])


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_losses_are_float32_under_mixed_precision(dtype):
    keras.config.set_dtype_policy(f"mixed_{dtype}")
    try:
        distiller = runs.distiller_of(CoCoRD(**SMALL), learning_rate=0.01, eager=True)
    finally:
        keras.config.set_dtype_policy("float32")
    [objective] = distiller.objectives
    context = distiller.forward(batches()[0], training=True)
    assert context.student("pooled", "second").dtype == dtype
    terms = objective.to_terms(objective.compute(context))
    assert {each.dtype for each in terms.losses.values()} == {tf.float32}
    assert terms.carry["key"].dtype == tf.float32 and objective.queue.rows["key"].dtype == "float32"
    logged = distiller.train_on_batch(batches()[0], return_dict=True)
    assert all(np.isfinite(value) for value in logged.values())


def test_embedding_that_is_no_vector_is_refused():
    with pytest.raises(TfkdError) as told:
        runs.distiller_of(CoCoRD(student_tap="pre_pool", **SMALL))
    assert str(told.value) == (
        "cocord: found student tap 'pre_pool' of shape 4 x 4 x 4, wanted a vector (batch, channels)"
    )
    with pytest.raises(TfkdError, match="found teacher tap 'stage2' of shape 4 x 4 x 6, wanted a "):
        runs.distiller_of(CoCoRD(teacher_tap="stage2", **SMALL))


def test_partial_last_batch_is_written_as_any_other():
    distiller = runs.distiller_of(CoCoRD(**SMALL), eager=True)
    for part in (slice(0, 8), slice(8, 11)):
        batch = {key: value[part] for key, value in runs.arrays().items()}
        logged = distiller.train_on_batch(batch, return_dict=True)
        assert all(np.isfinite(value) for value in logged.values())
    assert int(distiller.objectives[0].queue.next) == 11


def test_finished_student_is_the_plain_one():
    distiller = runs.distiller_of(CoCoRD(**SMALL), eager=True)
    assert distiller.clean_student().model is distiller.student
    assert distiller.student.count_params() == runs.network("student", 4).count_params()
