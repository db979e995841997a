"""A run is compared by what its config points at: what has changed since is said, and stops it."""

import json
import re
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.training.conftest import EXPERIMENT
from tfkd import data, models
from tfkd.errors import TfkdError
from tfkd.evaluation import subjects
from tfkd.models import references
from tfkd.models.saving import save_network
from tfkd.training import build, compare, inputs, run, teachers
from tfkd.training import config as configs
from tfkd.training import strategy as strategies
from tfkd.training.checkpoints import Checkpoints
from tfkd.training.run_folder import RunFolder

SIX_TIMES_FIFTEEN = {
    "train__epochs": 6,
    "train__batch_size": 16,
    "train__checkpoint_seconds": 0.0,
}


def write(folder, count, first=0):
    """Writes ``count`` images of each of four classes, all of them different, counted from one."""
    for label, name in enumerate("abcd"):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(first, first + count):
            image = np.random.default_rng((label, number)).integers(0, 256, (8, 8, 3), np.uint8)
            (folder / name / f"{number:03d}.png").write_bytes(tf.io.encode_png(image).numpy())


def on(place, **fields):
    return {**SIX_TIMES_FIFTEEN, "data__name": f"folder:{place}", **fields}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    place = tmp_path_factory.mktemp("images") / "data"
    write(place / "train", 60)
    write(place / "test", 4, first=200)
    return place


@pytest.fixture(scope="module")
def killed(images, experiment, tmp_path_factory):
    """A run that was killed at step 37 of 6 x 15, to be copied."""
    folder = tmp_path_factory.mktemp("killed") / "run"
    stop(experiment("alone", **on(images)), folder, after=37)
    assert Checkpoints(folder / "checkpoints").meta()["step"] == 37
    return folder


def stop(config, folder, after):
    class Stopped(BaseException):
        pass

    write, left = Checkpoints.save, [after]

    def save(self, *arguments):
        path = write(self, *arguments)
        left[0] -= 1
        if not left[0]:
            raise Stopped
        return path

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Checkpoints, "save", save)
        with pytest.raises(Stopped):
            run(config, folder)


@pytest.fixture
def mine(killed, images, tmp_path):
    """Copies of the killed run and of its images."""
    shutil.copytree(killed, tmp_path / "run")
    shutil.copytree(images, tmp_path / "data", copy_function=shutil.copy)
    return tmp_path


def refusal(config, folder):
    """Returns the one line that refuses a run, which leaves its folder as it was."""
    before = sorted((path, path.stat().st_mtime_ns) for path in folder.rglob("*.npz"))
    with pytest.raises(TfkdError) as caught:
        run(config, folder)
    assert sorted((path, path.stat().st_mtime_ns) for path in folder.rglob("*.npz")) == before
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("accept", [False, True])
def test_a_run_killed_at_step_37_does_not_go_on_with_twice_the_images(accept, mine, experiment):
    write(mine / "data" / "train", 60, first=60)
    message = refusal(experiment("alone", **on(mine / "data", accept_changes=accept)), mine / "run")
    assert "train images: 240 there and 480 here" in message
    assert "epochs of 15 steps cannot go on with 30" in message
    assert "a new --workdir" in message


def test_nor_is_it_finished_with_a_third_of_them(mine, experiment):
    for path in (mine / "data" / "train").rglob("*.png"):
        if int(path.stem) >= 20:
            path.unlink()
    message = refusal(experiment("alone", **on(mine / "data")), mine / "run")
    assert "train images: 240 there and 80 here" in message
    assert not (mine / "run" / "result.json").exists()


def test_other_images_of_the_same_number_are_refused_by_what_accepts_them(mine, experiment):
    path = mine / "data" / "train" / "c" / "007.png"
    path.write_bytes((path.parent / "008.png").read_bytes())
    message = refusal(experiment("alone", **on(mine / "data")), mine / "run")
    assert "train images: 240 there and here, but others or in another order" in message
    assert "--config.accept_changes=True" in message


