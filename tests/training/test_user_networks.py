"""Runs with networks of the user's own and of keras.applications."""

import json
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfkd import export, models
from tfkd.errors import TfkdError
from tfkd.models.saving import load_network
from tfkd.training import build, config_checks, run, teachers
from tfkd.training import config as configs

NETWORKS = Path(__file__).parents[1] / "fixtures" / "user_networks.py"
TAPS = {"pre_pool": "last_maps", "pooled": "average"}
MOBILENET = "keras.applications:MobileNetV2"
SHALLOWER = "keras.applications:MobileNet"


@pytest.fixture
def own(experiment):
    """``own(method, **fields)``: an experiment whose student and teacher are of the user's file."""

    def make(method="noisy", **fields):
        usual = dict(
            student__name=f"{NETWORKS}:build",
            student__kwargs={},
            student__taps=TAPS,
            teacher__name=f"{NETWORKS}:trained",
            teacher__taps=TAPS,
            teacher__config=None,
            teacher__workdir=None,
        )
        return experiment(method, **{**usual, **fields})

    return make


def weights(folder):
    return load_network(folder).model.get_weights()


def test_a_run_with_networks_of_the_users_own_is_continued_saved_and_exported(
    own, stopped, tmp_path
):
    config = own(train__checkpoint_seconds=0.0, export__enabled=True)
    whole = run(config, tmp_path / "whole")
    assert whole["student"] == f"{NETWORKS}:build"
    assert whole["teacher"] == f"{NETWORKS}:trained"
    assert whole["params"] == 8 * 9 + 2 * 8 + 8 * 10 + 10
    stopped(config, tmp_path / "cut", after=3)
    assert run(config, tmp_path / "cut")["top1_last"] == whole["top1_last"]
    for one, other in zip(weights(tmp_path / "whole"), weights(tmp_path / "cut"), strict=True):
        np.testing.assert_array_equal(one, other)
    saved = load_network(tmp_path / "whole")
    assert saved.taps == TAPS
    assert saved.model.get_layer("average").output.shape == (None, 8)
    images = np.random.default_rng(0).integers(0, 17, (3, 8, 8, 1), np.uint8)
    exported = tf.saved_model.load(str(tmp_path / "whole" / "export"))
    found = exported.signatures["serving_default"](image=tf.constant(images))["logits"]
    np.testing.assert_allclose(found, saved(images, training=False), rtol=1e-4, atol=1e-5)
    assert export.describe(tmp_path / "whole" / "export")["name"] == f"{NETWORKS}:build"


def test_a_run_folder_tells_a_later_teacher_the_names_of_its_taps(own, experiment, tmp_path):
    run(own("distilled", train__epochs=1), tmp_path / "teacher")
    folder = str(tmp_path / "teacher")
    later = experiment("noisy", train__epochs=1, teacher__config=None, teacher__workdir=folder)
    info = build.data_set(later).info
    (teacher,) = teachers.obtain(later, info, train=None)
    assert teacher.taps == TAPS
    more = configs.override(later, teacher__taps={"stem": "average"})
    (teacher,) = teachers.obtain(more, info, train=None)
    assert teacher.taps == {**TAPS, "stem": "average"}
    assert run(later, tmp_path / "later")["epochs"] == 1


