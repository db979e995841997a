"""A network as a SavedModel: raw pixels in, logits and probabilities out, stock operations only.

Adder layers are rewritten to stock operations as well, unless their compiled op is asked for.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from tfkd import files, models
from tfkd.adder import compiled_operations, has_adder_layers, plain_operations
from tfkd.errors import TfkdError, unknown
from tfkd.export import description
from tfkd.export.verification import verify as verify_export
from tfkd.models.saving import in_precision

# A graph is one protocol buffer, which ends at 2 GiB; larger networks keep their weights beside it.
LARGEST_CONSTANTS = 2**30

# Operations that call back into the Python process that made them.
_PYTHON_OPERATIONS = {"PyFunc", "PyFuncStateless", "EagerPyFunc"}

ADDER_FORMS = ("plain", "op")


def save(
    network: models.Network | keras.Model,
    directory: str | os.PathLike,
    *,
    fold: bool = True,
    class_names: Sequence[str] | None = None,
    verify: bool = True,
    adder: str = "plain",
) -> Path:
    """Writes a network as a SavedModel that loads with plain TensorFlow, without tfkd or Keras.

    Signatures, each with any batch size and called by keyword::

        serving_default(image: uint8   (batch, height, width, channels), pixels 0..255)
        normalised     (image: float32 (batch, height, width, channels), after preprocessing)
            -> {"logits": float32 (batch, classes), "probabilities": float32 (batch, classes)}

    The preprocessing is part of ``serving_default``. The weights are constants of the graph, which
    lets TensorFlow prepare them once. Everything computes in float32, whatever precision the
    network was trained in. ``tfkd.json`` beside the graph holds what ``tfkd.export.describe``
    returns.

    Args:
        network: The network, or a model that takes pixels as they are. It is not changed.
        directory: The folder to write: a new one, an empty one, or an earlier export, which is
            replaced once the new one is complete.
        fold: Whether to fold batch normalisation into the layers before it; the logits stay equal
            within rounding, and a network of small convolutions runs about a tenth faster.
        class_names: The names of the classes in the order of the logits.
        verify: Whether to load the folder again and compare it with the network on random images.
        adder: How adder layers are written: ``"plain"`` in stock operations, which load anywhere
            and are slow; ``"op"`` as the compiled op, for :func:`tfkd.adder.load`. It is nothing to
            networks without adder layers.

    Returns:
        The folder.

    Raises:
        TfkdError: When the network does not map one image to one row of logits, the class names do
            not fit, the folder is occupied or cannot be written, or the logits of the written
            export differ by more than 1e-5 of max |logit| (of adder networks, whose layers
            amplify rounding: see :func:`tfkd.export.verification.verify`) or name another class;
            the folder is then as it was before.
    """
    network = models.as_network(network)
    names = _checked(network, class_names)
    form = _adder_form(network.model, adder)
    with files.whole_folder(directory, description.is_export, "an export of tfkd") as folder:
        source = in_precision(network.model)
        model = models.fold(source) if fold else models.stock(source)
        with plain_operations() if form == "plain" else contextlib.nullcontext():
            module = _serving_module(model, network.preprocess)
            _write(module, folder)
        description.write(folder, network, fold=fold, class_names=names, adder=form)
        if verify:
            verify_export(folder, network, source)
    return Path(directory)


def _adder_form(model: keras.Model, adder: str) -> str | None:
    """How the adder layers of a model are written; ``None`` where it has none."""
    if adder not in ADDER_FORMS:
        raise unknown("form of adder layers", adder, ADDER_FORMS)
    if not has_adder_layers(model):
        return None
    if adder == "op" and compiled_operations() is None:
        raise TfkdError(
            f"model {model.name!r} to export with the adder op: found no compiled op on this "
            "machine, wanted a compiler (see the warning), or the form 'plain'"
        )
    return adder


def _write(module: tf.Module, folder: Path) -> None:
    try:
        tf.saved_model.save(
            module,
            str(folder),
            signatures={"serving_default": module.serve, "normalised": module.serve_normalised},
        )
    except tf.errors.OpError as error:
        raise OSError(error.message) from error


def _checked(network: models.Network, class_names: Sequence[str] | None) -> list[str] | None:
    """Returns the class names; raises for a network that cannot be exported or other names."""
    shapes = network.model.input_shape, network.model.output_shape
    image, logits = shapes
    ranks = [len(shape) if isinstance(shape, tuple) else None for shape in shapes]
    if ranks != [4, 2] or logits[-1] is None:
        raise TfkdError(
            f"network {network.name!r} to export: found input {image} and output {logits}, wanted "
            "one image (batch, height, width, channels) and one row of logits (batch, classes)"
        )
    if class_names is None:
        return None
    if len(class_names) != logits[-1]:
        raise TfkdError(
            f"class names of {network.name!r}: found {len(class_names)}, wanted {logits[-1]}"
        )
    return [str(name) for name in class_names]


def _serving_module(model: keras.Model, preprocess: Callable[[tf.Tensor], tf.Tensor]) -> tf.Module:
    """Returns a module whose functions ``serve`` and ``serve_normalised`` are the signatures."""
    module = tf.Module()
    shape = (None, *model.input_shape[1:])
    compute = _computation(model, module)
    # One function holds the weights; both signatures call it, so they are stored once.
    compute = tf.function(compute, input_signature=[tf.TensorSpec(shape, tf.float32, "image")])
    _refuse_python_operations(compute, model)

    def outputs(normalised: tf.Tensor) -> dict[str, tf.Tensor]:
        logits = compute(normalised)
        return {"logits": logits, "probabilities": tf.nn.softmax(logits)}

    def serve(image: tf.Tensor) -> dict[str, tf.Tensor]:
        return outputs(preprocess(image))

    module.serve = tf.function(serve, input_signature=[tf.TensorSpec(shape, tf.uint8, "image")])
    module.serve_normalised = tf.function(
        outputs, input_signature=[tf.TensorSpec(shape, tf.float32, "image")]
    )
    return module


def _computation(model: keras.Model, module: tf.Module) -> Callable[[tf.Tensor], tf.Tensor]:
    """Returns normalised images -> logits, with the weights as constants where they fit."""
    trainable = [np.asarray(variable) for variable in model.trainable_variables]
    fixed = [np.asarray(variable) for variable in model.non_trainable_variables]
    if sum(array.nbytes for array in trainable + fixed) > LARGEST_CONSTANTS:
        module.network = model
        return lambda image: model(image, training=False)

    def compute(image: tf.Tensor) -> tf.Tensor:
        constants = [[tf.constant(array) for array in group] for group in (trainable, fixed)]
        logits, _ = model.stateless_call(*constants, image, training=False)
        return logits

    return compute


def _refuse_python_operations(compute: tf.types.experimental.PolymorphicFunction, model) -> None:
    """Raises for a graph that would fail in another process."""
    graph = compute.get_concrete_function().graph.as_graph_def()
    nodes = [*graph.node, *(node for each in graph.library.function for node in each.node_def)]
    found = sorted({node.op for node in nodes} & _PYTHON_OPERATIONS)
    if found:
        raise TfkdError(
            f"model {model.name!r} to export: found {', '.join(found)}, which runs Python code of "
            "this process, wanted TensorFlow operations only"
        )
