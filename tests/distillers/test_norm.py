"""NORM against numbers computed apart from it, and the plain student that it leaves."""

import warnings
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.distillers import feature_oracles as oracles
from tests.distillers import runs
from tests.distillers.contexts import context_of
from tfkd import models
from tfkd.core import Distiller, Spec
from tfkd.core.divergences import cross_entropy, kl_divergence
from tfkd.distillers.kd import KD
from tfkd.distillers.mld import MLD
from tfkd.distillers.norm import NORM, norm_loss, normalized_logits, phase_factor
from tfkd.distillers.srrl import SRRL
from tfkd.distillers.sskd import SSKD
from tfkd.errors import TfkdError, TfkdWarning
from tfkd.models.saving import load_network
from tfkd.training.results import save_students


def last_layers(size, kernel, bias) -> keras.Model:
    """A student that begins at its last feature."""
    features = keras.Input(size)
    pooled = keras.layers.GlobalAveragePooling2D()(keras.layers.Identity(name="pre_pool")(features))
    student = keras.Model(features, keras.layers.Dense(len(bias), name="logits")(pooled))
    student.get_layer("logits").set_weights([kernel, bias])
    return student


def test_expansion_loss_logits_and_merged_classifier():
    given, wanted = oracles.case("norm", "expand_match_merge")
    own, taught = (
        oracles.array(given[f"{network}_pre_pool"]) for network in ("student", "teacher")
    )
    student = last_layers(own.shape[1:], *(oracles.array(given[f"fc_{n}"]) for n in WEIGHTS))
    head = lambda network, start: models.head(student, start)  # noqa: E731
    objective = NORM(expansion=given["n"], normalize_logits=False)
    objective.setup(spec_of(own.shape, taught.shape, student, head))
    for part, name in ((objective.expand, "expand"), (objective.contract, "contract")):
        convolution, normalization = part.layers
        convolution.kernel.assign(oracles.array(given[f"{name}_kernel"]))
        oracles.set_normalization(normalization, given[f"{name}_bn"])
    outputs = {
        "student": {"pre_pool": tf.constant(own)},
        "teacher": {"pre_pool": tf.constant(taught)},
    }
    context = context_of(outputs, np.zeros(len(own), int), training=False, heads=head)
    logits = objective.student_logits(context)
    np.testing.assert_allclose(logits, wanted["logits"], **oracles.TOLERANCE)
    np.testing.assert_allclose(context.scratch["norm"], wanted["expanded"], **oracles.TOLERANCE)
    losses = objective.compute(context)
    np.testing.assert_allclose(losses["feature"], wanted["loss_norm"], **oracles.TOLERANCE)

    plain = objective.finalize(models.Network(student), None).model
    for found, name in zip(plain.get_layer("logits").get_weights(), WEIGHTS):
        np.testing.assert_allclose(found, wanted[f"merged_fc_{name}"], **oracles.TOLERANCE)
    np.testing.assert_allclose(plain(own), wanted["logits"], **oracles.TOLERANCE)
    np.testing.assert_allclose(student.get_layer("logits").bias, given["fc_bias"], rtol=1e-6)


WEIGHTS = ("kernel", "bias")


def spec_of(own, taught, student, head) -> Spec:
    """A run on last features of these shapes."""
    return Spec(
        num_classes=4,
        image_shape=own[1:],
        shapes={
            ("student", "main"): {"pre_pool": (None, *own[1:])},
            ("teacher", "main"): {"pre_pool": (None, *taught[1:])},
        },
        train_size=None,
        batch_size=None,
        seed=0,
        head=head,
        network=lambda name: models.Network(student),
    )


def test_normalized_logits_with_label_loss_and_divergence():
    given, wanted = oracles.case("norm", "logit_layernorm")
    student, teacher = (
        normalized_logits(tf.constant(oracles.array(given[f"{name}_logits"])))
        for name in ("student", "teacher")
    )
    np.testing.assert_allclose(student, wanted["student"], **oracles.TOLERANCE)
    ce = tf.reduce_mean(cross_entropy(np.array(given["labels"]), student))
    np.testing.assert_allclose(ce, wanted["ce"], **oracles.TOLERANCE)
    kd = tf.reduce_mean(kl_divergence(teacher, student, given["kd_temperature"]))
    np.testing.assert_allclose(kd, wanted["kd"], **oracles.TOLERANCE)


