"""Networks of Caffe, made here: each type of layer, in the ways it is written."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Layer:
    """A layer: its words, and its weights as arrays in Caffe's order."""

    type: str
    name: str
    bottoms: tuple
    tops: tuple
    parameters: dict
    blobs: tuple = ()


class Maker:
    """Makes layers one after the other, with weights from one stream of random numbers."""

    def __init__(self, seed):
        self._random = np.random.RandomState(seed)
        self.layers = []

    def values(self, *shape, low=-1.0, high=1.0):
        return self._random.uniform(low, high, shape).astype(np.float32)

    def add(self, kind, name, bottoms="", top=None, blobs=(), **parameters):
        """A layer over blobs named in a text, such as ``"conv1 pool1"``."""
        top = name if top is None else top
        self.layers.append(
            Layer(kind, name, tuple(bottoms.split()), tuple(top.split()), parameters, tuple(blobs))
        )

    def image(self, channels, height, width):
        self.add("Input", "data", "", "data", shape=(1, channels, height, width))

    def convolution(self, name, bottom, shape, bias=True, **parameters):
        blobs = [self.values(*shape, low=-0.5, high=0.5)]
        if bias:
            blobs.append(self.values(shape[0]))
        else:
            parameters["bias_term"] = False
        self.add("Convolution", name, bottom, blobs=blobs, num_output=shape[0], **parameters)

    def linear(self, name, bottom, outputs, inputs, **parameters):
        shape = (inputs, outputs) if parameters.get("transpose") else (outputs, inputs)
        blobs = [self.values(*shape, low=-0.3, high=0.3), self.values(outputs)]
        self.add("InnerProduct", name, bottom, blobs=blobs, num_output=outputs, **parameters)

    def batch_norm(self, name, bottom, channels, top=None, factor=7.5, **parameters):
        mean, variance = self.values(channels), self.values(channels, low=0.5, high=2.0)
        # The statistics of a factor of 0 are not heeded, whatever they are.
        blobs = (mean * (factor or 1), variance * (factor or 1), np.float32([factor]))
        self.add("BatchNorm", name, bottom, top, blobs, **parameters)


def v2():
    """Two branches that are joined: layers of V2, in place and not."""
    make = Maker(0)
    make.image(3, 13, 10)
    make.convolution("conv1", "data", (6, 3, 3, 3), kernel_size=3, pad=1)
    make.batch_norm("bn1", "conv1", 6, top="conv1")
    make.add("Scale", "scale1", "conv1", "conv1", [make.values(6), make.values(6)], bias_term=True)
    make.add("ReLU", "relu1", "conv1", "conv1")
    make.add("Pooling", "pool1", "conv1", kernel_size=3, stride=2, pad=1)
    make.convolution(
        "branch/a", "pool1", (4, 3, 3, 1), bias=False, group=2, kernel_h=3, kernel_w=1, pad_h=1,
        pad_w=0,
    )  # fmt: skip
    make.add("PReLU", "prelu", "branch/a", blobs=[make.values(4)])
    make.convolution("branch/b", "pool1", (4, 6, 3, 3), kernel_size=3, pad=2, dilation=2)
    make.batch_norm("bn2", "branch/b", 4, eps=0.01)
    make.add("Scale", "scale2", "branch/b", blobs=[make.values(4)])
    make.add("Eltwise", "sum", "prelu bn2", coeff=[0.5, -2.0])
    make.add("Eltwise", "largest", "prelu scale2", operation="MAX")
    make.add("Eltwise", "product", "sum largest", operation="PROD")
    make.add("Concat", "joined", "sum largest product")
    make.convolution("depthwise", "joined", (24, 1, 3, 3), kernel_size=3, group=12, stride=2)
    make.add("Pooling", "mean", "joined", pool="AVE", kernel_size=3, stride=2, pad=1)
    make.convolution("strided", "joined", (5, 12, 3, 3), kernel_size=3, stride=2, pad=2, dilation=2)
    make.add("Flatten", "flat", "depthwise")
    make.linear("fc1", "flat", 7, 24 * 3 * 2)
    make.add("ReLU", "leaky", "fc1", "fc1", negative_slope=0.1)
    make.linear("fc2", "mean", 7, 12 * 4 * 4)
    make.add("Dropout", "drop", "fc2", "fc2", dropout_ratio=0.4)
    make.add("Pooling", "whole", "strided", pool="AVE", global_pooling=True)
    make.linear("fc3", "whole", 7, 5)
    make.add("PReLU", "shared", "fc3", blobs=[np.float32(0.3)], channel_shared=True)
    make.add("Eltwise", "logit_sum", "fc1 fc2 shared")
    make.batch_norm("bn3", "logit_sum", 7, top="logit_sum", factor=1.0)
    make.add(
        "Scale", "scale3", "logit_sum", "scaled", [make.values(7), make.values(7)], bias_term=True
    )
    make.add("Softmax", "prob", "scaled")
    return make.layers


