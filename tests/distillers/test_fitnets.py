"""FitNets: published numbers, the regressor by shape, and the two stages."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.distillers import runs
from tests.distillers.contexts import context_of
from tests.distillers.pair_features import (
    ORACLES,
    check_every_pair,
    network_with,
    random_features,
    set_up,
)
from tfkd import models
from tfkd.core import Distiller
from tfkd.distillers.fitnets import FitNets, bridge, hint_loss, kd_weight
from tfkd.distillers.kd import kd_loss
from tfkd.errors import TfkdError
from tfkd.training import published

ORACLE = ORACLES["fitnet"]
LABELS = np.array([0, 1])


def hint_of(shape, other):
    """An objective between maps of two shapes."""
    return set_up(FitNets(), {"stage2": (None, *shape)}, {"stage2": (None, *other)})


def test_published_loss():
    given, wanted = ORACLE["hint_loss"]["inputs"], ORACLE["hint_loss"]["expected"]
    student, teacher = (
        {"stage2": tf.constant(given[f"{name}_tap"])} for name in ("student", "teacher")
    )
    norm = given["bn"]

    def loss(training):
        objective = hint_of((2, 2, 2), (2, 2, 3))
        conv, batch_norm, _ = objective.regressor.layers
        conv.set_weights([np.array(given["regressor_kernel"]), np.array(given["regressor_bias"])])
        batch_norm.set_weights([np.array(norm[key]) for key in ("gamma", "beta", "mean", "var")])
        assert batch_norm.epsilon == norm["eps"]
        context = context_of({"student": student, "teacher": teacher}, LABELS, training=training)
        [found] = objective.compute(context).losses.values()
        return found

    np.testing.assert_allclose(loss(False), wanted["loss_bn_inference"], rtol=1e-5)
    np.testing.assert_allclose(loss(True), wanted["loss_bn_training"], rtol=1e-5)
    weighted = published.preset("fitnets").weight * loss(True)
    np.testing.assert_allclose(weighted, wanted["weighted_bn_training"], rtol=1e-5)


@pytest.mark.parametrize(("case", "size"), [("connector_downsample", 2), ("connector_upsample", 4)])
def test_published_connectors(case, size):
    given = ORACLE[case]["inputs"]
    maps = tf.constant(given["x"])
    layer = bridge((None, *maps.shape[1:]), (None, size, size, 1), seed=0, name="conv")
    layer.set_weights([np.array(given["kernel"]), np.zeros(1)])
    np.testing.assert_allclose(layer(maps), ORACLE[case]["expected"]["y"], atol=1e-4)


@pytest.mark.parametrize(
    ("student", "teacher", "kernel", "fan_in"),
    [
        ((8, 8, 3), (8, 8, 5), (1, 1, 3, 5), 3),
        ((8, 8, 3), (4, 4, 5), (3, 3, 3, 5), 27),
        ((4, 4, 3), (8, 8, 5), (4, 4, 5, 3), 80),
        ((8, 8, 3), (7, 5, 2), (2, 4, 3, 2), 24),
        ((8, 8, 3), (2, 2, 2), (7, 7, 3, 2), 147),
        ((8, 4, 3), (4, 4, 2), (5, 1, 3, 2), 15),
    ],
)
def test_regressor_by_shape(student, teacher, kernel, fan_in):
    objective = hint_of(student, teacher)
    own, theirs = (random_features({"stage2": (None, *each)}, 1) for each in (student, teacher))
    assert objective.regressor(own["stage2"]).shape == theirs["stage2"].shape
    weights, bias, *_ = objective.regressor.trainable_variables
    assert tuple(weights.shape) == kernel and bias.shape == teacher[-1:]
    # Uniform within the bound of torch, and filling it.
    for variable in (weights, bias):
        size = np.abs(np.asarray(variable)).max() * fan_in**0.5
        assert 0.3 < size <= 1
    assert np.asarray(objective.regressor(own["stage2"])).min() == 0


def test_stages_of_every_pair_are_bridged():
    check_every_pair(FitNets)


def test_statistics_of_the_regressor_change_in_training_alone():
    shapes = {"stage2": (None, 4, 4, 3)}
    objective = set_up(FitNets(), shapes, shapes)
    outputs = {"student": random_features(shapes, 1), "teacher": random_features(shapes, 2)}
    before = [np.array(each) for each in objective.variables]
    for training, moved in ((False, 0), (True, 2)):
        objective.compute(context_of(outputs, LABELS, training=training))
        same = [np.array_equal(new, old) for new, old in zip(objective.variables, before)]
        assert same.count(False) == moved


def test_loss_is_float32_where_the_regressor_is_not():
    shapes = {"stage2": (None, 4, 4, 3)}
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        objective = set_up(FitNets(), shapes, shapes)
        own, theirs = (random_features(shapes, seed, "bfloat16") for seed in (1, 2))
        context = context_of({"student": own, "teacher": theirs}, LABELS)
        [loss] = objective.compute(context).losses.values()
        regressed = objective.regressor(own["stage2"], training=True)
    finally:
        keras.config.set_dtype_policy("float32")
    assert regressed.dtype == tf.bfloat16 and loss.dtype == tf.float32
    exact = tf.reduce_mean(hint_loss(regressed, theirs["stage2"]))
    np.testing.assert_allclose(loss, exact, rtol=1e-6)


@pytest.mark.parametrize(
    ("student", "teacher"),
    [
        ((4, 4, 3), (16, 16, 5)),
        ((4, 4, 3), (7, 7, 5)),
        ((8, 4, 3), (4, 8, 5)),
        ((None, None, 3), (8, 8, 5)),
    ],
)
def test_maps_that_no_regressor_bridges_are_refused(student, teacher):
    with pytest.raises(TfkdError) as told:
        hint_of(student, teacher)
    shapes = [" x ".join("?" if n is None else str(n) for n in each) for each in (student, teacher)]
    assert str(told.value).startswith(
        f"fitnets: found student tap 'stage2' of shape {shapes[0]} and teacher tap 'stage2' of "
        f"shape {shapes[1]}, wanted known sizes, the student's half the teacher's or"
    )


def test_vector_is_refused():
    with pytest.raises(TfkdError, match="found teacher tap 'stage2' of shape 8, wanted a feature"):
        hint_of((4, 4, 3), (8,))


def test_networks_whose_stages_bear_other_names():
    staged, other = network_with("stage1", "stage2"), network_with("early", "late")
    with pytest.raises(
        TfkdError, match="fitnets: found no tap 'stage2' in network .* wanted teacher_tap=NAME"
    ):
        Distiller(other, staged, FitNets())
    with pytest.raises(TfkdError, match="found no tap 'stage2' .* wanted student_tap=NAME"):
        Distiller(staged, other, FitNets())
    Distiller(staged, other, FitNets(student_tap="late"))
    Distiller(models.Network(other.model, taps={"stage2": "late"}), staged, FitNets())


def test_weight_of_kd_falls_linearly_from_the_first_epoch_to_the_last():
    found = [float(kd_weight(epoch, 4)) for epoch in range(6)]
    np.testing.assert_allclose(found, [4, 3, 2, 1, 1, 1], rtol=1e-6)
    assert kd_weight(0, 1) == 4
    np.testing.assert_allclose(kd_weight(5, 11, initial=3.0, final=0.0), 1.5, rtol=1e-6)


def test_hint_loss_is_a_mean_for_each_sample():
    draw = np.random.default_rng(0)
    own, theirs = (tf.constant(draw.normal(size=(3, 2, 4, 5))) for _ in range(2))
    wanted = [np.mean((own[row] - theirs[row]) ** 2) for row in range(3)]
    np.testing.assert_allclose(hint_loss(own, theirs), wanted, rtol=1e-12)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": 4.0}, "temperature=4.0 with form='joint', which has one stage, without"),
        ({"hint_weight": 1}, "hint_weight=1.0 with form='joint'"),
        ({"final_kd_weight": 0.0}, "final_kd_weight=0.0 with form='joint'"),
    ],
)
def test_settings_of_the_two_stages_are_refused_in_one(settings, message):
    with pytest.raises(TfkdError, match=message):
        FitNets(**settings)


def test_normalization_is_an_option_of_both_forms():
    def kinds(**settings):
        shapes = {"stage2": (None, 4, 4, 2)}
        objective = set_up(FitNets(**settings), shapes, shapes)
        return len(objective.regressor.layers)

    assert (kinds(), kinds(form="two_stage")) == (3, 2)
    assert (kinds(normalize=False), kinds(form="two_stage", normalize=True)) == (2, 3)


@pytest.mark.parametrize(
    ("given", "epochs"),
    [({}, 30), *(({"hint_epochs": each}, n) for each, n in ((0.3, 1), (1.6, 2), (7, 7)))],
)
def test_length_of_the_first_stage(given, epochs):
    first, second = FitNets(form="two_stage", **given).stages()
    assert (first.epochs, second.epochs) == (epochs, None)
    assert (first.evaluate, second.evaluate) == (False, True)
    assert FitNets().stages() is None


def two_stages(**settings):
    """A distiller of the paper's form, whose guided layer has others behind it."""
    objective = FitNets(
        form="two_stage", student_tap="stage1", teacher_tap="stage1", hint_epochs=1, **settings
    )
    return runs.distiller_of(objective)


