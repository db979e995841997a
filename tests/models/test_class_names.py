"""Names of classes: read from a file, compared, and the outputs of a model in their order."""

import keras
import numpy as np
import pytest

from tests.fixtures import multi_exit, shades
from tfkd import TfkdError, models
from tfkd.models.class_names import are_numbers, positions
from tfkd.models.graph.class_order import reordered

PIXELS = np.random.default_rng(0).normal(size=(5, *shades.SHAPE)).astype("float32")
ORDER = [2, 0, 3, 1]


def test_names_are_read_one_a_line(tmp_path):
    path = tmp_path / "names.txt"
    path.write_bytes("\ufeffgrüner Käfer\r\n  two words \n\nlast".encode())
    assert models.read_class_names(path) == ("grüner Käfer", "two words", "last")


@pytest.mark.parametrize("content", [None, b"", b"\n \n", b"\xff\xfe\x00"])
def test_a_file_without_names_is_refused(content, tmp_path):
    path = tmp_path / "names.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(
        TfkdError, match=r"class names '.*names.txt': .*wanted .*one .*a line"
    ) as it:
        models.read_class_names(path)
    assert "\n" not in str(it.value)


def test_a_letter_with_an_accent_is_one_letter():
    one, two = "caf\u00e9", "cafe\u0301"
    assert positions([one, "bus"], ["bus", two]) == [1, 0]


def test_where_each_class_is():
    assert positions("abc", "abc") == [0, 1, 2]
    assert positions("bca", "abc") == [2, 0, 1]
    assert positions(["0", "1", "10", "2"], ["0", "1", "2", "10"]) == [0, 1, 3, 2]


@pytest.mark.parametrize("other", [None, ("0", "1", "2")])
def test_no_names_and_mere_numbers_tell_nothing(other):
    assert positions("abc", other) is None
    assert positions(other, "abc") is None


def test_numbers_are_names_only_in_another_order():
    assert are_numbers(["0", "1", "2"]) and not are_numbers(["0", "2", "1"])
    assert positions(["0", "1", "2"], ["0", "1", "2"]) == [0, 1, 2]
    with pytest.raises(TfkdError, match="found the classes '0', wanted '3'"):
        positions(["0", "2", "1"], ["3", "2", "1"])


def test_other_classes_are_shown():
    with pytest.raises(TfkdError, match="found the classes 'cow', wanted 'cat'"):
        positions(["cow", "dog"], ["dog", "cat"])
    with pytest.raises(TfkdError, match="found the classes 'a', 'b', 'c' and 2 more, wanted 'v'"):
        positions("abcde", "vwxyz")


def test_one_name_of_two_classes_has_no_place():
    assert positions("aab", "aab") == [0, 1, 2]
    with pytest.raises(TfkdError, match="in another order, and 'a' twice"):
        positions("aab", "aba")


def test_outputs_come_in_the_new_order_to_the_bit_and_taps_stay():
    model = models.create("resnet8", 4, shades.SHAPE)
    other = reordered(model, ["logits"], ORDER)
    wanted = model(PIXELS).numpy()[:, ORDER]
    np.testing.assert_array_equal(other(PIXELS), wanted)
    taps = ["stage1", "pooled", "logits"]
    found, own = (models.tapped(each, taps)(PIXELS) for each in (other, model))
    np.testing.assert_array_equal(found["logits"], wanted)
    for tap in taps[:-1]:
        np.testing.assert_array_equal(found[tap], own[tap])
    assert other.name == model.name
    assert models.cost(other).macs == models.cost(model).macs and not models.cost(other).unknown
    head = models.head(other, "pre_pool")
    maps = models.tapped(model, ["pre_pool"])(PIXELS)["pre_pool"]
    np.testing.assert_allclose(head(maps), wanted, rtol=1e-5, atol=1e-6)


def test_every_exit_is_brought_into_order_and_no_other_output():
    model = multi_exit.lively(multi_exit.build())
    names = ("exit1", "logits")
    other = reordered(model, names, range(9, -1, -1))
    images = np.random.default_rng(1).normal(size=(3, *model.input_shape[1:])).astype("float32")
    found, own = other(images), model(images)
    for name in multi_exit.NAMES:
        wanted = own[name][:, ::-1] if name in names else own[name]
        np.testing.assert_array_equal(found[name], wanted)


def test_folded_in_half_precision_the_last_layer_stays_exact():
    model = models.create("resnet8", 4, shades.SHAPE)
    folded = models.fold(reordered(model, ["logits"], ORDER), dtype="bfloat16")
    assert folded.get_layer("logits").compute_dtype == "float32"
    assert folded.get_layer("stem").compute_dtype == "bfloat16"


def test_it_is_saved_in_stock_keras(tmp_path):
    model = models.stock(reordered(shades.model(), ["logits"], ORDER))
    assert "tfkd" not in model.to_json()
    model.save(tmp_path / "model.keras")
    found = keras.models.load_model(tmp_path / "model.keras")(PIXELS)
    np.testing.assert_array_equal(found, shades.model()(PIXELS).numpy()[:, ORDER])


def test_a_sequential_model_is_brought_into_order():
    model = keras.Sequential([keras.Input(shades.SHAPE), keras.layers.Flatten()])
    model.add(keras.layers.Dense(4))
    found = reordered(model, ["logits"], ORDER)(PIXELS)
    np.testing.assert_array_equal(found, model(PIXELS).numpy()[:, ORDER])
