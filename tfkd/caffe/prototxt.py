"""The definition of a network: a NetParameter as text, which Caffe calls prototxt."""

from __future__ import annotations

import os
import re
from pathlib import Path

from google.protobuf import text_format

from tfkd.caffe.definition import is_in_test, type_of
from tfkd.caffe.errors import CaffeFormatError, within
from tfkd.caffe.foreign import check_text
from tfkd.caffe.layers import types
from tfkd.caffe.schema import NetParameter

_WANTED = "the .prototxt file that defines the network"
_LONGEST = 2**21
_MOST_MESSAGES = 2**16
_DEEPEST = 32
_NAME = re.compile(r"[A-Za-z_]\w*")

# Messages whose fields change what a layer computes: one that is not known here is refused, as
# Caffe does. Elsewhere (layers that are left out, training, data) it is passed over.
_STRICT = (
    "BatchNormParameter",
    "BlobShape",
    "ConcatParameter",
    "ConvolutionParameter",
    "DropoutParameter",
    "EltwiseParameter",
    "FlattenParameter",
    "InnerProductParameter",
    "InputParameter",
    "LRNParameter",
    "NetStateRule",
    "PReLUParameter",
    "PoolingParameter",
    "ReLUParameter",
    "ScaleParameter",
    "SoftmaxParameter",
)
# How weights start, how they are trained, which code computes: nothing to a trained network.
_WITHOUT_EFFECT = (
    "bias_filler",
    "engine",
    "filler",
    "force_nd_im2col",
    "moving_average_fraction",
    "stable_prod_grad",
    "weight_filler",
)
_LAYERS = ("LayerParameter", "V1LayerParameter")
# The same of whole layers; of Sigmoid and TanH the parameters say which code computes.
_WITHOUT_EFFECT_IN_LAYERS = (
    "blob_share_mode",
    "blobs",
    "blobs_lr",
    "engine",
    "loss_weight",
    "param",
    "phase",
    "propagate_down",
    "sigmoid_param",
    "tanh_param",
    "weight_decay",
)


def read_prototxt(path: str | os.PathLike):
    """Returns the NetParameter of a ``.prototxt`` file.

    Args:
        path: The file; its text is taken as UTF-8, and what is none in it is replaced.

    Raises:
        CaffeFormatError: For a file that is missing, too long, something else or no such text, with
            line and column, and for a field of a layer that is computed, or of its parameters,
            that is not known.
    """
    path = Path(path)
    with within(f"prototxt {str(path)!r}"):
        if not path.is_file():
            raise CaffeFormatError(f"no such file, wanted {_WANTED}")
        check_text(path, _WANTED)
        size = path.stat().st_size
        if size > _LONGEST:
            raise CaffeFormatError(
                f"found {size:,} bytes, wanted at most {_LONGEST:,}, as definitions of networks are"
            )
        text = path.read_bytes().decode("utf-8", "replace")
        message = NetParameter()
        try:
            unknown = _check_fields(text)
            text_format.Parse(text, message, allow_unknown_field=True)
            _check_layers(message, unknown)
        except (text_format.ParseError, ValueError) as error:
            if isinstance(error, CaffeFormatError):
                raise
            raise CaffeFormatError(f"found {_in_one_line(error)}, wanted {_WANTED}") from None
        if not message.layer and not message.layers:
            raise CaffeFormatError(f"found no layer, wanted {_WANTED}")
        if message.layer and message.layers:
            raise CaffeFormatError("found both 'layer' and 'layers', wanted one of them")
        return message


def _in_one_line(error: Exception) -> str:
    """Place and reason of an error; the line of the text between them may be long."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else f"{text[:60]} ... {text[-130:]}"


def _check_layers(message, unknown: dict[int, Exception]) -> None:
    """Refuses layers with fields that are not known, where they are computed.

    Others, which are left out or refused by their type, may be a fork's of Caffe.
    """
    for position, layer in enumerate([*message.layer, *message.layers]):
        if position in unknown and type_of(layer) in types() and is_in_test(layer):
            raise unknown[position]


def _check_fields(text: str) -> dict[int, Exception]:
    """Refuses fields of strict messages that are not known, and too many or too deep messages.

    Whether the text is well-formed is left to its parser.

    Returns:
        The error of each layer, by its position, that has a field which is not known.
    """
    tokenizer = text_format.Tokenizer(text.splitlines())
    stack, name, before = [NetParameter.DESCRIPTOR], "", ""
    in_list = messages = layers = 0
    unknown: dict[int, Exception] = {}
    while not tokenizer.AtEnd():
        token = tokenizer.token
        if token in ("{", "<"):
            messages += 1
            inner = stack[-1].fields_by_name.get(name) if stack[-1] else None
            stack.append(inner.message_type if inner else None)
            layers += stack[-1] is not None and stack[-1].name in _LAYERS
            if len(stack) > _DEEPEST or messages > _MOST_MESSAGES:
                raise CaffeFormatError(
                    f"found more than {_MOST_MESSAGES:,} messages, or {_DEEPEST} in each other, "
                    f"wanted {_WANTED}"
                )
        elif token in ("}", ">"):
            if len(stack) == 1:
                raise tokenizer.ParseError(f"{token!r} without its beginning")
            stack.pop()
        elif token in ("[", "]"):
            in_list += 1 if token == "[" else -1
        elif before != ":" and not in_list and _NAME.fullmatch(token):
            name = token
            known = stack[-1]
            if known is not None and name not in known.fields_by_name:
                error = tokenizer.ParseError(
                    f"the field {name!r}, which {known.name} does not have"
                )
                if known.name in _STRICT and name not in _WITHOUT_EFFECT:
                    raise error
                if known.name in _LAYERS and name not in _WITHOUT_EFFECT_IN_LAYERS:
                    unknown.setdefault(layers - 1, error)
        before = token
        tokenizer.NextToken()
    return unknown
