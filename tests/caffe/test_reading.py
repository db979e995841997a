"""Weights are read as Caffe writes them, whatever the version and the form of the numbers."""

import dataclasses

import numpy as np
import pytest

from tests.caffe import files, nets
from tfkd import TfkdWarning, caffe

# A network "n" of a layer "c" of type "Convolution" (V2), with a blob of shape 1x1x1x2 of the
# numbers 1.5 and -2; then a field that nobody knows.
LITERAL = bytes.fromhex(
    "0a016e"  # name (1): 1 byte, "n"
    "a20626"  # layer (100)
    "0a0163"  # name (1): "c"
    "120b436f6e766f6c7574696f6e"  # type (2): "Convolution"
    "3a12"  # blobs (7)
    "2a080000c03f000000c0"  # data (5), packed: 1.5, -2
    "3a060a0401010102"  # shape (7): dim (1), packed: 1, 1, 1, 2
    "5001"  # phase (10): TEST
    "c2b20402ffff"  # number 9000: 2 bytes
)


def written(path, content):
    path.write_bytes(content)
    return path


def test_a_file_put_down_byte_by_byte(tmp_path):
    found = caffe.read_weights(written(tmp_path / "net.caffemodel", LITERAL))
    assert list(found) == ["c"]
    (blob,) = found["c"]
    assert blob.shape == (1, 1, 1, 2)
    np.testing.assert_array_equal(blob.values(), np.float32([[[[1.5, -2.0]]]]))
    assert blob.values().dtype == np.float32


@pytest.mark.parametrize("v1", [False, True])
@pytest.mark.parametrize("form", ["packed", "split", "unpacked", "double", "unpacked double"])
def test_every_form_of_numbers(form, v1, tmp_path):
    net = nets.v1() if v1 else nets.v2()
    content = files.weights(net, v1, legacy=v1, forms=(form,))
    found = caffe.read_weights(written(tmp_path / "net.caffemodel", content))
    wanted = {layer.name: layer.blobs for layer in net if layer.blobs}
    assert list(found) == list(wanted)
    for name, blobs in wanted.items():
        for blob, values in zip(found[name], blobs, strict=True):
            np.testing.assert_array_equal(blob.values().reshape(values.shape), values)
            assert blob.shape[-values.ndim :] == values.shape


def test_numbers_of_more_than_one_part_and_gradients_that_are_left_alone(tmp_path):
    values = np.arange(2**20 + 7, dtype=np.float32)
    gradients = files.raw(6, b"\0" * 12) + files.raw(9, b"\0" * 8)
    for form in ("packed", "unpacked"):
        blob = files.blob(values, form) + gradients
        content = files.caffemodel([files.layer("big", "Bias", [blob])])
        (found,) = caffe.read_weights(written(tmp_path / "big", content))["big"]
        np.testing.assert_array_equal(found.values(), values)


def test_a_shape_is_taken_before_the_four_older_lengths(tmp_path):
    values = np.ones((2, 3), np.float32)
    blob = files.blob(values) + files.number(1, 7)
    content = files.caffemodel([files.layer("fc", "InnerProduct", [blob])])
    (found,) = caffe.read_weights(written(tmp_path / "fc", content))["fc"]
    assert found.shape == (2, 3)


def test_names_that_are_no_utf8_are_the_same_in_both_files(tmp_path):
    name = "\u5377".encode("gbk")
    text = (
        files.prototxt(nets.v2()[:2]).encode().replace(b'name: "conv1"', b'name: "' + name + b'"')
    )
    blobs = [files.blob(each) for each in nets.v2()[1].blobs]
    content = files.caffemodel([files.layer(name, "Convolution", blobs)])
    imported = caffe.load(
        written(tmp_path / "net.prototxt", text),
        written(tmp_path / "net.caffemodel", content),
        mean=[0.0],
    )
    assert imported.network.model.output_shape == (None, 13, 10, 6)


