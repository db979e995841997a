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

Function = tf.types.experimental.PolymorphicFunction
Computation = Callable[[tf.Tensor], dict[str, tf.Tensor]]


@register("logits", "outputs")
class NamedOutputs(Exporter):
    """Writes all outputs of a network, from one graph.

    The signatures are ``serving_default`` (pixels 0..255) and ``normalised`` (after preprocessing).
    """

    def write(self, exported: Exported, folder: Path) -> dict[str, list[int | None]]:
        module = tf.Module()
        if not fits_in_graph(exported.model):
            module.network = exported.model
        signatures = self.signatures(exported)
        for function in signatures.values():
            _refuse_python_operations(function, f"model {exported.model.name!r} to export")
        try:
            tf.saved_model.save(module, str(folder), signatures=signatures)
        except tf.errors.OpError as error:
            raise OSError(error.message) from error
        served = signatures["serving_default"].get_concrete_function().structured_outputs
        return {name: list(tensor.shape[1:]) for name, tensor in served.items()}

    def signatures(self, exported: Exported) -> dict[str, Function]:
        """Returns the signatures by name."""
        return self.of_all_outputs(exported, _computation(exported.model))

    def of_all_outputs(self, exported: Exported, compute: Computation) -> dict[str, Function]:
        """Returns the signatures that give all outputs.

        Args:
            exported: The network.
            compute: Normalized images -> outputs.
        """
        shape = (None, *exported.model.input_shape[1:])
        pixels = tf.TensorSpec(shape, tf.uint8, "image")
        images = tf.TensorSpec(shape, tf.float32, "image")
        # One function holds the weights; both signatures call it, so they are stored once.
        compute = tf.function(compute, input_signature=[images])

        def serve_normalised(image: tf.Tensor) -> dict[str, tf.Tensor]:
            return dict(exported.task.served(compute(image)))

        def serve(image: tf.Tensor) -> dict[str, tf.Tensor]:
            return serve_normalised(exported.network.preprocess(image))

        return {
            "serving_default": tf.function(serve, input_signature=[pixels]),
            "normalised": tf.function(serve_normalised, input_signature=[images]),
        }

    def verify(self, exported: Exported, folder: Path) -> None:
        verify(folder, exported.network, exported.reference, exported.task)


def fits_in_graph(model: keras.Model) -> bool:
    """Whether the weights of a model may be constants of a graph."""
    return sum(np.asarray(each).nbytes for each in model.variables) <= LARGEST_CONSTANTS


def _computation(model: keras.Model) -> Computation:
    """Returns normalized images -> outputs, with the weights as constants where they fit."""
    if not fits_in_graph(model):
        return lambda image: by_name(model(image, training=False))
    trainable = [np.asarray(variable) for variable in model.trainable_variables]
    fixed = [np.asarray(variable) for variable in model.non_trainable_variables]

    def compute(image: tf.Tensor) -> dict[str, tf.Tensor]:
        constants = [[tf.constant(array) for array in group] for group in (trainable, fixed)]
        outputs, _ = model.stateless_call(*constants, image, training=False)
        return by_name(outputs)

    return compute


def _refuse_python_operations(function: Function, who: str) -> None:
    """Raises for a graph that would fail in another process."""
    graph = function.get_concrete_function().graph.as_graph_def()
    nodes = [*graph.node, *(node for each in graph.library.function for node in each.node_def)]
    found = sorted({node.op for node in nodes} & _PYTHON_OPERATIONS)
    if found:
        raise TfkdError(
            f"{who}: found {', '.join(found)}, which runs Python code of this process, wanted "
            "TensorFlow operations only"
        )
