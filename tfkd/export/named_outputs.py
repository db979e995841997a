"""The exporter of networks with any named outputs: raw pixels in, what the task serves out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from tfkd.errors import TfkdError
from tfkd.export.exporters import Exported, Exporter, register
from tfkd.export.verification import verify
from tfkd.models.graph.outputs import by_name

# A graph is one protocol buffer, which ends at 2 GiB; larger networks keep their weights beside it.
LARGEST_CONSTANTS = 2**30

# Operations that call back into the Python process that made them.
_PYTHON_OPERATIONS = {"PyFunc", "PyFuncStateless", "EagerPyFunc"}


@register("logits", "exits", "outputs")
class NamedOutputs(Exporter):
    """Writes all outputs of a network, from one graph.

    The signatures are ``serving_default`` (pixels 0..255) and ``normalised`` (after preprocessing).
    """

    def write(self, exported: Exported, folder: Path) -> dict[str, list[int | None]]:
        module = _serving_module(exported)
        try:
            tf.saved_model.save(
                module,
                str(folder),
                signatures={"serving_default": module.serve, "normalised": module.serve_normalised},
            )
        except tf.errors.OpError as error:
            raise OSError(error.message) from error
        served = module.serve.get_concrete_function().structured_outputs
        return {name: list(tensor.shape[1:]) for name, tensor in served.items()}

    def verify(self, exported: Exported, folder: Path) -> None:
        verify(folder, exported.network, exported.reference, exported.task)


def _serving_module(exported: Exported) -> tf.Module:
    """Returns a module whose functions ``serve`` and ``serve_normalised`` are the signatures."""
    module = tf.Module()
    model, preprocess = exported.model, exported.network.preprocess
    shape = (None, *model.input_shape[1:])
    compute = _computation(model, module)
    # One function holds the weights; both signatures call it, so they are stored once.
    compute = tf.function(compute, input_signature=[tf.TensorSpec(shape, tf.float32, "image")])

    def serve_normalised(image: tf.Tensor) -> dict[str, tf.Tensor]:
        return dict(exported.task.served(compute(image)))

    def serve(image: tf.Tensor) -> dict[str, tf.Tensor]:
        return serve_normalised(preprocess(image))

    module.serve = tf.function(serve, input_signature=[tf.TensorSpec(shape, tf.uint8, "image")])
    module.serve_normalised = tf.function(
        serve_normalised, input_signature=[tf.TensorSpec(shape, tf.float32, "image")]
    )
    _refuse_python_operations(module.serve, f"model {model.name!r} to export")
    return module


def _computation(
    model: keras.Model, module: tf.Module
) -> Callable[[tf.Tensor], dict[str, tf.Tensor]]:
    """Returns normalized images -> outputs, with the weights as constants where they fit."""
    trainable = [np.asarray(variable) for variable in model.trainable_variables]
    fixed = [np.asarray(variable) for variable in model.non_trainable_variables]
    if sum(array.nbytes for array in trainable + fixed) > LARGEST_CONSTANTS:
        module.network = model
        return lambda image: by_name(model(image, training=False))

    def compute(image: tf.Tensor) -> dict[str, tf.Tensor]:
        constants = [[tf.constant(array) for array in group] for group in (trainable, fixed)]
        outputs, _ = model.stateless_call(*constants, image, training=False)
        return by_name(outputs)

    return compute


def _refuse_python_operations(
    function: tf.types.experimental.PolymorphicFunction, who: str
) -> None:
    """Raises for a graph that would fail in another process."""
    graph = function.get_concrete_function().graph.as_graph_def()
    nodes = [*graph.node, *(node for each in graph.library.function for node in each.node_def)]
    found = sorted({node.op for node in nodes} & _PYTHON_OPERATIONS)
    if found:
        raise TfkdError(
            f"{who}: found {', '.join(found)}, which runs Python code of this process, wanted "
            "TensorFlow operations only"
        )
