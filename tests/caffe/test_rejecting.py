"""Files that are damaged, something else or not supported: one line with file, layer and reason."""

import struct

import numpy as np
import pytest

from tests.caffe import files, nets
from tfkd import caffe
from tfkd.benchmarks import memory

ONES = np.ones((4, 3, 3, 3), np.float32)
BLOB = files.blob(ONES)
BIAS = files.blob(np.ones(4, np.float32))


def layers(*blobs, name="conv1"):
    return files.caffemodel([files.layer(name, "Convolution", blobs)])


def with_shape(*lengths):
    return layers(files.blob(np.ones(2, np.float32), shape=lengths))


def numbers(*values):
    return layers(files.blob(np.array(values)))


def rejected(path, content, match, read=caffe.read_weights):
    path.write_bytes(content)
    with pytest.raises(caffe.CaffeFormatError, match=match) as error:
        read(path)
    assert "\n" not in str(error.value) and len(str(error.value)) < 600
    assert str(path)[-20:] in str(error.value)


VALID = layers(BLOB, BIAS)
V0 = files.raw(2, files.raw(1, files.raw(1, "conv1")))
DEEP = files.raw(100, files.raw(7, files.raw(7, files.raw(1, b"\x80\x80"))))
WEIGHTS = {
    "empty": (b"", "found an empty file"),
    "cut off in its numbers": (VALID[:300], r"found the end of the file at byte 300, inside a fie"),
    "cut off in a length": (VALID[:6], "found the end of the file at byte 6"),
    "too long a field": (
        files.raw(100, files.tag(7, 2) + b"\x7f") + VALID,
        "layer 0: found the end of its message",
    ),
    "web page": (b"\n <!DOCTYPE html><html>", "found a web page"),
    "git-lfs": (b"version https://git-lfs.github.com/spec/v1\noid", "found a pointer of git-lfs"),
    "HDF5": (b"\x89HDF\r\n\x1a\n" + bytes(50), "found an HDF5 file, which Caffe also writes"),
    "zip": (b"PK\x03\x04" + bytes(50), "found a zip archive"),
    "prototxt": (files.prototxt(nets.v2()).encode(), "found a text, such as a prototxt"),
    "random": (bytes(range(7, 250)), "found at byte 0 what is no field"),
    "endless number": (b"\xff" * 40, "found a number of more than 10 bytes"),
    "group": (b"\x0b\xff\xfe", "what is no field of a message"),
    "no layers": (files.raw(1, "net\x01"), "found no layer"),
    "no weights": (layers(), "found no layer with weights"),
    "both versions": (VALID + files.raw(2, b""), "both 'layer' and 'layers'"),
    "V0": (V0, "found the form V0 of Caffe's first months"),
    "fewer numbers": (with_shape(3), "layer 'conv1', blob 0: found 2 numbers, wanted 3 for"),
    "no numbers": (layers(files.raw(7, files.raw(1, b"\x02"))), "found 0 numbers, wanted 2"),
    "negative length": (with_shape(-1, -2), "found the shape -1x-2"),
    "length 0": (with_shape(0, 2), "found the shape 0x2"),
    "huge lengths": (with_shape(2**39, 2**39), r"found the shape 5\d+x5\d+, wanted fewer numbers"),
    "huge length": (with_shape(2**62), "found the shape 4611686018427387904"),
    "many axes": (with_shape(*[1] * 33, 2), "wanted at most 32 lengths"),
    "no shape": (layers(files.raw(5, b"\0" * 8)), "found a blob without a shape"),
    "odd bytes": (layers(files.raw(5, b"\0" * 7) + files.number(1, 2)), "found 7 bytes for"),
    "single and double": (
        layers(files.blob(ONES) + files.raw(8, b"\0" * 8)),
        "found both data and double_data",
    ),
    "NaN": (numbers(1, np.nan), "layer 'conv1', blob 0: found numbers that are infinite or none"),
    "infinite": (numbers(-np.inf), "found numbers that are infinite or none"),
    "infinite in float32": (
        layers(files.blob(np.array([1e300]), "double")),
        "found numbers that are infinite or none",
    ),
    "a name twice": (VALID + VALID, "layer 'conv1': found two of that name with blobs"),
    "no name": (layers(BLOB, name=""), "layer 0: found blobs and no name"),
    "broken shape": (DEEP, "found what is no BlobProto"),
    "large rest": (files.raw(100, files.raw(9, b"\1" * 2**21)), "bytes beside the numbers"),
}  # fmt: skip


