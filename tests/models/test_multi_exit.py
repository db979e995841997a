"""Exits put on networks that have none."""

from pathlib import Path

import keras
import numpy as np
import pytest

from tfkd import TfkdError, models

OWN = f"{Path(__file__).parents[1] / 'fixtures' / 'user_networks.py'}:build"
IMAGES = np.random.default_rng(0).normal(size=(2, 16, 16, 3)).astype("float32")


def resnet():
    return models.create("resnet8", 7, (16, 16, 3))


def nested():
    """A backbone inside of another model, as transfer learning has it."""
    image = keras.Input((16, 16, 3))
    first = keras.layers.Conv2D(4, 3, 2, "same", name="conv1")(image)
    second = keras.layers.Conv2D(6, 3, 2, "same", activation="silu", name="conv2")(first)
    backbone = keras.Model(image, second, name="backbone")
    pooled = keras.layers.GlobalAveragePooling2D(name="pooled")
    logits = keras.layers.Dense(7, name="scores")
    return keras.Sequential([keras.Input((16, 16, 3)), backbone, pooled, logits], name="whole")


@pytest.mark.parametrize(
    ("make", "taps", "head"),
    [
        (resnet, ["stage1", "stage2", "pooled"], "linear"),
        (resnet, ["stem", "stage2"], "convolutions"),
        (nested, ["backbone/conv1", "backbone", "pooled"], "linear"),
    ],
)
def test_exits_are_heads_on_the_taps_of_the_same_network(make, taps, head, tmp_path):
    model = make()
    made = models.multi_exit(model, taps, head, seed=1)
    assert models.exits(made) == (*(f"exit{n}" for n in range(1, len(taps) + 1)), "logits")
    assert {id(v) for v in model.variables} < {id(v) for v in made.variables}
    found, wanted = made(IMAGES), models.tapped(model, [*taps, "logits"])(IMAGES)
    np.testing.assert_allclose(found["logits"], wanted["logits"], rtol=1e-5, atol=1e-6)
    for number, tap in enumerate(taps if head == "linear" else (), start=1):
        features = np.asarray(wanted[tap])
        pooled = features.mean((1, 2)) if features.ndim == 4 else features
        kernel, bias = made.get_layer(f"exit{number}").get_weights()
        np.testing.assert_allclose(
            found[f"exit{number}"], pooled @ kernel + bias, rtol=1e-4, atol=1e-5
        )
    models.stock(made).save(tmp_path / "exits.keras")
    loaded = keras.models.load_model(tmp_path / "exits.keras")
    assert models.exits(loaded) == models.exits(made)
    for exit, logits in loaded(IMAGES).items():
        np.testing.assert_allclose(logits, found[exit], rtol=1e-4, atol=1e-5)


def test_heads_start_from_their_seed():
    model = resnet()

    def starts(seed):
        made = models.multi_exit(model, ["stem", "stage2"], "convolutions", seed=seed)
        own = {id(v) for v in model.variables}
        return [np.array(v) for v in made.trainable_variables if id(v) not in own]

    first, again, other = starts(3), starts(3), starts(4)
    for one, two in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, two)
    assert not any(np.array_equal(one, two) for one, two in zip(first, other) if one.ndim > 1)
    # Two heads of one shape: their convolutions 128 to 128.
    inner = [each for each in first if each.shape == (3, 3, 128, 128)]
    assert len(inner) == 2 and not np.array_equal(*inner)
    np.testing.assert_allclose(np.std(inner[0]), np.sqrt(2 / (9 * 128)), rtol=0.02)


def test_a_head_may_be_a_function():
    def head(features, num_classes, name):
        flat = keras.layers.Flatten(name=f"{name}_flat")(features)
        return keras.layers.Dense(num_classes, name=name)(flat)

    made = models.multi_exit(resnet(), ["stage1"], head)
    assert made.get_layer("exit1_flat").output.shape == (None, 16 * 16 * 16)
    for wrong, message in (
        (lambda features, num_classes, name: features, r"gives \(None, 16, 16, 16\); wanted logit"),
        (lambda features, num_classes, name: 3, "gives int; wanted logits"),
        (lambda features: features, "the head at 'stage1' failed: .* unexpected keyword"),
    ):
        with pytest.raises(TfkdError, match=message):
            models.multi_exit(resnet(), ["stage1"], wrong)


def test_a_config_names_the_network_its_taps_and_its_head():
    made = models.create(
        "multi_exit", 5, (16, 16, 3), of="resnet8", of_kwargs={"widths": (4, 4, 8, 8)}
    )
    assert models.exits(made) == ("exit1", "exit2", "logits")
    assert made.get_layer("exit2_pooled").input.name == made.get_layer("stage2").output.name
    named = models.create("multi_exit", 5, (16, 16, 3), of="vgg8", taps=["stage3"], head="linear")
    assert models.exits(named) == ("exit1", "logits") and named.name == "multi_exit"
    own = models.create("multi_exit", 5, (16, 16, 3), of=OWN, taps=["last_maps"])
    assert own.get_layer("exit1_pooled").input.name == own.get_layer("last_maps").output.name
    for kwargs, message in (
        ({"of": "resnet9"}, "unknown network 'resnet9'"),
        ({"of": 3}, "network 'multi_exit': of: found 3, wanted a string"),
        ({"of": "msdnet"}, "found the outputs exit1, exit2, exit3, logits; wanted the logits al"),
        ({"taps": 3}, "network 'multi_exit': taps: found 3, wanted a list of strings"),
        (
            {"of": OWN},
            "found no two taps called stage1, .*; wanted taps=.*, the layers where exits",
        ),
    ):
        with pytest.raises(TfkdError, match=message):
            models.create("multi_exit", 5, (16, 16, 3), **kwargs)


@pytest.mark.parametrize(
    ("taps", "head", "message"),
    [
        (["stage1", "stage9"], "linear", "unknown tap of model 'resnet8' 'stage9'; did you mean"),
        (["stage2", "stage1"], "linear", "tap 'stage2' before 'stage1', from which it is made"),
        (["stage1", "stage1:1"], "linear", "tap 'stage1:1' twice; wanted each once"),
        (["stage1", "logits"], "linear", "tap 'logits', the output; wanted taps before it"),
        ([], "linear", r"found taps \[\]; wanted a list of names, shallow to deep"),
        ("stage1", "linear", "found taps 'stage1'; wanted a list of names"),
        (["stage1"], "linaer", "unknown head of the exits of model 'resnet8' 'linaer'; did you"),
        (["pooled"], "convolutions", r"head at 'pooled': found features \(None, 64\); wanted maps"),
    ],
)
def test_taps_and_heads_that_make_no_exits_are_refused(taps, head, message):
    with pytest.raises(TfkdError, match=message):
        models.multi_exit(resnet(), taps, head)


def test_networks_that_can_have_no_exits_are_refused():
    several = models.create("msdnet", 5, (8, 8, 3), blocks=(1, 1), scales=2)
    with pytest.raises(TfkdError, match="model 'msdnet': found the outputs exit1, logits; wanted"):
        models.multi_exit(several, ["stage1"])

    class Own(keras.Model):
        pass

    with pytest.raises(TfkdError, match="found Own, whose layers cannot be listed"):
        models.multi_exit(Own(name="own"), ["stage1"])
    image = keras.Input((4,))
    hidden = keras.layers.Dense(3, name="exit1_hidden")(image)
    model = keras.Model(image, keras.layers.Dense(2)(hidden), name="named")
    with pytest.raises(TfkdError, match="found a layer called 'exit1_hidden'; wanted the name"):
        models.multi_exit(model, ["exit1_hidden"])