def test_layers_of_training_are_left_out(tmp_path):
    conv = nets.v2()[1]
    lines = [
        'layer { name: "d" type: "Data" top: "data" top: "label" include { phase: TRAIN }',
        "  transform_param { crop_size: 99 scale: 9 } }",
        'layer { name: "d" type: "Data" top: "data" top: "label" include { phase: TEST }',
        "  transform_param { crop_size: 8 scale: 0.5 mean_value: 10 mirror: true } }",
        'layer { name: "drop" type: "Dropout" bottom: "data" top: "data" exclude { phase: TEST } }',
        files.prototxt([conv]),
        'layer { name: "staged" type: "Slice" bottom: "conv1" include { stage: "deploy" }',
        "  slice_param { axis: 1 } }",
        'layer { name: "high" type: "Slice" bottom: "conv1" include { min_level: 1 } }',
        'layer { name: "low" type: "Slice" bottom: "conv1" include { max_level: -1 } }',
        'layer { name: "here" type: "Slice" bottom: "conv1" exclude { not_stage: "deploy" } }',
        'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "conv1" bottom: "label" top: "l"',
        "  fork_param { lambda: 2 } }",
        'layer { name: "acc" type: "Accuracy" bottom: "conv1" bottom: "label" top: "a" }',
        'layer { name: "side" type: "Sigmoid" bottom: "conv1" top: "side" }',
        'layer { name: "quiet" type: "Silence" bottom: "side" }',
        'layer { name: "act" type: "ReLU" bottom: "conv1" top: "conv1" phase: TEST param { }',
        '  include { not_stage: "deploy" min_level: 0 max_level: 0 } }',
    ]
    path = written(tmp_path / "train_val.prototxt", "\n".join(lines).encode())
    content = files.weights([conv])
    imported = caffe.load(path, written(tmp_path / "net.caffemodel", content))
    # The channels are those that the first convolution has weights for.
    assert imported.plan.shape == (3, 8, 8)
    assert [node.name for node in imported.plan.nodes] == ["conv1", "act"]
    assert imported.network.preprocess.mean == (10.0,)
    assert imported.network.preprocess.std == (2.0,)
    again = caffe.load(path, tmp_path / "net.caffemodel", image_size=5)
    assert again.network.model.input_shape == (None, 5, 5, 3)


OTHER_DATA = (
    'layer { name: "d" type: "Data" top: "data" '
    "transform_param { crop_size: 8 scale: 0.5 mean_value: 10 } }"
    'layer { name: "g" type: "ImageData" top: "truth" transform_param { scale: 3 } }'
)
OLD_DATA = (
    'layers { name: "d" type: DATA top: "data" top: "label" transform_param { mean_value: 10 }'
    " data_param { batch_size: 4 scale: 0.5 crop_size: 8 } }"
)


@pytest.mark.parametrize("data, v1", [(OTHER_DATA, False), (OLD_DATA, True)])
def test_pixels_are_those_of_the_data_layer_of_the_images(data, v1, tmp_path):
    conv = [nets.v2()[1]]
    path = written(tmp_path / "net.prototxt", (data + files.prototxt(conv, v1)).encode())
    weights = written(tmp_path / "net.caffemodel", files.weights(conv, v1))
    found = caffe.load(path, weights)
    assert found.plan.shape == (3, 8, 8)
    assert (found.network.preprocess.mean, found.network.preprocess.std) == ((10.0,), (2.0,))


def test_weights_that_are_not_defined_are_told(tmp_path):
    net = nets.v2()
    cut = [layer for layer in net if layer.name in ("data", "conv1")]
    path = written(tmp_path / "net.prototxt", files.prototxt(cut).encode())
    weights = written(tmp_path / "net.caffemodel", files.weights(net))
    with pytest.warns(TfkdWarning, match="layers with weights are not in the proto"):
        caffe.load(path, weights, mean=[0.0])


def test_definitions_of_both_versions_are_the_same(tmp_path):
    net = nets.v1()
    found = []
    for v1 in (False, True):
        path = written(tmp_path / f"{v1}.prototxt", files.prototxt(net, v1).encode())
        weights = written(tmp_path / f"{v1}.caffemodel", files.weights(net, v1, legacy=v1))
        found.append(caffe.load(path, weights, mean=[0.0]).plan)
    for one, other in zip(*(plan.nodes for plan in found), strict=True):
        assert dataclasses.replace(one, blobs=()) == dataclasses.replace(other, blobs=())
        for first, second in zip(one.blobs, other.blobs, strict=True):
            np.testing.assert_array_equal(first.values(), second.values())
