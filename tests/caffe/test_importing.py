"""An imported network takes pixels as it was trained on them, and is a teacher."""

import json
import pathlib

import numpy as np
import pytest

from tests.caffe import files, nets, reference
from tests.caffe.test_building import written
from tfkd import TfkdError, TfkdWarning, caffe, models
from tfkd.evaluation import reports
from tfkd.models.saving import load_network
from tfkd.training import config as configs
from tfkd.training import run

EXPERIMENT = pathlib.Path(__file__).parents[1] / "fixtures" / "tiny_experiment.py"
MEAN = (10.0, 120.0, 200.0)


def classifier(channels=3, size=8, classes=10, blob="fc"):
    """A convolution, its normalization and a linear layer."""
    make = nets.Maker(7)
    make.image(channels, size, size)
    make.convolution("conv", "data", (6, channels, 3, 3), kernel_size=3, stride=2)
    make.batch_norm("bn", "conv", 6)
    make.add("Scale", "scale", "bn", "bn", [make.values(6), make.values(6)], bias_term=True)
    make.add("ReLU", "relu", "bn", "bn")
    make.linear(blob, "bn", classes, 6 * 9)
    make.add("Softmax", "prob", blob)
    return make.layers


def pixels(channels=3, size=8):
    return np.random.default_rng(3).integers(0, 256, (4, size, size, channels)).astype(np.uint8)


def check_logits(network, images, net=None, blob="fc"):
    """Compares a network on RGB pixels with what Caffe computes of images in its own form."""
    wanted = reference.outputs(net or classifier(), images)[blob]
    found = network(pixels(images.shape[1], images.shape[2]))
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-4 * np.abs(wanted).max())


@pytest.mark.parametrize("order", ["bgr", "rgb"])
def test_channels_mean_and_scale(order, tmp_path):
    paths = written(tmp_path, classifier())
    settings = {"channel_order": order, "mean": MEAN, "scale": 0.02}
    done = caffe.import_network(*paths, tmp_path / "net", **settings)
    assert done.path == tmp_path / "net" / "student.keras"
    network = load_network(tmp_path / "net")
    assert network.name == "net" and network.preprocess.bgr == (order == "bgr")
    images = pixels()[..., ::-1] if order == "bgr" else pixels()
    check_logits(network, ((images - np.array(MEAN)) * 0.02).transpose(0, 3, 1, 2))
    # Channels in the wrong order are another network.
    with pytest.raises(AssertionError):
        check_logits(network, ((images[..., ::-1] - np.array(MEAN)) * 0.02).transpose(0, 3, 1, 2))


@pytest.fixture
def mean_image(tmp_path):
    """A file of means, larger than images, and its numbers (channels, height, width)."""
    values = np.random.RandomState(4).uniform(80, 160, (3, 12, 10)).astype(np.float32)
    (tmp_path / "mean.binaryproto").write_bytes(files.blob(values[None], legacy=True))
    return values


@pytest.mark.parametrize("form", ["channel", "image"])
def test_a_file_of_means(form, mean_image, tmp_path):
    paths = written(tmp_path, classifier())
    done = caffe.import_network(
        *paths, tmp_path / "net", mean=tmp_path / "mean.binaryproto", mean_as=form, scale=0.5
    )
    mean = mean_image.mean((1, 2))[:, None, None] if form == "channel" else mean_image[:, 2:10, 1:9]
    images = pixels()[..., ::-1].transpose(0, 3, 1, 2)
    check_logits(load_network(tmp_path / "net"), (images - mean) * 0.5)
    assert ("mean image" in str(done.pixels)) == (form == "image")


def test_what_the_prototxt_says_of_pixels_unless_told_otherwise(mean_image, tmp_path):
    prototxt, caffemodel = written(tmp_path, classifier())
    given = (
        'layer { name: "d" type: "Data" top: "data" transform_param { crop_size: 8 scale: 0.25 '
        'mean_file: "/home/someone/mean.binaryproto" } }\n'
    )
    text = prototxt.read_text()
    begin = text.index("layer")
    prototxt.write_text(text[:begin] + given + text[text.index("layer", begin + 5) :])
    images = pixels()[..., ::-1].transpose(0, 3, 1, 2)
    for settings, mean, scale in (
        ({}, mean_image[:, 2:10, 1:9], 0.25),
        ({"mean_as": "channel"}, mean_image.mean((1, 2))[:, None, None], 0.25),
        ({"mean": np.full(3, 7.0), "scale": 2.0}, 7.0, 2.0),
    ):
        found = caffe.load(prototxt, caffemodel, **settings)
        check_logits(found.network, (images - mean) * scale)


