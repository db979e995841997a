"""SRRL against the published numbers, and its properties."""

import json
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfkd
from tests.distillers import runs
from tests.distillers.contexts import context_of, spec_of
from tests.models import families
from tfkd import models
from tfkd.distillers.kd import KD
from tfkd.distillers.srrl import SRRL, srrl_losses, through_frozen
from tfkd.errors import TfkdError

FILE = Path(__file__).parents[1] / "fixtures" / "oracles_features.json"
ORACLE = json.loads(FILE.read_text())["srrl"]["losses"]
GIVEN = {name: np.array(each) for name, each in ORACLE["inputs"].items() if isinstance(each, list)}
PLACES = pytest.mark.parametrize("place", ["map", "pooled"])


def oracle_head(network, start):
    """The linear layer of the published numbers."""
    assert (network, start) == ("teacher", "pooled")
    kernel, bias = GIVEN["teacher_fc_kernel"], GIVEN["teacher_fc_bias"]
    feature = keras.Input(kernel.shape[:1])
    layer = keras.layers.Dense(kernel.shape[1])
    model = keras.Model(feature, layer(feature))
    layer.set_weights([kernel, bias])
    return model


def oracle_objective(place, **settings):
    """The objective with the connector of the published numbers, and a step with its features."""
    student, teacher = GIVEN["student_pre_pool"], GIVEN["teacher_pre_pool"]
    objective = SRRL(connector_on=place, **settings)
    objective.setup(
        spec_of(
            {"pre_pool": (None, *student.shape[1:])},
            {"pooled": (None, teacher.shape[-1]), "logits": (None, 4)},
            heads=oracle_head,
        )
    )
    filters, normalization, _ = objective.connector.layers
    bn = ORACLE["inputs"]["connector_bn"]
    filters.kernel.assign(tf.reshape(GIVEN["connector_kernel"], filters.kernel.shape))
    normalization.set_weights([np.array(bn[name]) for name in ("gamma", "beta", "mean", "var")])
    assert normalization.epsilon == bn["eps"]
    pooled = teacher.mean(axis=(1, 2))
    logits = pooled @ GIVEN["teacher_fc_kernel"] + GIVEN["teacher_fc_bias"]
    outputs = {
        "student": {"pre_pool": tf.constant(student, tf.float32)},
        "teacher": {
            "pooled": tf.constant(pooled, tf.float32),
            "logits": tf.constant(logits, tf.float32),
        },
    }
    return objective, outputs


@PLACES
def test_published_numbers(place):
    objective, outputs = oracle_objective(place)
    context = context_of(outputs, [0, 1], training=False, heads=oracle_head)
    found = objective.compute(context)
    expected = ORACLE["expected"][f"{place}_connector"]
    assert set(found) == {"feature", "regression"}
    np.testing.assert_allclose(found["feature"], expected["feature_match"], atol=1e-6)
    np.testing.assert_allclose(found["regression"], expected["softmax_regression"], atol=1e-6)


def test_vector_is_taken_as_it_is():
    """The tap ``pooled`` gives what the mean over ``pre_pool`` does."""
    objective, outputs = oracle_objective("pooled")
    outputs["student"]["pre_pool"] = tf.reduce_mean(outputs["student"]["pre_pool"], axis=(1, 2))
    context = context_of(outputs, [0, 1], training=False, heads=oracle_head)
    expected = ORACLE["expected"]["pooled_connector"]["feature_match"]
    np.testing.assert_allclose(objective.compute(context)["feature"], expected, atol=1e-6)


def test_losses_are_means_of_squares():
    draw = np.random.default_rng(0)
    feature, of_teacher = draw.normal(size=(2, 4, 3))
    logits, teacher_logits = draw.normal(size=(2, 4, 6))
    found = srrl_losses(feature, logits, of_teacher, teacher_logits)
    np.testing.assert_allclose(found[0], np.mean((feature - of_teacher) ** 2, 1), rtol=1e-12)
    np.testing.assert_allclose(found[1], np.mean((logits - teacher_logits) ** 2, 1), rtol=1e-12)