def test_a_moved_folder_goes_on_and_accepted_changes_are_on_record(mine, experiment, capsys):
    write(mine / "data" / "test", 1, first=210)
    config = experiment("alone", **on(mine / "data"))
    assert "test images: 16 there and 20 here" in refusal(config, mine / "run")
    accepting = configs.override(config, accept_changes=True)
    result = run(accepting, mine / "run")
    out = capsys.readouterr().out
    assert "accepted changes: test images: 16 there and 20 here" in out
    assert "continuing after step 37" in out
    assert (result["epochs"], result["steps"]) == (6, 90)
    assert result["accepted_changes"] == ["test images: 16 there and 20 here"]
    parts = result["inputs"]["data"]["parts"]
    assert parts["train"]["images"] == 240 and parts["train"]["by"] == "contents"

    # Now it is finished, and finished on these images; what is no image does not matter.
    (mine / "data" / "notes.txt").write_text("of the data")
    assert run(config, mine / "run")["steps"] == 90
    write(mine / "data" / "train", 1, first=60)
    message = refusal(config, mine / "run")
    assert "train images: 240 there and 244 here" in message
    with pytest.raises(TfkdError, match="240 there and 244 here"):
        inputs.check_before(config, RunFolder(mine / "run"))
    assert run(accepting, mine / "run")["steps"] == 90
    assert "accepted changes: train images: 240 there and 244 here" in capsys.readouterr().out
    with pytest.warns(UserWarning, match="images of 'train' are others than in the run"):
        subjects.check_part(mine / "run", build.data_set(config), "train")

    # Where the data are gone, the result is still there.
    shutil.rmtree(mine / "data")
    capsys.readouterr()
    assert run(config, mine / "run")["steps"] == 90
    assert "are not there to compare" in capsys.readouterr().out


def test_what_a_method_remembers_of_an_image_goes_to_no_other(images, experiment):
    config = experiment("noisy", **on(images, accept_changes=True))
    there = inputs.record(config, build.data_set(config))
    here = json.loads(json.dumps(there))
    here["data"]["parts"]["train"]["digest"] = "another"
    with pytest.raises(TfkdError, match="noisy remembers something of each training image"):
        inputs._check_trainable(config, RunFolder("runs/x"), there, here)


def test_records_that_are_shuffled_by_another_rule_are_told(images, experiment):
    """A run that is finished is what it was; another one would not go on with its batches."""
    config = experiment("noisy", **on(images))
    there = inputs.record(config, build.data_set(config))
    here = json.loads(json.dumps(there))
    here["data"]["parts"]["train"]["order"] = 2
    said = ["train images: 240 there and here, which this version of tfkd shuffles anew"]
    assert inputs.changes(there, here) == said
    assert inputs.changes(there, here, trained=True) == []
    # Each image has its place as before, where a method remembers something of it.
    inputs._check_trainable(config, RunFolder("runs/x"), there, here)


def test_files_that_networks_are_given_and_names_of_classes_count(images, experiment, tmp_path):
    weights = tmp_path / "some.h5"
    weights.write_bytes(b"1")
    config = experiment("alone", **on(images))
    config.student.kwargs["weights"] = str(weights)
    there = inputs.record(config, build.data_set(config))
    assert there["files"]["student.kwargs.weights"]["by"] == "contents"
    assert inputs.changes(there, there) == []
    config.student.kwargs["options"] = {"files": [str(weights)]}
    deep = inputs.record(config, build.data_set(config))["files"]
    assert deep["student.kwargs.options.files[0]"] == there["files"]["student.kwargs.weights"]
    weights.write_bytes(b"2")
    here = inputs.record(config, build.data_set(config))
    here["data"]["classes"][3] = "e"
    assert inputs.changes(there, here) == [
        "classes: a, b, c, d there and a, b, c, e here",
        "student.kwargs.weights: some.h5 has other contents",
    ]