def test_each_stage_reads_and_forms_its_own():
    distiller = two_stages()
    [objective] = distiller.objectives
    first, second = objective.stages()
    both = ["student", "teacher"]
    assert objective.requires_in(first.name).taps == {(each, "main"): ["stage1"] for each in both}
    assert objective.requires_in(second.name).taps == {(each, "main"): ["logits"] for each in both}
    batch = next(iter(runs.batches("sample_weight")))
    distiller.set_epochs(3)
    for stage in (first, second):
        distiller.enter_stage(stage)
        context = distiller.forward(batch, training=True)
        terms = objective.to_terms(objective.compute(context), stage.name)
        if stage is first:
            own = objective.regressor(context.student("stage1"), training=True)
            loss = 50 * context.mean(hint_loss(own, context.teacher("stage1")))
            assert set(terms.losses) == {"hint"} and not terms.factors
            np.testing.assert_allclose(terms.losses["hint"], loss, rtol=1e-6)
            np.testing.assert_allclose(distiller.combine(context).total, loss, rtol=1e-6)
        else:
            loss = context.mean(kd_loss(context.student_logits, context.teacher(), 3.0))
            assert set(terms.losses) == {"kd"} and terms.factors["kd"] == 4
            np.testing.assert_allclose(terms.losses["kd"], loss, rtol=1e-6)
            found = dict(zip(distiller.loss_names(), distiller.combine(context).values.numpy()))
            np.testing.assert_allclose(found["fitnets/kd"], 4 * loss, rtol=1e-6)
            total = found["student_loss"] + 4 * loss
            np.testing.assert_allclose(found["loss"], total, rtol=1e-6)


