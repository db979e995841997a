"""PKKD: its losses on published-form numbers, and two networks that learn from one batch."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfkd
from tests.distillers import runs
from tests.distillers.logit_oracles import NUM_CLASSES
from tfkd.distillers import PKKD, PKKDDistiller, blend_loss
from tfkd.distillers.pkkd.kernels import kernel_response
from tfkd.training import optimizers, schedules

STUDENT, TEACHER = [[1.0, 0.0, -1.0]], [[2.0, 0.5, -0.5]]
BLENDED = {0.1: 0.478040, 0.5: 0.759775, 1: 1.111945, 5: 3.929300, 10: 7.450994}


@pytest.mark.parametrize("soft_weight", BLENDED)
def test_published_blend(soft_weight):
    """Oracle D, computed apart from tfkd in float64."""
    logits = tf.constant(STUDENT, tf.float64)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        loss = blend_loss(logits, tf.constant(TEACHER, tf.float64), [0], soft_weight)
    np.testing.assert_allclose(loss, [BLENDED[soft_weight]], rtol=0, atol=1e-6)
    if soft_weight == 1:
        wanted = [[-0.435675, 0.318504, 0.117171]]
        np.testing.assert_allclose(tape.gradient(loss, logits), wanted, rtol=0, atol=1e-6)


def test_temperature_softens_and_keeps_the_size_of_the_gradient():
    def gradient(temperature):
        logits = tf.constant(STUDENT, tf.float64)
        with tf.GradientTape() as tape:
            tape.watch(logits)
            loss = blend_loss(logits, tf.constant(TEACHER, tf.float64), [0], 1.0, temperature)
            loss -= blend_loss(logits, tf.constant(TEACHER, tf.float64), [0], 0.0)
        return tape.gradient(loss, logits).numpy()

    soft, softer = gradient(1e3), gradient(2e3)
    np.testing.assert_allclose(soft, softer, rtol=1e-2)
    difference = np.array(STUDENT) - np.array(TEACHER)
    np.testing.assert_allclose(soft, (difference - difference.mean()) / 3, rtol=1e-2)


def network(name="student", width=4, filters=None):
    """A stem and two residual blocks, smooth, so that rounding turns nothing on or off."""
    image = keras.Input((8, 8, 3), name="image")
    hidden = keras.layers.Conv2D(width, 3, 2, "same", activation="silu", name="stem")(image)
    for block in (1, 2):
        features = hidden
        for number in (1, 2):
            size = filters or width
            features = keras.layers.Conv2D(
                size if (block, number) == (2, 2) else width,
                3,
                padding="same",
                use_bias=False,
                name=f"block{block}_conv{number}",
            )(features)
            features = tfkd.models.BatchNormalization(name=f"block{block}_bn{number}")(features)
            features = keras.layers.Activation("silu")(features)
        if features.shape[-1] != width:
            hidden = keras.layers.Conv2D(filters, 1, name="short")(hidden)
        hidden = keras.layers.Add(name=f"block{block}")([hidden, features])
    pooled = keras.layers.GlobalAveragePooling2D(name="pooled")(hidden)
    logits = keras.layers.Dense(NUM_CLASSES, dtype="float32", name="logits")(pooled)
    return keras.Model(image, logits, name=name)


def distiller_of(optimizer=None, teacher_optimizer=None, eager=True, **settings):
    """A distiller of two networks of fixed weights; these few small steps need no compiling."""
    keras.utils.set_random_seed(7)
    networks = network("teacher"), network()
    loss = PKKD(**settings)
    kind = loss.distiller_class or tfkd.Distiller
    distiller = kind(*networks, loss, 0.5)
    further = {} if teacher_optimizer is None else {"teacher_optimizer": teacher_optimizer}
    optimizer = optimizer or keras.optimizers.SGD(0.05, momentum=0.9)
    distiller.compile(optimizer, run_eagerly=eager, **further)
    return distiller


def values(variables):
    return [np.array(variable) for variable in variables]


def batch():
    return next(iter(runs.batches("sample_weight")))


def losses_of(distiller, **changes):
    """The context and the losses of one batch, in training mode, outside of a step."""
    context = distiller.forward({**batch(), **changes}, training=True)
    return context, distiller.combine(context)


@pytest.mark.parametrize(
    "kernel, relative", [("two", True), ("two", False), ("same", True), ("none", True)]
)
def test_middle_loss_is_the_formula(kernel, relative):
    """Against NumPy, with sample weights, from the raw outputs of the two networks."""
    settings = {"relative_tau": relative, "rho": False, "middle_weight": 3.0}
    distiller = distiller_of(kernel=kernel, **settings)
    context, outcome = losses_of(distiller)
    weights = batch()["sample_weight"].numpy()
    wanted = 0.0
    for name in ("block1_conv2", "block2_conv2"):
        student, teacher = (
            context.output(each, name, stop_gradient=False).numpy().astype("float64")
            for each in ("student", "teacher")
        )
        fan_in = 3 * 3 * 4
        if kernel != "none":
            size = np.sqrt(np.mean(teacher**2)) if relative else 1.0
            student = np.exp(student / fan_in)
            teacher = np.exp(teacher / (4.0 * size if kernel == "two" else fan_in))
        wanted += np.mean(weights[:, None, None, None] * (student - teacher) ** 2)
    found = outcome.terms["pkkd"].losses["middle"]
    np.testing.assert_allclose(found, 3.0 * wanted, rtol=1e-5)


def test_total_is_that_of_the_algorithm():
    distiller = distiller_of(soft_weight=2.0)
    _, outcome = losses_of(distiller)
    names = distiller.loss_names()
    value = dict(zip(names, outcome.values.numpy()))
    assert names[-2:] == ["teacher_loss", "teacher_accuracy"]
    for name, loss in outcome.terms["pkkd"].losses.items():
        np.testing.assert_allclose(value[f"pkkd/{name}"], 0.5 * loss, rtol=1e-6)
    total = value["student_loss"] + value["pkkd/middle"] + value["pkkd/soft"]
    np.testing.assert_allclose(outcome.total, total, rtol=1e-6)
    logits = distiller.teacher(batch()["image"], training=True)
    entropy = keras.losses.sparse_categorical_crossentropy(
        batch()["label"], logits, from_logits=True
    )
    wanted = np.mean(batch()["sample_weight"] * entropy)
    np.testing.assert_allclose(outcome.teacher_loss, wanted, rtol=1e-6)


def test_linear_maps_begin_as_the_identity_and_are_learned():
    plain, mapped = (distiller_of(rho=rho) for rho in (False, True))
    (_, without), (_, with_maps) = losses_of(plain), losses_of(mapped)
    np.testing.assert_allclose(with_maps.values, without.values, rtol=1e-6)
    own = mapped.objectives[0]
    assert [variable.shape for variable in own.trainable_variables] == [
        (2,), (4, 4), (4,), (4, 4), (4,),
    ]  # fmt: skip
    assert not plain.objectives[0].student_maps
    before = values(own.trainable_variables)
    mapped.fit(runs.batches("sample_weight"), verbose=0)
    for now, then in zip(own.trainable_variables, before):
        assert np.any(np.array(now) != then)


def test_maps_of_both_sides_compare_standardized_channels():
    distiller = distiller_of(teacher_rho=True)
    assert len(distiller.objectives[0].trainable_variables) == 9
    context, _ = losses_of(distiller)
    for features in distiller.objectives[0]._compared(context, 0):
        np.testing.assert_allclose(np.mean(features, (0, 1, 2)), np.zeros(4), atol=1e-3)
        np.testing.assert_allclose(np.var(features, (0, 1, 2)), np.ones(4), rtol=1e-3)


def test_size_of_the_teacher_s_outputs_is_arbitrary():
    """A convolution before a normalization may be scaled; a relative scale does not see it."""
    found = {}
    for relative in (True, False):
        for factor in (1.0, 3.0):
            distiller = distiller_of(relative_tau=relative)
            for name in ("block1_conv2", "block2_conv2"):
                kernel = distiller.teacher.get_layer(name).kernel
                kernel.assign(factor * kernel)
            losses = losses_of(distiller)[1].terms["pkkd"].losses
            found[relative, factor] = losses["middle"].numpy(), losses["soft"].numpy()
    np.testing.assert_allclose(found[True, 3.0], found[True, 1.0], rtol=1e-3)
    assert found[False, 3.0][0] > 1.5 * found[False, 1.0][0]


def test_scales_start_at_the_fan_in():
    np.testing.assert_allclose(np.exp(distiller_of().objectives[0].log_tau), [36, 36], rtol=1e-6)
    fixed = distiller_of(student_tau=5.0, learn_tau=False).objectives[0]
    np.testing.assert_allclose(np.exp(fixed.log_tau), [5, 5], rtol=1e-6)
    assert all(each is not fixed.log_tau for each in fixed.trainable_variables)
    assert not hasattr(distiller_of(kernel="none").objectives[0], "log_tau")


def test_neither_loss_reaches_the_other_network():
    """Oracle E."""
    distiller = distiller_of()
    student = [*distiller.student.trainable_variables, *distiller.objectives[0].trainable_variables]
    teacher = distiller.teacher.trainable_variables
    with tf.GradientTape(persistent=True) as tape:
        _, outcome = losses_of(distiller)
    assert teacher and all(g is None for g in tape.gradient(outcome.total, teacher))
    assert all(g is None for g in tape.gradient(outcome.teacher_loss, student))
    assert all(g is not None for g in tape.gradient(outcome.total, student))
    assert all(g is not None for g in tape.gradient(outcome.teacher_loss, teacher))


def test_each_network_runs_once_in_training_mode(monkeypatch):
    distiller = distiller_of()
    modes = {"student": [], "teacher": []}
    for name, model in (("student", distiller.student), ("teacher", distiller.teacher)):
        layer = model.get_layer("block1_bn1")
        call = type(layer).call

        def counted(inputs, training=None, *, name=name, layer=layer, call=call, **kwargs):
            modes[name].append(training)
            return call(layer, inputs, training=training, **kwargs)

        monkeypatch.setattr(layer, "call", counted)
    distiller.fit(runs.batches("sample_weight").take(2), verbose=0)
    assert modes == {"student": [True, True], "teacher": [True, True]}


def test_step_is_two_updates_from_the_gradients_before_either():
    """Two SGD steps by hand: what the teacher learns in a step reaches the student in the next."""
    by_hand, distiller = (
        distiller_of(keras.optimizers.SGD(0.1), keras.optimizers.SGD(2.0)) for _ in range(2)
    )
    student, teacher = by_hand.trained_variables, by_hand.teacher.trainable_variables
    for _ in range(2):
        with tf.GradientTape(persistent=True) as tape:
            _, outcome = losses_of(by_hand)
        gradients = tape.gradient(outcome.total, student)
        own = tape.gradient(outcome.teacher_loss, teacher)
        for rate, pairs in ((2.0, zip(own, teacher)), (0.1, zip(gradients, student))):
            for gradient, variable in pairs:
                variable.assign_sub(rate * gradient)
    repeated = tf.data.Dataset.from_tensors(batch()).repeat(2)
    before = values(distiller.teacher.trainable_variables)
    distiller.fit(repeated, verbose=0)
    pairs = [
        *zip(distiller.trained_variables, student),
        *zip(distiller.teacher.trainable_variables, teacher),
    ]
    for found, wanted in pairs:
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-6)
    for now, then in zip(distiller.teacher.trainable_variables, before):
        assert np.any(np.array(now) != then)


def test_teacher_trains_as_it_does_alone():
    """The student and the losses leave no trace in it."""
    distiller = distiller_of()
    keras.utils.set_random_seed(7)
    alone = tfkd.Distiller(None, network("teacher"))
    alone.compile(keras.optimizers.SGD(0.05, momentum=0.9), run_eagerly=True)
    history, own = (
        each.fit(runs.batches("sample_weight"), verbose=0).history for each in (distiller, alone)
    )
    for found, wanted in zip(distiller.teacher.variables, alone.student.variables, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(history["teacher_loss"], own["student_loss"], rtol=1e-5)


def test_accuracy_of_the_teacher_is_logged():
    distiller = distiller_of(eager=False)
    data = runs.batches()
    history = distiller.fit(data, verbose=0, validation_data=data).history
    for kind in ("full", "lean"):
        distiller.evaluate_distillation = kind == "full"
        distiller = distiller if kind == "full" else lean(distiller)
        found = distiller.evaluate(data, verbose=0, return_dict=True)
        logits = [distiller.teacher(each["image"], training=False) for each in data]
        matches = [np.argmax(own, -1) == each["label"] for own, each in zip(logits, data)]
        np.testing.assert_allclose(found["teacher_accuracy"], np.mean(matches), rtol=1e-6)
        assert ("pkkd/middle" in found) == (kind == "full")
        np.testing.assert_allclose(
            history["val_teacher_loss"][-1], found["teacher_loss"], rtol=1e-6
        )


def lean(distiller):
    """The same networks in a distiller that evaluates no losses."""
    made = PKKDDistiller(distiller.teacher, distiller.student, PKKD(), evaluate_distillation=False)
    made.compile(run_eagerly=True)
    return made


def test_optimizer_of_the_teacher_is_one_like_the_student_s():
    schedule = schedules.create({"name": "cosine"}, base_rate=0.1, steps_per_epoch=3, epochs=4)
    settings = {"name": "sgd", "momentum": 0.9, "decay_exclude": ("*/log_tau",)}
    settings["weight_decay"] = 5e-4
    distiller = distiller_of(optimizers.create(settings, schedule))
    own, other = distiller.optimizer, distiller.teacher_optimizer
    assert other is not own and other.get_config() == own.get_config()
    decays = dict(zip([each.path for each in distiller.trained_variables], own._decays))
    assert [path for path, decayed in decays.items() if not decayed] == ["pkkd/log_tau"]
    distiller.fit(runs.batches("sample_weight"), epochs=2, verbose=0)
    assert int(own.iterations) == int(other.iterations) == 6
    np.testing.assert_allclose(other.learning_rate, own.learning_rate)
    named = [name for name in distiller.state() if name.startswith("teacher_optimizer/")]
    assert len(named) == len(other.variables) > len(distiller.teacher.trainable_variables)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_mixed_precision(dtype):
    keras.config.set_dtype_policy(f"mixed_{dtype}")
    try:
        distiller = distiller_of()
    finally:
        keras.config.set_dtype_policy("float32")
    scaled = isinstance(distiller.teacher_optimizer, keras.optimizers.LossScaleOptimizer)
    assert scaled == (dtype == "float16")
    context, _ = losses_of(distiller)
    assert context.student("block1_conv2").dtype == dtype
    compared = distiller.objectives[0]._compared(context, 0)
    assert all(each.dtype == tf.float32 for each in compared)
    wanted = kernel_response(context.student("block1_conv2"), tf.math.log(36.0))
    np.testing.assert_allclose(compared[0], wanted, rtol=1e-5)
    watched = [*distiller.student.trainable_variables, *distiller.teacher.trainable_variables]
    before = values(watched)
    history = distiller.fit(runs.batches("sample_weight"), verbose=0).history
    assert all(np.isfinite(logged).all() for logged in history.values())
    assert all(np.any(np.array(now) != then) for now, then in zip(watched, before))


def test_trained_teacher_may_stay_as_it_is():
    distiller = distiller_of(progressive=False)
    assert type(distiller) is tfkd.Distiller
    (frozen,) = distiller.teachers
    # What is compared is still the raw output: those layers keep their normalization.
    assert {"block1_bn2", "block2_bn2"} <= {
        layer.name for layer in frozen.layers
        if isinstance(layer, keras.layers.BatchNormalization)
    }  # fmt: skip
    before = frozen.get_weights()
    history = distiller.fit(runs.batches("sample_weight"), epochs=2, verbose=0).history
    assert history["pkkd/middle"][-1] < history["pkkd/middle"][0]
    for now, then in zip(frozen.get_weights(), before):
        np.testing.assert_array_equal(now, then)
    with pytest.raises(tfkd.TfkdError, match="found no loss that trains the teacher"):
        PKKDDistiller(network("teacher"), network(), PKKD(progressive=False))
    with pytest.raises(tfkd.TfkdError, match="pkkd has a training step of its own"):
        tfkd.Distiller(network("teacher"), network(), PKKD())


def test_student_is_saved_alone(tmp_path):
    distiller = distiller_of()
    distiller.fit(runs.batches("sample_weight"), verbose=0)
    distiller.save(tmp_path / "student.keras")
    loaded = keras.models.load_model(tmp_path / "student.keras")
    assert loaded.count_params() == network().count_params()
    images = batch()["image"]
    np.testing.assert_allclose(loaded(images), distiller.student(images), rtol=1e-5, atol=1e-6)


def test_fits_beside_another_loss_and_on_arrays():
    losses = [tfkd.distillers.create("pkkd", positions=["block2_conv2"]), tfkd.distillers.KD()]
    distiller = PKKDDistiller(network("teacher"), network(), losses, [1.0, 0.5])
    distiller.compile(keras.optimizers.SGD(0.05), teacher_optimizer="adam", run_eagerly=True)
    images = np.random.default_rng(0).normal(size=(8, 8, 8, 3)).astype("float32")
    history = distiller.fit(images, np.arange(8) % 4, batch_size=4, verbose=0).history
    assert {"pkkd/middle", "pkkd/soft", "kd", "teacher_accuracy"} <= set(history)
    assert isinstance(distiller.teacher_optimizer, keras.optimizers.Adam)


def test_map_of_the_teacher_alone_is_refused():
    with pytest.raises(tfkd.TfkdError, match="teacher_rho=True with rho=False, wanted rho=True"):
        PKKD(teacher_rho=True, rho=False)


def test_networks_that_do_not_fit_are_refused():
    def make(teacher, student, *names):
        return PKKDDistiller(teacher, student, PKKD(positions=names))

    with pytest.raises(tfkd.TfkdError, match="found block2_conv2 of the student with shape"):
        make(network("teacher", filters=6), network())
    flat = tfkd.models.create("resnet8", NUM_CLASSES, (8, 8, 3))
    with pytest.raises(tfkd.TfkdError, match="found 2 layers of the student .* and 3 of the teach"):
        make(flat, network())
    with pytest.raises(tfkd.TfkdError, match="unknown tap of model 'student' 'block3_conv2'"):
        make(network("teacher"), network(), "block3_conv2")
    with pytest.raises(tfkd.TfkdError, match="found 2 teachers|name one of them"):
        make([network("one"), network("two")], network())
    with pytest.raises(tfkd.TfkdError, match="need a teacher: found None"):
        make(None, network())
