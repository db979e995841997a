"""A network on disk and back, and what is refused in between."""

import dataclasses
import json
import shutil
import zipfile

import keras
import numpy as np
import pytest

from tests.fixtures import multi_exit
from tfkd import TfkdError, models
from tfkd.models.saving import (
    in_precision,
    load_description,
    load_network,
    load_network_file,
    save_alone,
    save_network,
    save_network_file,
)

PREPROCESS = models.Preprocess((10.0,), (20.0,))


def small_model(dtype=None):
    image = keras.Input((8, 8, 1))
    hidden = keras.layers.Conv2D(4, 3, dtype=dtype, name="conv")(image)
    hidden = models.BatchNormalization(dtype=dtype, name="norm")(hidden)
    hidden = keras.layers.Flatten(dtype=dtype)(hidden)
    return keras.Model(image, keras.layers.Dense(3, dtype=dtype, name="logits")(hidden))


@pytest.fixture
def network():
    return models.Network(small_model(), PREPROCESS, name="tiny", class_names=["a", "b", "c"])


@pytest.fixture
def images():
    return np.random.default_rng(2).integers(0, 256, (4, 8, 8, 1), dtype=np.uint8)


def test_a_network_comes_back_as_it_was(network, images, tmp_path):
    path = save_network(network, tmp_path / "run")
    assert path == tmp_path / "run" / "student.keras"
    assert sorted(each.name for each in path.parent.iterdir()) == ["network.json", "student.keras"]
    loaded = load_network(tmp_path / "run")
    assert (loaded.name, loaded.preprocess) == ("tiny", PREPROCESS)
    assert (loaded.task, loaded.class_names) == ("classification", ("a", "b", "c"))
    expected = network.model.predict((images - np.float32(10)) / np.float32(20), verbose=0)
    found = loaded.model.predict(loaded.preprocess(images), verbose=0)
    np.testing.assert_array_equal(found, expected)
    assert json.loads((path.parent / "network.json").read_text()) == {
        "crop": None,
        "name": "tiny",
        "task": "classification",
        "preprocess": PREPROCESS.to_config(),
        "taps": {},
        "input_shape": [8, 8, 1],
        "outputs": {"logits": [3]},
        "num_classes": 3,
        "class_names": ["a", "b", "c"],
        "files": {"last": "student.keras"},
    }


def test_the_file_holds_only_layers_of_keras(network, tmp_path):
    model = keras.models.load_model(save_network(network, tmp_path))
    modules = {type(layer).__module__.partition(".")[0] for layer in model.layers}
    assert modules == {"keras"}
    assert "norm" in [layer.name for layer in model.layers]


def test_a_file_says_itself_what_it_is_wherever_it_is_copied(network, images, tmp_path):
    named = dataclasses.replace(network, taps={"pooled": "norm"})
    path = save_network(named, tmp_path / "run")
    for place in (path, save_alone(named, tmp_path / "alone.keras")):
        copied = shutil.copy(place, tmp_path / "copied.keras")
        found = load_network_file(copied)
        assert (found.name, found.preprocess, found.task) == ("tiny", PREPROCESS, "classification")
        assert (found.taps, found.class_names) == ({"pooled": "norm"}, ("a", "b", "c"))
        np.testing.assert_array_equal(found(images), load_network(tmp_path / "run")(images))
    with zipfile.ZipFile(copied) as archive:
        # Keras unpacks an archive of more files to look for assets.
        assert sorted(archive.namelist()) == ["config.json", "metadata.json", "model.weights.h5"]
        assert "keras_version" in json.loads(archive.read("metadata.json"))


def test_a_file_of_keras_says_nothing(network, tmp_path):
    network.model.save(tmp_path / "model.keras")
    with pytest.raises(
        TfkdError, match="model.keras': found nothing that says how pixels reach it"
    ):
        load_network_file(tmp_path / "model.keras")
    with pytest.raises(TfkdError, match="no such file"):
        load_network_file(tmp_path / "other.keras")


