"""Features of images: rows in index order, from memory and from a cache that is never stale."""

import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfkd import TfkdError, adder, data, models
from tfkd.evaluation import extraction, feature_bytes, features
from tfkd.files import NEW

SHAPE, SIZE, BATCH = (7, 9, 3), 21, 4
TAPS = ["conv", "pooled", "logits"]


def images_of(size, shape=SHAPE):
    return np.random.default_rng(size).integers(0, 256, (size, *shape), np.uint8)


def make_data(shape=SHAPE, **settings):
    parts = [(images_of(size, shape), np.arange(size) % 3) for size in (SIZE, 6, 5)]
    settings = {"batch_size": BATCH, "augment": "crop_flip"} | settings
    return data.from_arrays(*parts[:2], validation=parts[2], **settings)


class Scale(keras.layers.Layer):
    """A layer whose config does not tell what it computes."""

    factor = 2.0

    def call(self, inputs):
        return self.factor * inputs


def make_network(seed=0, side=None, mean=(100.0, 110.0, 120.0)):
    keras.utils.set_random_seed(seed)
    image = keras.Input((side, side, 3), name="image")
    hidden = keras.layers.Conv2D(4, 3, padding="same", name="conv")(image)
    hidden = keras.layers.BatchNormalization(name="norm")(hidden)
    hidden = Scale(name="scale")(hidden)
    hidden = keras.layers.GlobalAveragePooling2D(name="pooled")(hidden)
    hidden = keras.layers.Dropout(0.5, name="dropout")(hidden)
    model = keras.Model(image, keras.layers.Dense(3, name="logits")(hidden), name="tiny")
    model.get_layer("norm").set_weights([np.arange(1, 5) * each for each in (1.0, 0.1, 0.2, 3.0)])
    return models.Network(model, models.Preprocess(mean, (50.0, 60.0, 70.0)))


def by_hand(network, tap, images):
    part = keras.Model(network.model.input, network.model.get_layer(tap).output)
    mean, std = (np.float32(each) for each in (network.preprocess.mean, network.preprocess.std))
    return part.predict((images - mean) / std, verbose=0)


def folders(cache):
    return sorted(each.name for each in cache.iterdir())


@pytest.fixture
def passes(monkeypatch):
    """The parts over which networks ran, one entry a pass."""
    found = []

    def recorded(dataset, part):
        for number, batch in enumerate(usual(dataset, part)):
            if number == 0:
                found.append(part)
            yield batch

    usual = extraction.split_of
    monkeypatch.setattr(extraction, "split_of", recorded)
    return found


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("part, size", [("train", SIZE), ("validation", 5), ("test", 6)])
@pytest.mark.parametrize("batch_size", [None, 1, 7, 64])
def test_features_are_those_of_the_images_in_index_order(part, size, cached, batch_size, tmp_path):
    network, cache = make_network(), tmp_path / "cache" if cached else None
    found = features(network, TAPS, make_data(), cache, part, batch_size)
    assert list(found) == TAPS
    for tap, values in found.items():
        assert values.dtype == np.float32 and isinstance(values, np.memmap) == cached
        wanted = by_hand(network, tap, images_of(size))
        np.testing.assert_allclose(values, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shape", [(7, 9, 3), (16, 4, 3), (1, 1, 3)])
def test_images_of_any_size_that_the_network_takes(shape):
    network = make_network()
    found = features(network, TAPS, make_data(shape), part="test")
    assert found["conv"].shape == (6, *shape[:2], 4)
    np.testing.assert_allclose(
        found["conv"], by_hand(network, "conv", images_of(6, shape)), rtol=1e-4, atol=1e-4
    )


def test_the_needed_bytes_are_those_of_the_features(tmp_path):
    network, dataset = make_network(), make_data()
    for part in ("train", "validation", "test"):
        found = features(network, TAPS, dataset, part=part)
        needed = sum(each.nbytes for each in found.values())
        assert feature_bytes(network, TAPS, dataset, part) == needed
    assert feature_bytes(network, ["logits"], dataset) == SIZE * 3 * 4


def test_a_model_takes_pixels_as_they_are():
    network = make_network()
    found = features(network.model, ["logits"], make_data(), part="test")["logits"]
    wanted = network.model.predict(images_of(6).astype(np.float32), verbose=0)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-3)


