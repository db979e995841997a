"""What the distiller must know of any Keras model: the images it takes and the logits it gives."""

from __future__ import annotations

import keras

from tfkd import models
from tfkd.errors import TfkdError
from tfkd.models.graph.calls import graph_of
from tfkd.models.graph.inspection import final_activation


def image_shape(model: keras.Model, role: str) -> tuple[int | None, ...] | None:
    """Returns height, width and channels of a model's input; ``None`` where they are not known.

    Args:
        model: A built model.
        role: What the model is to the distiller, for messages.

    Raises:
        TfkdError: When the model takes something else than one tensor.
    """
    if models.is_functional(model):
        shape = model.input_shape
    else:
        shape = (model.get_build_config() or {}).get("input_shape")
    if shape is None:
        return None
    if isinstance(shape, dict) or any(isinstance(size, (list, tuple)) for size in shape):
        raise TfkdError(f"{role} {model.name!r} has inputs {shape}, wanted one tensor of images")
    return tuple(shape[1:])


def class_count(model: keras.Model, role: str) -> int:
    """Returns the width of a model's logits.

    Args:
        model: Any Keras model.
        role: What the model is to the distiller, for messages.

    Raises:
        TfkdError: When the model is not built, or gives anything else than logits.
    """
    if not model.built:
        raise TfkdError(f"{role} {model.name!r} is not built: call it once on a batch, or build it")
    if models.is_functional(model):
        outputs = [tuple(output.shape) for output in graph_of(model).outputs]
        shape = outputs[0] if len(outputs) == 1 else outputs
    else:
        shape = (None, *models.tap_shapes(model, ["logits"])["logits"])
    if isinstance(shape, list) or len(shape) != 2 or shape[-1] is None:
        raise TfkdError(f"{role} {model.name!r} has output {shape}, wanted logits (batch, classes)")
    found = final_activation(model)
    if found is not None:
        raise TfkdError(
            f"{role} {model.name!r} ends in {found}, wanted logits: "
            "make its last layer with activation=None"
        )
    return int(shape[-1])
