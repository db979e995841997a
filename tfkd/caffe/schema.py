"""The messages of Caffe's files, as far as they are needed here, for `protobuf`.

A description of the messages is made in place of generated code; it lies in a pool of its own, so
that an installed Caffe does not get in its way. The numbers of a blob (``data``, ``diff``, ...) are
left out: they are read straight off the file.

Source: caffe.proto of BVLC's Caffe (proto2). ``PoolingParameter.ceil_mode`` is that of the SSD
fork, where it has number 13; only texts are read for it, so that the number here is free.
"""

from __future__ import annotations

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_PACKAGE = "tfkd.caffe"

ENUMS: dict[str, dict[str, int]] = {
    "Phase": {"TRAIN": 0, "TEST": 1},
    "PoolMethod": {"MAX": 0, "AVE": 1, "STOCHASTIC": 2},
    "RoundMode": {"CEIL": 0, "FLOOR": 1},
    "EltwiseOp": {"PROD": 0, "SUM": 1, "MAX": 2},
    "NormRegion": {"ACROSS_CHANNELS": 0, "WITHIN_CHANNEL": 1},
    "V1LayerType": {
        "NONE": 0,
        "ACCURACY": 1,
        "BNLL": 2,
        "CONCAT": 3,
        "CONVOLUTION": 4,
        "DATA": 5,
        "DROPOUT": 6,
        "EUCLIDEAN_LOSS": 7,
        "FLATTEN": 8,
        "HDF5_DATA": 9,
        "HDF5_OUTPUT": 10,
        "IM2COL": 11,
        "IMAGE_DATA": 12,
        "INFOGAIN_LOSS": 13,
        "INNER_PRODUCT": 14,
        "LRN": 15,
        "MULTINOMIAL_LOGISTIC_LOSS": 16,
        "POOLING": 17,
        "RELU": 18,
        "SIGMOID": 19,
        "SOFTMAX": 20,
        "SOFTMAX_LOSS": 21,
        "SPLIT": 22,
        "TANH": 23,
        "WINDOW_DATA": 24,
        "ELTWISE": 25,
        "POWER": 26,
        "SIGMOID_CROSS_ENTROPY_LOSS": 27,
        "HINGE_LOSS": 28,
        "MEMORY_DATA": 29,
        "ARGMAX": 30,
        "THRESHOLD": 31,
        "DUMMY_DATA": 32,
        "SLICE": 33,
        "MVN": 34,
        "ABSVAL": 35,
        "SILENCE": 36,
        "CONTRASTIVE_LOSS": 37,
        "EXP": 38,
        "DECONVOLUTION": 39,
    },
}
"""The values of each enumeration by name."""