def test_the_factor_of_each_phase():
    given, wanted = oracles.case("norm", "schedule")
    norm = NORM()
    found = [norm.schedule(tf.constant(float(epoch)))["feature"] for epoch in given["epochs"]]
    np.testing.assert_array_equal(found, oracles.array(wanted["factor"]))
    found = [float(phase_factor(epoch, (0.5,), (2.0, 3.0))) for epoch in (0, 1)]
    assert found == [2.0, 3.0]


def test_the_loss_is_the_sum_over_segments():
    draw = np.random.default_rng(0)
    expanded, teacher = draw.normal(size=(5, 3, 2, 12)), draw.normal(size=(5, 3, 2, 4))
    segments = [expanded[..., start : start + 4] for start in (0, 4, 8)]
    wanted = sum(np.mean(np.square(each - teacher), axis=(1, 2, 3)) for each in segments)
    np.testing.assert_allclose(norm_loss(tf.constant(expanded), tf.constant(teacher)), wanted)
    half = norm_loss(tf.constant(expanded, "float16"), tf.constant(teacher, "bfloat16"))
    assert half.dtype == tf.float32
    np.testing.assert_allclose(half, wanted, rtol=0.02)


@pytest.mark.parametrize(
    ("own", "taught", "wanted"),
    [(4, 8, "max 2"), (4, 9, "max 2"), (4, 7, "average"), (7, 4, "average of the student")],
)
def test_maps_of_other_sizes_meet(own, taught, wanted):
    student, teacher = sized(own, 3), sized(taught, 5, name="teacher")
    objective = NORM(expansion=2)
    distiller = Distiller(teacher, student, objective)
    images = np.random.default_rng(0).normal(size=(3, 16, 16, 3)).astype("float32")
    context = distiller.forward({"image": images, "label": tf.range(3)}, training=False)
    found = objective.compute(context)["feature"]
    target, expanded = context.teacher("pre_pool"), context.scratch["norm"]
    if wanted == "max 2":
        target = tf.nn.max_pool2d(target, 2, 2, "VALID")
    elif wanted == "average":
        target = keras.layers.AdaptiveAveragePooling2D(4)(target)
    else:
        expanded = keras.layers.AdaptiveAveragePooling2D(4)(expanded)
    assert expanded.shape[1:3] == target.shape[1:3] == (4, 4)
    difference = np.reshape(expanded, (3, 4, 4, 2, 5)) - target[:, :, :, None]
    np.testing.assert_allclose(found, 2 * np.mean(np.square(difference)), rtol=1e-5)


def sized(height: int, channels: int, name: str = "student") -> keras.Model:
    """A network whose last feature has this size."""
    image = keras.Input((16, 16, 3), name="image")
    hidden = keras.layers.AdaptiveAveragePooling2D(height)(image)
    hidden = keras.layers.Conv2D(channels, 3, padding="same", name="pre_pool")(hidden)
    hidden = keras.layers.GlobalAveragePooling2D(name="pooled")(hidden)
    return keras.Model(image, keras.layers.Dense(4, name="logits")(hidden), name=name)


# What label loss, divergence and metrics see.


def test_label_loss_and_divergence_see_normalized_logits():
    distiller = runs.distiller_of(NORM(kd_weight=0.5, temperature=2.0), eager=True)
    batch = next(iter(runs.batches()))
    context = distiller.forward(batch, training=False)
    plain = distiller.clean_student().model(batch["image"])
    student, teacher = normalized_logits(plain), normalized_logits(context.teacher())
    np.testing.assert_allclose(context.student(), student, rtol=1e-3, atol=1e-4)
    found = dict(zip(distiller.loss_names(), distiller.combine(context).values))
    label = tf.reduce_mean(cross_entropy(batch["label"], student))
    np.testing.assert_allclose(found["student_loss"], label, rtol=1e-4)
    kd = 0.5 * tf.reduce_mean(kl_divergence(teacher, student, 2.0))
    np.testing.assert_allclose(found["norm/kd"], kd, rtol=1e-3)
    np.testing.assert_array_equal(tf.argmax(context.student(), -1), tf.argmax(plain, -1))