def test_a_file_at_odds_with_the_description_beside_it_is_refused(network, tmp_path):
    """Such as one that was copied over another."""
    others = {
        "preprocess": dataclasses.replace(network, preprocess=models.Preprocess.none()),
        "class_names": dataclasses.replace(network, class_names=["a", "c", "b"]),
    }
    for key, other in others.items():
        save_network(network, tmp_path / "run")
        save_alone(other, tmp_path / "run" / "student.keras")
        for load in (load_network, lambda folder: load_network_file(folder / "student.keras")):
            with pytest.raises(
                TfkdError, match=f"found {key} .*; wanted {key} .*json beside it sa"
            ):
                load(tmp_path / "run")


def test_names_of_classes_may_be_said_in_one_of_both_places(network, tmp_path):
    unnamed = dataclasses.replace(network, class_names=None)
    save_network(unnamed, tmp_path)
    known = json.loads((tmp_path / "network.json").read_text())
    (tmp_path / "network.json").write_text(json.dumps({**known, "class_names": ["a", "b", "c"]}))
    assert load_network(tmp_path).class_names == ("a", "b", "c")
    (tmp_path / "network.json").write_text(json.dumps(known))
    save_alone(network, tmp_path / "student.keras")
    assert load_network(tmp_path).class_names == ("a", "b", "c")


def test_something_else_in_a_file_is_named(network, tmp_path):
    path = save_alone(network, tmp_path / "model.keras")
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("metadata.json", json.dumps({"tfkd": {"name": 3}}))
    with pytest.raises(
        TfkdError, match="found something else in its metadata.json .*, wanted name"
    ):
        load_network_file(path)


def test_last_best_and_further_students_are_told_apart(network, tmp_path):
    words = {"last": "student", "best": "student_best", "second_head2": "student_second_head2"}
    for number, (which, stem) in enumerate(words.items()):
        network.model.get_layer("logits").bias.assign([1.0, 2.0, number])
        assert save_network(network, tmp_path, which) == tmp_path / f"{stem}.keras"
    for number, which in enumerate(words):
        layer = load_network(tmp_path, which).model.get_layer("logits")
        np.testing.assert_array_equal(layer.bias, [1.0, 2.0, number])
    listed = {which: f"{stem}.keras" for which, stem in words.items()}
    assert load_description(tmp_path)["files"] == listed
    with pytest.raises(
        TfkdError, match=r"unknown student 'secondhead'; did you mean 'second_head2'.*best, last, s"
    ):
        load_network(tmp_path, "secondhead")


def test_a_file_that_is_gone_leaves_the_list(network, tmp_path):
    save_network(network, tmp_path)
    save_network(network, tmp_path, "merged").unlink()
    with pytest.raises(TfkdError, match="found student.keras, wanted student_merged.keras"):
        load_network(tmp_path, "merged")
    save_network(network, tmp_path, "best")
    assert list(load_description(tmp_path)["files"]) == ["last", "best"]
    with pytest.raises(TfkdError, match="unknown student 'merged'"):
        load_network(tmp_path, "merged")


@pytest.mark.parametrize("order", [("last", "merged"), ("merged", "last")])
def test_students_of_another_form_keep_their_own_description(network, order, tmp_path):
    image = keras.Input((4, 4, 3))
    hidden = keras.layers.Flatten(name="flat")(image)
    model = keras.Model(image, {"scores": keras.layers.Dense(5)(hidden)})
    other = models.Network(model, name="other", taps={"pooled": "flat"}, task="other.py:Task")
    for which in order:
        save_network({"last": network, "merged": other}[which], tmp_path, which)
    first, second = load_network(tmp_path), load_network(tmp_path, "merged")
    assert (first.name, first.preprocess, first.task) == ("tiny", PREPROCESS, "classification")
    assert (first.class_names, first.taps) == (("a", "b", "c"), {})
    assert (second.name, second.preprocess, second.task) == (
        "other",
        models.Preprocess.none(),
        "other.py:Task",
    )
    assert (second.class_names, second.taps) == (None, {"pooled": "flat"})
    assert load_description(tmp_path, "merged")["num_classes"] is None
    assert load_description(tmp_path)["num_classes"] == 3


