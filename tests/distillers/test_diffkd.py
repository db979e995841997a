"""DiffKD: numbers computed apart, what each loss trains, shapes of modules, maps of two sizes."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from configs.cifar100 import PAIRS
from tests.distillers import runs
from tests.distillers.contexts import context_of, spec_of
from tests.distillers.pair_features import ORACLES, shapes_of
from tfkd.distillers.diffkd import DiffKD
from tfkd.distillers.diffkd.diffusion import (
    diffusion_loss,
    mixed,
    noisy,
    refined,
    refinement_times,
    signal_shares,
)
from tfkd.distillers.diffkd.modules import Connector, Denoiser
from tfkd.errors import TfkdError

ORACLE = ORACLES["diffkd"]
TOLERANCES = {"float64": {"rtol": 0, "atol": 1e-6}, "float32": {"rtol": 1e-5, "atol": 1e-5}}
DTYPES = pytest.mark.parametrize("dtype", ["float64", "float32"])


def case(name: str, dtype: str = "float32") -> tuple[dict, dict]:
    """Inputs, as tensors of a type, and expected values of a case."""
    given = {
        key: tf.constant(value, tf.int32 if key == "t" else dtype)
        for key, value in ORACLE[name]["inputs"].items()
    }
    return given, ORACLE[name]["expected"]


def toy(maps, times):
    """The noise predictor of the published cases: 0.5 maps + 0.001 times."""
    times = tf.reshape(tf.cast(times, maps.dtype), (-1, 1, 1, 1))
    return 0.5 * maps + 0.001 * times


# Noise and its removal.


def test_published_schedule():
    given, expected = ORACLE["scheduler"]["inputs"], ORACLE["scheduler"]["expected"]
    shares = signal_shares()
    assert shares.shape == (given["num_train"],)
    np.testing.assert_allclose(shares[given["t"]], expected["alpha_bar"], atol=1e-6)
    times = refinement_times(given["inference_steps"])
    assert times == expected["timesteps"]
    assert [*times[1:], times[-1] - 100] == expected["previous"]


@DTYPES
def test_published_refinement(dtype):
    given, expected = case("noise_mix_and_ddim", dtype)
    start = mixed(given["feature"], given["noise"], given["gamma"])
    np.testing.assert_allclose(start, expected["mixed"], **TOLERANCES[dtype])
    found = refined(start, toy)
    assert found.dtype == dtype
    np.testing.assert_allclose(found, expected["refined"], **TOLERANCES[dtype])


@DTYPES
def test_published_diffusion_loss(dtype):
    given, expected = case("noise_prediction_loss", dtype)
    arguments = given["teacher"], given["noise"], given["t"]
    np.testing.assert_allclose(noisy(*arguments), expected["noisy"], **TOLERANCES[dtype])
    loss = diffusion_loss(*arguments, toy)
    assert loss.shape == (2,)
    np.testing.assert_allclose(tf.reduce_mean(loss), expected["loss"], **TOLERANCES[dtype])


@pytest.mark.parametrize("steps", [1, 3, 500])
def test_refinement_takes_the_papers_steps(steps):
    """Each step forms the clean maps, and adds as much of the same noise as the next time has."""
    maps = np.random.default_rng(0).normal(size=(2, 1, 1, 3))
    stride, found = 1000 // (2 * steps), maps
    for time in range((steps - 1) * stride, -1, -stride):
        now = np.prod(1 - np.linspace(1e-4, 0.02, 1000)[: time + 1])
        after = 1.0
        if time:
            after = np.prod(1 - np.linspace(1e-4, 0.02, 1000)[: time - stride + 1])
        noise = 0.3 * found + 0.001 * time
        clean = (found - np.sqrt(1 - now) * noise) / np.sqrt(now)
        found = np.sqrt(after) * clean + np.sqrt(1 - after) * noise
    predict = lambda maps, time: 0.3 * maps + 0.001 * time  # noqa: E731
    np.testing.assert_allclose(refined(tf.constant(maps), predict, steps), found, rtol=1e-9)


# Modules.


def test_published_denoiser_of_logits():
    given, expected = ORACLE["logit_denoiser"]["inputs"], ORACLE["logit_denoiser"]["expected"]
    denoiser = Denoiser(2, spatial=False, seeds=itertools.count(), name="denoiser")
    layers = denoiser.body.layers
    convolutions = [each for each in layers if isinstance(each, keras.layers.Conv2D)]
    norms = [each for each in layers if isinstance(each, keras.layers.BatchNormalization)]
    assert (len(convolutions), len(norms)) == (4, 3)
    for layer, kernel in zip(convolutions, given["kernels"]):
        layer.kernel.assign(kernel)
    convolutions[-1].bias.assign(given["biases"][-1])
    for norm, values, bias in zip(norms, given["bns"], given["biases"]):
        assert norm.epsilon == values["eps"]
        # A bias before a normalization is the same as a lower mean.
        found = values["gamma"], values["beta"], np.subtract(values["mean"], bias), values["var"]
        norm.set_weights([np.array(each) for each in found])
    denoiser.times.assign(
        tf.tensor_scatter_nd_update(denoiser.times, [[7], [900]], given["time_embedding_rows"])
    )
    found = denoiser(tf.constant(given["x"]), times=tf.constant([7, 900]), training=False)
    np.testing.assert_allclose(found, expected["noise"], atol=1e-5)


def kernels(layer: keras.layers.Layer) -> list[tuple[int, ...]]:
    """Shapes of the filters in a layer."""
    return [tuple(each.shape) for each in layer.trainable_variables if each.name == "kernel"]


def test_modules_have_the_published_shapes():
    made = Connector(5, 24, 16, itertools.count(), name="feature")
    narrow = [(1, 1, 16, 4), (3, 3, 4, 4), (1, 1, 4, 16)]
    assert kernels(made.denoiser) == [*narrow, *narrow, (1, 1, 16, 16)]
    assert kernels(made.adapter) == [(1, 1, 16, 2), (3, 3, 2, 2), (1, 1, 2, 16), (16, 2)]
    assert kernels(made.embed) == [(1, 1, 5, 16)]
    assert kernels(made.encoder) == [(1, 1, 24, 16)]
    assert kernels(made.decoder) == [(1, 1, 16, 24)]
    assert kernels(made.project) == [(1, 1, 16, 16)]
    assert made.denoiser.times.shape == (1280, 16)
    assert 0.95 < np.std(made.denoiser.times) < 1.05
    made = Connector(4, 4, None, itertools.count(), name="logits")
    assert kernels(made.denoiser) == [(1, 1, 4, 16), (1, 1, 16, 4)] * 2
    assert kernels(made.adapter) == [(1, 1, 4, 8), (1, 1, 8, 4), (4, 2)]
    assert made.encoder is None and made.decoder is None


def test_denoiser_adds_the_vector_of_the_time_to_every_pixel():
    denoiser = Denoiser(8, spatial=True, seeds=itertools.count(), name="denoiser")
    maps = tf.random.stateless_normal((3, 4, 5, 8), (0, 0))
    one = denoiser(maps, times=300, training=False)
    several = denoiser(maps, times=tf.constant([300, 300, 20]), training=False)
    np.testing.assert_allclose(several[:2], one[:2], atol=1e-6)
    assert np.abs(several[2] - one[2]).max() > 1e-2
    added = maps + denoiser.times.numpy()[300]
    np.testing.assert_allclose(denoiser.body(added, training=False), one, atol=1e-6)


def test_bottlenecks_add_to_their_input():
    block = Denoiser(8, spatial=True, seeds=itertools.count(), name="denoiser").body.layers[0]
    maps = tf.random.stateless_normal((2, 4, 4, 8), (0, 0))
    *_, last = block.branch.layers
    last.gamma.assign(tf.zeros(8))
    last.beta.assign(tf.range(8.0) - 9.0)
    # No ReLU follows.
    np.testing.assert_allclose(block(maps, training=True), maps + last.beta, atol=1e-6)


def test_connector_mixes_refines_and_projects():
    connector = Connector(3, 6, 4, itertools.count(), name="feature")
    student, noise = (
        tf.random.stateless_normal((2, 4, 4, channels), (channels, 0)) for channels in (3, 4)
    )
    embedded = connector.embed(student)
    kept, lost = tf.unstack(connector.adapter(embedded, training=False), axis=1)
    share = tf.sigmoid(kept - lost)[:, None, None, None]
    assert 0 < np.min(share) and np.max(share) < 1
    start = share * embedded + (1 - share) * noise
    maps = refined(start, lambda maps, time: connector.denoiser(maps, times=time), 3)
    wanted = connector.project(maps, training=False)
    found = connector.denoised(student, noise, 3, training=False)
    np.testing.assert_allclose(found, wanted, atol=1e-5)


# The objective.


def features(*shape: int, seed: int = 0) -> tf.Tensor:
    """Random features."""
    return tf.constant(np.random.default_rng(seed).normal(size=shape), tf.float32)


def set_up(own=(4, 4, 3), teachers=(4, 4, 6), **settings) -> tuple[DiffKD, dict]:
    """An objective with its modules, and outputs of networks for ten images."""
    objective = DiffKD(**settings)
    shapes = [{"pre_pool": (None, *each), "logits": (None, 5)} for each in (own, teachers)]
    objective.setup(spec_of(*shapes))
    outputs = {
        network: {"pre_pool": features(10, *each, seed=seed), "logits": features(10, 5, seed=seed)}
        for seed, (network, each) in enumerate((("student", own), ("teacher", teachers)))
    }
    return objective, outputs


def losses(objective: DiffKD, outputs: dict, **batch) -> dict[str, tf.Tensor]:
    """The losses of a step by name."""
    context = context_of(outputs, np.arange(10) % 5, **batch)
    return dict(objective.to_terms(objective.compute(context)).losses)


TRAINS = {
    "feature_diffusion": {"denoiser"},
    "feature_autoencoder": {"encoder", "decoder"},
    "feature_kd": {"embed", "adapter", "denoiser", "project"},
    "logits_diffusion": {"denoiser"},
    "logits_kd": {"embed", "adapter", "denoiser", "project"},
}
"""The modules that each loss trains; distances train the student as well."""


def test_each_loss_trains_its_modules():
    objective, outputs = set_up(refinement_steps=1)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(outputs)
        found = losses(objective, outputs)
    assert set(found) == set(TRAINS)
    for name, loss in found.items():
        word = name.partition("_")[0]
        trained = set()
        for each, connector in objective.connectors.items():
            for module in ("embed", "adapter", "denoiser", "project", "encoder", "decoder"):
                layer = getattr(connector, module)
                values = [v.value for v in layer.trainable_variables] if layer else []
                slopes = [slope for slope in tape.gradient(loss, values) if slope is not None]
                if slopes:
                    assert each == word
                    assert any(np.any(tf.convert_to_tensor(slope) != 0) for slope in slopes)
                    trained.add(module)
        assert trained == TRAINS[name], name
        tap = "pre_pool" if word == "feature" else "logits"
        [own, other] = tape.gradient(loss, [outputs[n][tap] for n in ("student", "teacher")])
        assert (own is not None) == name.endswith("kd"), name
        assert other is None, name


def test_weights_scale_their_losses_and_switches_leave_taps_out():
    objective, outputs = set_up(refinement_steps=1)
    usual = losses(objective, outputs)
    weights = {"diffusion_weight": 2.0, "autoencoder_weight": 3.0, "kd_weight": 0.5}
    found = losses(set_up(refinement_steps=1, **weights)[0], outputs)
    for name, value in found.items():
        factor = weights[f"{name.rpartition('_')[2]}_weight"]
        np.testing.assert_allclose(value, factor * usual[name], rtol=1e-5, err_msg=name)
    for word, off in (("feature", "use_logits"), ("logits", "use_features")):
        objective, outputs = set_up(refinement_steps=1, **{off: False})
        named = {name for name in TRAINS if name.startswith(word)}
        assert set(losses(objective, outputs)) == set(objective.term_names()) == named
        taps = [["pre_pool"] if word == "feature" else ["logits"]] * 2
        assert list(objective.requires.taps.values()) == taps
    with pytest.raises(TfkdError) as told:
        DiffKD(use_features=False, use_logits=False)
    assert str(told.value) == (
        "diffkd: found use_features=False and use_logits=False, wanted one of them"
    )


def test_latent_width_is_half_the_teachers_channels_or_as_set():
    for settings, teachers, wanted in (
        ({}, (4, 4, 6), 3),
        ({}, (4, 4, 1), 1),
        ({"latent_width": 7}, (4, 4, 6), 7),
    ):
        objective, outputs = set_up(teachers=teachers, use_logits=False, **settings)
        assert kernels(objective.connectors["feature"].encoder) == [(1, 1, teachers[-1], wanted)]
        latent = objective.connectors["feature"].encoder(outputs["teacher"]["pre_pool"])
        assert latent.shape == (10, 4, 4, wanted)


@pytest.mark.parametrize(
    "own, teachers, common",
    [
        ((4, 4, 3), (2, 2, 6), (2, 2)),
        ((2, 2, 3), (4, 4, 6), (2, 2)),
        ((2, 4, 3), (6, 2, 6), (2, 2)),
    ],
)
def test_maps_of_two_sizes_meet_at_the_smaller(own, teachers, common):
    objective, outputs = set_up(own, teachers, use_logits=False)

    def averaged(maps):
        rows, columns = (maps.shape[1] // common[0], maps.shape[2] // common[1])
        blocks = tf.reshape(maps, (10, common[0], rows, common[1], columns, -1))
        return {"pre_pool": tf.reduce_mean(blocks, axis=(2, 4))}

    found = losses(objective, outputs)
    small = {network: averaged(each["pre_pool"]) for network, each in outputs.items()}
    for name, value in losses(objective, small).items():
        np.testing.assert_allclose(found[name], value, rtol=1e-4, err_msg=name)


def test_last_maps_of_every_published_pair_are_bridged():
    for teacher, student in PAIRS:
        own, other = (list(shapes_of(each).values())[-2][1:] for each in (student, teacher))
        objective, outputs = set_up(own, other, use_logits=False, refinement_steps=1)
        few = {network: {"pre_pool": taps["pre_pool"][:2]} for network, taps in outputs.items()}
        found = objective.compute(context_of(few, [0, 1]))
        assert all(np.isfinite(value) for value in found.values()), (teacher, student)


def test_feature_that_is_no_map_is_refused():
    for settings, message in (
        ({"student_tap": "pooled"}, "found student tap 'pooled' of shape 4, wanted a feature map"),
        ({"teacher_tap": "pooled"}, "found teacher tap 'pooled' of shape 6, wanted a feature map"),
    ):
        with pytest.raises(TfkdError, match=f"^diffkd: {message}"):
            runs.distiller_of(DiffKD(**settings))


def test_noise_is_a_function_of_the_step():
    found = []
    data = {key: value[:8] for key, value in runs.arrays().items()}
    for step in (0, 0, 1):
        distiller = runs.distiller_of(DiffKD(refinement_steps=1), eager=True)
        distiller.clock.step.assign(step)
        logged, again = (
            distiller.evaluate(runs.batches(data=data), verbose=0, return_dict=True)
            for _ in range(2)
        )
        assert logged == again
        found.append(np.array([logged[f"diffkd/{name}"] for name in TRAINS]))
    np.testing.assert_array_equal(found[1], found[0])
    changed = found[2] != found[0]
    assert changed.tolist() == [not name.endswith("autoencoder") for name in TRAINS]


@pytest.mark.parametrize("word", ["feature", "logits"])
def test_times_span_all_steps_and_what_is_predicted_is_a_noise_of_its_own(word, monkeypatch):
    seen = {}
    denoised = Connector.denoised

    def started(self, student, noise, steps, training):
        seen["start"] = np.array(noise)
        return denoised(self, student, noise, steps, training)

    def predicted(latent, noise, times, predict):
        seen["noise"], seen["times"] = np.array(noise), np.array(times)
        return diffusion_loss(latent, noise, times, predict)

    monkeypatch.setattr(Connector, "denoised", started)
    monkeypatch.setattr("tfkd.distillers.diffkd.objective.diffusion_loss", predicted)
    other = {"feature": "use_logits", "logits": "use_features"}[word]
    losses(*set_up(refinement_steps=1, **{other: False}))
    times = seen["times"]
    assert times.shape == (10,) and 0 <= times.min() < 500 < times.max() < 1000
    assert len(set(times.tolist())) > 5
    assert seen["start"].shape == seen["noise"].shape
    assert abs(np.corrcoef(seen["start"].ravel(), seen["noise"].ravel())[0, 1]) < 0.5


def test_sample_weights_weigh_their_images():
    objective, outputs = set_up(refinement_steps=1)
    weight = np.random.default_rng(0).uniform(0.5, 1.5, 10).astype("float32")
    first = np.arange(10, dtype="float32") < 5
    # The statistics of a batch do not depend on weights, so that losses add up over its images.
    whole, *parts = (
        losses(objective, outputs, sample_weight=weight * chosen) for chosen in (1, first, ~first)
    )
    for name, value in losses(objective, outputs, sample_weight=2 * weight).items():
        np.testing.assert_allclose(value, 2 * whole[name], rtol=1e-5, err_msg=name)
        np.testing.assert_allclose(
            parts[0][name] + parts[1][name], whole[name], rtol=1e-5, err_msg=name
        )
        assert parts[0][name] > 0 and parts[1][name] > 0


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_losses_are_float32_under_mixed_precision(dtype):
    keras.config.set_dtype_policy(f"mixed_{dtype}")
    try:
        distiller = runs.distiller_of(DiffKD(refinement_steps=2), learning_rate=0.01, eager=True)
    finally:
        keras.config.set_dtype_policy("float32")
    [objective] = distiller.objectives
    context = distiller.forward(next(iter(runs.batches())), training=True)
    assert context.student("pre_pool").dtype == dtype
    terms = objective.to_terms(objective.compute(context))
    assert {each.dtype for each in terms.losses.values()} == {tf.float32}
    logged = distiller.train_on_batch(next(iter(runs.batches())), return_dict=True)
    assert all(np.isfinite(value) for value in logged.values())


def test_partial_last_batch_draws_noise_of_its_own_size():
    objective, outputs = set_up(refinement_steps=1)
    few = {name: {tap: rows[:3] for tap, rows in taps.items()} for name, taps in outputs.items()}
    context = context_of(few, [0, 1, 2])
    for name, value in objective.compute(context).items():
        assert value.shape == () and np.isfinite(value), name