@pytest.mark.parametrize("case", WEIGHTS)
def test_weights(case, tmp_path):
    rejected(tmp_path / "net.caffemodel", *WEIGHTS[case])


TEXTS = {
    "empty": ("", "found an empty file"),
    "no layer": ('name: "x"', "found no layer"),
    "weights": ("\n\0\3net", "found a file in binary form, such as weights"),
    "web page": ("<html><body>404</body></html>", "found a web page"),
    "no text of this kind": ("layer { name: }", r"found 1:\d+ "),
    "not closed": ('layer { name: "x" ', "found .*wanted the .prototxt"),
    "closed twice": ('layer { name: "x" } }', "'}' without its beginning"),
    "twice": ('layer { name: "x" name: "y" }', "name"),
    "unknown enumeration": ("layers { type: CONVOLVE }", "has no value named CONVOLVE"),
    "unknown parameter": (
        "layer {\n convolution_param { kernal_size: 3 } }",
        r"found 2:\d+ .*the field 'kernal_size', which ConvolutionParameter does not have",
    ),
    "unknown field of a layer": (
        'layer { type: "ReLU" relu_params { negative_slope: 0.5 } }',
        r"found 1:\d+ .*the field 'relu_params', which LayerParameter does not have",
    ),
    "parameter beside the parameters": (
        "layers { type: DATA fork: 1 } layers { type: RELU negative_slope: 0.5 }",
        r"found 1:\d+ .*the field 'negative_slope', which V1LayerParameter does not have",
    ),
    "a number that is none": ("layer { convolution_param { num_output: -1 } }", "out of range"),
    "both versions": ("layer {} layers {}", "both 'layer' and 'layers'"),
    "too deep": ("a { " * 50, "found more than"),
    "too many": ("layer {}" * 70_000, "found more than 65,536 messages"),
    "too long": (" " * 2**21 + "#", "wanted at most 2,097,152"),
}


@pytest.mark.parametrize("case", TEXTS)
def test_texts(case, tmp_path):
    text, match = TEXTS[case]
    rejected(tmp_path / "net.prototxt", text.encode(), match, caffe.read_prototxt)


INPUT = 'input: "data" input_dim: 1 input_dim: 3 input_dim: 8 input_dim: 8\n'


def one(kind, parameters="", bottoms=("data",), tops=("x",), more=""):
    """A network of one layer called "conv1"."""
    lines = [f'bottom: "{each}"' for each in bottoms] + [f'top: "{each}"' for each in tops]
    field = files.PARAMETERS.get(kind, "x_param")
    return (
        f'{INPUT} layer {{ name: "conv1" type: "{kind}" {" ".join(lines)} '
        f"{field} {{ {parameters} }} {more} }}"
    )


def convolution(parameters="", **more):
    return one("Convolution", f"num_output: 4 kernel_size: 3 {parameters}", **more)


def pooling(parameters):
    return one("Pooling", parameters)


