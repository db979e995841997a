"""What a student starts from."""

import keras
import numpy as np
import pytest

from tfkd import TfkdError, data, models
from tfkd.models.saving import save_alone
from tfkd.training import build, run
from tfkd.training import config as configs


@pytest.fixture(scope="module")
def info():
    return data.load("digits").info


def network(classes, preprocess=None, seed=1):
    keras.utils.set_random_seed(seed)
    model = models.create("resnet8", classes, (8, 8, 1), widths=(4, 4, 8, 8))
    return models.Network(model, preprocess or models.Preprocess.none(), "resnet8")


def config_of(path, **fields):
    config = configs.load("quickstart:alone,smoke")
    return configs.override(config, student__weights=str(path), **fields)


@pytest.mark.parametrize("classes", [10, 7])
def test_a_student_starts_from_a_file_whose_classes_may_be_others(classes, info, tmp_path, capsys):
    source = network(classes)
    path = save_alone(source, tmp_path / "source.keras")
    student = build.student(config_of(path), info, say=print)
    *body, kernel, bias = zip(student.model.get_weights(), source.model.get_weights(), strict=True)
    for found, wanted in body:
        np.testing.assert_array_equal(found, wanted)
    said = capsys.readouterr().out
    if classes == 10:
        np.testing.assert_array_equal(*kernel)
        assert "fresh" not in said
    else:
        assert kernel[0].shape[-1] == 10
        assert f"starts from {path}; its last layer logits is fresh" in said
    # Pixels reach it as the file says, unless the config says otherwise.
    assert student.preprocess == models.Preprocess.none()
    told = build.student(config_of(path, student__preprocess="dataset"), info)
    assert told.preprocess != models.Preprocess.none()


def test_weights_of_another_network_and_missing_ones_are_refused_before_training(info, tmp_path):
    wrong = tmp_path / "wrong.weights.h5"
    keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]).save_weights(wrong)
    for given, words in (
        (wrong, "does not fit resnet8"),
        (tmp_path / "none.keras", "no such file"),
        ("imagenet", "wanted a network of keras.applications, or a file"),
    ):
        with pytest.raises(TfkdError, match=words):
            run(config_of(given), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_network_of_keras_applications_starts_from_its_published_weights(info, monkeypatch):
    def tiny(input_shape=(8, 8, 1), weights=None, classes=5, classifier_activation="softmax"):
        image = keras.Input(input_shape)
        hidden = keras.layers.Flatten()(image)
        hidden = keras.layers.Dense(3, kernel_initializer="ones" if weights else "zeros")(hidden)
        last = keras.layers.Dense(classes, activation=classifier_activation, name="predictions")
        return keras.Model(image, last(hidden))

    monkeypatch.setattr(keras.applications, "Tiny", tiny, raising=False)
    fields = {"student__name": "keras.applications:Tiny", "student__kwargs": {}}
    with pytest.raises(TfkdError, match="found no student.preprocess"):
        run(config_of("imagenet", **fields), "nowhere")
    config = config_of("imagenet", student__preprocess="none", **fields)
    student = build.student(config, info)
    assert np.all(student.model.get_weights()[0] == 1)
    assert student.model.output_shape == (None, 10)