def test_settings_and_sample_weights_weigh_the_terms():
    weights = np.array([2.0, 0.5])
    plain, outputs = oracle_objective("map")
    each = [
        plain.compute(
            context_of(outputs, [0, 1], training=True, heads=oracle_head, sample_weight=w)
        )
        for w in ([1.0, 0.0], [0.0, 1.0])
    ]
    objective, _ = oracle_objective("map", feature_weight=3.0, regression_weight=0.25)
    found = objective.compute(
        context_of(outputs, [0, 1], training=True, heads=oracle_head, sample_weight=weights)
    )
    for name, weight in (("feature", 3.0), ("regression", 0.25)):
        wanted = weight * sum(w * terms[name] for w, terms in zip(weights, each))
        np.testing.assert_allclose(found[name], wanted, rtol=1e-6)


def test_connector_starts_as_published_and_from_the_seed():
    narrow, wide = {"pre_pool": (None, 2, 2, 64)}, {"pooled": (None, 512), "logits": (None, 5)}
    kernels = []
    for _ in range(2):
        objective = SRRL()
        objective.setup(spec_of(narrow, wide, heads=lambda *_: None))
        kernels.append(objective.connector.layers[0].kernel.numpy())
    np.testing.assert_array_equal(*kernels)
    np.testing.assert_allclose(np.std(kernels[0]), np.sqrt(2 / 512), rtol=0.02)
    names = [variable.path.split("/")[-1] for variable in objective.trainable_variables]
    assert names == ["kernel", "gamma", "beta"]


def step(distiller):
    """A step of a distiller on the first batch, as its losses see it."""
    context = distiller.forward(next(iter(runs.batches())), training=True)
    return context, distiller.combine(context)


@PLACES
@pytest.mark.parametrize("fold", [True, False])
def test_gradient_passes_through_the_head_and_leaves_it_alone(place, fold):
    objective = SRRL(connector_on=place, feature_weight=0.0)
    distiller = runs.distiller_of(objective, student_loss_weight=0.0, fold_teacher=fold)
    head = distiller.teachers[0].get_layer("logits").variables
    convolution = distiller.student.get_layer("stage1_pre").variables
    connector = objective.connector.trainable_variables
    with tf.GradientTape() as tape:
        tape.watch([variable.value for variable in head])
        _, losses = step(distiller)
    slopes = tape.gradient(losses.total, [[v.value for v in head], convolution, connector])
    assert slopes[0] == [None, None]
    assert all(np.any(slope != 0) for slope in slopes[1] + slopes[2])


@pytest.mark.parametrize("fold", [True, False])
def test_head_is_not_trained_and_not_kept(fold):
    distiller = runs.distiller_of(SRRL(), fold_teacher=fold)
    [objective] = distiller.objectives
    of_teacher = {id(each) for teacher in distiller.teachers for each in teacher.variables}
    assert not of_teacher & {id(each) for each in objective.variables}
    assert not of_teacher & {id(each) for each in distiller.trained_variables}
    assert not of_teacher & {id(each) for each in distiller.state().values()}
    assert len(objective.variables) == 5, "kernel, and gamma, beta, mean and variance"
    assert distiller.clean_student().model is distiller.student
    assert distiller.student.count_params() == runs.network("alone").count_params()


def test_head_runs_in_inference_mode():
    feature = keras.Input((6,))
    hidden = keras.layers.BatchNormalization()(keras.layers.Dropout(0.5)(feature))
    head = keras.Model(feature, keras.layers.Dense(3)(hidden))
    before = [np.array(each) for each in head.variables]
    given = tf.random.normal((4, 6))
    found = through_frozen(head, given)
    np.testing.assert_allclose(found, head(given, training=False), rtol=1e-6)
    for variable, value in zip(head.variables, before):
        np.testing.assert_array_equal(variable, value)


