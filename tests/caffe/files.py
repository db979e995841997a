"""Files as Caffe writes them, byte by byte: no descriptor of messages, none of protobuf's code.

Numbers of fields are those of BVLC's caffe.proto.
"""

import struct

import numpy as np

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
V1_TYPES = {
    "Concat": 3,
    "Convolution": 4,
    "Data": 5,
    "Dropout": 6,
    "Flatten": 8,
    "InnerProduct": 14,
    "LRN": 15,
    "Pooling": 17,
    "ReLU": 18,
    "Sigmoid": 19,
    "Softmax": 20,
    "SoftmaxWithLoss": 21,
    "Split": 22,
    "TanH": 23,
    "Eltwise": 25,
    "Accuracy": 1,
}
V1_WORDS = {
    "InnerProduct": "INNER_PRODUCT",
    "SoftmaxWithLoss": "SOFTMAX_LOSS",
}
PARAMETERS = {
    "BatchNorm": "batch_norm_param",
    "Concat": "concat_param",
    "Convolution": "convolution_param",
    "Dropout": "dropout_param",
    "Eltwise": "eltwise_param",
    "Flatten": "flatten_param",
    "InnerProduct": "inner_product_param",
    "Input": "input_param",
    "LRN": "lrn_param",
    "PReLU": "prelu_param",
    "Pooling": "pooling_param",
    "ReLU": "relu_param",
    "Scale": "scale_param",
    "Softmax": "softmax_param",
}


def varint(value):
    """A number in groups of seven bits; negative ones take ten bytes."""
    value &= 2**64 - 1
    found = bytearray()
    while value >= 0x80:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])


def tag(number, kind):
    return varint(number << 3 | kind)


def number(field, value):
    return tag(field, VARINT) + varint(value)


def raw(field, content):
    content = content.encode() if isinstance(content, str) else content
    return tag(field, BYTES) + varint(len(content)) + content


def blob(values, form="packed", legacy=False, shape=None):
    """A BlobProto.

    Args:
        values: An array.
        form: How its numbers are written: packed, unpacked, split (in two parts), double, or
            unpacked doubles.
        legacy: Whether its lengths are the four of Caffe's first files.
        shape: Lengths in the place of the array's own; Caffe writes nothing where there are none.
    """
    lengths = values.shape if shape is None else shape
    flat = np.ascontiguousarray(values).reshape(-1)
    if not lengths:
        sizes = b""
    elif legacy:
        four = (1,) * (4 - len(lengths)) + tuple(lengths)
        sizes = b"".join(number(field, length) for field, length in enumerate(four, start=1))
    else:
        sizes = raw(7, raw(1, b"".join(map(varint, lengths))))
    with np.errstate(over="ignore"):
        singles, doubles = flat.astype("<f4"), flat.astype("<f8")
    half = len(flat) // 2
    content = {
        "packed": lambda: raw(5, singles.tobytes()),
        "split": lambda: raw(5, singles[:half].tobytes()) + raw(5, singles[half:].tobytes()),
        "unpacked": lambda: unpacked(5, FIXED32, singles),
        "double": lambda: raw(8, doubles.tobytes()),
        "unpacked double": lambda: unpacked(8, FIXED64, doubles),
    }[form]()
    # Caffe writes the numbers first.
    return content + sizes


def unpacked(field, kind, numbers):
    """A field for each number, with a tag of one byte."""
    found = np.empty(len(numbers), [("tag", "u1"), ("number", numbers.dtype)])
    found["tag"], found["number"] = tag(field, kind)[0], numbers
    return found.tobytes()


def layer(name, kind, blobs=(), bottoms=(), tops=()):
    """A LayerParameter (V2) of blobs that are BlobProtos."""
    return b"".join(
        [
            raw(1, name),
            raw(2, kind),
            *(raw(3, each) for each in bottoms),
            *(raw(4, each) for each in tops),
            *(raw(7, each) for each in blobs),
            number(10, 1),
        ]
    )


def layer_v1(name, kind, blobs=(), bottoms=(), tops=()):
    """A V1LayerParameter."""
    return b"".join(
        [
            *(raw(2, each) for each in bottoms),
            *(raw(3, each) for each in tops),
            raw(4, name),
            number(5, V1_TYPES[kind]),
            *(raw(6, each) for each in blobs),
            # blobs_lr, which nobody needs to know.
            tag(7, FIXED32) + struct.pack("<f", 1.0),
        ]
    )


def caffemodel(layers, v1=False, name="net"):
    """A NetParameter of layers."""
    return raw(1, name) + b"".join(raw(2 if v1 else 100, each) for each in layers)


def weights(net, v1=False, legacy=False, forms=("packed",)):
    """The bytes of the weights of a net, whose blobs are written in turn in some forms."""
    made, count = [], 0
    for each in net:
        blobs = []
        for values in each.blobs:
            blobs.append(blob(values, forms[count % len(forms)], legacy))
            count += 1
        write = layer_v1 if v1 else layer
        if each.type != "Input":
            made.append(write(each.name, each.type, blobs, each.bottoms, each.tops))
    return caffemodel(made, v1)


def prototxt(net, v1=False, name="net"):
    """The text of the definition of a net."""
    lines = [f'name: "{name}"']
    for each in net:
        if each.type == "Input" and v1:
            lengths = each.parameters["shape"]
            lines.append(f'input: "{each.tops[0]}"')
            lines += [f"input_dim: {length}" for length in lengths]
            continue
        kind = V1_WORDS.get(each.type, each.type.upper()) if v1 else f'"{each.type}"'
        lines.append("layers {" if v1 else "layer {")
        lines.append(f'  name: "{each.name}" type: {kind}')
        lines += [f'  bottom: "{bottom}"' for bottom in each.bottoms]
        lines += [f'  top: "{top}"' for top in each.tops]
        if each.parameters:
            lines.append(f"  {PARAMETERS[each.type]} {{ {fields(each.parameters)} }}")
        lines.append("}")
    return "\n".join(lines) + "\n"


def fields(parameters):
    """Parameters as the text of their fields."""
    parts = []
    for name, value in parameters.items():
        if name == "shape":
            parts.append(f"shape {{ {' '.join(f'dim: {length}' for length in value)} }}")
            continue
        values = value if isinstance(value, (list, tuple)) else [value]
        for each in values:
            parts.append(f"{name}: {str(each).lower() if isinstance(each, bool) else each}")
    return " ".join(parts)