def test_evaluation_measures_the_student_that_is_saved(tmp_path):
    distiller = runs.distiller_of(NORM(normalize_logits=False), eager=True)
    distiller.fit(runs.batches(), epochs=2, verbose=0)
    [objective] = distiller.objectives
    before = [np.array(each) for each in objective.variables]
    data = runs.arrays()
    found = distiller.evaluate(runs.batches(), verbose=0, return_dict=True)
    for variable, value in zip(objective.variables, before):
        np.testing.assert_array_equal(variable, value)
    distiller.save(tmp_path / "student.keras")
    saved = keras.models.load_model(tmp_path / "student.keras")
    logits = saved(data["image"])
    assert found["accuracy"] == np.mean(np.argmax(logits, axis=1) == data["label"])
    loss = tf.reduce_mean(cross_entropy(data["label"], logits))
    np.testing.assert_allclose(found["student_loss"], loss, rtol=1e-4)
    assert not np.allclose(logits, distiller.student(data["image"]), atol=0.1)


def test_the_best_student_of_a_run_is_merged_by_its_own_expansion(tmp_path):
    distiller = runs.distiller_of(NORM(normalize_logits=False), eager=True)
    images = runs.arrays()["image"]
    batch = {"image": images, "label": runs.arrays()["label"]}

    def trained():
        distiller.fit(runs.batches(), verbose=0)
        logits = distiller.forward(batch, training=False).student()
        return [np.array(each) for each in distiller.student_variables], np.array(logits)

    (best, of_best), (last, of_last) = trained(), trained()
    folder, progress = SimpleNamespace(path=tmp_path), SimpleNamespace(best_student=best)
    save_students(distiller, folder, progress, dataset=None)
    for which, wanted in (("best", of_best), ("last", of_last)):
        saved = load_network(tmp_path, which).model
        np.testing.assert_allclose(saved(images), wanted, rtol=1e-4, atol=1e-4)
        assert saved.count_params() == distiller.student.count_params()
    for variable, value in zip(distiller.student_variables, last):
        np.testing.assert_array_equal(variable, value)


def test_without_the_divergence_there_is_no_term_of_it():
    assert NORM().term_names() == ("feature",)
    assert list(NORM().requires.taps["teacher", "main"]) == ["pre_pool"]
    assert NORM(kd_weight=1.0).term_names() == ("feature", "kd")


# The plain student.


def expanded(name: str, size: int, **settings) -> tuple[Distiller, dict]:
    """A distiller of a student by its name, and a batch."""
    student = models.create(name, num_classes=4, input_shape=(size, size, 3))
    objective = NORM(expansion=2, normalize_logits=False, **settings)
    distiller = Distiller(sized_for(size), student, objective)
    images = np.random.default_rng(0).normal(size=(4, size, size, 3)).astype("float32")
    return distiller, {"image": images, "label": np.arange(4)}


def sized_for(size: int) -> keras.Model:
    """A teacher of images of a size."""
    image = keras.Input((size, size, 3), name="image")
    hidden = keras.layers.Conv2D(5, 3, 4, "same", name="pre_pool")(image)
    hidden = keras.layers.GlobalAveragePooling2D(name="pooled")(hidden)
    return keras.Model(image, keras.layers.Dense(4, name="logits")(hidden), name="teacher")


@pytest.mark.parametrize(
    ("name", "size", "residual"),
    [
        ("wrn_16_1", 8, True),
        ("vgg8", 8, True),
        ("vgg8", 8, False),
        ("mobilenetv2", 32, True),
        ("shufflev1", 16, True),
        ("shufflev2", 16, True),
    ],
)
def test_the_merged_student_is_plain_and_gives_the_logits_of_the_expanded_one(name, size, residual):
    distiller, batch = expanded(name, size, residual=residual)
    draw = np.random.default_rng(0)
    for variable in distiller.student_variables:
        shift = 0.2 if variable.name == "moving_variance" else -0.5
        variable.assign(draw.uniform(shift, shift + 1.0, variable.shape))
    assert_merged(distiller, batch)