def test_a_teacher_of_the_users_own_takes_weights_from_a_file(own, tmp_path):
    path = tmp_path / "teacher.weights.h5"
    model = models.create(f"{NETWORKS}:build", 10, (8, 8, 1), width=5)
    model.save_weights(path)
    fields = dict(teacher__weights=str(path), teacher__kwargs={"width": 5})
    config = own("distilled", teacher__name=f"{NETWORKS}:build", **fields)
    config_checks.validate(config)
    (teacher,) = teachers.obtain(config, build.data_set(config).info, train=None)
    for found, wanted in zip(teacher.model.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_a_lone_file_and_a_function_see_pixels_as_the_config_says(own, tmp_path):
    info = build.data_set(own()).info
    models.create(f"{NETWORKS}:build", 10, (8, 8, 1)).save(tmp_path / "teacher.keras")
    sources = [{}, {"teacher__name": None, "teacher__weights": str(tmp_path / "teacher.keras")}]
    for source in sources:
        for kind, wanted in (
            (None, models.Preprocess(info.mean, info.std)),
            ("dataset", models.Preprocess(info.mean, info.std)),
            ("none", models.Preprocess.none()),
        ):
            config = own(**source, teacher__preprocess=kind)
            config_checks.validate(config)
            (teacher,) = teachers.obtain(config, info, train=None)
            assert teacher.preprocess == wanted


@pytest.mark.parametrize("kind", ["tf", "torch", "caffe"])
def test_a_published_preprocessing_is_for_images_in_color(own, kind):
    config = own(student__preprocess=kind)
    config_checks.validate(config)
    with pytest.raises(TfkdError, match=f"preprocess '{kind}': found images .* wanted 3 channels"):
        build.student(config, build.data_set(config).info)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"student__name": f"{NETWORKS}:bild"}, "unknown function of .*'bild'; did you mean"),
        ({"student__name": "no_such_module:net"}, "no module 'no_such_module'"),
        ({"student__taps": {"pooled": 3}}, r"student.taps: found \{'pooled': 3\}, wanted a dict"),
        ({"teacher__preprocess": "cafe"}, "teacher.preprocess 'cafe'; did you mean 'caffe'"),
        ({"teacher__workdir": "runs/x"}, "found teacher.name besides teacher.workdir"),
        (
            {"teacher__workdir": "runs/x", "teacher__name": None, "teacher__preprocess": "tf"},
            "teacher.preprocess: found 'tf' besides teacher.workdir",
        ),
        ({"teacher__name": None}, "needs a teacher: found none of .*module:function"),
        ({"teacher__name": "tiny"}, "needs a teacher: found none of .*module:function"),
    ],
)
def test_a_wrong_field_is_told_before_anything_is_loaded(own, fields, message):
    with pytest.raises(TfkdError, match=message):
        config_checks.validate(own(**fields))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"student__taps": {"pooled": "avrage"}}, "tap of model 'build' 'avrage'; did you mean"),
        ({"student__kwargs": {"widht": 3}}, "'widht'; did you mean 'width'"),
        ({"teacher__taps": {"pooled": "avrage"}}, "tap of model 'trained' 'avrage'"),
        ({"teacher__taps": {}}, "unknown tap of model 'trained' 'pooled'"),
        ({"teacher__name": MOBILENET}, "found no weights, wanted teacher.weights, or 'imagenet'"),
        (
            {"teacher__name": MOBILENET, "teacher__kwargs": {"weights": "imagenet"}},
            "found no teacher.preprocess, wanted what its preprocess_input does",
        ),
    ],
)
def test_a_network_that_does_not_fit_leaves_no_folder(own, tmp_path, fields, message):
    with pytest.raises(TfkdError, match=message):
        run(own(**fields), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_folder_of_a_teacher_named_by_a_path_is_one_folder(experiment, tmp_path):
    path = tmp_path / "teacher_of_a_file.py"
    path.write_text(
        "from tfkd.training.config import default\n"
        "def get_config():\n"
        "    config = default()\n"
        f"    config.student.name = '{NETWORKS}:build'\n"
        "    return config\n"
    )
    config = experiment("distilled", teacher__config=str(path), teacher__workdir=None)
    _, folder = teachers.reference(config)
    assert folder.parent.parent == Path("runs/teachers")
    assert folder.parent.name.startswith(f"{str(NETWORKS).replace('/', '_')[:5]}")
    assert ":" not in folder.parent.name


@pytest.mark.slow
def test_mobilenet_of_keras_applications_is_distilled_saved_and_exported(tmp_path):
    weights_file = tmp_path / "teacher.weights.h5"
    keras.utils.set_random_seed(3)
    models.create(SHALLOWER, 10, (32, 32, 1), alpha=0.25).save_weights(weights_file)
    taps = {"pre_pool": "out_relu", "pooled": "global_average_pooling2d"}
    config = configs.override(
        configs.load(f"{NETWORKS.parent}/tiny_experiment.py:noisy"),
        data__image_size=32,
        data__train_size=120,
        student__name=MOBILENET,
        student__kwargs={"alpha": 0.35},
        student__taps=taps,
        teacher__name=SHALLOWER,
        teacher__kwargs={"alpha": 0.25},
        teacher__weights=str(weights_file),
        teacher__taps={**taps, "pre_pool": "conv_pw_13_relu"},
        teacher__config=None,
        methods=configs.methods(kd=dict(weight=0.9), noisy=dict(weight=0.1)),
        train__epochs=1,
        train__batch_size=40,
        export__enabled=True,
    )
    result = run(config, tmp_path)
    assert (result["student"], result["teacher"]) == (MOBILENET, SHALLOWER)
    description = json.loads((tmp_path / "network.json").read_text())
    assert description["taps"] == taps
    saved = load_network(tmp_path)
    images = np.random.default_rng(0).integers(0, 17, (3, 32, 32, 1), np.uint8)
    exported = tf.saved_model.load(str(tmp_path / "export"))
    found = exported.signatures["serving_default"](image=tf.constant(images))["logits"]
    wanted = np.asarray(saved(images, training=False))
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4 * np.abs(wanted).max())