@pytest.mark.parametrize("word", ["", "Best", "two heads", "../student", "a.keras"])
def test_other_words_are_refused(network, word, tmp_path):
    with pytest.raises(TfkdError, match="wanted a word of a-z, 0-9 and _"):
        save_network(network, tmp_path / "run", word)
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_any_name_is_the_last_of_its_folder(network, images, tmp_path):
    assert save_network_file(network, tmp_path / "Any name.keras").is_file()
    pixels = PREPROCESS(images)
    np.testing.assert_array_equal(load_network(tmp_path).model(pixels), network.model(pixels))


def test_exits_come_back_by_their_names(images, tmp_path):
    model = multi_exit.lively(multi_exit.build())
    save_network(models.Network(model, PREPROCESS), tmp_path)
    loaded = load_network(tmp_path).model
    assert models.exits(loaded) == multi_exit.NAMES
    found, expected = loaded(PREPROCESS(images)), models.stock(model)(PREPROCESS(images))
    assert set(found) == set(multi_exit.NAMES)
    for name in multi_exit.NAMES:
        np.testing.assert_array_equal(found[name], expected[name])
    assert len({float(found[name][0, 0]) for name in found}) == len(found)
    described = load_description(tmp_path)
    assert described["outputs"] == dict.fromkeys(multi_exit.NAMES, [10])
    assert described["num_classes"] == 10


@pytest.mark.parametrize("form", [in_precision, models.stock, models.fold])
def test_copies_keep_the_names_of_outputs(form, images):
    exact = multi_exit.lively(multi_exit.build())
    model = exact
    if form is in_precision:
        keras.config.set_dtype_policy("mixed_bfloat16")
        try:
            model = multi_exit.build()
        finally:
            keras.config.set_dtype_policy("float32")
        model.set_weights(exact.get_weights())
    copy = form(model)
    assert copy is not model
    assert models.exits(copy) == multi_exit.NAMES
    found, expected = copy(PREPROCESS(images)), exact(PREPROCESS(images))
    for name in multi_exit.NAMES:
        largest = np.abs(expected[name]).max()
        np.testing.assert_allclose(found[name], expected[name], rtol=0, atol=1e-5 * largest)


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
    for _ in range(20):  # Until the normalization knows the sums, which are far below 0.
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
    wrong = (
        {"num_classes": 4},
        {"outputs": {"logits": [4]}},
        {"outputs": {"exit1": [3], "logits": [3]}},
        {"outputs": 3},
        {"files": {"last": "../student.keras"}},
        {"files": ["student.keras"]},
        {"name": None},
        {"taps": []},
        {"taps": {"a": 3}},
        {"crop": 3},
        {"class_names": [None]},
        {"input_shape": [8, "8", 3]},
        {"preprocess": {"mean": "x", "std": [1.0]}},
        {"preprocess": {"mean": [1.0], "std": [0.0]}},
        {"preprocess": {"mean": [1.0, 2.0], "std": [1.0]}},
        {"num_classes": 10**30},
        {"differences": {"last": {"name": []}}},
        {"differences": 3},
    )
    for text in ("", "[]", "{}", *(json.dumps({**known, **each}) for each in wrong)):
        path.write_text(text)
        with pytest.raises(TfkdError, match="network.json"):
            load_network(tmp_path)


def test_weights_that_are_no_numbers_are_named(network, tmp_path):
    path = save_network(network, tmp_path)
    model = keras.models.load_model(path)
    kernel, *others = model.layers[-1].get_weights()
    kernel[0, 0] = np.nan
    model.layers[-1].set_weights([kernel, *others])
    save_network(dataclasses.replace(network, model=model), tmp_path)
    with pytest.raises(TfkdError, match=r"student.keras': found 1 weights of '.*' that are NaN or"):
        load_network(tmp_path)


def test_a_file_that_unpacks_to_far_more_is_not_unpacked(network, tmp_path):
    path = save_network(network, tmp_path)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("more", bytes(10**8))
    with pytest.raises(TfkdError, match=r"student.keras': found .* that unpacks to 10"):
        load_network(tmp_path)


def test_another_network_json_is_not_written_over(network, tmp_path):
    (tmp_path / "network.json").write_text('{"nodes": []}')
    with pytest.raises(TfkdError, match="network.json': the file has no 'name'; wanted"):
        save_network(network, tmp_path)
    assert [each.name for each in tmp_path.iterdir()] == ["network.json"]
