"""Networks that are tried on data whose classes or pixels are not theirs."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.fixtures import shades
from tfkd import TfkdError, TfkdWarning, data, evaluation, export, models
from tfkd.evaluation import reports
from tfkd.models.saving import save_network

OTHER_ORDER = ("dog", "ant", "cat", "bee")
ANIMALS = ("cow", "eel", "fox", "hen")


@pytest.fixture(scope="module")
def data_name(tmp_path_factory):
    return shades.write(tmp_path_factory.mktemp("data") / "animals")


@pytest.fixture(scope="module")
def subject(tmp_path_factory):
    """``subject("run", names)``: a network that is right about every image, in a run or export."""

    def make(kind, class_names, order=OTHER_ORDER):
        network = shades.network(order, class_names)
        folder = tmp_path_factory.mktemp(kind)
        if kind == "run":
            save_network(network, folder)
        else:
            export.save(network, folder, verify=False)
        return {kind: folder}

    return make


def measured(data_name, **arguments):
    """Returns the top-1 score, and what is told of the network."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        report = reports.report(data_name=data_name, **arguments)
    return report["top1"], [str(each.message) for each in caught if each.category is TfkdWarning]


@pytest.mark.parametrize("kind", ["run", "saved_model"])
def test_classes_are_brought_into_the_order_of_the_data(kind, subject, data_name):
    """Before, the network scored 25 %."""
    network = subject(kind, OTHER_ORDER)
    top1, (line,) = measured(data_name, **network)
    assert top1 == 100.0
    assert line.startswith("network to evaluate has the classes of folder:")
    assert "in another order: its outputs are brought into that of folder:" in line
    assert measured(data_name, **network, by_number=True) == (25.0, [])


@pytest.mark.parametrize("kind", ["run", "saved_model"])
def test_other_classes_are_refused_unless_numbers_count(kind, subject, data_name):
    network = subject(kind, ANIMALS, shades.NAMES)
    with pytest.raises(TfkdError) as error:
        reports.report(data_name=data_name, **network)
    assert str(error.value).startswith(
        "network to evaluate: found the classes 'cow', 'eel', 'fox' and 1 more, wanted 'ant', 'bee'"
    )
    assert str(error.value).endswith("(--classes=by_number takes them by their numbers)")
    assert measured(data_name, **network, by_number=True) == (100.0, [])


def test_a_network_without_names_is_given_some(subject, data_name, tmp_path):
    file = tmp_path / "names.txt"
    network = subject("saved_model", None)
    assert measured(data_name, **network) == (25.0, [])
    file.write_text("\n".join(OTHER_ORDER))
    assert measured(data_name, **network, class_names=file)[0] == 100.0
    for names, message in (("a\nb", "found 2, wanted 4, one a class"), ("", "found no name")):
        file.write_text(names)
        with pytest.raises(TfkdError, match=message):
            reports.report(data_name=data_name, **network, class_names=file)
    file.write_text("\n".join(ANIMALS))
    with pytest.raises(TfkdError, match="found other names than it has itself"):
        reports.report(data_name=data_name, **subject("run", OTHER_ORDER), class_names=file)


def test_a_foreign_saved_model_of_floats_is_told_what_pixels_it_gets(data_name, tmp_path):
    shades.model().export(tmp_path / "floats", verbose=False)
    top1, (line,) = measured(data_name, saved_model=tmp_path / "floats")
    assert top1 == 25.0
    assert line == (
        "network to evaluate: nothing says how pixels reach it; they are given as they are, 0..255 "
        "(--preprocess=none says that, or dataset, tf, torch, caffe another)"
    )
    given = {"saved_model": tmp_path / "floats", "preprocess": "tf"}
    assert measured(data_name, **given) == (100.0, [])
    assert measured(data_name, **given | {"preprocess": "none"}) == (25.0, [])


def test_one_of_bytes_takes_pixels_and_one_of_tfkd_knows(subject, data_name, tmp_path):
    image = keras.Input(shades.SHAPE, dtype="uint8")
    whole = keras.Model(image, shades.itself()(keras.ops.cast(image, "float32")))
    whole.export(tmp_path / "bytes", verbose=False)
    assert measured(data_name, saved_model=tmp_path / "bytes") == (100.0, [])
    for network in (subject("run", None), subject("saved_model", None)):
        with pytest.raises(
            TfkdError, match="--preprocess=tf: found a network that itself says how"
        ):
            reports.report(data_name=data_name, preprocess="tf", **network)


def test_numbers_for_names_tell_nothing(subject, data_name):
    assert measured(data_name, **subject("run", ("0", "1", "2", "3"), shades.NAMES)) == (100.0, [])


def test_the_members_of_an_ensemble_are_brought_into_the_order_of_the_first():
    several = [shades.network(names, names) for names in (shades.NAMES, OTHER_ORDER)]
    images = np.full((1, *shades.SHAPE), shades.SHADES["dog"], "uint8")
    with pytest.warns(TfkdWarning, match="^network shades has the classes of network shades in an"):
        joined = evaluation.ensemble(several)(images)["logits"]
    alone = evaluation.ensemble(several[:1])(images)["logits"]
    np.testing.assert_allclose(tf.nn.softmax(joined), tf.nn.softmax(alone), atol=1e-6)
    with pytest.raises(TfkdError, match="network shades: found the classes 'cow'"):
        evaluation.ensemble([several[0], shades.network(class_names=ANIMALS)])


def test_predictors_are_compared_with_the_data_and_with_each_other(data_name):
    images = data.load(data_name, augment="none", batch_size=8).test()
    own, moved, other = (
        evaluation.predictor(shades.network(order, names))
        for order, names in (
            (shades.NAMES, shades.NAMES), (OTHER_ORDER, OTHER_ORDER), (shades.NAMES, ANIMALS)
        )
    )  # fmt: skip
    with pytest.warns(TfkdWarning, match="^network 'network' to evaluate has the classes of the d"):
        assert evaluation.scores(moved, images)["top1"] == 100.0
    with pytest.raises(TfkdError, match="'network' to evaluate: found the classes 'cow', 'eel'"):
        evaluation.scores(other, images)
    nameless = images.map(lambda batch: batch)
    with pytest.warns(TfkdWarning, match="'second' to evaluate has the classes of network 'first'"):
        assert evaluation.agreement(own, moved, nameless) == 100.0
    with pytest.raises(TfkdError, match="as network 'first' to evaluate has .*class_names=None"):
        evaluation.agreement(own, other, nameless)


def test_a_task_without_outputs_of_classes_wants_the_same_order(data_name, tmp_path):
    task = "tests/fixtures/multi_label.py:MultiLabel"
    network = models.Network(shades.model(), task=task, class_names=OTHER_ORDER)
    save_network(network, tmp_path)
    with pytest.raises(
        TfkdError, match="in another order, wanted the same order, or --classes=by_n"
    ):
        reports.report(run=tmp_path, data_name=data_name)
