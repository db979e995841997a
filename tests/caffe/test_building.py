"""What imported networks compute: beside a NumPy form of Caffe's layers, and OpenCV's outputs."""

import json
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from tests.caffe import files, nets, reference
from tests.models.test_stock import LOAD_WITHOUT_TFKD
from tfkd import TfkdWarning, caffe, models
from tfkd.models.saving import save_network_file

OPENCV = Path(__file__).parents[1] / "fixtures" / "caffe_opencv.json"
NETS = {"v1": nets.v1, "v2": nets.v2, "variants": nets.variants}
TOLERANCE = 1e-4


def written(folder, net, v1=False, **how):
    """Paths of the prototxt and the caffemodel of a net."""
    prototxt, caffemodel = folder / "net.prototxt", folder / "net.caffemodel"
    prototxt.write_text(files.prototxt(net, v1))
    caffemodel.write_bytes(files.weights(net, v1, **how))
    return prototxt, caffemodel


@pytest.fixture(scope="module", params=NETS)
def imported(request, tmp_path_factory):
    """A net and what is made of it, the last Softmax kept."""
    net, v1 = NETS[request.param](), request.param == "v1"
    paths = written(tmp_path_factory.mktemp(request.param), net, v1, legacy=v1)
    return request.param, net, caffe.load(*paths, keep_softmax=True, mean=[0.0])


def outputs(imported, image):
    """The output of every layer by Caffe's name, in Caffe's order of axes."""
    tapped = models.tapped(imported.network.model, imported.layers)
    found = tapped(image.transpose(0, 2, 3, 1), training=False)
    found = {name: np.asarray(each) for name, each in found.items()}
    return {
        name: each.transpose(0, 3, 1, 2) if each.ndim == 4 else each for name, each in found.items()
    }


def test_every_layer_computes_what_caffes_does(imported):
    _, net, found = imported
    image = nets.image(net)
    wanted = reference.outputs(net, image)
    values = outputs(found, image)
    joined = {name for node in found.plan.nodes for name in node.names[:-1]}
    named = {layer.name for layer in net if layer.type not in ("Input", "Split")}
    assert set(values) == named - joined
    rates = {each.name: each.parameters["dropout_ratio"] for each in net if each.type == "Dropout"}
    dropped = {name: found.network.model.get_layer(found.layers[name]).rate for name in rates}
    assert dropped == pytest.approx(rates)
    for name, each in values.items():
        largest = np.abs(wanted[name]).max()
        np.testing.assert_allclose(
            each, wanted[name], rtol=0, atol=TOLERANCE * largest, err_msg=name
        )


# Parameters of the third net OpenCV reads otherwise than Caffe.
@pytest.mark.parametrize("imported", ["v1", "v2"], indirect=True)
def test_every_layer_computes_what_opencv_computed(imported):
    name, net, found = imported
    wanted = json.loads(OPENCV.read_text())["outputs"][name]
    values = outputs(found, nets.image(net))
    assert set(values) <= set(wanted)
    for layer, each in values.items():
        known = wanted[layer]
        assert list(each.shape) == known["shape"]
        some = each.reshape(-1)[:: known["step"]]
        np.testing.assert_allclose(
            some, known["values"], rtol=0, atol=TOLERANCE * known["largest"], err_msg=layer
        )


def test_the_file_loads_without_tfkd(imported, tmp_path):
    name, net, found = imported
    path = save_network_file(found.network, tmp_path / "net.keras", is_stock=True)
    for layer in found.network.model._flatten_layers():
        assert type(layer).__module__.startswith("keras.")
    image = nets.image(net).transpose(0, 2, 3, 1)
    wanted = found.network.model(image, training=False)
    if name != "v1":  # A process of its own takes seconds.
        loaded = keras.saving.load_model(path)(image, training=False)
        keras.tree.map_structure(np.testing.assert_array_equal, wanted, loaded)
        return
    np.save(tmp_path / "image.npy", image)
    arguments = path, tmp_path / "image.npy", tmp_path / "found.npy"
    subprocess.run([sys.executable, "-c", LOAD_WITHOUT_TFKD, *arguments], check=True)
    np.testing.assert_array_equal(np.load(arguments[-1]), wanted)


def test_a_last_softmax_is_left_off_and_its_input_are_the_logits(tmp_path):
    net = nets.v1()
    found = caffe.load(*written(tmp_path, net, v1=True), mean=[0.0])
    assert found.plan.outputs == {len(found.plan.nodes) - 1: "sum"}
    assert "prob" not in models.tap_names(found.network.model)
    image = nets.image(net)
    values = outputs(found, image)["sum"]
    np.testing.assert_allclose(values, reference.outputs(net, image)["sum"], atol=1e-4)


