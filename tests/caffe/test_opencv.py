"""The comparison of an imported network with OpenCV, where that is installed."""

import sys
import types

import numpy as np
import pytest

from tests.caffe import nets, reference
from tests.caffe.test_building import written
from tfkd import TfkdError, caffe
from tfkd.caffe import opencv


@pytest.fixture
def cv2(monkeypatch):
    """What OpenCV's reader does, in NumPy; it does not heed ``transpose``."""

    class Network:
        def enableFusion(self, fuse):
            assert not fuse

        def setInput(self, images):
            self.found = reference.outputs(module.net, images)

        def forward(self, name):
            return self.found[name].astype(np.float32)

    module = types.ModuleType("cv2")
    module.error, module.__version__ = RuntimeError, "4.14.0"
    module.dnn = types.SimpleNamespace(readNetFromCaffe=lambda text, weights: Network())
    monkeypatch.setitem(sys.modules, "cv2", module)
    return module


def test_every_layer_is_compared_and_the_furthest_apart_is_first(cv2, tmp_path):
    cv2.net = nets.v1()
    paths = written(tmp_path, cv2.net, v1=True)
    found = opencv.check(caffe.load(*paths, channel_order="rgb", mean=[100.0]), *paths)
    assert {each.layer for each in found} == {
        layer.name for layer in cv2.net if layer.type not in ("Input", "Split", "Softmax")
    }
    differences = [each.difference for each in found]
    assert differences == sorted(differences, reverse=True) and differences[0] < 1e-5


def test_another_output_is_told(cv2, tmp_path):
    cv2.net = nets.v1()
    paths = written(tmp_path, cv2.net, v1=True)
    next(layer for layer in cv2.net if layer.name == "fc8").blobs[0][0, 0] += 1
    with pytest.raises(TfkdError, match="layer 'fc8': found an output that differs from OpenCV's"):
        opencv.check(caffe.load(*paths, mean=[0.0]), *paths)


def test_what_opencv_cannot_do_is_told(cv2, tmp_path, monkeypatch):
    paths = written(tmp_path, nets.variants())
    imported = caffe.load(*paths, mean=[0.0])
    with pytest.raises(TfkdError, match="layer 'fc': found transpose: true, which OpenCV does not"):
        opencv.check(imported, *paths)
    for dnn, version in ((types.SimpleNamespace(), "5.0.0"), (None, None)):
        if version is None:
            monkeypatch.setitem(sys.modules, "cv2", None)
        else:
            cv2.dnn, cv2.__version__ = dnn, version
        with pytest.raises(TfkdError, match="wanted opencv-python-headless>=4.10,<5"):
            opencv.outputs(*paths, np.zeros((1, 4, 9, 7)), ["fc"])


def test_opencv_itself_agrees(tmp_path):
    pytest.importorskip("cv2", reason="opencv-python-headless is not installed")
    net = nets.v2()
    paths = written(tmp_path, net)
    assert opencv.check(caffe.load(*paths, mean=[100.0]), *paths)[0].difference < 1e-5
