"""A network on disk and back, and what is refused in between."""

import json

import keras
import numpy as np
import pytest

from tfkd import TfkdError, models
from tfkd.models.saving import in_precision, load_network, save_network

PREPROCESS = models.Preprocess((10.0,), (20.0,))


def small_model(dtype=None):
    image = keras.Input((8, 8, 1))
    hidden = keras.layers.Conv2D(4, 3, dtype=dtype, name="conv")(image)
    hidden = models.BatchNormalization(dtype=dtype, name="norm")(hidden)
    hidden = keras.layers.Flatten(dtype=dtype)(hidden)
    return keras.Model(image, keras.layers.Dense(3, dtype=dtype, name="logits")(hidden))


@pytest.fixture
def network():
    return models.Network(small_model(), PREPROCESS, name="tiny")


@pytest.fixture
def images():
    return np.random.default_rng(2).integers(0, 256, (4, 8, 8, 1), dtype=np.uint8)


def test_a_network_comes_back_as_it_was(network, images, tmp_path):
    path = save_network(network, tmp_path / "run", class_names=["a", "b", "c"])
    assert path == tmp_path / "run" / "student.keras"
    assert sorted(each.name for each in path.parent.iterdir()) == ["network.json", "student.keras"]
    loaded = load_network(tmp_path / "run")
    assert (loaded.name, loaded.preprocess) == ("tiny", PREPROCESS)
    expected = network.model.predict((images - np.float32(10)) / np.float32(20), verbose=0)
    found = loaded.model.predict(loaded.preprocess(images), verbose=0)
    np.testing.assert_array_equal(found, expected)
    assert json.loads((path.parent / "network.json").read_text()) == {
        "name": "tiny",
        "preprocess": PREPROCESS.to_config(),
        "taps": {},
        "input_shape": [8, 8, 1],
        "num_classes": 3,
        "class_names": ["a", "b", "c"],
    }


def test_the_file_holds_only_layers_of_keras(network, tmp_path):
    model = keras.models.load_model(save_network(network, tmp_path))
    modules = {type(layer).__module__.partition(".")[0] for layer in model.layers}
    assert modules == {"keras"}
    assert "norm" in [layer.name for layer in model.layers]


def test_last_and_best_are_told_apart(network, tmp_path):
    save_network(network, tmp_path)
    network.model.get_layer("logits").bias.assign([1.0, 2.0, 3.0])
    save_network(network, tmp_path, stem="student_best")
    for which, bias in (("last", [0, 0, 0]), ("best", [1, 2, 3])):
        layer = load_network(tmp_path, which).model.get_layer("logits")
        np.testing.assert_array_equal(layer.bias, bias)
    with pytest.raises(TfkdError, match="unknown student 'first'.*best, last"):
        load_network(tmp_path, "first")


def test_a_mixed_precision_network_is_kept_in_float32(images, tmp_path):
    mixed = models.Network(small_model("mixed_bfloat16"), PREPROCESS)
    exact = small_model()
    exact.set_weights(mixed.model.get_weights())
    save_network(mixed, tmp_path)
    loaded = load_network(tmp_path).model
    assert {layer.compute_dtype for layer in loaded.layers} == {"float32"}
    pixels = PREPROCESS(images)
    np.testing.assert_allclose(loaded(pixels), exact(pixels), rtol=1e-6, atol=1e-6)


def test_float32_reaches_models_inside_models_and_wrapped_layers():
    inner = small_model("mixed_bfloat16")
    frames = keras.Input((2, 8, 8, 1))
    wrapped = keras.layers.TimeDistributed(inner, dtype="mixed_bfloat16")(frames)
    pooled = keras.layers.GlobalAveragePooling1D(dtype="mixed_bfloat16")(wrapped)
    image = keras.Input((8, 8, 1))
    nested = keras.Model(image, keras.layers.Dense(2, dtype="mixed_bfloat16")(inner(image)))
    for model, shape in ((nested, (3, 8, 8, 1)), (keras.Model(frames, pooled), (3, 2, 8, 8, 1))):
        exact = in_precision(model)
        pixels = np.random.default_rng(0).normal(size=shape).astype(np.float32)
        found, rounded = exact(pixels), model(pixels)
        assert (found.dtype.name, rounded.dtype.name) == ("float32", "bfloat16")
        difference = np.abs(np.asarray(found) - np.asarray(rounded, np.float32)).max()
        assert 1e-5 < difference < 0.1 * np.abs(found).max()


def test_float64_of_an_adder_network_differs_by_rounding():
    keras.utils.set_random_seed(0)
    model = models.create("resnet8", 3, (8, 8, 3), adder=True, widths=(4, 4, 4, 4))
    pixels = np.random.default_rng(0).normal(size=(3, 8, 8, 3)).astype(np.float32)
    for _ in range(20):  # Until the normalisation knows the sums, which are far below 0.
        model(pixels, training=True)
    exact = in_precision(models.stock(model), "float64")
    found, rounded = exact(pixels), model(pixels)
    assert (found.dtype.name, rounded.dtype.name) == ("float64", "float32")
    assert all(variable.dtype == "float64" for variable in exact.trainable_variables)
    difference = np.abs(np.asarray(found) - np.asarray(rounded)).max()
    assert 0 < difference < 1e-3 * np.abs(found).max()


def test_a_float32_model_is_not_copied(network):
    assert in_precision(network.model) is network.model


def test_a_failed_write_leaves_the_earlier_file(network, tmp_path, monkeypatch):
    path = save_network(network, tmp_path)
    before = path.read_bytes()

    def full_disk(self, path, **_):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(keras.Model, "save", full_disk)
    with pytest.raises(TfkdError, match="cannot be written .*No space left"):
        save_network(network, tmp_path)
    assert path.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 2


def test_a_folder_below_a_file_is_refused(network, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(TfkdError, match="cannot be written"):
        save_network(network, tmp_path / "file" / "run")


def test_another_folder_is_not_a_run_folder(tmp_path):
    with pytest.raises(TfkdError, match="found a folder without that file, wanted the --workdir"):
        load_network(tmp_path)
    with pytest.raises(TfkdError, match="found no such folder"):
        load_network(tmp_path / "missing")


def test_a_missing_or_damaged_file_is_named(network, tmp_path):
    path = save_network(network, tmp_path)
    with pytest.raises(TfkdError, match="found student.keras, wanted student_best.keras"):
        load_network(tmp_path, "best")
    whole = path.read_bytes()
    for length in (0, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(TfkdError) as caught:
            load_network(tmp_path)
        message = str(caught.value)
        assert f"student.keras': found {length} bytes that do not load" in message
        assert "\n" not in message
    path.unlink()
    with pytest.raises(TfkdError, match="found no .keras file"):
        load_network(tmp_path)


def test_a_description_that_is_not_one_is_named(network, tmp_path):
    save_network(network, tmp_path)
    path = tmp_path / "network.json"
    known = json.loads(path.read_text())
    for text in ("", "[]", "{}", json.dumps({**known, "num_classes": 4})):
        path.write_text(text)
        with pytest.raises(TfkdError, match="network.json"):
            load_network(tmp_path)
