"""Networks on images of several sizes, which the record of the network or a flag crops."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.fixtures import shades
from tfkd import TfkdError, data, export, models
from tfkd.evaluation import reports
from tfkd.models.saving import save_network
from tfkd.torch import importing


@pytest.fixture(scope="module")
def data_name(tmp_path_factory):
    """Wide images of several sizes; what they show is in the middle, beside it is another class."""
    folder = tmp_path_factory.mktemp("data")
    values = list(shades.SHADES.values())
    for part in ("train", "test"):
        for number, name in enumerate(shades.NAMES):
            (folder / part / name).mkdir(parents=True)
            for side in (12, 18):
                image = np.full((side, 5 * side, 3), values[number - 1], np.uint8)
                image[:, 2 * side : 3 * side] = values[number]
                path = folder / part / name / f"{side}.png"
                path.write_bytes(tf.io.encode_png(image).numpy())
    return f"folder:{folder}"


def network(crop=None):
    return models.Network(
        shades.model(), models.Preprocess.published("tf"), class_names=shades.NAMES, crop=crop
    )


def top1(data_name, **arguments):
    return reports.report(data_name=data_name, **arguments)["top1"]


def failure(call, *arguments, **settings):
    with pytest.raises(TfkdError) as caught:
        call(*arguments, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_crop_comes_from_the_record_of_the_network(data_name, tmp_path):
    save_network(network("center"), tmp_path / "run")
    assert top1(data_name, run=tmp_path / "run") == 100.0
    export.save_run(tmp_path / "run", tmp_path / "export", verify=False)
    assert top1(data_name, saved_model=tmp_path / "export") == 100.0
    # A flag says otherwise.
    assert top1(data_name, saved_model=tmp_path / "export", crop="whole") < 50.0


def test_of_a_run_that_did_not_record_it_the_config_tells(data_name, tmp_path):
    save_network(network(), tmp_path)
    settings = {"name": "folder:elsewhere", "augment": "imagenet", "image_size": 8}
    (tmp_path / "config.json").write_text(json.dumps({"data": settings}))
    assert top1(data_name, run=tmp_path) == 100.0


def test_where_nothing_tells_it_the_flags_are_named(data_name, tmp_path):
    save_network(network(), tmp_path / "imported")
    message = failure(reports.report, run=tmp_path / "imported", data_name=data_name)
    assert f"data {data_name!r} to evaluate on: found images of several sizes" in message
    assert "--crop=center" in message and "--crop=whole" in message
    assert top1(data_name, run=tmp_path / "imported", crop="center") == 100.0
    assert "found no --crop" in failure(
        reports.report, run=tmp_path / "imported", data_name=data_name, image_size=8
    )
    with pytest.raises(TfkdError, match="unknown crop of network 'shades' 'middle'"):
        network("middle")


def test_a_saved_model_of_others_says_its_image_size_or_a_flag_does(data_name, tmp_path):
    shades.itself().export(tmp_path / "fixed", verbose=False)
    assert top1(data_name, saved_model=tmp_path / "fixed", crop="center", preprocess="none") == 100
    image = keras.Input((None, None, 3))
    logits = keras.layers.Dense(4)(keras.layers.GlobalAveragePooling2D()(image))
    keras.Model(image, logits).export(tmp_path / "any", verbose=False)
    given = {"saved_model": tmp_path / "any", "crop": "center", "preprocess": "none"}
    assert "wanted --image_size as well" in failure(reports.report, data_name=data_name, **given)
    assert reports.report(data_name=data_name, image_size=8, **given)["images"] == 8


def test_an_import_measures_and_records_what_the_network_sees(data_name):
    message = failure(importing.chosen_preprocess, data_name, network="resnet8")
    assert "found images of several sizes" in message and "--crop=center" in message
    found = importing.chosen_preprocess(data_name, network="resnet8", image_size=8, crop="center")
    np.testing.assert_allclose(found.mean, np.mean(list(shades.SHADES.values())))
    assert importing.chosen_crop(None, data_name) is None
    assert importing.chosen_crop(None, "imagenet2012") == data.CENTER
    assert importing.chosen_crop("whole", "imagenet2012") == "whole"