@pytest.mark.parametrize("name", ["wrn_16_1", "vgg8"])
def test_a_student_that_was_trained_merges(name):
    distiller, batch = expanded(name, 8)
    distiller.compile(keras.optimizers.SGD(0.1), run_eagerly=True)
    distiller.train_on_batch(batch["image"], batch["label"])
    assert_merged(distiller, batch)


def assert_merged(distiller: Distiller, batch: dict) -> None:
    """Checks that the student that is saved is a plain one and does what was trained."""
    student = distiller.student
    before = student.get_weights()
    plain = distiller.clean_student().model
    wanted = distiller.forward(batch, training=False).student().numpy()
    found = plain(batch["image"]).numpy()
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4 * np.abs(wanted).max())
    assert np.abs(found - student(batch["image"])).max() > 0.01 * np.abs(wanted).max()
    assert plain.count_params() == student.count_params()
    assert described(plain) == described(student)
    for value, first in zip(student.get_weights(), before):
        np.testing.assert_array_equal(value, first)


def described(model: keras.Model) -> list:
    """Returns what a model is made of."""
    layers = [each for each in model.layers if not isinstance(each, keras.layers.InputLayer)]
    return [(type(layer), layer.name, layer.get_config()) for layer in layers]


def test_a_user_s_nested_student_merges_inside_its_sub_model():
    inside = runs.network("backbone")
    image = keras.Input((8, 8, 3))
    logits = keras.layers.Identity()(inside(image))
    taps = {"pre_pool": "backbone/pre_pool"}
    student = models.Network(keras.Model(image, logits, name="outer"), taps=taps)
    distiller = Distiller(runs.network("teacher", 6), student, NORM(normalize_logits=False))
    data = runs.arrays()
    wanted = distiller.forward(
        {"image": data["image"], "label": data["label"]}, training=False
    ).student()
    plain = distiller.clean_student()
    np.testing.assert_allclose(plain.model(data["image"]), wanted, rtol=1e-4, atol=1e-4)
    assert plain.taps == student.taps and plain.model.count_params() == inside.count_params()


def student_with(head) -> keras.Model:
    """A student whose last feature is classified by ``head``."""
    image = keras.Input((8, 8, 3))
    features = keras.layers.Conv2D(3, 3, name="pre_pool")(image)
    return keras.Model(image, head(features), name="student")


def pooled(features, **settings):
    return keras.layers.GlobalAveragePooling2D(name="pooled", **settings)(features)


@pytest.mark.parametrize(
    ("head", "found"),
    [
        (
            lambda x: keras.layers.Dense(4, name="logits")(
                keras.layers.Dense(5, "relu", name="fc1")(pooled(x))
            ),
            r"pooled \(GlobalAveragePooling2D\), fc1 \(Dense\), logits \(Dense\)",
        ),
        (
            lambda x: models.BatchNormalization(name="logits")(
                keras.layers.Dense(4, name="linear")(pooled(x))
            ),
            r"pooled \(GlobalAveragePooling2D\), linear \(Dense\), logits \(BatchNormalization\)",
        ),
        (
            lambda x: keras.layers.Dense(4, name="logits")(
                keras.layers.GlobalMaxPooling2D(name="top")(x)
            ),
            r"top \(GlobalMaxPooling2D\), logits \(Dense\)",
        ),
        (lambda x: keras.layers.Dense(4, use_bias=False, name="logits")(pooled(x)), "pooled"),
        (lambda x: keras.layers.Dense(4, "relu", name="logits")(pooled(x)), "pooled"),
    ],
)
def test_a_head_that_the_expansion_does_not_merge_into_is_refused(head, found):
    message = (
        rf"norm: found {found}.* between 'pre_pool' and the logits of student 'student', wanted "
        "GlobalAveragePooling2D and a Dense layer with a bias"
    )
    with pytest.raises(TfkdError, match=message):
        Distiller(runs.network("teacher", 6), student_with(head), NORM())


def test_a_classifier_that_is_used_twice_is_refused():
    image = keras.Input((8, 8, 3))
    first = keras.layers.Conv2D(3, 3, name="early")(image)
    last = keras.layers.Conv2D(3, 3, padding="same", name="pre_pool")(first)
    dense = keras.layers.Dense(4, name="classifier")
    outputs = {
        "exit1": dense(keras.layers.GlobalAveragePooling2D()(first)),
        "logits": dense(keras.layers.GlobalAveragePooling2D()(last)),
    }
    student = keras.Model(image, outputs, name="student")
    with pytest.raises(TfkdError, match="norm: found .*classifier .* used once"):
        Distiller(runs.network("teacher", 6), student, NORM())


