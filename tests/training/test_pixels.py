"""How pixels reach the networks of a run, some of which normalize them or say it themselves."""

import shutil
import warnings
from pathlib import Path

import keras
import numpy as np
import pytest

from tests.fixtures import shades
from tfkd import TfkdError, TfkdWarning, evaluation, models
from tfkd.models.saving import load_network_file, save_network
from tfkd.training import build, config_checks, run, teachers
from tfkd.training import config as configs

EARLIER = Path(__file__).parents[1] / "fixtures" / "earlier_version"
TF = models.Preprocess.published("tf")
NONE = models.Preprocess.none()


@pytest.fixture(scope="module")
def data_name(tmp_path_factory):
    return shades.write(tmp_path_factory.mktemp("data") / "animals")


@pytest.fixture(scope="module")
def info(data_name):
    return build.data_set(shades.config(data_name)).info


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Files of teachers that are right about every image, if pixels reach them rightly."""
    place = tmp_path_factory.mktemp("files")
    shades.itself().save(place / "itself.keras")
    shades.model().save(place / "unknown.keras")
    shades.model().save_weights(place / "shades.weights.h5")
    # The student of a run with preprocess=tf, copied out of its folder.
    saved = save_network(shades.network(class_names=shades.NAMES), place / "run")
    shutil.copy(saved, place / "copied.keras")
    return place


@pytest.fixture
def experiment(data_name, files):
    """``experiment(file, **fields)``: a config with the teacher of one of these files."""
    return lambda file, **fields: shades.config(
        data_name, teacher__weights=str(files / file), **fields
    )


def obtained(config):
    """Returns the teacher, its top-1 score on the test images and what is told of it."""
    config_checks.validate(config)
    dataset = build.data_set(config)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        (teacher,) = teachers.obtain(config, dataset.info, train=None)
    lines = [str(each.message) for each in caught if each.category is TfkdWarning]
    top1 = evaluation.scores(evaluation.predictor(teacher), dataset.test())["top1"]
    return teacher, top1, lines


def first_convolution_sees(network):
    """Returns the smallest and the largest value that black and white images become."""
    model = network.model
    convolution = next(each for each in model.layers if isinstance(each, keras.layers.Conv2D))
    before = keras.Model(model.input, convolution.input)
    black, white = np.zeros((1, 32, 32, 3), "uint8"), np.full((1, 32, 32, 3), 255, "uint8")
    seen = np.concatenate([before(network.preprocess(each)) for each in (black, white)])
    return seen.min(), seen.max()


def test_an_application_that_normalizes_is_not_normalized_twice(data_name):
    """Before, its first convolution saw -2.15 .. -1.77."""
    fields = {"student__name": "keras.applications:EfficientNetV2B0", "data__image_size": 32}
    config = shades.config(data_name, **fields)
    network = build.student(config, build.data_set(config).info)
    assert network.preprocess == NONE
    # Keras pads the right and the bottom of the stem inside the convolution.
    np.testing.assert_allclose(first_convolution_sees(network), (-2.1179, 2.64), rtol=1e-3)


@pytest.mark.parametrize(
    ("kind", "scaled", "wanted"),
    [
        (None, True, "none"),
        (None, False, "dataset"),
        ("dataset", True, "dataset"),
        ("tf", True, "tf"),
        ("none", False, "none"),
    ],
)
def test_the_field_of_a_student_is_heeded_and_unset_looks_at_the_network(
    data_name, info, kind, scaled, wanted
):
    fields = {"student__preprocess": kind, "student__kwargs": {"scaled": scaled}}
    network = build.student(shades.config(data_name, **fields), info)
    assert network.preprocess == models.Preprocess.of(wanted, info)


@pytest.mark.parametrize("kind", [None, "dataset"])
def test_a_student_that_normalizes_is_told(data_name, kind, tmp_path, capsys):
    config = shades.config(
        data_name, student__preprocess=kind, student__kwargs={"scaled": True}, methods={}
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run(config, tmp_path / "run")
    said = capsys.readouterr().out
    lines = [str(each.message) for each in caught if each.category is TfkdWarning]
    name = f"student {shades.__file__}:student"
    if kind is None:
        assert f"{name} normalizes pixels itself (scaled: 0..255 become 0..1)\n" in said
        assert lines == []
    else:
        assert lines == [
            f"{name} normalizes pixels itself (scaled: 0..255 become 0..1), and "
            "student.preprocess=dataset has them normalized before that; none, or unset, does not"
        ]
        assert "normalizes pixels" not in said
    found = load_network_file(tmp_path / "run" / "student.keras")
    assert (found.preprocess == NONE) is (kind is None)


def test_a_teacher_file_that_normalizes_is_right_by_default(experiment):
    """Before, its pixels were normalized twice."""
    teacher, top1, lines = obtained(experiment("itself.keras"))
    assert (teacher.preprocess, top1, lines) == (NONE, 100.0, [])
    teacher, top1, lines = obtained(experiment("itself.keras", teacher__preprocess="none"))
    assert (teacher.preprocess, top1, lines) == (NONE, 100.0, [])


def test_a_teacher_file_that_is_to_be_normalized_twice_is_told(experiment):
    teacher, top1, lines = obtained(experiment("itself.keras", teacher__preprocess="dataset"))
    assert top1 < 60
    assert lines == [
        "teacher normalizes pixels itself (scaled: 0..255 become -1..1), and "
        "teacher.preprocess=dataset has them normalized before that; none, or unset, does not"
    ]


def test_a_copied_file_says_itself_how_pixels_reach_it(experiment):
    """Before, they were normalized by the mean and deviation of the data."""
    teacher, top1, lines = obtained(experiment("copied.keras"))
    assert (teacher.preprocess, top1, lines) == (TF, 100.0, [])
    assert (teacher.name, teacher.class_names) == ("copied", shades.NAMES)
    teacher, top1, lines = obtained(experiment("copied.keras", teacher__preprocess="tf"))
    assert (teacher.preprocess, top1, lines) == (TF, 100.0, [])


def test_a_field_that_says_something_else_than_the_file_is_told(experiment, info):
    teacher, _, (line,) = obtained(experiment("copied.keras", teacher__preprocess="dataset"))
    assert teacher.preprocess == models.Preprocess.of("dataset", info)
    assert line.startswith("teacher.preprocess=dataset: pixels reach it less 1")
    assert line.endswith(
        "but its file says less 127.5, divided by 127.5 (teacher.preprocess unset heeds that)"
    )


@pytest.mark.parametrize("fields", [{}, {"file": "shades.weights.h5"}, {"file": None}])
def test_of_an_unknown_teacher_a_warning_says_what_was_taken(experiment, files, info, fields):
    """A file of Keras, weights of a network, and a function with weights of its own."""
    file = fields.get("file", "unknown.keras")
    named = {} if file == "unknown.keras" else {"teacher__name": f"{shades.__file__}:trained"}
    if file is None:
        config = configs.override(experiment("unknown.keras"), teacher__weights=None, **named)
    else:
        config = experiment(file, **named)
    teacher, _, (line,) = obtained(config)
    assert teacher.preprocess == models.Preprocess.of("dataset", info)
    assert line == (
        f"teacher: nothing says which pixels its weights were trained on; those of {info.name} are "
        "normalized by its mean and deviation (teacher.preprocess=dataset says that, or none, tf, "
        "torch, caffe another)"
    )
    _, top1, lines = obtained(configs.override(config, teacher__preprocess="tf"))
    assert (top1, lines) == (100.0, [])


def test_a_further_teacher_is_told_by_its_own_field(experiment, files, info):
    further = (configs.teacher(weights=str(files / "unknown.keras")),)
    config = experiment("copied.keras", teachers=further)
    with pytest.warns(TfkdWarning, match=r"^teachers\[0\]: nothing .*\(teachers\[0\].preprocess=d"):
        teachers.obtain(config, info, train=None)


def test_an_application_with_published_weights_that_normalizes_needs_no_field(data_name, info):
    """What is wrong then is that published weights are of 1,000 classes; nothing is downloaded."""
    for name, kwargs, message in (
        ("MobileNetV3Small", {}, "`classes` should be 1000"),
        ("MobileNetV3Small", {"include_preprocessing": False}, "found no teacher.preprocess"),
        ("EfficientNetB0", {}, "`classes` should be 1000"),
        ("MobileNetV2", {}, "found no teacher.preprocess"),
    ):
        config = shades.config(
            data_name,
            teacher__name=f"keras.applications:{name}",
            teacher__kwargs={"weights": "imagenet", **kwargs},
        )
        with pytest.raises(TfkdError, match=message):
            teachers.sketch(config, info)


@pytest.mark.parametrize("name", ["student.keras", "student_best.keras", "teacher.keras"])
def test_files_of_the_earlier_version_are_described_beside_them(name, tmp_path):
    for each in ("network.json", name):
        shutil.copy(EARLIER / "adder" / each, tmp_path / each)
    found = load_network_file(tmp_path / name)
    (mean,) = found.preprocess.mean
    assert 50 < mean < 100 and found.class_names == tuple("0123456789")
    shutil.copy(tmp_path / name, tmp_path / "another.keras")
    with pytest.raises(TfkdError, match="another.keras': found nothing that says how pixels reach"):
        load_network_file(tmp_path / "another.keras")