def test_a_network_finds_taps_by_its_own_names(tmp_path):
    network = make_network()
    named = models.Network(network.model, network.preprocess, taps={"mine": "pooled"})
    for cache in (None, tmp_path):
        found = features(named, ["mine"], make_data(), cache)
        np.testing.assert_array_equal(
            found["mine"], features(network, ["pooled"], make_data())["pooled"]
        )


@pytest.mark.parametrize("cached", [False, True])
def test_named_outputs_are_taps(cached, tmp_path):
    network = make_network()
    layers = [network.model.get_layer(name) for name in ("scale", "logits")]
    outputs = {"exit1": layers[0].output, "logits": layers[1].output, "exit2": layers[0].output * 3}
    model = keras.Model(network.model.input, outputs, name="exits")
    exits = models.Network(model, network.preprocess)
    found = features(exits, ["exit2", "logits", "exit1"], make_data(), tmp_path if cached else None)
    single = features(network, ["scale", "logits"], make_data())
    np.testing.assert_allclose(found["exit1"], single["scale"], rtol=1e-6)
    np.testing.assert_allclose(found["exit2"], 3 * single["scale"], rtol=1e-6)
    np.testing.assert_allclose(found["logits"], single["logits"], rtol=1e-6)


def test_taps_inside_a_model_are_cached_by_their_paths(tmp_path):
    inner = keras.Sequential([keras.Input((*SHAPE,)), keras.layers.Conv2D(2, 3, name="conv")])
    image = keras.Input(SHAPE)
    shared = keras.layers.ReLU(name="relu")
    hidden = shared(keras.layers.BatchNormalization()(shared(inner(image))))
    model = keras.Model(image, keras.layers.Flatten()(hidden))
    taps = [f"{inner.name}/conv", "relu:1", "relu:2"]
    found = features(model, taps, make_data(), tmp_path)
    pixels = images_of(SIZE).astype(np.float32)
    np.testing.assert_allclose(found[taps[0]], inner(pixels), rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(found["relu:1"], tf.nn.relu(inner(pixels)), rtol=1e-4, atol=1e-3)


def test_half_precision_becomes_float32():
    image = keras.Input(SHAPE)
    layer = keras.layers.Conv2D(2, 3, dtype="mixed_bfloat16", name="conv")
    model = keras.Model(image, keras.layers.Flatten()(layer(image)))
    found = features(model, ["conv"], make_data(), part="test")["conv"]
    assert found.dtype == np.float32
    np.testing.assert_array_equal(
        found, tf.cast(layer(images_of(6).astype(np.float32)), tf.float32)
    )


def test_features_become_a_column_of_the_training_batches(tmp_path):
    dataset = make_data()
    found = features(make_network(), ["logits"], dataset, tmp_path)["logits"]
    batches = dataset.with_column("teacher_logits", found).train(
        0, 9, batch_keys=["index", "teacher_logits"]
    )
    for batch in batches.as_numpy_iterator():
        np.testing.assert_array_equal(batch["teacher_logits"], found[batch["index"]])


def test_a_second_call_reads_the_cache_and_runs_nothing(tmp_path, passes):
    first = features(make_network(), TAPS, make_data(), tmp_path)
    first = {tap: np.array(values) for tap, values in first.items()}
    assert passes == ["train"]
    again = features(make_network(), TAPS[::-1], make_data(seed=4), tmp_path, batch_size=3)
    assert passes == ["train"] and list(again) == TAPS[::-1]
    for tap, values in again.items():
        np.testing.assert_array_equal(values, first[tap])
        with pytest.raises(ValueError, match="read-only"):
            values[:] = 0
    (folder,) = folders(tmp_path)
    # It is the file that is read.
    np.save(tmp_path / folder / "logits.npy", first["logits"] + 1)
    found = features(make_network(), TAPS, make_data(), tmp_path)["logits"]
    np.testing.assert_array_equal(found, first["logits"] + 1)
    facts = json.loads((tmp_path / folder / "features.json").read_text())
    assert (facts["network"], facts["data"], facts["part"]) == ("tiny", "arrays", "train")


def with_weight(path, place, change=1e-6):
    network = make_network()
    (weight,) = [each for each in network.model.weights if each.path == path]
    value = weight.numpy()
    value[place] += change
    assert (value != weight.numpy()).sum() == 1
    weight.assign(value)
    return network


def with_other_pixel():
    train = images_of(SIZE), np.arange(SIZE) % 3
    train[0][13, 5, 6, 1] ^= 1
    test = images_of(6), np.arange(6) % 3
    return data.from_arrays(train, test, batch_size=BATCH)


def with_other_layer():
    network = make_network()
    image = keras.Input((None, None, 3))
    hidden = network.model.get_layer("conv")(image)
    hidden = network.model.get_layer("norm")(hidden)
    hidden = keras.layers.GlobalAveragePooling2D(name="pooled")(keras.layers.ReLU()(hidden))
    model = keras.Model(image, network.model.get_layer("logits")(hidden), name="tiny")
    return models.Network(model, network.preprocess)


@pytest.mark.parametrize(
    "change",
    [
        lambda: {"network": make_network(seed=1)},
        lambda: {"network": with_weight("logits/bias", 2)},
        lambda: {"network": with_weight("conv/kernel", (2, 2, 2, 3))},
        lambda: {"network": with_weight("norm/moving_variance", 0, 1e-3)},
        lambda: {"network": make_network(mean=(100.0, 110.0, 120.5))},
        lambda: {"network": make_network().model},
        lambda: {"network": with_other_layer()},
        lambda: {"dataset": with_other_pixel()},
        lambda: {"dataset": make_data((9, 7, 3))},
        lambda: {"dataset": make_data(name="others")},
        lambda: {"dataset": make_data().with_batch_size(5), "part": "validation"},
        lambda: {"part": "test"},
        lambda: {"taps": ["logits"]},
        lambda: {"taps": ["pooled"]},
    ],
)
def test_the_cache_of_something_else_is_not_read(change, tmp_path, passes):
    usual = {"network": make_network(), "taps": TAPS, "dataset": make_data(), "part": "train"}
    features(**usual, cache=tmp_path)
    changed = usual | change()
    found = features(**changed, cache=tmp_path)
    assert len(passes) == 2 and len(folders(tmp_path)) == 2
    wanted = features(**changed)
    for tap, values in wanted.items():
        np.testing.assert_allclose(found[tap], values, rtol=1e-6, atol=1e-6)
    features(**usual, cache=tmp_path)
    assert len(folders(tmp_path)) == 2


def test_other_code_of_a_layer_is_other_features(tmp_path, monkeypatch):
    before = features(make_network(), ["pooled"], make_data(), tmp_path)["pooled"]
    monkeypatch.setattr(Scale, "factor", 3.0)
    after = features(make_network(), ["pooled"], make_data(), tmp_path)["pooled"]
    np.testing.assert_allclose(after, 1.5 * before, rtol=1e-5)


class Shift(keras.layers.Layer):
    """A layer that adds a constant too large to be a part of the graph."""

    def __init__(self, last):
        super().__init__(name="shift")
        values = np.zeros(SHAPE, np.float32)
        values[-1, -1, -1] = last
        self.values = tf.constant(values)

    def call(self, inputs):
        return inputs + self.values


def test_another_constant_is_other_features(tmp_path):
    found = []
    for last in (0.0, 1.0):
        image = keras.Input(SHAPE)
        model = keras.Model(image, keras.layers.Flatten(name="flat")(Shift(last)(image)))
        found.append(features(model, ["flat"], make_data(), tmp_path)["flat"])
    np.testing.assert_array_equal(found[1] - found[0], [[0.0] * 188 + [1.0]] * SIZE)


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.first, self.second = (keras.layers.Dense(3) for _ in range(2))
        self.exchanged = False

    def call(self, inputs, training=None):
        pooled = tf.reduce_mean(inputs, [1, 2])
        first, second = self.first(pooled), self.second(pooled)
        return second - first if self.exchanged else first - second


def test_a_subclassed_model_has_its_logits_cached(tmp_path, passes):
    model = Subclassed()
    first = features(model, ["logits"], make_data(), tmp_path)["logits"]
    np.testing.assert_array_equal(
        features(model, ["logits"], make_data(), tmp_path)["logits"], first
    )
    assert len(passes) == 1
    model.exchanged = True
    second = features(model, ["logits"], make_data(), tmp_path)["logits"]
    np.testing.assert_array_equal(second, -first)
    with pytest.raises(TfkdError, match="tap 'pooled'"):
        features(model, ["pooled"], make_data(), tmp_path)


def controlled():
    """A network with a condition, a custom gradient and layers that count their traces."""
    image = keras.Input(SHAPE)
    hidden = keras.layers.Lambda(
        lambda x: tf.cond(tf.reduce_mean(x) > 0, lambda: x + 1.0, lambda: x - 1.0),
        output_shape=lambda shape: shape,
        name="condition",
    )(image)
    hidden = adder.AdderConv2D(2, 3, name="adder")(hidden)
    return keras.Model(image, keras.layers.Flatten(name="flat")(hidden))


def test_networks_with_conditions_and_custom_gradients_are_cached(tmp_path, passes):
    model = controlled()
    for _ in range(2):
        features(model, ["adder", "flat"], make_data(), tmp_path)
    assert len(passes) == 1


SCRIPT = """
import sys
import keras
from tfkd import data, models
from tfkd.evaluation import features
keras.utils.set_random_seed(3)
model = models.create("resnet8", 10, (8, 8, 1))
network = models.Network(model, models.Preprocess((80.0,), (90.0,)))
features(network, ["pooled", "logits"], data.load("digits"), sys.argv[1], "test")
"""


def test_another_process_reads_the_same_cache(tmp_path):
    root = Path(__file__).resolve().parents[2]
    times = []
    for seed in ("1", "2"):
        subprocess.run(
            [sys.executable, "-c", SCRIPT, str(tmp_path / "cache")],
            check=True,
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(root), "PYTHONHASHSEED": seed},
        )
        (folder,) = (tmp_path / "cache").iterdir()
        times.append((folder / "logits.npy").stat().st_mtime_ns)
    assert times[0] == times[1]