def test_several_outputs_are_named_by_their_blobs(tmp_path):
    make = nets.Maker(3)
    make.image(3, 6, 6)
    make.convolution("a/b", "data", (4, 3, 3, 3), kernel_size=3)
    make.add("Softmax", "map", "a/b")
    make.linear("fc", "data", 5, 3 * 36)
    found = caffe.load(*written(tmp_path, make.layers), mean=[0.0])
    assert set(models.outputs(found.network.model)) == {"a_b", "fc"}
    # Names that Keras does not take are known as they were.
    assert found.network.taps == {"a/b": "a_b"}
    assert models.tap_shapes(found.network.model, found.network.paths(["a/b"])) == {
        "a/b": (4, 4, 4)
    }


def test_an_output_has_the_name_of_its_layer_where_that_of_its_blob_is_another_layers(tmp_path):
    make = nets.Maker(3)
    make.image(3, 6, 6)
    make.linear("fc1", "data", 5, 3 * 36)
    make.add("ReLU", "relu1", "fc1", "fc1")
    make.linear("fc2", "data", 4, 3 * 36)
    found = caffe.load(*written(tmp_path, make.layers), mean=[0.0])
    assert set(models.outputs(found.network.model)) == {"relu1", "fc2"}
    image = nets.image(make.layers)
    wanted = reference.outputs(make.layers, image)
    for name, values in outputs(found, image).items():
        np.testing.assert_allclose(values, wanted[name], rtol=0, atol=1e-4, err_msg=name)


def test_maps_of_one_value_are_logits(tmp_path):
    make = nets.Maker(4)
    make.image(3, 6, 6)
    make.convolution("conv", "data", (5, 3, 3, 3), kernel_size=3)
    make.add("Pooling", "pool", "conv", pool="AVE", global_pooling=True)
    make.add("Softmax", "prob", "pool")
    found = caffe.load(*written(tmp_path, make.layers), mean=[0.0])
    assert found.network.model.output_shape == (None, 5)
    image = nets.image(make.layers)
    logits = found.network.model(image.transpose(0, 2, 3, 1), training=False)
    wanted = reference.outputs(make.layers, image)["pool"]
    np.testing.assert_allclose(logits, wanted[:, :, 0, 0], atol=1e-4 * np.abs(wanted).max())


def test_statistics_of_the_batch_are_told(tmp_path):
    make = nets.Maker(5)
    make.image(3, 4, 4)
    make.batch_norm("bn", "data", 3, use_global_stats=False)
    with pytest.warns(TfkdWarning, match="layer 'bn' asks for the statistics of each batch"):
        caffe.load(*written(tmp_path, make.layers), mean=[0.0])


def test_layers_of_one_name_get_a_number(tmp_path):
    make = nets.Maker(6)
    make.image(3, 4, 4)
    make.add("ReLU", "same", "data", "x")
    make.add("Sigmoid", "same", "x", "y")
    make.convolution("same_pad", "y", (2, 3, 3, 3), kernel_size=3, pad=2)
    make.convolution("same_pad_pad", "same_pad", (2, 2, 1, 1), kernel_size=1, pad=1)
    found = caffe.load(*written(tmp_path, make.layers), mean=[0.0])
    names = [layer.name for layer in found.network.model.layers]
    assert names == [
        "data", "same", "same_2", "same_pad_pad_2", "same_pad", "same_pad_pad_pad", "same_pad_pad"
    ]  # fmt: skip


def test_layers_are_called_as_the_functions_of_other_layers(tmp_path):
    make = nets.Maker(6)
    make.image(3, 4, 4)
    make.convolution("conv", "data", (3, 3, 1, 1), kernel_size=1)
    make.add("LRN", "norm", "conv", local_size=3)
    make.add("Pooling", "pad", "norm", kernel_size=3, stride=2, pad=1)
    for before, name in (("pad", "square"), ("square", "add"), ("add", "power")):
        make.add("ReLU", name, before, negative_slope=-0.5)
    found = caffe.load(*written(tmp_path, make.layers), mean=[0.0])
    names = {each.split("_")[0] for each in models.tap_names(found.network.model)}
    assert names == {"conv", "norm", "pad", "square", "add", "power", "logits"}


def test_more_layers_than_keras_joins(tmp_path, monkeypatch):
    # What a thousand layers do, in less time.
    def too_deep(*arguments, **settings):
        raise RecursionError

    monkeypatch.setattr("tfkd.caffe.builder.keras.Model", too_deep)
    with pytest.raises(caffe.CaffeFormatError, match="found 15 layers, wanted fewer one after"):
        caffe.load(*written(tmp_path, nets.v1(), v1=True), mean=[0.0])
