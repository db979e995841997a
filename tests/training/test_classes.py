"""Runs whose teachers name their classes, or do not."""

import dataclasses
import shutil
import warnings

import numpy as np
import pytest

from tests.fixtures import shades
from tfkd import TfkdError, TfkdWarning, evaluation
from tfkd.evaluation import reports
from tfkd.models.saving import load_network, save_network
from tfkd.training import build, config_checks, run, teachers, teaching
from tfkd.training import config as configs
from tfkd.training.experiment import Experiment

OTHER_ORDER = ("dog", "ant", "cat", "bee")


@pytest.fixture(scope="module")
def data_name(tmp_path_factory):
    return shades.write(tmp_path_factory.mktemp("data") / "animals")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Run folders of teachers that are right about every image, if they are asked rightly."""
    place = tmp_path_factory.mktemp("teachers")
    networks = {
        "same": shades.network(shades.NAMES, shades.NAMES),
        "other order": shades.network(OTHER_ORDER, OTHER_ORDER),
        "other animals": shades.network(class_names=("cow", "eel", "fox", "hen")),
        "unknown": shades.network(),
        "unknown order": shades.network(OTHER_ORDER),
        "numbers": shades.network(OTHER_ORDER, ("0", "1", "2", "3")),
    }
    for name, network in networks.items():
        save_network(network, place / name)
    return {name: str(place / name) for name in networks}


@pytest.fixture
def experiment(data_name, folders):
    """``experiment(name, **fields)``: a config with one of these teachers."""
    return lambda name, **fields: shades.config(
        data_name, **{"teacher__workdir": folders[name], **fields}
    )


def top1(network, config):
    return evaluation.scores(evaluation.predictor(network), build.data_set(config).test())["top1"]


def obtained(config):
    config_checks.validate(config)
    return teachers.obtain(config, build.data_set(config).info, train=None)


def told(config, capsys):
    """Returns what is said of the teachers before training, and the warnings."""
    config_checks.validate(config)
    found = teaching.of(Experiment.of(config))
    found.obtain(train=None)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found.tell(print, "", {})
    lines = [str(each.message) for each in caught if each.category is TfkdWarning]
    return capsys.readouterr().out, lines


def test_classes_in_another_order_teach_as_those_in_the_same(experiment, tmp_path, capsys):
    """Before, the teacher of these two scored 25 %, and the student learned other classes."""
    with pytest.warns(TfkdWarning) as caught:
        found = run(experiment("other order"), tmp_path / "mapped")
    lines = [str(each.message) for each in caught if each.category is TfkdWarning]
    assert len(lines) == 1 and lines[0].startswith("teacher shades has the classes of folder:")
    assert "in another order: its outputs are brought into that of folder:" in lines[0]
    wanted = run(experiment("same"), tmp_path / "same")
    assert found["teacher_top1"] == wanted["teacher_top1"] == 100.0
    assert found["agreement"] == wanted["agreement"]
    students = [load_network(tmp_path / each) for each in ("mapped", "same")]
    for one, other in zip(*(each.model.get_weights() for each in students), strict=True):
        np.testing.assert_array_equal(one, other)
    assert students[0].class_names == shades.NAMES
    assert "teacher shades: top-1 100.00 %" in capsys.readouterr().out


def test_another_order_taken_by_number_is_what_it_was(experiment):
    config = experiment("other order", teacher__classes="by_number")
    assert top1(obtained(config)[0], config) == 25.0


def test_other_animals_are_refused_and_nothing_is_left(experiment, tmp_path):
    with pytest.raises(TfkdError) as error:
        run(experiment("other animals"), tmp_path / "run")
    text = str(error.value)
    assert text.startswith("teacher shades: found the classes 'cow', 'eel', 'fox' and 1 more, want")
    assert text.endswith("animals has (teacher.classes=by_number takes them by their numbers)")
    assert "\n" not in text and not (tmp_path / "run").exists()
    assert obtained(experiment("other animals", teacher__classes="by_number"))


def test_a_folder_whose_classes_were_renamed_is_other_data(folders, tmp_path):
    """The same images; their folders sort otherwise."""
    name = shades.write(tmp_path / "renamed", ("4 ant", "3 bee", "2 cat", "1 dog"))
    config = shades.config(name, teacher__workdir=folders["same"])
    with pytest.raises(TfkdError, match="found the classes 'ant', 'bee', 'cat' and 1 more, wanted"):
        teachers.sketch(config, build.data_set(config).info)


def test_a_run_on_some_classes_names_these_and_is_no_run_on_others(data_name, folders, tmp_path):
    classes = ("dog", "ant", "cat")
    config = shades.config(data_name, methods={}, data__classes=classes)
    result = run(config, tmp_path / "run")
    assert result["inputs"]["data"]["classes"] == ["ant", "cat", "dog"]
    assert load_network(tmp_path / "run").class_names == ("ant", "cat", "dog")
    assert reports.report(run=tmp_path / "run")["images"] == 6
    run(config, tmp_path / "run")
    others = configs.override(config, data__classes=("ant", "bee", "cat"))
    with pytest.raises(TfkdError, match="another config: data.classes is"):
        run(others, tmp_path / "run")
    taught = shades.config(data_name, data__classes=classes, teacher__workdir=folders["same"])
    with pytest.raises(TfkdError, match="teacher shades has 4 classes, but folder:.* has 3"):
        run(taught, tmp_path / "taught")


@pytest.mark.parametrize("name", ["unknown order", "numbers"])
def test_a_teacher_without_names_that_guesses_is_told_before_training(name, experiment, capsys):
    said, lines = told(experiment(name), capsys)
    assert "top-1 25.00 % on folder:" in said
    (line,) = lines
    assert line.startswith("teacher shades: top-1 25.00 % on 32 training images of folder:")
    assert "in another order (teacher.class_names names them)" in line


@pytest.mark.parametrize("name", ["unknown", "same"])
def test_a_teacher_that_knows_the_classes_is_not(name, experiment, capsys):
    assert told(experiment(name), capsys)[1] == []


def test_the_tenth_of_a_class_is_enough_to_know(experiment, monkeypatch, capsys):
    """At most 500 images are looked at, alike in every class."""
    monkeypatch.setattr(teaching, "_TRIED_ON", 4)
    (line,) = told(experiment("unknown order"), capsys)[1]
    assert "top-1 25.00 % on 4 training images" in line


def test_names_from_a_file_bring_a_teacher_into_order(experiment, folders, tmp_path, capsys):
    file = tmp_path / "names.txt"
    file.write_text("\n".join(OTHER_ORDER))
    config = experiment("unknown order", teacher__class_names=str(file))
    with pytest.warns(TfkdWarning, match="in another order"):
        (teacher,) = obtained(config)
    assert teacher.class_names == shades.NAMES and top1(teacher, config) == 100.0
    with pytest.raises(
        TfkdError, match="found other names than shades has itself, wanted it unset"
    ):
        obtained(experiment("same", teacher__class_names=str(file)))
    file.write_text("ant\nbee")
    with pytest.raises(
        TfkdError, match="teacher shades: found 2 class names, wanted 4, one a class"
    ):
        obtained(config)
    file.unlink()
    with pytest.raises(
        TfkdError, match="^teacher.class_names: class names '.*' cannot be read|: c"
    ):
        teachers.check(config, tmp_path / "run")


def test_a_function_of_the_users_is_given_names(data_name, tmp_path):
    file = tmp_path / "names.txt"
    file.write_text("\n".join(OTHER_ORDER))
    config = shades.config(
        data_name,
        teacher__name=f"{shades.__file__}:trained",
        teacher__kwargs={"order": OTHER_ORDER},
        teacher__preprocess="tf",
        teacher__class_names=str(file),
    )
    with pytest.warns(TfkdWarning, match="in another order"):
        (teacher,) = obtained(config)
    assert top1(teacher, config) == 100.0


def test_each_of_several_teachers_has_a_field_of_its_own(experiment, folders):
    further = (configs.teacher(workdir=folders["other order"]),)
    with pytest.warns(TfkdWarning, match=r"^teachers\[0\] shades has the classes of"):
        found = obtained(experiment("same", teachers=further))
    assert [top1(each, experiment("same")) for each in found] == [100.0, 100.0]
    further = (configs.teacher(workdir=folders["other animals"]),)
    with pytest.raises(TfkdError, match=r"\(teachers\[0\].classes=by_number takes them"):
        obtained(experiment("same", teachers=further))
    further = (configs.teacher(workdir=folders["other animals"], classes="by_number"),)
    assert len(obtained(experiment("same", teachers=further))) == 2


def test_a_copied_file_keeps_its_names(data_name, folders, tmp_path):
    copied = tmp_path / "mine.keras"
    shutil.copy(f"{folders['other order']}/student.keras", copied)
    config = shades.config(data_name, teacher__weights=str(copied))
    with pytest.warns(TfkdWarning, match="in another order"):
        (teacher,) = obtained(config)
    assert top1(teacher, config) == 100.0


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"teacher__classes": "by_nmae"}, "teacher.classes 'by_nmae'; did you mean 'by_name'"),
        (
            {"teacher__config": "some.py", "teacher__workdir": None},
            "teacher.class_names: found 'names.txt' besides teacher.config, wanted it unset",
        ),
        (
            {
                "methods": configs.methods(pkkd={}),
                "teacher__workdir": None,
                "teacher__name": "resnet8",
            },
            "teacher.class_names: found 'names.txt', wanted it unset: a teacher that trains beside",
        ),
    ],
)
def test_a_wrong_field_is_told_before_anything_is_loaded(experiment, fields, message):
    fields = {"teacher__class_names": "names.txt", **fields}
    with pytest.raises(TfkdError, match=message):
        config_checks.validate(experiment("same", **fields))


def test_features_of_the_logits_come_in_the_order_of_the_data(data_name):
    dataset = build.data_set(shades.config(data_name))
    network = shades.network(OTHER_ORDER, OTHER_ORDER)
    with pytest.warns(TfkdWarning, match="^features of shades has the classes of folder"):
        found = evaluation.features(network, ["logits", "pooled"], dataset)
    np.testing.assert_array_equal(found["logits"].argmax(-1), dataset.train_labels)
    other = dataclasses.replace(network, class_names=("cow", "eel", "fox", "hen"))
    with pytest.raises(TfkdError, match="features of shades: found the classes 'cow'"):
        evaluation.features(other, ["logits"], dataset)
    again = evaluation.features(other, ["pooled"], dataset)
    np.testing.assert_array_equal(again["pooled"], found["pooled"])