@pytest.mark.parametrize("replicas", [1, 2])
def test_a_network_of_replicas_has_the_features_of_a_single_one(replicas, two_replicas, tmp_path):
    with two_replicas.scope():
        mirrored = make_network()
    plain = make_network(seed=7)
    plain.model.set_weights(mirrored.model.get_weights())
    network = plain if replicas == 1 else mirrored
    found = features(network, TAPS, make_data(), tmp_path)
    for tap in TAPS:
        np.testing.assert_allclose(
            found[tap], by_hand(plain, tap, images_of(SIZE)), rtol=1e-4, atol=1e-4
        )
    before = folders(tmp_path)
    features(mirrored if replicas == 1 else plain, TAPS, make_data(), tmp_path)
    assert folders(tmp_path) == before


def test_a_failure_leaves_no_features(tmp_path, monkeypatch):
    def broken(dataset, part):
        for number, batch in enumerate(usual(dataset, part)):
            if number == 2:
                raise KeyboardInterrupt
            yield batch

    usual = extraction.split_of
    with monkeypatch.context() as patch:
        patch.setattr(extraction, "split_of", broken)
        with pytest.raises(KeyboardInterrupt):
            features(make_network(), TAPS, make_data(), tmp_path)
    assert folders(tmp_path) == []
    # A killed process has no time to tidy up.
    (tmp_path / f"{NEW}features").mkdir()
    (tmp_path / f"{NEW}features" / "logits.npy").write_bytes(b"half")
    found = features(make_network(), TAPS, make_data(), tmp_path)
    np.testing.assert_array_equal(
        found["logits"], features(make_network(), TAPS, make_data())["logits"]
    )
    assert len(folders(tmp_path)) == 1