@pytest.mark.parametrize(
    "settings, match",
    [
        ({"mean": [1.0, 2.0]}, "mean: found .*, wanted a number, or one for each of 3 channels"),
        ({"mean": [float("nan")]}, "mean: found"),
        ({"scale": 0.0}, "scale: found 0.0, wanted a number above 0"),
        ({"channel_order": "brg"}, "unknown channel order 'brg'; did you mean"),
        ({"mean_as": "pixel"}, "unknown form of a mean 'pixel'"),
        ({"mean": "none.binaryproto"}, "mean 'none.binaryproto': no such file"),
        ({"class_names": ["a", "b"], "mean": [0.0]}, "found 2 class names, wanted 10, one a class"),
        ({"mean": [0.0], "image_size": 20}, "layer 'fc': blob 0: found the shape 10x54, wanted"),
    ],
)
def test_wrong_settings(settings, match, tmp_path):
    with pytest.raises(TfkdError, match=match):
        caffe.import_network(*written(tmp_path, classifier()), tmp_path / "net", **settings)
    assert not (tmp_path / "net").exists()


def test_files_of_means_that_do_not_fit(tmp_path):
    paths, mean = written(tmp_path, classifier()), tmp_path / "mean.binaryproto"
    for shape, match in (((1, 1, 9, 9), "wanted 1x3x"), ((1, 3, 7, 9), "found 7 x 9 values")):
        mean.write_bytes(files.blob(np.ones(shape, np.float32)))
        with pytest.raises(caffe.CaffeFormatError, match=match):
            caffe.load(*paths, mean=mean, mean_as="image")


def test_no_mean_is_told(tmp_path):
    with pytest.warns(TfkdWarning, match="net is recorded as taking pixels 0..255 without a mean"):
        found = caffe.load(*written(tmp_path, classifier()))
    assert found.network.preprocess == models.Preprocess(bgr=True)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """A folder of a network for scikit-learn's digits: 8x8 pixels, one channel, ten classes."""
    folder = tmp_path_factory.mktemp("digits")
    names = [str(number) for number in range(10)]
    caffe.import_network(
        *written(folder, classifier(1)), folder / "net", mean=[80.0], class_names=names
    )
    return folder / "net"


def test_an_imported_network_can_be_evaluated(teacher):
    assert sorted(path.name for path in teacher.iterdir()) == ["network.json", "student.keras"]
    described = json.loads((teacher / "network.json").read_text())
    assert described["class_names"][3] == "3" and not described["preprocess"]["bgr"]
    assert 0 <= reports.report(run=teacher, data_name="digits")["top1"] <= 100


def experiment(teacher, pooled="fc"):
    return configs.override(
        configs.load(f"{EXPERIMENT}:distilled"),
        teacher__config="",
        teacher__workdir=str(teacher),
        teacher__taps={"pooled": pooled},
        train__epochs=1,
        train__checkpoint_seconds=0,
    )


@pytest.mark.slow
def test_an_imported_network_teaches_a_student(teacher, tmp_path):
    result = run(experiment(teacher), tmp_path / "run")
    top1 = reports.report(run=teacher, data_name="digits")["top1"]
    assert result["teacher_top1"] == pytest.approx(top1)


@pytest.mark.parametrize("kind", ["several outputs", "maps", "softmax"])
def test_another_output_is_no_teacher(kind, tmp_path):
    net = classifier(1)
    if kind == "several outputs":
        net.append(nets.Layer("Sigmoid", "side", ("conv",), ("side",), {}))
        match = "has the outputs fc, side, wanted 'logits' among them"
    elif kind == "maps":
        net, match = net[:2], r"has output \(None, 3, 3, 6\), wanted logits \(batch, classes\)"
    else:
        match = "ends in softmax, wanted logits"
    paths = written(tmp_path, net)
    caffe.import_network(*paths, tmp_path / "net", mean=[0.0], keep_softmax=kind == "softmax")
    with pytest.raises(TfkdError, match=match):
        run(experiment(tmp_path / "net", pooled="conv"), tmp_path / "run")


def test_the_table_names_blobs_and_parameters(tmp_path):
    table = caffe.table(caffe.load(*written(tmp_path, classifier()), mean=[0.0]).plan)
    rows = [line.split("  ") for line in table.splitlines()]
    rows = [[cell.strip() for cell in row if cell.strip()] for row in rows]
    assert rows[0] == ["layer", "type", "blobs", "parameters", "output"]
    assert ["conv", "Convolution", "6x3x3x3, 6", "168", "6x3x3"] in rows
    assert ["bn, scale", "BatchNorm, Scale", "6, 6, 1, 6, 6", "25", "6x3x3"] in rows
    assert ["relu", "ReLU", "-", "-", "6x3x3"] in rows
    assert rows[-1] == ["fc", "InnerProduct", "10x54, 10", "550", "10"]
