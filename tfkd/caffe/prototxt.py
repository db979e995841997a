"""The definition of a network: a NetParameter as text, which Caffe calls prototxt."""

from __future__ import annotations

import os
import re
from pathlib import Path

from google.protobuf import text_format

from tfkd.caffe.errors import CaffeFormatError, within
from tfkd.caffe.foreign import check_text
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


def read_prototxt(path: str | os.PathLike):
    """Returns the NetParameter of a ``.prototxt`` file.

    Args:
        path: The file; its text is taken as UTF-8, and what is none in it is replaced.

    Raises:
        CaffeFormatError: For a file that is missing, too long, something else or no such text, with
            line and column, and for a field of a layer's parameters that is not known.
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
            _check_fields(text)
            text_format.Parse(text, message, allow_unknown_field=True)
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


def _check_fields(text: str) -> None:
    """Refuses fields of strict messages that are not known, and too many or too deep messages.

    Whether the text is well-formed is left to its parser.
    """
    tokenizer = text_format.Tokenizer(text.splitlines())
    stack, name, before = [NetParameter.DESCRIPTOR], "", ""
    in_list = messages = 0
    while not tokenizer.AtEnd():
        token = tokenizer.token
        if token in ("{", "<"):
            messages += 1
            inner = stack[-1].fields_by_name.get(name) if stack[-1] else None
            stack.append(inner.message_type if inner else None)
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
            if (
                known is not None
                and known.name in _STRICT
                and name not in known.fields_by_name
                and name not in _WITHOUT_EFFECT
            ):
                raise tokenizer.ParseError(f"the field {name!r}, which {known.name} does not have")
        before = token
        tokenizer.NextToken()