def test_damaged_features_are_named(tmp_path):
    features(make_network(), TAPS, make_data(), tmp_path)
    (folder,) = tmp_path.iterdir()
    path = folder / "pooled.npy"
    whole = path.read_bytes()
    for contents in (whole[:-4], whole[:20], b""):
        path.write_bytes(contents)
        with pytest.raises(TfkdError, match="remove the folder") as caught:
            features(make_network(), TAPS, make_data(), tmp_path)
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    np.save(path, np.zeros((SIZE - 1, 4), np.float32))
    with pytest.raises(TfkdError, match=r"found \(20, 4\), wanted 21 rows"):
        features(make_network(), TAPS, make_data(), tmp_path)
    path.unlink()
    with pytest.raises(TfkdError, match="No such file .*remove the folder"):
        features(make_network(), TAPS, make_data(), tmp_path)


def test_the_progress_is_shown_on_a_terminal_only(capfd, monkeypatch):
    features(make_network(), ["logits"], make_data())
    assert capfd.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    features(make_network(), ["logits"], make_data())
    assert "features of tiny" in capfd.readouterr().err


def test_a_streamed_image_that_cannot_be_decoded_is_named(tmp_path):
    for part in ("train", "test"):
        for name in "ab":
            (tmp_path / part / name).mkdir(parents=True)
            for number, image in enumerate(images_of(3)):
                path = tmp_path / part / name / f"{number}.png"
                path.write_bytes(tf.io.encode_png(image).numpy())
    dataset = data.load(f"folder:{tmp_path}", batch_size=2, in_memory_bytes=0)
    bad = tmp_path / "train" / "b" / "1.png"
    bad.write_bytes(b"no image")
    with pytest.raises(TfkdError) as caught:
        features(make_network(), ["logits"], dataset)
    assert str(bad) in str(caught.value) and "\n" not in str(caught.value)