def test_dropout_before_the_classifier_merges():
    student = student_with(
        lambda x: keras.layers.Dense(4, name="logits")(
            keras.layers.Dropout(0.5)(keras.layers.Flatten()(pooled(x, keepdims=True)))
        )
    )
    distiller = Distiller(runs.network("teacher", 6), student, NORM(normalize_logits=False))
    assert_merged(distiller, {k: runs.arrays()[k] for k in ("image", "label")})


def test_vectors_and_unknown_sizes_are_refused_with_their_taps():
    with pytest.raises(TfkdError, match="norm: found student tap 'pooled' of shape 4, wanted a"):
        Distiller(runs.network("teacher", 6), runs.network("student"), NORM(student_tap="pooled"))
    student = models.create("resnet8", num_classes=4, input_shape=(None, None, 3))
    message = (
        r"norm: found student tap 'pre_pool' of shape \? x \? x 64 and teacher tap 'pre_pool' of "
        "shape 4 x 4 x 6, wanted a known height and width of both"
    )
    with pytest.raises(TfkdError, match=message):
        Distiller(runs.network("teacher", 6), student, NORM())


def test_a_label_loss_that_does_not_see_the_expansion_is_refused():
    message = "^norm beside sskd: found that sskd has a label loss of its own, of the student's own"
    with pytest.raises(TfkdError, match=message):
        runs.distiller_of(SSKD(), NORM())
    # That of MLD sees it.
    distiller = runs.distiller_of(MLD(), NORM(normalize_logits=False), eager=True)
    contraction = distiller.objectives[1].contract.trainable_variables
    before = [np.array(each) for each in contraction]
    distiller.fit(runs.batches("image_strong").take(1), verbose=0)
    for variable, value in zip(contraction, before, strict=True):
        assert np.any(np.array(variable) != value)


def test_another_comparison_of_logits_is_told_of():
    message = "^kd beside norm compares logits that norm rescales with a teacher's that are not"
    with pytest.warns(TfkdWarning, match=message):
        runs.distiller_of(KD(), NORM())
    with warnings.catch_warnings():
        warnings.simplefilter("error", TfkdWarning)
        runs.distiller_of(KD(), NORM(normalize_logits=False))
        runs.distiller_of(SRRL(), NORM())  # The teacher's logits alone.


def test_phases_that_do_not_go_together_are_refused():
    with pytest.raises(TfkdError, match=r"norm: found phase_epochs=\(20.0, 10.0\), wanted rising"):
        NORM(phase_epochs=(20, 10), phase_factors=(1, 1, 1))
    with pytest.raises(TfkdError, match="found 5 phase_factors and 2 phase_epochs, wanted one"):
        NORM(phase_epochs=(10, 20))
    with pytest.raises(TfkdError, match="norm: found temperature=2.0 with kd_weight=0, where it"):
        NORM(temperature=2.0)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_mixed_precision_merges_and_has_float32_losses(dtype):
    keras.config.set_dtype_policy(f"mixed_{dtype}")
    try:
        networks = runs.network("teacher", 6), runs.network("student")
        distiller = Distiller(*networks, NORM(kd_weight=0.5, normalize_logits=False))
    finally:
        keras.config.set_dtype_policy("float32")
    distiller.compile(keras.optimizers.SGD(0.05), run_eagerly=True)
    data = runs.arrays()
    batch = {key: data[key] for key in ("image", "label")}
    distiller.train_on_batch(batch["image"], batch["label"])
    context = distiller.forward(batch, training=True)
    losses = distiller.objectives[0].compute(context)
    assert all(each.dtype == tf.float32 and np.isfinite(each) for each in losses.values())
    assert context.scratch["norm"].dtype == dtype
    wanted = distiller.forward(batch, training=False).student().numpy()
    found = distiller.clean_student().model(batch["image"])
    np.testing.assert_allclose(found, wanted, rtol=0.05, atol=0.05 * np.abs(wanted).max())