def test_the_network_that_exits_are_put_on_counts(images, experiment, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(f"import keras\n{CODE}\n{HEAD}")
    Path("some.h5").write_bytes(b"1")
    config = experiment("alone", **on(images, student__name="multi_exit"))
    config.student.kwargs = {"of": "mine.py:small", "head": "mine.py:head"}
    config.student.kwargs.of_kwargs = {"weights": "some.h5"}
    there = inputs.record(config, build.data_set(config))
    Path("mine.py").write_text(f"import keras\n{CODE}\n{HEAD}\n" + "scale = 2\n")
    Path("some.h5").write_bytes(b"2")
    assert inputs.changes(there, inputs.record(config, build.data_set(config))) == [
        "student.kwargs.of_kwargs.weights: some.h5 has other contents",
        "student.kwargs.of mine.py:small: mine.py was edited",
        "student.kwargs.head mine.py:head: mine.py was edited",
    ]
    config.student.name = "blockwise"
    found = inputs.record(config, build.data_set(config))["code"]
    assert list(found) == ["student.kwargs.of mine.py:small"]


def small_teacher(class_names="abcd", activation="relu", pixels=None):
    """Returns a teacher whose weights are the same at every call."""
    keras.utils.set_random_seed(3)
    image = keras.Input((8, 8, 3))
    hidden = keras.layers.Conv2D(4, 3)(image)
    hidden = keras.layers.Activation(activation)(hidden)
    hidden = keras.layers.GlobalAveragePooling2D(name="pooled")(hidden)
    model = keras.Model(image, keras.layers.Dense(4, name="logits")(hidden))
    pixels = pixels or models.Preprocess((127.0,), (60.0,))
    return models.Network(model, pixels, "small", class_names=tuple(class_names))


@pytest.mark.parametrize("field", ["weights", "workdir"])
def test_a_teacher_of_the_same_arrays_is_another_one_by_what_it_makes_of_them(
    field, images, experiment, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    place = {"weights": "teacher/student.keras", "workdir": "teacher"}[field]
    config = experiment(
        "distilled",
        **{**on(images, teacher__config=None, teacher__workdir=None), f"teacher__{field}": place},
    )

    def recorded(**changed):
        shutil.rmtree("teacher", ignore_errors=True)
        save_network(small_teacher(**changed), "teacher")
        return inputs.record(config)

    there = recorded()
    # Keras numbers the layers without names on and on.
    assert inputs.changes(there, recorded()) == []
    for word, changed in (
        ("class names", {"class_names": "dcba"}),
        ("layers", {"activation": "tanh"}),
        ("pixels", {"pixels": models.Preprocess.none()}),
    ):
        said = f"the {word} of teacher (student.keras) are others"
        assert inputs.changes(there, recorded(**changed)) == [said]
        # The last is there now; a finished run finds it as well.
        with pytest.raises(TfkdError, match=re.escape(said)):
            inputs.check_finished(config, RunFolder("student"), {"inputs": there})


PRETRAINED = """
import functools
import keras

def small(num_classes, input_shape, name, width=4):
    image = keras.Input(input_shape)
    hidden = keras.layers.Conv2D(width, 3)(image)
    hidden = keras.layers.GlobalAveragePooling2D(name="pooled")(hidden)
    return keras.Model(image, keras.layers.Dense(num_classes, name="logits")(hidden), name=name)

def pretrained(num_classes, input_shape, name):
    model = small(num_classes, input_shape, name)
    model.load_weights("some.weights.h5")
    return model

wide = functools.partial(small, width=8)
"""


def test_a_file_that_a_function_opens_by_itself_counts_as_the_teacher(
    images, experiment, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(PRETRAINED)
    config = experiment(
        "distilled",
        **on(images, teacher__config=None, teacher__workdir=None),
        teacher__name="mine.py:pretrained",
        teacher__preprocess="dataset",
    )
    model = references.find("mine.py:small")(4, (8, 8, 3), "small")
    model.save_weights("some.weights.h5")
    stop(config, Path("student"), after=2)
    inputs.check_before(config, RunFolder("student"))
    model.set_weights([1.01 * each for each in model.get_weights()])
    model.save_weights("some.weights.h5")
    said = "the weights of teacher (mine.py:pretrained) are others"
    assert said in refusal(config, Path("student"))
    with pytest.raises(TfkdError, match=re.escape(said)):
        inputs.check_before(config, RunFolder("student"))


def test_what_a_name_stands_for_counts_in_whatever_form_and_encoding(
    images, experiment, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_bytes(f"# coding: latin-1\n# \xe4\n{PRETRAINED}".encode("latin-1"))
    config = experiment("alone", **on(images, student__name="mine.py:wide"))
    model = models.create("mine.py:wide", 4, (8, 8, 3))
    assert (model.name, model.layers[1].filters) == ("wide", 8)
    there = inputs.record(config)
    edited = PRETRAINED.replace("width=8", "width=9")
    Path("mine.py").write_bytes(f"# coding: latin-1\n# \xe4\n{edited}".encode("latin-1"))
    said = ["student.name mine.py:wide: mine.py was edited"]
    assert inputs.changes(there, inputs.record(config)) == said

    # It may come from elsewhere, and the file that is named say which one it is.
    Path("mine.py").write_text("from elsewhere_of_mine import small as wide\n")
    Path("elsewhere_of_mine.py").write_text(PRETRAINED)
    there = inputs.record(config)
    Path("mine.py").write_text("from elsewhere_of_mine import pretrained as wide\n")
    said = ["student.name mine.py:wide (mine.py): mine.py was edited"]
    assert inputs.changes(there, inputs.record(config)) == said


def test_workers_with_something_else_stop_before_they_begin(
    images, experiment, tmp_path, monkeypatch
):
    """Another worker has, of everything that is compared, another number."""
    monkeypatch.setattr(strategies, "_sum_over_workers", lambda strategy, number: number + 1)
    with pytest.raises(
        TfkdError, match="found other train images, validation images, test im"
    ) as a:
        run(experiment("alone", **on(images)), tmp_path / "run")
    assert "wanted the same on all" in str(a.value) and "\n" not in str(a.value)
    assert not (tmp_path / "run").exists()


def test_a_teacher_on_demand_lies_where_its_images_say_and_not_where_they_lie(
    mine, images, experiment
):
    def folder(place):
        config = student(experiment, place)
        config.teacher.config = str(EXPERIMENT) + ":teacher"
        data.files(config.data.name)
        return teachers.reference(config)[1]

    (mine / "data" / "notes.txt").write_text("of the data")
    assert folder(mine / "data") == folder(images)
    (mine / "data" / "train" / "a" / "000.png").unlink()
    assert folder(mine / "data") != folder(images)


def test_a_run_without_a_record_says_so_or_stops_for_what_has_certainly_changed(
    mine, experiment, capsys
):
    store = Checkpoints(mine / "run" / "checkpoints")
    arrays, meta = store.load()
    del meta["inputs"]
    store.save(arrays, meta, 37)
    store.paths()[1].unlink()

    def made(**fields):
        config = experiment("alone", **on(mine / "data", **fields))
        return inputs.Inputs(config, RunFolder(mine / "run"), build.data_set(config))

    made().check()
    assert "written before tfkd recorded what a config points at" in capsys.readouterr().out
    with pytest.raises(TfkdError, match="held out by the rule of an earlier version"):
        made(data__validation_size=40).check()


HEAD = """
def head(features, num_classes, name):
    return keras.layers.Dense(num_classes, name=name)(features)
"""
TEACHER = """
import keras
from tfkd import models
from tfkd.training.config import default

{code}

def get_config(argument=""):
    config = default()
    config.student.name = "mine.py:small"
    config.train.epochs = {epochs}
    config.train.verbose = 0
    config.train.batch_size = 16
    return config
"""
CODE = """
def small(num_classes, input_shape, name):
    image = keras.Input(input_shape)
    hidden = keras.layers.GlobalAveragePooling2D(name="pooled")(image)
    return keras.Model(image, keras.layers.Dense(num_classes, name="logits")(hidden), name=name)
"""


@pytest.fixture(scope="module")
def taught(images, experiment, tmp_path_factory):
    """A student of a teacher on demand that was killed, in a working folder with the teacher."""
    place = tmp_path_factory.mktemp("taught")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        Path("mine.py").write_text(TEACHER.format(code=CODE, epochs=1))
        stop(student(experiment, images), Path("student"), after=3)
    return place


def student(experiment, images, **fields):
    return experiment(
        "distilled", **on(images, teacher__config="mine.py", teacher__workdir=None, **fields)
    )


@pytest.fixture
def place(taught, tmp_path, monkeypatch):
    shutil.copytree(taught, tmp_path / "place")
    monkeypatch.chdir(tmp_path / "place")
    return tmp_path / "place"


def test_an_edited_config_of_the_teacher_trains_no_second_one(place, images, experiment):
    assert len(list(place.glob("runs/teachers/*"))) == 1
    Path("mine.py").write_text(TEACHER.format(code=CODE, epochs=2))
    message = refusal(student(experiment, images), Path("student"))
    assert "teacher.config: train.epochs is 1 there and 2 here" in message
    assert "--config.accept_changes=True" in message
    assert len(list(place.glob("runs/teachers/*"))) == 1


def test_edited_code_and_other_weights_of_the_teacher_are_seen(place, images, experiment):
    config = student(experiment, images)
    edited = CODE.replace("hidden = ", "hidden = 2.0 * ")
    Path("mine.py").write_text(TEACHER.format(code=edited, epochs=1))
    message = refusal(config, Path("student"))
    assert "teacher.config: student.name mine.py:small: mine.py was edited" in message

    Path("mine.py").write_text(TEACHER.format(code=CODE, epochs=1) + "\n# a remark\n")
    (file,) = place.glob("runs/teachers/*/seed0/student.keras")
    model = keras.models.load_model(file)
    model.save(file)  # At another time, but the same.
    inputs.Inputs(config, RunFolder("student"), build.data_set(config)).check()
    model.set_weights([1.01 * each for each in model.get_weights()])
    model.save(file)
    message = refusal(config, Path("student"))
    assert "the weights of teacher (student.keras) are others" in message


def test_a_teacher_of_other_images_is_not_shared(place, mine, experiment):
    write(mine / "data" / "train", 1, first=60)
    config = student(experiment, mine / "data")
    (teacher,) = place.glob("runs/teachers/*/seed0")
    config.teacher.workdir = str(teacher)
    message = refusal(config, Path("another"))
    assert message.startswith("teacher: workdir")
    assert "train images: 240 there and 244 here" in message


def test_a_comparison_stops_before_its_first_run(place, mine, experiment, monkeypatch):
    config = student(experiment, mine / "data")
    role = compare.roles({"distilled": config}, 0, Path("many"))["teacher"]
    (teacher,) = place.glob("runs/teachers/*/seed0")
    shutil.copytree(teacher, role.folder)
    write(mine / "data" / "train", 1, first=60)
    monkeypatch.setattr("tfkd.training.compare.running.run", None)
    with pytest.raises(TfkdError, match="240 there and 244 here"):
        compare.compare(config, "many", [0])