@pytest.mark.parametrize(
    ("teacher", "side", "arguments"),
    [
        ("resnet8", 8, {}),
        ("resnet8", 8, {"adder": True}),
        ("mobilenetv2", 16, {}),
        ("vgg_small", 8, {}),
        ("vgg16_bn_imagenet", 32, {"hidden": 16}),
    ],
)
def test_head_continues_the_feature_of_every_family(teacher, side, arguments):
    """What it makes of the teacher's own feature are the teacher's logits."""
    shape = (side, side, 3)
    network = families.shaken(models.create(teacher, 10, shape, **arguments))
    distiller = tfkd.Distiller(
        network, flat_network("student", 10, shape), SRRL(student_tap="last_map")
    )
    images = np.random.default_rng(0).normal(size=(2, *shape)).astype("float32")
    batch = {"image": tf.constant(images), "label": tf.constant([1, 3])}
    context = distiller.forward(batch, training=True)
    head = context.head("teacher", "pooled")
    found = through_frozen(head, context.teacher("pooled"))
    np.testing.assert_allclose(found, context.teacher(), rtol=1e-4, atol=1e-5)
    terms = distiller.objectives[0].compute(context)
    assert all(np.isfinite(each) and each > 0 for each in terms.values())


def flat_network(name, classes=4, shape=(8, 8, 3), skip=False):
    """A user's network without a global mean: its logits follow from the flattened map."""
    image = keras.Input(shape)
    hidden = keras.layers.Conv2D(4, 3, 4, "same", activation="relu", name="last_map")(image)
    flat = keras.layers.Flatten(name="flat")(hidden)
    logits = keras.layers.Dense(classes, name="classes")(flat)
    if skip:
        mean = keras.layers.GlobalAveragePooling2D()(hidden)
        logits = keras.layers.Add()([logits, keras.layers.Dense(classes)(mean)])
    return keras.Model(image, logits, name=name)


@pytest.mark.parametrize(
    "tap, place", [("last_map", "map"), ("last_map", "pooled"), ("flat", "pooled")]
)
def test_networks_of_a_user(tap, place):
    objective = SRRL(connector_on=place, student_tap=tap, teacher_tap="flat")
    distiller = tfkd.Distiller(flat_network("teacher"), flat_network("student"), objective)
    _, losses = step(distiller)
    assert np.isfinite(losses.total) and losses.terms["srrl"].losses["feature"] > 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"student_tap": "flat"},
            "srrl: found student tap 'flat' of shape 16, wanted a feature map",
        ),
        (
            {"teacher_tap": "last_map"},
            "srrl: found teacher tap 'last_map' of shape 2 x 2 x 4, wanted a vector",
        ),
        ({"teacher_tap": "flat", "skip": True}, "found that 'logits' needs more than 'flat'"),
        (
            {"teacher_tap": "flatt"},
            "srrl: found no tap 'flatt' .*did you mean 'flat'.* wanted teacher_tap=NAME",
        ),
    ],
)
def test_tap_that_does_not_serve_is_refused(settings, message):
    teacher = flat_network("teacher", skip=settings.pop("skip", False))
    objective = SRRL(**{"student_tap": "last_map", "teacher_tap": "flat", **settings})
    with pytest.raises(TfkdError, match=message):
        tfkd.Distiller(teacher, flat_network("student"), objective)


def test_stands_beside_kd():
    losses = [SRRL(connector_on="pooled"), KD()]
    distiller = tfkd.Distiller(runs.network("teacher", 6), runs.network("student"), losses, [1, 1])
    _, found = step(distiller)
    wanted = {"srrl": {"feature", "regression"}, "kd": {"kd"}}
    assert {name: set(terms.losses) for name, terms in found.terms.items()} == wanted


@PLACES
def test_mixed_precision(place):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        distiller = runs.distiller_of(SRRL(connector_on=place), eager=True)
    finally:
        keras.config.set_dtype_policy("float32")
    [objective] = distiller.objectives
    context, losses = step(distiller)
    assert context.student("pre_pool").dtype == tf.bfloat16
    assert all(each.dtype == tf.float32 for each in losses.terms["srrl"].losses.values())
    assert all(each.dtype == "float32" for each in objective.variables)
    distiller.fit(runs.batches(), verbose=0)