def test_each_stage_trains_its_own():
    distiller = two_stages(normalize=True)
    [objective] = distiller.objectives
    student = distiller.student
    guided = student.get_layer("stage1_pre").variables
    parts = {
        "guided": guided,
        "rest": [v for v in student.variables if not any(v is each for each in guided)],
        "regressor": objective.regressor.variables,
    }
    for stage, moved in zip(objective.stages(), ({"guided", "regressor"}, {"guided", "rest"})):
        distiller.enter_stage(stage)
        distiller.compile(keras.optimizers.SGD(0.05, momentum=0.9, weight_decay=0.01))
        before = {name: [np.array(v) for v in variables] for name, variables in parts.items()}
        distiller.fit(runs.batches("sample_weight"), epochs=2, verbose=0)
        for name, variables in parts.items():
            # Also the statistics of batch normalization.
            same = [np.array_equal(v, old) for v, old in zip(variables, before[name])]
            assert (not any(same)) if name in moved else all(same), (stage.name, name)


def test_hints_alone_make_the_regressed_map_alike():
    distiller = two_stages()
    [objective] = distiller.objectives
    distiller.enter_stage(objective.stages()[0])
    distiller.compile(keras.optimizers.SGD(0.02, momentum=0.9))
    hints = distiller.fit(runs.batches(), epochs=6, verbose=0).history["fitnets/hint"]
    assert hints[-1] < 0.7 * hints[0]