SUPPORTED = "wanted one of BatchNorm, Concat, Convolution, Dropout, Eltwise"
NETWORKS = {
    "unsupported type": (one("Deconvolution"), f"the type 'Deconvolution', {SUPPORTED}"),
    "no type": (one(""), f"the type '', {SUPPORTED}"),
    "V0": (f'{INPUT} layers {{ layer {{ name: "x" }} }}', "found the form V0"),
    "no weights": (convolution().replace("conv1", "conv2"), "layer 'conv2': found no weights"),
    "blob count": (convolution("bias_term: false"), "layer 'conv1': found 2 blobs, wanted 1"),
    "shape": (
        convolution("pad_h: 1 pad_w: 1").replace("size: 3", "size: 5"),
        "blob 0: found the shape 4x3x3x3, wanted 4x3x5x5",
    ),
    "group": (convolution("group: 2"), "found 3 channels and 4 filters in 2 groups"),
    "group 0": (convolution("group: 0"), "group 0, wanted 1 or more"),
    "no filters": (one("Convolution", "kernel_size: 3"), "found num_output 0"),
    "no kernel": (one("Convolution", "num_output: 4"), "found 0 numbers of kernel_size"),
    "half a kernel": (
        one("Convolution", "num_output: 4 kernel_h: 3"),
        "found kernel_h alone, wanted kernel_h and kernel_w",
    ),
    "two kernels": (convolution("kernel_h: 3 kernel_w: 3"), "both kernel_size and kernel_h"),
    "3D": (convolution("kernel_size: 3 kernel_size: 3"), "found 3 numbers of kernel_size"),
    "stride 0": (convolution("stride: 0"), r"found stride \[0\]"),
    "dilation 0": (convolution("dilation: 0"), r"found dilation \[0\]"),
    "huge pad": (convolution("pad: 70000"), r"found pad \[70000\], wanted at least 0, below 65536"),
    "convolution axis": (convolution("axis: 2"), "found axis 2, wanted 1"),
    "small image": (convolution("dilation: 5"), "wanted one not smaller than its filters"),
    "stochastic": (pooling("pool: STOCHASTIC kernel_size: 2"), "found pool STOCHASTIC"),
    "no window": (pooling(""), "found 0 numbers of kernel_size"),
    "pad of a pooling": (pooling("kernel_size: 2 pad: 2"), "wanted less than the kernel"),
    "window beyond": (pooling("kernel_size: 1 stride: 5"), "each to begin in the image"),
    "global and kernel": (pooling("kernel_size: 2 global_pooling: true"), "both global_pooling"),
    "global and stride": (pooling("stride: 2 global_pooling: true"), "with global_pooling"),
    "linear axis": (one("InnerProduct", "num_output: 4 axis: 2"), "found axis 2, wanted 1"),
    "linear inputs": (
        one("InnerProduct", "num_output: 4"),
        "blob 0: found the shape 4x3x3x3, wanted 4x192",
    ),
    "concat axis": (one("Concat", "axis: 2"), "found axis 2, wanted 1"),
    "concat axes": (one("Concat", "axis: 1 concat_dim: 1"), "both axis and concat_dim"),
    "softmax axis": (one("Softmax", "axis: 2"), "found axis 2, wanted 1"),
    "softmax alone": (one("Softmax").replace("conv1", "other"), "found a Softmax of the image"),
    "flatten axis": (one("Flatten", "axis: 2"), "found axis 2 and end_axis -1"),
    "scale axis": (one("Scale", "axis: 0"), "found axis 0, wanted 1"),
    "scale axes": (one("Scale", "num_axes: 2"), "found num_axes 2, wanted 1"),
    "dropout": (one("Dropout", "dropout_ratio: 1"), "found dropout_ratio 1.0"),
    "LRN size": (one("LRN", "local_size: 4"), "found local_size 4, wanted an odd number"),
    "LRN alpha": (one("LRN", "alpha: nan"), "infinite or none"),
    "LRN k": (one("LRN", "k: 0"), "found k 0.0"),
    "slope": (one("ReLU", "negative_slope: inf"), "found negative_slope inf"),
    "sum of one": (one("Eltwise"), "found 1 bottoms and 1 tops, wanted 2 or more and 1"),
    "coefficients": (one("Eltwise", "coeff: 1", ("data", "data")), "found 1 numbers of coeff"),
    "coefficients of a product": (
        one("Eltwise", "operation: PROD coeff: 1 coeff: 2", ("data", "data")),
        "found coeff without a sum",
    ),
    "mask": (one("Pooling", "kernel_size: 2", tops=("x", "mask")), "1 bottoms and 2 tops"),
    "bottom": (convolution(bottoms=("nothing",)), "found 0 inputs that layers read"),
    "later bottom": (one("Eltwise", "", ("data", "x")), "the bottom 'x', wanted a blob that"),
    "top": (
        one("Concat", tops=("y",)).replace("conv1", "a")
        + 'layer { name: "b" type: "ReLU" bottom: "data" top: "y" }',
        "layer 'b': found the top 'y', which another layer makes",
    ),
    "name of another layer with weights": (
        convolution() + convolution(tops=("y",)).removeprefix(INPUT),
        "layer 'conv1': found a second layer of that name, wanted one, because weights go by",
    ),
    "two inputs": (
        one("Concat", "", ("data", "more")) + INPUT.replace("data", "more"),
        "found 2 inputs that layers read: 'data', 'more'; wanted one",
    ),
    "include and exclude": (
        convolution(more="include { phase: TEST } exclude { phase: TRAIN }"),
        "found both 'include' and 'exclude'",
    ),
    "input without a size": (
        convolution().replace(INPUT, 'input: "data"'),
        "found 1 inputs and 0 shapes",
    ),
    "flat input": (
        convolution().replace(INPUT, 'input: "data" input_shape { dim: 1 dim: 3 }'),
        "input 'data': found the shape 3 of an image",
    ),
    "negative input": (convolution().replace("input_dim: 8", "input_dim: -8"), "found 3x-8x-8"),
    "huge input": (convolution().replace("input_dim: 8", "input_dim: 30000"), "268,435,456"),
    "data without a size": (
        convolution().replace(INPUT, 'layer { name: "d" type: "Data" top: "data" }'),
        "3 channels and images 0 x 0, which data tell",
    ),
    "mean": (
        convolution().replace(
            INPUT,
            'layer { name: "d" type: "Data" top: "data" transform_param { crop_size: 8 '
            'mean_file: "/data/of/someone/mean.binaryproto" } }',
        ),
        "found no 'mean.binaryproto' beside the prototxt",
    ),
    "means": (
        convolution().replace(
            INPUT,
            'layer { name: "d" type: "Data" top: "data" transform_param { crop_size: 8 '
            'mean_file: "x" mean_value: 3 } }',
        ),
        "layer 'd': found both mean_value and mean_file",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", NETWORKS)
def test_networks(case, tmp_path):
    text, match = NETWORKS[case]
    (tmp_path / "net.caffemodel").write_bytes(VALID)

    def load(path):
        caffe.load(path, tmp_path / "net.caffemodel")

    rejected(tmp_path / "net.prototxt", text.encode(), match, load)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize(
    "parameters, found, wanted",
    [
        ("num_output: 4 kernel_h: 3 kernel_w: 1", (4, 3, 1, 3), "4x3x3x1"),
        ("num_output: 3 group: 3 kernel_size: 2", (1, 3, 2, 2), "3x1x2x2"),
    ],
)
def test_weights_of_as_many_numbers_in_another_order(parameters, found, wanted, legacy, tmp_path):
    blob = files.blob(np.ones(found, np.float32), legacy=legacy)
    (tmp_path / "net.caffemodel").write_bytes(layers(blob))
    (tmp_path / "net.prototxt").write_text(one("Convolution", f"{parameters} bias_term: false"))
    shape = "x".join(map(str, found))
    with pytest.raises(caffe.CaffeFormatError, match=f"found the shape {shape}, wanted {wanted}"):
        caffe.load(tmp_path / "net.prototxt", tmp_path / "net.caffemodel")


@pytest.mark.parametrize(
    "mean, variance, factor, match",
    [
        (0, -2, 1, "found the variance -2 and eps 1e-05"),
        (1e10, 0.1, 1e-30, "found a mean or variance that is infinite with the factor 1e-30"),
    ],
)
def test_statistics_that_cannot_be(mean, variance, factor, match, tmp_path):
    blobs = [files.blob(np.float32(each)) for each in ([0, mean, 0], [1, variance, 1], [factor])]
    (tmp_path / "net.caffemodel").write_bytes(layers(*blobs))
    (tmp_path / "net.prototxt").write_text(one("BatchNorm"))
    with pytest.raises(caffe.CaffeFormatError, match=match):
        caffe.load(tmp_path / "net.prototxt", tmp_path / "net.caffemodel")


@pytest.mark.parametrize("read", [caffe.read_weights, caffe.read_prototxt])
def test_a_missing_file(read, tmp_path):
    with pytest.raises(caffe.CaffeFormatError, match="no such file, wanted"):
        read(tmp_path / "none")


MANY = 2**17
BOMBS = {
    "fields": files.raw(1, "n") + b"\x28\x01" * MANY,
    "fields of a layer": files.raw(100, b"\x58\x01" * MANY),
    "messages": files.raw(100, b"\x42\x00" * MANY),
    "layers": files.raw(100, b"") * MANY,
    "parts": layers(files.raw(5, struct.pack("<f", 1)) * MANY + files.number(1, MANY)),
}


@pytest.mark.skipif(
    not memory.is_told(), reason="this system does not tell how much memory was held"
)
@pytest.mark.parametrize("case", BOMBS)
def test_small_files_of_many_fields_take_little_memory(case, tmp_path):
    path, content = tmp_path / "net.caffemodel", BOMBS[case]

    def work():
        rejected(path, content, "found more than 65,536 fields")
        return ()

    assert memory.peak(work) < 2 * len(content) + 2**26
