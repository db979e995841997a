"""An imported checkpoint is a teacher: it can be loaded, evaluated and distilled from."""

import json
import pathlib

import numpy as np
import pytest

from tests.torch_import import files, published
from tfkd import TfkdError, TfkdWarning
from tfkd.evaluation import reports
from tfkd.models.saving import load_network
from tfkd.torch import importing
from tfkd.training import config as configs
from tfkd.training import run

EXPERIMENT = pathlib.Path(__file__).parents[1] / "fixtures" / "tiny_experiment.py"
MEAN, STD = 0.3, 0.4


@pytest.fixture(scope="module")
def state():
    """The weights of a ResNet-8 for the digits: 8x8 pixels, one channel, ten classes."""
    return published.state_of("resnet8", 10, 8, channels=1)


@pytest.fixture(scope="module")
def checkpoint(state, tmp_path_factory):
    """A file with them, as training scripts save it."""
    path = tmp_path_factory.mktemp("checkpoint") / "ckpt_epoch_240.pth"
    path.write_bytes(files.legacy({"epoch": 240, "model": dict(state), "best_acc": 99.5}))
    return path


@pytest.fixture(scope="module")
def teacher(checkpoint, state, tmp_path_factory):
    """The folder that it is imported to."""
    folder = tmp_path_factory.mktemp("imported") / "resnet8"
    preprocess = importing.chosen_preprocess(mean=[MEAN], std=[STD])
    done = importing.import_checkpoint(
        checkpoint, "resnet8", folder, image_size=8, preprocess=preprocess
    )
    assert done.path == folder / "student.keras"
    learned = [each.size for key, each in state.items() if "running" not in key]
    assert done.params == sum(learned)
    return folder


def test_its_folder_holds_the_published_network(teacher, state):
    network = load_network(teacher)
    assert network.name == "resnet8"
    pixels = np.random.default_rng(3).integers(0, 256, (4, 8, 8, 1)).astype(np.uint8)
    maps = (pixels / 255 - MEAN) / STD
    wanted = published.forward("resnet8", state, maps.transpose(0, 3, 1, 2), 10)
    np.testing.assert_allclose(network(pixels), wanted, atol=1e-4 * np.abs(wanted).max())
    assert sorted(path.name for path in teacher.iterdir()) == ["network.json", "student.keras"]


def test_an_imported_network_can_be_evaluated(teacher):
    report = reports.report(run=teacher, data_name="digits")
    assert 0 <= report["top1"] <= 100


@pytest.mark.slow
@pytest.mark.parametrize("field", ["workdir", "weights"])
def test_an_imported_network_teaches_a_student(field, teacher, tmp_path):
    path = teacher if field == "workdir" else teacher / "student.keras"
    config = configs.override(
        configs.load(f"{EXPERIMENT}:distilled"),
        teacher__config="",
        train__epochs=1,
        train__checkpoint_seconds=0,
        **{f"teacher__{field}": str(path)},
    )
    result = run(config, tmp_path / "run")
    top1 = reports.report(run=teacher, data_name="digits")["top1"]
    assert result["teacher_top1"] == pytest.approx(top1)


def test_a_file_of_any_name_and_no_preprocessing(checkpoint, tmp_path):
    path = tmp_path / "new" / "mine.keras"
    for _ in range(2):  # An import may be made again.
        with pytest.warns(TfkdWarning, match="resnet8 is recorded as taking pixels 0..255 as they"):
            done = importing.import_checkpoint(checkpoint, "resnet8", path, image_size=8)
    assert done.path == path and path.is_file()
    described = json.loads((path.parent / "network.json").read_text())
    assert described["input_shape"] == [8, 8, 1] and described["num_classes"] == 10
    assert described["preprocess"]["mean"] == []


def test_an_imported_network_is_given_names(checkpoint, tmp_path):
    given = {"image_size": 8, "preprocess": importing.chosen_preprocess(mean=[MEAN], std=[STD])}
    names = [f"digit {number}" for number in range(10)]
    importing.import_checkpoint(
        checkpoint, "resnet8", tmp_path / "named", class_names=names, **given
    )
    assert load_network(tmp_path / "named").class_names == tuple(names)
    with pytest.raises(TfkdError, match="network 'resnet8': found 9 class names, wanted 10, one a"):
        importing.import_checkpoint(
            checkpoint, "resnet8", tmp_path / "wrong", class_names=names[1:], **given
        )
    assert not (tmp_path / "wrong").exists()


def test_nothing_else_is_overwritten(checkpoint, teacher, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(TfkdError, match="found a training run, wanted a new folder"):
        importing.import_checkpoint(checkpoint, "resnet8", tmp_path)
    before = (teacher / "network.json").read_bytes()
    with pytest.raises(TfkdError, match="found 'student.keras', which network.json describes"):
        importing.import_checkpoint(checkpoint, "resnet8", teacher / "other.keras")
    assert (teacher / "network.json").read_bytes() == before


def test_weights_of_another_network_leave_nothing_behind(checkpoint, tmp_path):
    with pytest.raises(TfkdError, match="240.pth': network 'vgg8': .*look like those of 'resnet8'"):
        importing.import_checkpoint(checkpoint, "vgg8", tmp_path / "vgg8")
    assert not (tmp_path / "vgg8").exists()


def test_means_for_other_channels(checkpoint, tmp_path):
    with pytest.raises(TfkdError, match="found 3 means for images of 1 channels"):
        importing.import_checkpoint(
            checkpoint,
            "resnet8",
            tmp_path / "resnet8",
            preprocess=importing.chosen_preprocess("cifar100"),
        )


def test_the_preprocessing_by_data_set_or_by_numbers():
    assert importing.chosen_preprocess() is None
    numbers = importing.chosen_preprocess(
        mean=["0.5071", "0.4867", "0.4408"], std=["0.2675", "0.2565", "0.2761"]
    )
    found = importing.chosen_preprocess("cifar100")
    np.testing.assert_allclose(found.mean, numbers.mean)
    np.testing.assert_allclose(found.std, numbers.std)
    np.testing.assert_allclose(found.mean, [129.3105, 124.1085, 112.404])
    digits = importing.chosen_preprocess("digits")
    assert len(digits.mean) == 1 and 0 < digits.mean[0] < 255


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"mean": [0.5]}, "wanted either"),
        ({"mean": [0.5], "std": [0.2], "name": "cifar100"}, "wanted either"),
        ({"mean": [125.3], "std": [63.0]}, r"mean \[125.3\]: wanted numbers for pixels between 0"),
        ({"mean": ["x"], "std": ["1"]}, "mean 'x': wanted numbers"),
        ({"mean": ["nan"], "std": ["1"]}, "wanted numbers"),
        ({"mean": [0.5], "std": [0.0]}, "wanted all above 0"),
        ({"mean": [0.5, 0.5], "std": [0.2]}, "found 2 means and 1 deviations"),
        ({"name": "cifar101"}, "unknown data set 'cifar101'"),
    ],
)
def test_a_wrong_preprocessing(arguments, message):
    with pytest.raises(TfkdError, match=message):
        importing.chosen_preprocess(**arguments)


def test_the_listing_is_plain_text(tmp_path, state):
    path = tmp_path / "weights.pth"
    path.write_bytes(files.zipped({"odd\n\u2028name": state["fc.bias"], "b": state["fc.weight"]}))
    assert importing.listing(path) == [
        ("odd\\n\\u2028name", "float32", (10,)),
        ("b", "float32", (10, 64)),
    ]