def v1():
    """A chain with layers of V1: what AlexNet, VGG and GoogLeNet are made of."""
    make = Maker(1)
    make.image(3, 12, 12)
    make.convolution("conv1", "data", (8, 3, 5, 5), kernel_size=5, stride=2)
    make.add("ReLU", "relu1", "conv1", "conv1")
    make.add("LRN", "norm1", "conv1", local_size=5, alpha=0.9, beta=0.75)
    make.add("Pooling", "pool1", "norm1", pool="MAX", kernel_size=3, stride=2)
    make.add("Split", "split", "pool1", "left right")
    make.add("TanH", "tanh", "left")
    make.add("Sigmoid", "sigmoid", "right")
    make.add("LRN", "norm2", "tanh", local_size=3, alpha=2, norm_region="WITHIN_CHANNEL")
    make.add("Concat", "both", "norm2 sigmoid", concat_dim=1)
    make.add("Pooling", "pool2", "both", pool="AVE", kernel_size=2, stride=2)
    make.linear("fc6", "both", 9, 16 * 2 * 2)
    make.add("ReLU", "relu6", "fc6", "fc6")
    make.add("Dropout", "drop6", "fc6", "fc6", dropout_ratio=0.5)
    make.linear("fc8", "fc6", 5, 9)
    make.linear("aux", "pool2", 5, 16)
    make.add("Eltwise", "sum", "fc8 aux", operation="SUM")
    make.add("Softmax", "prob", "sum")
    return make.layers


def small():
    """A few layers, whose files are of some hundred bytes."""
    make = Maker(3)
    make.image(2, 6, 5)
    make.convolution("conv", "data", (3, 2, 2, 2), kernel_size=2, pad=1)
    make.batch_norm("bn", "conv", 3)
    make.add("Scale", "scale", "bn", "bn", [make.values(3), make.values(3)], bias_term=True)
    make.add("ReLU", "relu", "bn", "bn", negative_slope=0.1)
    make.add("Pooling", "pool", "bn", pool="AVE", kernel_size=3, stride=2, pad=1)
    make.linear("fc", "pool", 4, 3 * 4 * 4)
    make.add("Softmax", "prob", "fc")
    return make.layers


def variants():
    """Parameters that are rare, or that OpenCV reads otherwise than Caffe, in branches."""
    make = Maker(2)
    make.image(4, 9, 7)
    pools = {
        "floor": {"kernel_size": 2, "stride": 2, "round_mode": "FLOOR"},
        "fork": {"kernel_size": 2, "stride": 2, "ceil_mode": False},
        "beyond": {"pool": "AVE", "kernel_size": 4, "stride": 3},
        "oblong": {"pool": "AVE", "kernel_h": 3, "kernel_w": 2, "stride_h": 2, "stride_w": 3,
                   "pad_h": 2, "pad_w": 1},
        "clipped": {"kernel_h": 1, "kernel_w": 3, "stride": 5, "pad_w": 1, "pad_h": 0},
        "small": {"kernel_h": 10, "kernel_w": 8, "stride": 2},
    }  # fmt: skip
    for name, parameters in pools.items():
        make.add("Pooling", name, "data", **parameters)
    make.convolution("groups", "data", (6, 2, 2, 2), kernel_size=[2, 2], group=2, stride=[2, 1])
    make.convolution("uneven", "data", (4, 1, 3, 3), kernel_size=3, group=4, stride=[1, 2])
    make.linear("fc", "data", 6, 4 * 9 * 7, transpose=True)
    make.add("Scale", "scale", "fc", "fc", [make.values(6)], axis=-1)
    make.add("ReLU", "turned", "fc", negative_slope=-0.5)
    make.add("LRN", "one", "data", local_size=1, alpha=0.3, k=2)
    make.add("LRN", "wide", "data", local_size=9)
    make.add("LRN", "within", "data", local_size=3, norm_region="WITHIN_CHANNEL", k=2)
    make.convolution("padded", "data", (3, 4, 3, 3), kernel_size=3, stride=2, pad=1)
    make.convolution("stretched", "data", (3, 4, 3, 3), kernel_size=3, dilation=[2, 1])
    make.add("Concat", "alone", "one")
    make.batch_norm("unscaled", "data", 4, factor=0.0)
    make.add("PReLU", "flat_slopes", "turned", blobs=[make.values(6)])
    return make.layers


def image(net, seed=9):
    """A normalized image for a net, (1, channels, height, width)."""
    shape = net[0].parameters["shape"]
    return np.random.RandomState(seed).uniform(-2, 2, shape).astype(np.float32)