# Message -> its fields: name, number, type (with * where it is repeated), default.
_MESSAGES: dict[str, list[tuple]] = {
    "BlobShape": [("dim", 1, "int64*")],
    "BlobProto": [
        ("num", 1, "int32"),
        ("channels", 2, "int32"),
        ("height", 3, "int32"),
        ("width", 4, "int32"),
        ("shape", 7, "BlobShape"),
    ],
    "NetStateRule": [
        ("phase", 1, "Phase"),
        ("min_level", 2, "int32"),
        ("max_level", 3, "int32"),
        ("stage", 4, "string*"),
        ("not_stage", 5, "string*"),
    ],
    "TransformationParameter": [
        ("scale", 1, "float", "1"),
        ("crop_size", 3, "uint32"),
        ("mean_file", 4, "string"),
        ("mean_value", 5, "float*"),
    ],
    # What DataParameter, ImageDataParameter and WindowDataParameter had before there was a
    # TransformationParameter, under the same numbers.
    "OldTransformation": [
        ("scale", 2, "float", "1"),
        ("mean_file", 3, "string"),
        ("crop_size", 5, "uint32"),
    ],
    "InputParameter": [("shape", 1, "BlobShape*")],
    "MemoryDataParameter": [
        ("batch_size", 1, "uint32"),
        ("channels", 2, "uint32"),
        ("height", 3, "uint32"),
        ("width", 4, "uint32"),
    ],
    "ConvolutionParameter": [
        ("num_output", 1, "uint32"),
        ("bias_term", 2, "bool", "true"),
        ("pad", 3, "uint32*"),
        ("kernel_size", 4, "uint32*"),
        ("group", 5, "uint32", "1"),
        ("stride", 6, "uint32*"),
        ("pad_h", 9, "uint32"),
        ("pad_w", 10, "uint32"),
        ("kernel_h", 11, "uint32"),
        ("kernel_w", 12, "uint32"),
        ("stride_h", 13, "uint32", "1"),
        ("stride_w", 14, "uint32", "1"),
        ("axis", 16, "int32", "1"),
        ("dilation", 18, "uint32*"),
    ],
    "PoolingParameter": [
        ("pool", 1, "PoolMethod"),
        ("kernel_size", 2, "uint32"),
        ("stride", 3, "uint32", "1"),
        ("pad", 4, "uint32"),
        ("kernel_h", 5, "uint32"),
        ("kernel_w", 6, "uint32"),
        ("stride_h", 7, "uint32"),
        ("stride_w", 8, "uint32"),
        ("pad_h", 9, "uint32"),
        ("pad_w", 10, "uint32"),
        ("global_pooling", 12, "bool"),
        ("round_mode", 13, "RoundMode"),
        ("ceil_mode", 1000, "bool", "true"),
    ],
    "InnerProductParameter": [
        ("num_output", 1, "uint32"),
        ("bias_term", 2, "bool", "true"),
        ("axis", 5, "int32", "1"),
        ("transpose", 6, "bool"),
    ],
    "BatchNormParameter": [("use_global_stats", 1, "bool"), ("eps", 3, "float", "1e-5")],
    "ScaleParameter": [
        ("axis", 1, "int32", "1"),
        ("num_axes", 2, "int32", "1"),
        ("bias_term", 4, "bool"),
    ],
    "DropoutParameter": [("dropout_ratio", 1, "float", "0.5")],
    "ReLUParameter": [("negative_slope", 1, "float")],
    "PReLUParameter": [("channel_shared", 2, "bool")],
    "EltwiseParameter": [("operation", 1, "EltwiseOp", "SUM"), ("coeff", 2, "float*")],
    "ConcatParameter": [("concat_dim", 1, "uint32", "1"), ("axis", 2, "int32", "1")],
    "LRNParameter": [
        ("local_size", 1, "uint32", "5"),
        ("alpha", 2, "float", "1"),
        ("beta", 3, "float", "0.75"),
        ("norm_region", 4, "NormRegion"),
        ("k", 5, "float", "1"),
    ],
    "FlattenParameter": [("axis", 1, "int32", "1"), ("end_axis", 2, "int32", "-1")],
    "SoftmaxParameter": [("axis", 2, "int32", "1")],
    "LayerParameter": [
        ("name", 1, "string"),
        ("type", 2, "string"),
        ("bottom", 3, "string*"),
        ("top", 4, "string*"),
        ("include", 8, "NetStateRule*"),
        ("exclude", 9, "NetStateRule*"),
        ("transform_param", 100, "TransformationParameter"),
        ("concat_param", 104, "ConcatParameter"),
        ("convolution_param", 106, "ConvolutionParameter"),
        ("dropout_param", 108, "DropoutParameter"),
        ("eltwise_param", 110, "EltwiseParameter"),
        ("inner_product_param", 117, "InnerProductParameter"),
        ("lrn_param", 118, "LRNParameter"),
        ("memory_data_param", 119, "MemoryDataParameter"),
        ("pooling_param", 121, "PoolingParameter"),
        ("relu_param", 123, "ReLUParameter"),
        ("softmax_param", 125, "SoftmaxParameter"),
        ("prelu_param", 131, "PReLUParameter"),
        ("flatten_param", 135, "FlattenParameter"),
        ("batch_norm_param", 139, "BatchNormParameter"),
        ("scale_param", 142, "ScaleParameter"),
        ("input_param", 143, "InputParameter"),
    ],
    # What Caffe calls V0: a network of its first months.
    "V0LayerParameter": [("name", 1, "string")],
    "V1LayerParameter": [
        ("layer", 1, "V0LayerParameter"),
        ("bottom", 2, "string*"),
        ("top", 3, "string*"),
        ("name", 4, "string"),
        ("type", 5, "V1LayerType"),
        ("concat_param", 9, "ConcatParameter"),
        ("convolution_param", 10, "ConvolutionParameter"),
        ("data_param", 11, "OldTransformation"),
        ("dropout_param", 12, "DropoutParameter"),
        ("image_data_param", 15, "OldTransformation"),
        ("inner_product_param", 17, "InnerProductParameter"),
        ("lrn_param", 18, "LRNParameter"),
        ("pooling_param", 19, "PoolingParameter"),
        ("window_data_param", 20, "OldTransformation"),
        ("memory_data_param", 22, "MemoryDataParameter"),
        ("eltwise_param", 24, "EltwiseParameter"),
        ("relu_param", 30, "ReLUParameter"),
        ("include", 32, "NetStateRule*"),
        ("exclude", 33, "NetStateRule*"),
        ("transform_param", 36, "TransformationParameter"),
        ("softmax_param", 39, "SoftmaxParameter"),
    ],
    "NetParameter": [
        ("name", 1, "string"),
        ("layers", 2, "V1LayerParameter*"),
        ("input", 3, "string*"),
        ("input_dim", 4, "int32*"),
        ("input_shape", 8, "BlobShape*"),
        ("layer", 100, "LayerParameter*"),
    ],
}


def _pool() -> descriptor_pool.DescriptorPool:
    file = descriptor_pb2.FileDescriptorProto(
        name="tfkd/caffe.proto", package=_PACKAGE, syntax="proto2"
    )
    for name, values in ENUMS.items():
        # In a message of its own: names of values, such as MAX, may stand once in a scope.
        enum = file.message_type.add(name=name).enum_type.add(name="Value")
        for value, number in values.items():
            enum.value.add(name=value, number=number)
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field in fields:
            _add_field(message, *field)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return pool


def _add_field(message, name: str, number: int, kind: str, default: str | None = None) -> None:
    field = message.field.add(name=name, number=number)
    field.label = field.LABEL_REPEATED if kind.endswith("*") else field.LABEL_OPTIONAL
    kind = kind.removesuffix("*")
    if kind in _MESSAGES:
        field.type, field.type_name = field.TYPE_MESSAGE, f".{_PACKAGE}.{kind}"
    elif kind in ENUMS:
        field.type, field.type_name = field.TYPE_ENUM, f".{_PACKAGE}.{kind}.Value"
    else:
        field.type = getattr(field, f"TYPE_{kind.upper()}")
    if default is not None:
        field.default_value = default


_POOL = _pool()


def _message_class(name: str):
    return message_factory.GetMessageClass(_POOL.FindMessageTypeByName(f"{_PACKAGE}.{name}"))


BlobProto = _message_class("BlobProto")
LayerParameter = _message_class("LayerParameter")
NetParameter = _message_class("NetParameter")
V1LayerParameter = _message_class("V1LayerParameter")


def as_text(value: str | bytes) -> str:
    """Returns a name of a message, which `protobuf` gives as bytes where it is not UTF-8."""
    return value if isinstance(value, str) else value.decode("utf-8", "replace")
