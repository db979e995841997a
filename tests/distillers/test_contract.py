"""What every registered method keeps; its numbers and what is its own stand in the method's file.

A new method is tested by being registered, and by an entry of
:mod:`tests.distillers.recorded_settings`. :data:`CASES` lists settings to train with where the
defaults alone say too little.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.distillers import runs
from tests.distillers.contexts import (
    ROWS,
    VIEWS,
    context_of,
    extreme_case,
    moved,
    no_head,
    random_case,
)
from tests.distillers.logit_oracles import NUM_CLASSES
from tests.distillers.recorded_settings import WANTED, WRONG
from tfkd import distillers, models
from tfkd.core import Distiller, Objective, registry
from tfkd.core.objective import VIEW_ROWS
from tfkd.core.step.losses import TOTALS, names_of
from tfkd.errors import TfkdError
from tfkd.settings import fields_of, values_of
from tfkd.value_types import choices

NAMES = [
    name
    for name in distillers.names()
    if type(distillers.create(name)).__module__.startswith("tfkd.")
]
"""The methods of tfkd; other tests register some of their own."""

CASES = {
    # The queue is filled by half after an epoch. Softened more, the toys' classes are all alike.
    "auxvar": [
        {"temperature": 0.2, "queue_size": 48},
        {"objective": "elbo", "own_instance": False, "center": True, "queue_size": 20},
    ],
    "cocord": [{"queue_size": 12, "projection_width": 8, "predictor_width": 4}],
    "diffkd": [{"refinement_steps": 1, "use_logits": False}],
    "crd": [{}, {"mode": "relax", "shared_negatives": False}, {"memory": "queue"}],
    "kd": [{"standardize": True}],
    "dkd": [{"standardize": True, "warmup_epochs": 3.0}],
    # The temperature grows at some steps of the toys, and not at others.
    "dbt": [{"confidence": 0.6}],
    "fitnets": [{}, {"form": "two_stage"}],
    # With the weights of DBT some losses would have none.
    "hdkd": [{"initial": "dense", "update_every": 2}],
    "ipwd": [{}, {"normalize": True}],
    "mld": [{}, {"variant": "clean"}],
    "norm": [{"kd_weight": 0.5}],
    # Around a distiller without stages: all blocks at once.
    "pbkd": [{"cuts": ("stage1", "stage2"), "local_reduction": "mean"}],
    "pkkd": [{}, {"teacher_rho": True, "kernel": "same"}],
    # The published weights let rounding grow within three steps of the toys.
    "rkd": [{"distance_weight": 1.0, "angle_weight": 2.0}],
    "srrl": [{}, {"connector_on": "pooled"}],
    "reviewkd": [{"warmup_epochs": 0.0}],
    "teacher_free": [{"form": "self"}, {"form": "regularization"}, {"form": "label_smoothing"}],
    "uskd": [{"target_weight": 2.0}, {"target_weight": 2.0, "variant": "clean"}],
    "wcord": [
        {"iterations": 10},
        {"iterations": 10, "critic": "dual", "differentiates_plan": True},
    ],
}
"""Settings of the methods that are trained."""

FURTHER = {
    "auxvar": [
        {"objective": "infonce"},
        {"class_posterior": "cosine"},
        {"head": "bayes", "query_temperature": 1.0},
    ],
    "kd": [{}, {"standardize": True, "variant": "code"}],
    "dkd": [{}, {"standardize": True, "variant": "code"}],
    "dbt": [{"form": "constant", "variant": "clean"}],
    "deep_supervision": [{}, {"exit_weights": (0.5, 1.0, 2.0)}],
    "dense_kd": [{}, {"average": False}],
    "diffkd": [{}, {"use_features": False}, {"use_logits": False, "latent_width": 2}],
    "hdkd": [{}, {"form": "hmsdnet"}, {"form": "hdbt"}],
    "ipwd": [{"orientation": "kd_over_cls"}],
    "mld": [{"standardize": True}, {"standardize": True, "deviation": "code"}],
    "norm": [{}, {"kd_weight": 1.0, "residual": False, "normalize_logits": False}],
    "pbkd": [{}],
    "pkkd": [{"progressive": False}],
    "reviewkd": [{}, {"student_preactivation": True, "max_channels": 3}],
}
"""Further settings, for what costs little."""

WIDTHS = {"pbkd": (4, 4), "pkkd": (4, 4)}
"""Widths of student and teacher, of the methods that compare outputs of one shape."""

STILL = {"fitnets": ("fitnets_regressor_conv/bias",)}
"""Variables that are trained and yet rest: biases that a batch normalization takes away again."""


def listed(*tables: dict) -> list:
    """Every method with each of its settings in some tables, the defaults where it is in none."""
    found = []
    for name in NAMES:
        for settings in [each for table in tables for each in table.get(name, ())] or [{}]:
            words = "-".join(f"{key}={value}" for key, value in settings.items())
            found.append(pytest.param(name, settings, id=f"{name}-{words}" if words else name))
    return found


def is_function_of_logits(name: str, settings: dict) -> bool:
    """Whether the loss of a method is one of logits and labels, with no features or memory."""
    objective = registry.create(name, **settings)
    return type(objective).setup is Objective.setup and bool(objective.term_names())


EVERY_METHOD = pytest.mark.parametrize("name", NAMES)
EVERY_CASE = pytest.mark.parametrize("name, settings", listed(CASES))
EVEN_MORE_CASES = pytest.mark.parametrize("name, settings", listed(CASES, FURTHER))
EVERY_SETTING = pytest.mark.parametrize(
    "name, setting",
    [(name, each) for name in NAMES for each in fields_of(type(registry.create(name)))],
)


def distiller_of(name: str, settings: dict, **further) -> Distiller:
    """A compiled distiller of a method, on networks of fixed weights."""
    objective = registry.create(name, **settings)
    return runs.distiller_of(
        objective,
        widths=WIDTHS.get(name, (4, 6)),
        learning_rate=0.05,
        batch_size=8,
        **{"distillation_loss_weights": 0.8, "student_loss_weight": 0.5, **further},
    )


def batches_of(*objectives, **settings) -> tf.data.Dataset:
    """Batches of all that methods need, with sample weights."""
    keys = {key for each in objectives for key in each.requires.all_keys}
    return runs.batches(*sorted(keys), "sample_weight", **settings)


# Settings and names.


@EVERY_METHOD
def test_method_is_made_by_its_name(name):
    made = registry.create(name)
    assert made.name == name
    assert registry.create(name, name="mine").name == "mine"
    parameters = list(inspect.signature(type(made)).parameters)
    assert parameters == [*fields_of(type(made)), "name", "kwargs"]
    assert all(each.meaning for each in fields_of(type(made)).values())
    assert registry.settings(name) == fields_of(type(made))


@EVEN_MORE_CASES
def test_settings_survive_a_config(name, settings):
    made = registry.create(name, **settings, name="mine")
    usual = {key: each.default for key, each in registry.settings(name).items()}
    written = json.loads(json.dumps({**usual, **settings}))
    assert values_of(registry.create(name, **written)) == values_of(made)
    config = json.loads(json.dumps(made.get_config()))
    again = type(made).from_config(config)
    assert values_of(again) == values_of(made) and again.name == "mine"


@EVERY_METHOD
def test_settings_take_what_is_recorded(name):
    fields = fields_of(type(registry.create(name)))
    assert {key: each.wanted for key, each in fields.items()} == WANTED[name]


@EVERY_SETTING
def test_wrong_value_is_refused(name, setting):
    field = fields_of(type(registry.create(name)))[setting]
    if choices(field.type):
        near = f"{field.default}_"
        told = rf"^unknown {setting} of {name} '{near}'; did you mean '{field.default}'"
        with pytest.raises(TfkdError, match=told):
            registry.create(name, **{setting: near})
        with pytest.raises(TfkdError, match=rf"^{name}: {setting}: found 3, wanted '"):
            registry.create(name, **{setting: 3})
        return
    for value in WRONG[field.wanted]:
        with pytest.raises(TfkdError) as told:
            registry.create(name, **{setting: value})
        assert str(told.value) == f"{name}: {setting}: found {value!r}, wanted {field.wanted}"


@EVERY_SETTING
def test_misspelled_setting_is_refused_with_the_nearest(name, setting):
    for make in (functools.partial(registry.create, name), type(registry.create(name))):
        with pytest.raises(TfkdError, match=rf"'{setting}x'; did you mean '{setting}'"):
            make(**{f"{setting}x": 1})


# What a method needs is asked for.


@EVERY_METHOD
def test_missing_requirement_is_told(name):
    objective = registry.create(name)
    requires = objective.requires
    if requires.needs_teacher:
        with pytest.raises(TfkdError, match="need a teacher: found None"):
            runs.distiller_of(objective, teacher=False)
    if requires.train_size:
        with pytest.raises(TfkdError, match=f"{name} needs the size of the training set"):
            runs.distiller_of(objective, train_size=None)
    if requires.train_labels:
        with pytest.raises(TfkdError, match=f"{name} needs the labels of the training set"):
            runs.distiller_of(objective, train_labels=None)
    for key in requires.all_keys:
        others = [each for each in requires.all_keys if each != key]
        with pytest.raises(TfkdError, match=f"lacks {key}"):
            distiller_of(name, {}).fit(runs.batches(*others), verbose=0)


# The loss of a step, as a function of logits and features.


@functools.cache
def set_up(name: str, settings: str):
    """An objective with its heads and memories, features of ten rows, and heads of networks.

    Args:
        name: The method.
        settings: Its settings as JSON.
    """
    if is_function_of_logits(name, json.loads(settings)):
        return registry.create(name, **json.loads(settings)), {}, no_head
    distiller = distiller_of(name, json.loads(settings))
    [objective] = distiller.objectives
    draw = np.random.default_rng(3)
    networks = {"student": distiller.student}
    if distiller.teachers:
        networks["teacher"] = runs.network("teacher", WIDTHS.get(name, (4, 6))[1])
    networks |= {word: each.model for word, each in objective.companions.items()}
    features = {
        (network, view): {
            tap: tf.constant(draw.normal(size=(rows, *shape[1:])), tf.float32)
            for tap in taps
            if tap != "logits"
            for shape in [networks[network].get_layer(tap).output.shape]
        }
        for (network, view), taps in objective.requires.taps.items()
        for rows in [ROWS * VIEW_ROWS.get(view, 1)]
    }

    def heads(network: str, start: str) -> keras.Model:
        return models.head(distiller.network(network).model, start)

    return objective, features, heads


def outputs_of(given: dict, features: dict) -> dict:
    """Logits and features of every network and view; the upright rows are those of the main view.

    Args:
        given: Logits by the names of :data:`VIEWS`.
        features: The other taps.
    """
    logits = {view: given[key] for key, view in VIEWS.items()}
    for network in ("student", "teacher"):
        main, strong = given[network], given[f"{network}_strong"]
        rows = tf.stack([main, strong, -main, main[::-1]], axis=1)
        logits[network, "rotations"] = tf.reshape(rows, [-1, main.shape[-1]])
    found = {view: dict(taps) for view, taps in features.items()}
    for view, each in logits.items():
        found.setdefault(view, {})["logits"] = each
    return found


def terms_of(name: str, settings: dict, given: dict, visits: int = 1, **batch):
    """The losses of a method, and their sum's gradients to the student's logits and features.

    Args:
        name: The method.
        settings: Its settings.
        given: Logits by the names of :data:`VIEWS`, and labels.
        visits: How often the batch comes; the last time counts.
        **batch: Further entries of the batch.
    """
    objective, features, heads = set_up(name, json.dumps(settings))
    first = [np.array(each) for each in objective.variables]
    outputs = outputs_of(given, features)
    watched = {
        (*view, tap): each
        for view, taps in outputs.items()
        if view[0] == "student"
        for tap, each in taps.items()
    }
    for _ in range(visits):
        with tf.GradientTape() as tape:
            tape.watch(watched)
            context = context_of(
                outputs, given["labels"], index=tf.range(ROWS), heads=heads, **batch
            )
            logits = objective.student_logits(context)
            if logits is not None:
                context.replace_student_logits(logits)
            terms = objective.to_terms(objective.compute(context))
            total = sum(tf.cast(each, tf.float64) for each in terms.losses.values())
        objective.after_step(context, terms.carry)
    for variable, value in zip(objective.variables, first):
        variable.assign(value)
    slopes = tape.gradient(total, watched) if terms.losses else {}
    return dict(terms.losses), {key: each for key, each in slopes.items() if each is not None}


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
@EVEN_MORE_CASES
def test_extreme_logits_stay_finite(name, settings, dtype):
    # What a memory holds of extreme logits is met by the second visit.
    visits = 1 if is_function_of_logits(name, settings) else 2
    losses, gradients = terms_of(name, settings, extreme_case(dtype), visits)
    for key, value in losses.items():
        assert value.dtype == tf.float32 and np.isfinite(value), key
    assert bool(gradients) == bool(losses)
    for key, gradient in gradients.items():
        assert np.all(np.isfinite(tf.cast(gradient, tf.float32))), key


@pytest.mark.parametrize(
    "name, settings",
    [each for each in listed(CASES, FURTHER) if is_function_of_logits(*each.values)],
)
def test_shifts_of_logits_and_orders_of_rows_and_classes_do_not_matter(name, settings):
    given = random_case()
    weights = tf.constant(np.random.default_rng(1).uniform(0.5, 1.5, ROWS))
    wanted, slopes = terms_of(name, settings, given, sample_weight=weights)
    shifted = {
        key: each if key == "labels" else each + 7.0 - 5.0 * position
        for position, (key, each) in enumerate(given.items())
    }
    rows, classes = [5, 2, 0, 7, 9, 1, 4, 8, 3, 6], [3, 0, 2, 1]
    for case, rows_moved, classes_moved in (
        (shifted, range(ROWS), range(NUM_CLASSES)),
        (moved(given, rows=rows), rows, range(NUM_CLASSES)),
        (moved(given, classes=classes), range(ROWS), classes),
    ):
        weight = tf.gather(weights, list(rows_moved))
        losses, gradients = terms_of(name, settings, case, sample_weight=weight)
        for key in wanted:
            np.testing.assert_allclose(losses[key], wanted[key], rtol=1e-12, err_msg=key)
        for key, slope in slopes.items():
            slope = slope.numpy()[list(rows_moved)][:, list(classes_moved)]
            np.testing.assert_allclose(gradients[key], slope, rtol=1e-9, atol=1e-12, err_msg=key)


@EVEN_MORE_CASES
def test_form_of_labels_does_not_matter(name, settings):
    objective, features, _ = set_up(name, json.dumps(settings))
    dtype = tf.float32 if any(features.values()) or objective.variables else tf.float64
    given = random_case()
    labels = given.pop("labels")
    given = {key: tf.cast(each, dtype) for key, each in given.items()}
    wanted, _ = terms_of(name, settings, {**given, "labels": labels})
    for each in (tf.cast(labels, tf.uint8), tf.cast(labels, tf.int64), labels[:, None]):
        found, _ = terms_of(name, settings, {**given, "labels": each})
        for key in wanted:
            np.testing.assert_array_equal(found[key], wanted[key], err_msg=key)
    if objective.requires.allows_soft_labels:
        dense = tf.one_hot(labels, NUM_CLASSES, dtype=dtype)
        found, _ = terms_of(name, settings, {**given, "labels": dense})
        for key in wanted:
            rtol = 1e-12 if dtype == tf.float64 else 1e-6
            np.testing.assert_allclose(found[key], wanted[key], rtol=rtol, err_msg=key)


# Runs.


@dataclasses.dataclass(frozen=True)
class Run:
    """Three epochs of training.

    Attributes:
        distiller: The distiller, trained.
        history: What it logged.
        before: Values of the variables before, by ``trained`` and ``teachers``.
        after: The same afterwards.
        states: All that a continued run needs, at the end of each epoch.
    """

    distiller: Distiller
    history: dict[str, list[float]]
    before: dict[str, list[np.ndarray]]
    after: dict[str, list[np.ndarray]]
    states: list[dict[str, np.ndarray]]


class KeepStates(keras.callbacks.Callback):
    """Keeps the state at the end of each epoch, and may end the run before its last."""

    def __init__(self, stop_after: int | None) -> None:
        super().__init__()
        self.stop_after = stop_after
        self.states: list[dict[str, np.ndarray]] = []

    def on_epoch_end(self, epoch, logs=None) -> None:
        self.states.append(runs.state(self.model))
        self.model.stop_training = len(self.states) == self.stop_after


def fit(distiller: Distiller, **settings) -> dict[str, list[float]]:
    """Trains for three epochs, and returns what was logged."""
    strategy = distiller.distribute_strategy
    # One iterator over all epochs: under replicas it costs as much as the epoch.
    batches = batches_of(*distiller.objectives).repeat()
    if strategy.num_replicas_in_sync > 1:
        # Each replica reads its own images, of which some views have several rows.
        size = 8 // strategy.num_replicas_in_sync
        batches = strategy.distribute_datasets_from_function(
            lambda context: batches_of(*distiller.objectives, size=size).repeat()
        )
    usual = {"epochs": 3, "steps_per_epoch": runs.STEPS, "shuffle": False, "verbose": 0}
    return distiller.fit(batches, **{**usual, **settings}).history


def run_in(scope, name: str, settings: dict, stop_after: int | None = None) -> Run:
    """Trains in the scope of a strategy."""
    with scope:
        distiller, keep = distiller_of(name, settings), KeepStates(stop_after)
        before = values_by_part(distiller)
        history = fit(distiller, callbacks=[keep])
    return Run(distiller, history, before, values_by_part(distiller), keep.states)


@functools.cache
def run_of(name: str, settings: str) -> Run:
    """A run on one device, with settings as JSON."""
    return run_in(contextlib.nullcontext(), name, json.loads(settings))


def values_by_part(distiller: Distiller) -> dict[str, list[np.ndarray]]:
    """The values of what is trained and of the teachers."""
    parts = {
        "trained": distiller.trained_variables,
        "teachers": [each for teacher in distiller.teachers for each in teacher.variables],
    }
    return {part: [np.array(each) for each in variables] for part, variables in parts.items()}


@EVERY_CASE
def test_training_moves_all_that_is_trained_and_logs_what_enters_the_total(name, settings):
    run = run_of(name, json.dumps(settings))
    variables = run.distiller.trained_variables
    for variable, *values in zip(variables, run.before["trained"], run.after["trained"]):
        still = variable.path in STILL.get(name, ())
        assert still or np.any(values[0] != values[1]), variable.path
    history = {key: np.array(run.history[key]) for key in run.distiller.loss_names()}
    for key, values in history.items():
        assert np.all(np.isfinite(values)), key
        assert np.all(values != 0) or name == "plain", key
    [objective] = run.distiller.objectives
    terms = sum(history[key] for key in names_of([objective])[len(TOTALS) :])
    np.testing.assert_allclose(history["distillation_loss"], terms, rtol=1e-5)
    label = 0.0 if objective.replaces_label_loss else 0.5 * history["student_loss"]
    np.testing.assert_allclose(history["loss"], label + terms, rtol=1e-5)
    np.testing.assert_array_equal(history["loss"], history["total_loss"])
    if objective.replaces_label_loss:
        assert history["loss"][-1] < history["loss"][0]


@EVERY_METHOD
def test_evaluation_needs_images_and_labels_alone(name):
    distiller = run_of(name, json.dumps(CASES.get(name, [{}])[0])).distiller
    distiller.run_eagerly = True  # Three batches cost less than to compile them.
    results = distiller.evaluate(runs.batches(), verbose=0, return_dict=True)
    distiller.run_eagerly = False
    # A total that images and labels do not give is left out.
    assert {"loss", "student_loss"} & set(results)
    assert all(np.isfinite(value) for value in results.values())


@EVERY_CASE
def test_teacher_is_left_alone(name, settings):
    run = run_of(name, json.dumps(settings))
    distiller = run.distiller
    [objective] = distiller.objectives
    weights = [each.value for teacher in distiller.teachers for each in teacher.variables]
    assert bool(weights) == objective.requires.needs_teacher
    if not distiller.trainable_teacher:
        for before, after in zip(run.before["teachers"], run.after["teachers"]):
            np.testing.assert_array_equal(after, before)
    with tf.GradientTape() as tape:
        tape.watch(weights)
        context = distiller.forward(next(iter(batches_of(objective))), training=True)
        total = distiller.combine(context).total
    found = tape.gradient(total, [weights, distiller.student.trainable_variables])
    assert all(gradient is None for gradient in found[0])
    assert all(gradient is not None for gradient in found[1])


@EVERY_CASE
def test_dense_labels_are_refused_or_mean_what_class_numbers_do(name, settings):
    distiller = run_of(name, json.dumps(settings)).distiller
    [objective] = distiller.objectives
    numbers, dense = (batches_of(objective, dense=dense) for dense in (False, True))
    if not objective.requires.allows_soft_labels:
        with pytest.raises(TfkdError, match=f"{name} works on class numbers"):
            distiller.fit(dense, verbose=0)
        return
    distiller.prepare_for(dense.element_spec)
    before, values = runs.state(distiller), []
    for each in (numbers, dense):
        for key, variable in distiller.state().items():
            variable.assign(before[key])  # A step may begin with moving averages.
        values.append(distiller.combine(distiller.forward(next(iter(each)), training=True)).values)
    np.testing.assert_allclose(values[1], values[0], rtol=1e-6)


@pytest.mark.parametrize(
    "name, settings",
    [
        each
        for each in listed(CASES)
        if each.id != "plain" and not is_function_of_logits(*each.values)
    ],
)
def test_one_and_two_replicas_give_one_update(name, settings, two_replicas):
    one = run_of(name, json.dumps(settings))
    two = run_in(two_replicas.scope(), name, settings, stop_after=2)
    assert_alike(one, two, two_replicas)


def test_one_and_two_replicas_give_one_update_by_all_functions_of_logits(two_replicas):
    # Under one roof: each has its terms in the log, and a step is compiled once for all.
    cases = [each.values for each in listed(CASES) if is_function_of_logits(*each.values)]
    found = []
    for scope in (contextlib.nullcontext(), two_replicas.scope()):
        objectives = [
            registry.create(name, name=f"{name}{number}", **settings)
            for number, (name, settings) in enumerate(cases)
        ]
        with scope:
            distiller = runs.distiller_of(
                *objectives, teacher=True, learning_rate=0.01, batch_size=8
            )
            keep = KeepStates(stop_after=2)
            history = fit(distiller, callbacks=[keep])
        found.append(Run(distiller, history, {}, {}, keep.states))
    assert len(names_of(objectives)) > len(cases) > 10
    assert_alike(*found, two_replicas)


def assert_alike(one: Run, two: Run, strategy: tf.distribute.Strategy) -> None:
    """Asserts that a run on two replicas, of two epochs, did what one on one device did."""
    wanted, found = one.states[1], two.states[1]
    assert set(found) == set(wanted)
    for key, values in wanted.items():
        held = key.startswith(("student/", "objective:", "teacher:"))
        tolerance = {"rtol": 1e-4, "atol": 2e-6 if held else 1e-5, "err_msg": key}
        np.testing.assert_allclose(found[key], values.astype("float64"), **tolerance)
    for variable in two.distiller.objectives[0].variables:
        first, second = strategy.experimental_local_results(variable.value)
        np.testing.assert_array_equal(first, second, err_msg=variable.path)
    assert set(one.history) == set(two.history)
    for key, values in one.history.items():
        np.testing.assert_allclose(two.history[key], values[:2], rtol=1e-4, err_msg=key)


@EVERY_METHOD
def test_continued_run_ends_as_an_uninterrupted_one(name):
    settings = CASES.get(name, [{}])[0]
    whole = run_of(name, json.dumps(settings))
    continued = whole.distiller
    if continued.objectives[0].non_trainable_variables or continued.trainable_teacher:
        continued = distiller_of(name, settings, seed=5)
    for key, variable in continued.state().items():
        variable.assign(whole.states[0][key])
    fit(continued, initial_epoch=1)
    found = runs.state(continued)
    assert set(found) == set(whole.states[2])
    for key, value in whole.states[2].items():
        if not key.startswith("metrics"):
            np.testing.assert_array_equal(found[key], value, err_msg=key)
