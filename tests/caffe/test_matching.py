"""Networks of tfkd are filled with the weights of the same network of Caffe's."""

import numpy as np
import pytest

from tests.caffe import nets
from tests.caffe.test_building import written
from tfkd import TfkdError, caffe
from tfkd.models.saving import load_network


def resnet8(classes=10, without_relu=False):
    """ResNet-8 as a network of Caffe's, its layers in the order of tfkd's."""
    make = nets.Maker(8)
    make.image(3, 8, 8)

    def convolution(name, bottom, shape, **parameters):
        pad = shape[-1] // 2
        make.convolution(name, bottom, shape, False, kernel_size=shape[-1], pad=pad, **parameters)
        make.batch_norm(f"{name}_bn", name, shape[0], top=name)
        make.add(
            "Scale", f"{name}_scale", name, name, [make.values(shape[0]), make.values(shape[0])],
            bias_term=True,
        )  # fmt: skip

    def relu(name):
        make.add("ReLU", f"{name}_relu", name, name)

    convolution("conv1", "data", (16, 3, 3, 3))
    relu("conv1")
    before, channels = "conv1", 16
    for stage, width in enumerate((16, 32, 64), start=1):
        stride = 1 if stage == 1 else 2
        convolution(f"a{stage}", before, (width, channels, 3, 3), stride=stride)
        relu(f"a{stage}")
        shortcut = before
        if stage > 1:
            shortcut = f"short{stage}"
            convolution(shortcut, before, (width, channels, 1, 1), stride=stride)
        convolution(f"b{stage}", f"a{stage}", (width, width, 3, 3))
        make.add("Eltwise", f"sum{stage}", f"{shortcut} b{stage}")
        if not (without_relu and stage == 2):
            relu(f"sum{stage}")
        before, channels = f"sum{stage}", width
    make.add("Pooling", "pool", before, pool="AVE", global_pooling=True)
    make.linear("fc", "pool", classes, 64)
    return make.layers


def test_a_network_of_tfkd_takes_the_weights_in_their_order(tmp_path):
    paths = written(tmp_path, resnet8())
    caffe.import_network(*paths, tmp_path / "net", network="resnet8", mean=[99.0])
    network = load_network(tmp_path / "net")
    assert network.name == "resnet8" and network.model.get_layer("stage2_pre")
    pixels = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3)).astype(np.uint8)
    wanted = caffe.load(*paths, mean=[99.0]).network(pixels)
    np.testing.assert_allclose(network(pixels), wanted, rtol=0, atol=1e-4 * np.abs(wanted).max())


@pytest.mark.parametrize(
    "net, name, match",
    [
        (
            resnet8,
            "resnet14",
            "found as layer 7 with weights 'a2' with kernel .*, wanted 'stage1_b",
        ),
        (
            lambda: resnet8(without_relu=True),
            "resnet8",
            "found equal layers and outputs that differ .*: it is another network",
        ),
        (resnet8, "resnet88", "unknown network 'resnet88'"),
        (nets.variants, "resnet8", "found outputs .*, wanted one of"),
    ],
)
def test_another_network_is_told_by_its_layers_or_by_what_it_computes(net, name, match, tmp_path):
    paths = written(tmp_path, net())
    with pytest.raises(TfkdError, match=match):
        caffe.import_network(*paths, tmp_path / "net", network=name, mean=[0.0])
    assert not (tmp_path / "net").exists()
