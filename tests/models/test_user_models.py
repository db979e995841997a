"""Networks by `module:function`, and features under names of the user's."""

import sys
import textwrap

import keras
import numpy as np
import pytest

from tfkd import models
from tfkd.core import Classification, Companion, Requires
from tfkd.core.networks import Networks
from tfkd.errors import TfkdError

MOBILENET = "keras.applications:MobileNetV2"
TAPS = {"pre_pool": "out_relu", "pooled": "global_average_pooling2d", "stage1": "block_2_add"}

NETS = """
    import keras

    calls = 0

    def build(num_classes, input_shape, name, width=4, **more):
        return _network(num_classes, input_shape, name, width)

    def like_keras(classes, input_shape=None, weights="imagenet"):
        assert weights is None
        return _network(classes, input_shape, "like_keras")

    def trained():
        return _network(3, (8, 8, 1), "trained")

    def _network(classes, shape, name, width=4, activation=None):
        image = keras.Input(shape)
        features = keras.layers.Conv2D(width, 3, name="features")(image)
        features = keras.layers.GlobalAveragePooling2D(name="mean")(features)
        logits = keras.layers.Dense(classes, activation=activation)(features)
        return keras.Model(image, logits, name=name)

    def needs_more(num_classes, input_shape, depth):
        raise AssertionError("not reached")

    def fails(num_classes):
        raise RuntimeError("no such\\nluck")

    def nothing(num_classes):
        pass

    def two_outputs(num_classes, input_shape):
        image = keras.Input(input_shape)
        features = keras.layers.Flatten()(image)
        dense = [keras.layers.Dense(num_classes)(features) for _ in range(2)]
        return keras.Model(image, dense)

    def maps(num_classes, input_shape):
        image = keras.Input(input_shape)
        return keras.Model(image, keras.layers.Conv2D(num_classes, 1)(image))

    def subclassed(num_classes):
        return type("Own", (keras.Model,), {})()

    def softmax(num_classes, input_shape):
        return _network(num_classes, input_shape, "softmax", activation="softmax")

    def nested_softmax(num_classes, input_shape):
        inner = softmax(num_classes, input_shape)
        return keras.Sequential([keras.Input(input_shape), inner])

    def other_classes(num_classes, input_shape):
        return _network(num_classes + 1, input_shape, "other")

    def other_images(num_classes, input_shape):
        return _network(num_classes, (9, 8, 1), "other")

    number = 3
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The working folder, with the networks in a file and in a package."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nets.py").write_text(textwrap.dedent(NETS))
    package = tmp_path / "package_of_a_user"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "nets.py").write_text(textwrap.dedent(NETS))
    (package / "broken.py").write_text("import keras_of_another_world\n")
    (tmp_path / "wrong.py").write_text("1 / 0\n")
    return tmp_path


@pytest.fixture
def small():
    """A network whose features have names of its own, and the usual names for them."""
    image = keras.Input((8, 8, 1))
    maps = keras.layers.Conv2D(4, 3, activation="relu", name="maps")(image)
    mean = keras.layers.GlobalAveragePooling2D(name="mean")(maps)
    model = keras.Model(image, keras.layers.Dense(5, name="scores")(mean))
    return models.Network(model, name="own", taps={"pre_pool": "maps", "pooled": "mean"})


@pytest.fixture(scope="module")
def mobilenet():
    return models.create(MOBILENET, 5, (32, 32, 3), alpha=0.35)


def test_a_network_of_keras_applications_gives_logits_and_loads_no_weights(mobilenet):
    assert mobilenet.output_shape == (None, 5)
    assert mobilenet.layers[-1].activation is keras.activations.linear
    reference = keras.applications.MobileNetV2(
        (32, 32, 3), 0.35, classes=5, weights=None, classifier_activation=None
    )
    assert mobilenet.count_params() == reference.count_params()


@pytest.mark.parametrize("place", ["nets.py", "package_of_a_user.nets"])
def test_a_function_of_a_file_or_package_is_called_with_what_it_accepts(folder, place):
    ours = models.create(f"{place}:build", 3, (8, 8, 1), width=6)
    assert (ours.name, ours.input_shape, ours.output_shape) == ("build", (None, 8, 8, 1), (None, 3))
    assert ours.get_layer("features").filters == 6
    assert models.create(f"{place}:like_keras", 3, (8, 8, 1)).output_shape == (None, 3)
    assert models.create(f"{place}:trained", 3, (8, 8, 1)).name == "trained"


def test_a_file_is_run_once_until_it_changes(folder):
    path = folder / "once.py"
    path.write_text(textwrap.dedent(NETS))
    first = models.references.find("once.py:build")
    assert models.references.find(f"{path}:build") is first
    path.write_text("def build():\n    return 'changed and of another length'\n")
    assert models.references.find("once.py:build")() == "changed and of another length"


def test_a_module_of_the_working_folder_comes_before_those_of_the_program(folder, monkeypatch):
    (folder / "program").mkdir()
    for place, value in ((folder, "own"), (folder / "program", "other")):
        (place / "nets_of_two_folders.py").write_text(f"def net():\n    return {value!r}\n")
    monkeypatch.syspath_prepend(str(folder / "program"))
    before = list(sys.path)
    assert models.references.find("nets_of_two_folders:net")() == "own"
    assert sys.path == before


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (":build", "no module and function; wanted module:function"),
        ("nets:", "wanted module:function"),
        ("no_such_module:build", "no module 'no_such_module'"),
        ("package_of_a_user.no:build", "no module 'package_of_a_user.no'"),
        ("package_of_a_user.broken:build", "cannot be imported.*keras_of_another_world"),
        ("no_such_file.py:build", "no such file 'no_such_file.py'"),
        ("wrong.py:build", "wrong.py fails: ZeroDivisionError"),
        ("nets.py:bild", "unknown function of nets.py 'bild'; did you mean 'build'"),
        ("nets.py:number", "unknown function of nets.py 'number'"),
        ("keras.applications:MobileNetV9", "did you mean 'MobileNetV2'"),
        ("nets.py:needs_more", "no value for depth"),
        ("nets.py:fails", "RuntimeError: no such luck"),
        ("nets.py:nothing", "returns NoneType; wanted a functional"),
        ("nets.py:subclassed", "returns Own; wanted a functional"),
        ("nets.py:two_outputs", "found outputs without a name each"),
        ("nets.py:maps", r"found output \(None, 8, 8, 3\); wanted logits \(batch, 3\)"),
        ("nets.py:softmax", "ends in softmax; wanted logits"),
        ("nets.py:nested_softmax", "ends in softmax; wanted logits"),
        ("nets.py:other_classes", "found 4 classes; wanted 3"),
        ("nets.py:other_images", r"takes images \(9, 8, 1\); wanted \(8, 8, 1\)"),
    ],
)
def test_wrong_networks_are_told_in_one_line(folder, name, message):
    with pytest.raises(TfkdError, match=message) as raised:
        models.create(name, 3, (8, 8, 1))
    assert "\n" not in str(raised.value)


def test_layers_without_a_name_are_numbered_alike_whatever_was_built_before(folder):
    keras.layers.Dense(3)
    before = keras.layers.Dense(3).name
    first, second = (models.create("nets.py:trained", 3, (8, 8, 1)) for _ in range(2))
    assert first.layers[-1].name == second.layers[-1].name == "dense"
    after = keras.layers.Dense(3).name
    assert int(after.split("_")[-1]) == int(before.split("_")[-1]) + 1


@pytest.mark.parametrize(
    ("name", "kwargs", "message"),
    [
        ("nets.py:like_keras", {"wieghts": None}, "'wieghts'; did you mean 'weights'"),
        (MOBILENET, {"classes": 4}, "'classes', which is set for it"),
        (MOBILENET, {"include_top": False}, "found output .* wanted logits"),
        (MOBILENET, {"classifier_activation": "softmax"}, "ends in softmax"),
        (MOBILENET, {"weights": "no_such.weights.h5"}, "ValueError: .*weights"),
    ],
)
def test_arguments_that_do_not_fit_are_told_in_one_line(folder, name, kwargs, message):
    with pytest.raises(TfkdError, match=message) as raised:
        models.create(name, 3, (32, 32, 3), **kwargs)
    assert "\n" not in str(raised.value)


def features(model, paths):
    """The values of layers by their own names, on one image."""
    image = np.random.default_rng(0).normal(size=(1, *model.input_shape[1:])).astype("float32")
    outputs = [model.get_layer(path).output for path in paths]
    return image, keras.Model(model.input, outputs)(image, training=False)


def test_tapped_gives_taps_other_names(mobilenet):
    names = {**TAPS, "twice": "out_relu", "logits": "logits"}
    image, wanted = features(mobilenet, TAPS.values())
    found = models.tapped(mobilenet, names)(image, training=False)
    assert list(found) == list(names)
    for name, value in zip(TAPS, wanted, strict=True):
        np.testing.assert_array_equal(found[name], value)
    np.testing.assert_array_equal(found["twice"], found["pre_pool"])
    assert models.tap_shapes(mobilenet, names)["pooled"] == (1280,)


def test_a_network_checks_its_names_of_taps(mobilenet):
    with pytest.raises(TfkdError, match="'out_rule'; did you mean 'out_relu'"):
        models.Network(mobilenet, taps={"pre_pool": "out_rule"})
    with pytest.raises(TfkdError, match="'logits', which is always the output"):
        models.Network(mobilenet, taps={"logits": "out_relu"})


def test_another_form_of_a_network_keeps_the_names_it_has(small):
    clone = small.with_model(keras.models.clone_model(small.model))
    assert (clone.taps, clone.name) == (small.taps, "own")
    head = small.with_model(models.head(small.model, "maps"))
    assert head.taps == {"pooled": "mean"}


def test_the_distiller_finds_taps_and_heads_of_student_and_teacher_by_the_given_names(mobilenet):
    backbone = keras.applications.MobileNetV2(
        (32, 32, 3), 0.35, weights=None, include_top=False, name="backbone"
    )
    student = keras.Sequential(
        [keras.Input((32, 32, 3)), backbone, keras.layers.GlobalAveragePooling2D(name="mean")]
    )
    student.add(keras.layers.Dense(5))
    taps = ["pooled", "stage1"]
    requires = Requires(taps={("student", "main"): taps, ("teacher", "main"): [*taps, "logits"]})
    networks = Networks(
        models.Network(
            student,
            taps={"pooled": "mean", "pre_pool": "backbone", "stage1": "backbone/block_2_add"},
        ),
        [models.Network(mobilenet, taps=TAPS)],
        Classification(),
        [requires],
    )
    shapes = networks.shapes()
    assert shapes["student", "main"]["stage1"] == shapes["teacher", "main"]["stage1"]
    image, wanted = features(mobilenet, [TAPS[tap] for tap in taps])
    plan = networks.plan(networks.student, requires.taps)
    outputs = plan.run({"image": image}, requires.taps, training=False)
    for tap, value in zip(taps, wanted, strict=True):
        np.testing.assert_allclose(
            outputs["teacher", "main"][tap], value, rtol=1e-4, atol=1e-4 * np.abs(value).max()
        )
    for role in ("student", "teacher"):
        model = networks.network(role).model
        own = {"student": "backbone", "teacher": "out_relu"}[role]
        maps = models.tapped(model, [own])(image, training=False)[own]
        np.testing.assert_allclose(
            networks.head(role)(maps, training=False), model(image, training=False), atol=1e-5
        )


def test_a_companion_that_copies_the_student_has_its_taps_under_the_same_names(small):
    requires = Requires(taps={("student", "main"): ["pooled"], ("ema_copy", "main"): ["pooled"]})
    networks = Networks(small, [], Classification(), [requires])
    networks.add_companions({"ema_copy": Companion(keras.models.clone_model(small.model))})
    plan = networks.plan(small, requires.taps)
    image = np.ones((1, 8, 8, 1), "float32")
    outputs = plan.run({"image": image}, {("ema_copy", "main")}, training=False)
    assert outputs["ema_copy", "main"]["pooled"].shape == (1, 4)


def test_names_of_taps_are_saved_with_the_network(small, tmp_path):
    models.saving.save_network(small, tmp_path)
    assert models.saving.load_network(tmp_path).taps == small.taps


@pytest.mark.parametrize(
    ("mode", "application"),
    [("tf", "mobilenet_v2"), ("torch", "densenet"), ("caffe", "resnet50")],
)
def test_published_preprocessing_is_that_of_keras(mode, application):
    pixels = np.random.default_rng(0).integers(0, 256, (2, 4, 4, 3)).astype("float32")
    wanted = getattr(keras.applications, application).preprocess_input(pixels.copy())
    found = models.Preprocess.published(mode)
    np.testing.assert_allclose(found(pixels), wanted, rtol=1e-5, atol=1e-4)
    assert models.Preprocess.from_config(found.to_config()) == found


def test_published_preprocessing_of_another_name_or_channel_count_is_refused():
    with pytest.raises(TfkdError, match="unknown preprocess 'cafe'; did you mean 'caffe'"):
        models.Preprocess.published("cafe")
    with pytest.raises(TfkdError, match="images of 1 channels; wanted 3"):
        models.Preprocess.published("caffe")(np.zeros((1, 2, 2, 1)))
