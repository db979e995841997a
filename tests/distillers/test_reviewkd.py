"""ReviewKD against numbers computed apart from it, its levels on networks of all kinds."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.distillers import feature_oracles as oracles
from tests.distillers import runs
from tests.distillers.contexts import context_of
from tfkd import models
from tfkd.core import Distiller
from tfkd.distillers.reviewkd import (
    AttentionFusion,
    ReviewKD,
    hierarchical_loss,
    resized,
    reviewkd_loss,
    warmup_factor,
)
from tfkd.errors import TfkdError


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_hierarchical_context_loss(dtype):
    given, wanted = oracles.case("reviewkd", "hcl")
    student, teacher = (
        [tf.constant(oracles.array(level, dtype)) for level in given[name]]
        for name in ("student", "teacher")
    )
    found = [hierarchical_loss(*level)[0] for level in zip(student, teacher)]
    np.testing.assert_allclose(found, wanted["per_level"], **oracles.TOLERANCE)
    loss = reviewkd_loss(student, teacher)
    assert loss.shape == (1,) and loss.dtype == dtype
    np.testing.assert_allclose(loss[0], wanted["loss"], **oracles.TOLERANCE)


def test_attention_based_fusion():
    given, wanted = oracles.case("reviewkd", "abf")
    fusion = AttentionFusion(3, 2, 3, seed=0, fuses=True, name="fusion")
    for part, kernel, norm in (
        (fusion.reduce, "conv1_kernel", "bn1"),
        (fusion.expand, "conv2_kernel", "bn2"),
    ):
        convolution, normalization = part.layers
        convolution.kernel.assign(oracles.array(given[kernel]))
        oracles.set_normalization(normalization, given[norm])
    fusion.attend.kernel.assign(oracles.array(given["att_kernel"]))
    fusion.attend.bias.assign(oracles.array(given["att_bias"]))
    features, residual = oracles.array(given["x"]), oracles.array(given["residual"])
    output, handed_on = fusion(features, residual, size=(2, 2), training=False)
    np.testing.assert_allclose(handed_on, wanted["fused_residual"], **oracles.TOLERANCE)
    np.testing.assert_allclose(output, wanted["output"], **oracles.TOLERANCE)


def test_warmup_counts_from_epoch_0():
    given, wanted = oracles.case("reviewkd", "warmup")
    found = warmup_factor(np.array(given["epochs"]), given["warmup"])
    np.testing.assert_allclose(found, wanted["factor"], rtol=1e-6)
    np.testing.assert_array_equal(warmup_factor(np.array([0.0, 5.0]), 0.0), [1.0, 1.0])
    assert float(ReviewKD().schedule(tf.constant(5.0))) == 0.25


@pytest.mark.parametrize(
    "before, after", [((7, 7), (4, 4)), ((4, 4), (7, 7)), ((3, 5), (5, 3)), ((1, 1), (4, 2))]
)
def test_resizing_takes_the_pixel_that_torch_takes(before, after):
    maps = np.random.default_rng(0).normal(size=(2, *before, 3))
    rows, columns = (np.arange(n) * m // n for m, n in zip(before, after))
    maps = tf.constant(maps)
    with tf.GradientTape() as tape:
        tape.watch(maps)
        found = resized(maps, after)
        total = tf.reduce_sum(tf.square(found))
    np.testing.assert_array_equal(found, maps.numpy()[:, rows][:, :, columns])
    assert found.shape == (2, *after, 3)
    taken = np.outer(np.bincount(rows, minlength=before[0]), np.bincount(columns, None, before[1]))
    wanted = 2 * maps.numpy() * taken[None, :, :, None]
    np.testing.assert_allclose(tape.gradient(total, maps), wanted, rtol=1e-12)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_features_of_half_precision_give_a_float32_loss(dtype):
    draw = np.random.default_rng(0)
    student, teacher = (tf.constant(draw.normal(size=(2, 7, 7, 3)), dtype) for _ in range(2))
    wanted = hierarchical_loss(tf.cast(student, tf.float64), tf.cast(teacher, tf.float64))
    found = hierarchical_loss(student, teacher)
    assert found.dtype == tf.float32
    np.testing.assert_allclose(found, wanted, rtol=1e-5)
    assert resized(student, (4, 4)).dtype == dtype


# The levels of networks.


def levels(student: models.Network, teacher: models.Network, **settings):
    """The taps that are read of student and teacher."""
    objective = ReviewKD(**settings)
    objective.choose_taps(models.as_network(student), [models.as_network(teacher)])
    return tuple(list(objective.requires.taps[name, "main"]) for name in ("student", "teacher"))


def create(name: str, size: int = 32) -> keras.Model:
    return models.create(name, num_classes=4, input_shape=(size, size, 3))


def test_students_are_read_after_their_relus_and_teachers_before_them():
    own = ["stage1", "stage2", "stage3", "pooled"]
    before = ["stage1_pre", "stage2_pre", "stage3_pre", "pooled"]
    wrn = create("wrn_16_1")
    assert levels(wrn, wrn) == (own, before)
    assert levels(wrn, wrn, student_preactivation=True) == (before, before)


def test_stages_that_end_linearly_are_read_as_they_are():
    own = ["stage1", "stage2", "stage3", "stage4", "pooled"]
    mobilenet = create("mobilenetv2")
    assert levels(mobilenet, mobilenet, student_preactivation=True) == (own, own)


def test_networks_of_other_numbers_of_stages_are_paired_from_the_deepest():
    three, four = create("resnet8"), create("vgg8")
    assert levels(four, three) == (
        ["stage2", "stage3", "stage4", "pooled"],
        ["stage1_pre", "stage2_pre", "stage3_pre", "pooled"],
    )
    assert levels(three, four) == (
        ["stage1", "stage2", "stage3", "pooled"],
        ["stage2_pre", "stage3_pre", "stage4_pre", "pooled"],
    )


def test_chosen_taps_and_names_of_a_network_count():
    plain = runs.network("student")
    named = models.Network(plain, taps={"stage1": "stage1_pre", "stage3": "pre_pool"})
    assert levels(named, plain)[0] == ["stage2", "stage3", "pooled"]
    chosen = {"student_taps": ("stage1_pre", "stage2"), "teacher_taps": ("stage1", "stage2")}
    assert levels(plain, plain, **chosen) == (
        ["stage1_pre", "stage2", "pooled"],
        ["stage1", "stage2", "pooled"],
    )
    assert levels(plain, plain, student_taps=("pre_pool",))[0] == ["pre_pool", "pooled"]


def stages(*features: tuple[int, int], name: str = "student", size: int = 13) -> keras.Model:
    """A network whose stages have these channels and sizes."""
    image = hidden = keras.Input((size, size, 3), name="image")
    for stage, (channels, height) in enumerate(features, start=1):
        hidden = keras.layers.AdaptiveAveragePooling2D(height)(hidden)
        hidden = keras.layers.Conv2D(channels, 3, padding="same", name=f"stage{stage}")(hidden)
    hidden = keras.layers.GlobalAveragePooling2D(name="pooled")(hidden)
    return keras.Model(image, keras.layers.Dense(4, name="logits")(hidden), name=name)


def test_any_sizes_and_channels_meet():
    student, teacher = stages((5, 9), (7, 4), (3, 3)), stages((2, 13), (6, 7), name="teacher")
    objective = ReviewKD(max_channels=2)
    distiller = Distiller(teacher, student, objective)
    middle = {fusion.reduce.output_shape[-1] for fusion in objective.fusions}
    wanted = [fusion.expand.output_shape[-1] for fusion in objective.fusions]
    assert (middle, wanted) == ({2}, [6, 6, 2])
    batch = {"image": tf.random.normal((5, 13, 13, 3)), "label": tf.range(5) % 4}
    with tf.GradientTape() as tape:
        total = distiller.combine(distiller.forward(batch, training=True)).terms["reviewkd"]
        loss = total.losses["reviewkd"]
    weights = objective.trainable_variables
    assert all(np.any(each != 0) for each in tape.gradient(loss, weights))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_fusions_train_in_mixed_precision(dtype):
    keras.config.set_dtype_policy(f"mixed_{dtype}")
    try:
        student = stages((5, 9), (7, 4), (3, 3))
        distiller = Distiller(stages((2, 13), (6, 7), name="teacher"), student, ReviewKD(0.0))
    finally:
        keras.config.set_dtype_policy("float32")
    distiller.compile(keras.optimizers.SGD(0.05), run_eagerly=True)
    images = np.random.default_rng(0).normal(size=(5, 13, 13, 3)).astype("float32")
    [objective] = distiller.objectives
    before = [np.array(each) for each in objective.trainable_variables]
    distiller.train_on_batch(images, np.arange(5) % 4)
    for variable, value in zip(objective.trainable_variables, before):
        assert np.all(np.isfinite(variable)) and np.any(np.array(variable) != value)
    context = distiller.forward({"image": images, "label": np.arange(5) % 4}, training=False)
    loss = objective.compute(context)
    assert context.student("stage2").dtype == dtype and loss.dtype == tf.float32


def test_fused_channels_are_at_most_those_of_the_students_deepest_feature():
    objective = ReviewKD()
    Distiller(stages((5, 4), name="teacher"), stages((9, 4), (3, 4)), objective)
    assert {fusion.reduce.output_shape[-1] for fusion in objective.fusions} == {3}


def test_fusions_start_within_the_published_bounds_and_from_the_seed():
    def weights(seed):
        objective = ReviewKD()
        networks = stages((40, 4), name="teacher"), stages((40, 4))
        Distiller(*networks, objective, seed=seed)
        return objective.fusions[1]

    fusion, same, other = weights(1), weights(1), weights(2)
    for part, inputs in ((fusion.reduce, 40), (fusion.expand, 9 * 40)):
        size = np.abs(part.layers[0].kernel).max()
        assert 0.95 * (3 / inputs) ** 0.5 < size <= (3 / inputs) ** 0.5
    assert 0.9 * 80**-0.5 < np.abs(fusion.attend.kernel).max() <= 80**-0.5
    for one, two, three in zip(fusion.weights, same.weights, other.weights):
        np.testing.assert_array_equal(one, two)
        assert np.any(one != three) or one.path.rpartition("/")[2] != "kernel"


def test_evaluation_leaves_the_statistics_of_the_fusions():
    distiller = runs.distiller_of(ReviewKD(), eager=True)
    [objective] = distiller.objectives
    before = [np.array(each) for each in objective.variables]
    first = distiller.evaluate(runs.batches(), verbose=0, return_dict=True)
    for variable, value in zip(objective.variables, before):
        np.testing.assert_array_equal(variable, value)
    # In epoch 0 the published warm-up leaves the label loss alone.
    assert first["reviewkd"] == 0 and first["loss"] == first["student_loss"]
    distiller.set_epoch(20)
    later = distiller.evaluate(runs.batches(), verbose=0, return_dict=True)
    assert later["reviewkd"] > 0


def test_sample_weights_weigh_the_loss_of_each_image():
    distiller = runs.distiller_of(ReviewKD(), eager=True)
    [objective] = distiller.objectives
    draw = np.random.default_rng(0)
    shapes = {"stage1": (4, 4), "stage2": (4, 4), "pooled": ()}
    outputs = {
        network: {
            f"{tap}{suffix if shape else ''}": tf.constant(
                draw.normal(size=(3, *shape, width)), tf.float32
            )
            for tap, shape in shapes.items()
        }
        for network, width, suffix in (("student", 4, ""), ("teacher", 6, "_pre"))
    }

    def loss(weights):
        context = context_of(outputs, [0, 1, 2], training=False, sample_weight=tf.constant(weights))
        return float(objective.compute(context))

    single = [loss(row) for row in np.eye(3, dtype="float32")]
    np.testing.assert_allclose(loss([3.0, 1.0, 0.0]), 3.0 * single[0] + single[1], 1e-5)


def test_a_network_without_stages_is_told_what_is_wanted():
    flat = keras.Sequential(
        [keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(4)], name="flat"
    )
    message = "reviewkd: found no taps called stage1, stage2, ... in network 'flat'; wanted such"
    with pytest.raises(TfkdError, match=message):
        Distiller(runs.network("teacher"), flat, ReviewKD())


def test_unknown_sizes_are_told_with_both_taps():
    student = models.create("resnet8", num_classes=4, input_shape=(None, None, 3))
    message = (
        r"reviewkd: found student tap 'stage3' of shape \? x \? x 64 and teacher tap 'stage2_pre' "
        "of shape 4 x 4 x 6, wanted a known height and width of both"
    )
    with pytest.raises(TfkdError, match=message):
        Distiller(runs.network("teacher", 6), student, ReviewKD())


def test_a_misspelled_tap_is_told_with_the_nearest():
    objective = ReviewKD(student_taps=("stage1", "stage22"))
    with pytest.raises(TfkdError, match="'stage22'; did you mean 'stage2"):
        Distiller(runs.network("teacher"), runs.network("student"), objective)


def test_a_tap_that_is_neither_map_nor_vector_is_refused():
    image = keras.Input((8, 8, 3))
    rows = keras.layers.Reshape((64, 3), name="stage1")(image)
    pooled = keras.layers.GlobalAveragePooling1D(name="pooled")(rows)
    student = keras.Model(image, keras.layers.Dense(4)(pooled), name="rows")
    message = "reviewkd: found student tap 'stage1' of shape 64 x 3, wanted a feature map"
    with pytest.raises(TfkdError, match=message):
        Distiller(runs.network("teacher", 6), student, ReviewKD())