class Python(keras.layers.Layer):
    def call(self, inputs):
        found = tf.numpy_function(lambda x: x + 1, [inputs], tf.float32)
        return tf.ensure_shape(found, inputs.shape)

    def compute_output_shape(self, shape):
        return shape


def python_network():
    image = keras.Input(SHAPE)
    return keras.Model(image, keras.layers.Flatten()(Python()(image)))


class Lookup(keras.layers.Layer):
    def __init__(self):
        super().__init__()
        keys = tf.range(256, dtype=tf.int64)
        values = tf.lookup.KeyValueTensorInitializer(keys, tf.cast(keys, tf.float32) / 255)
        self.table = tf.lookup.StaticHashTable(values, 0.0)

    def call(self, inputs):
        return tf.ensure_shape(self.table.lookup(tf.cast(inputs, tf.int64)), inputs.shape)

    def compute_output_shape(self, shape):
        return shape


def lookup_network():
    image = keras.Input(SHAPE)
    return keras.Model(image, keras.layers.Flatten()(Lookup()(image)))


def transposing_network():
    image = keras.Input(SHAPE)
    turned = keras.layers.Lambda(
        lambda x: tf.reshape(x, [-1, 3]), output_shape=lambda shape: (None, 3), name="turned"
    )(image)
    return keras.Model(image, turned)


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda cache: features(make_network(), "logits", make_data()), ["'logits'", "list"]),
        (lambda cache: features(make_network(), [], make_data()), ["taps", "no name"]),
        (lambda cache: features(make_network(), ["pool"], make_data()), ["mean 'pooled'"]),
        (
            lambda cache: features(make_network(), TAPS, make_data(), part="tset"),
            ["part 'tset'", "'test'"],
        ),
        (
            lambda cache: feature_bytes(make_network(), TAPS, make_data(), "tset"),
            ["part 'tset'", "'test'"],
        ),
        (
            lambda cache: features(make_network(), TAPS, make_data(), batch_size=0),
            ["batch_size", "0"],
        ),
        (
            lambda cache: features(make_network(side=8), TAPS, make_data()),
            ["'tiny'", "(7, 9, 3)", "(8, 8, 3)"],
        ),
        (lambda cache: features(3, TAPS, make_data()), ["int", "keras.Model"]),
        (
            lambda cache: features(transposing_network(), ["turned"], make_data()),
            ["'turned'", "(252, 3)", "4 images"],
        ),
        (
            lambda cache: feature_bytes(transposing_network(), ["turned"], make_data()),
            ["'turned'", "(63, 3)", "1 images"],
        ),
        (
            lambda cache: features(python_network(), ["logits"], make_data(), cache),
            ["Python code", "no cache"],
        ),
        (
            lambda cache: features(lookup_network(), ["logits"], make_data(), cache),
            ["tables", "no cache"],
        ),
        (
            lambda cache: features(make_network(), TAPS, make_data(), __file__),
            [__file__, "cannot be written"],
        ),
    ],
)
def test_wrong_arguments_are_named(call, words, tmp_path):
    with pytest.raises(TfkdError) as caught:
        call(tmp_path)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message
    assert folders(tmp_path) == []


def test_python_code_runs_without_a_cache():
    found = features(python_network(), ["logits"], make_data())["logits"]
    np.testing.assert_array_equal(found, images_of(SIZE).reshape(SIZE, -1) + 1.0)
